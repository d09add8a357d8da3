"""Builds of gVisor that somebody else made: a program on disk, a release archive with its checksum, an installed wheel."""

import hashlib
import importlib.util
import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from belljar.model.errors import InvalidArgument

__all__ = ("WHEEL_PACKAGE", "given_archive", "given_program", "wheel_folder")

WHEEL_PACKAGE = "belljar_engine"
_BESIDE = "gvisor-bin"
_BOUND = 512 << 20
_SUMS = ("SHA512SUMS", "SHA256SUMS")
_DIGESTS = {128: "sha512", 64: "sha256"}


def given_program(runsc: Path) -> Mapping[str, bytes]:
    """The files of the build whose `runsc` this is: itself, and what lies in gvisor-bin beside it.

    Raises InvalidArgument when it is no file that can be run.
    """
    if not runsc.is_file() or not runsc.stat().st_mode & 0o111:
        raise InvalidArgument(f"there is no program {runsc}", hint="BELLJAR_RUNSC is the path of a runsc")
    files = {"runsc": _bounded(runsc)}
    if (beside := runsc.parent / _BESIDE).is_dir():
        files |= {f"{_BESIDE}/{path.name}": _bounded(path) for path in sorted(beside.iterdir()) if path.is_file()}
    return files


def given_archive(archive: Path) -> Mapping[str, bytes]:
    """The same from an official release: a tar or zip file, or a folder, with checksums (SHA-512 or SHA-256).

    For a file the checksum is in ``<file>.sha512``, ``<file>.sha256`` or a SHA512SUMS beside it; in a folder every file
    taken has its own. Raises InvalidArgument for a wrong or missing checksum and for an archive without a runsc.
    """
    if archive.is_dir():
        files = _from_folder(archive)
    elif archive.is_file():
        _check(archive.parent, archive.name, archive.read_bytes())
        files = _from_members(archive)
    else:
        raise InvalidArgument(f"there is no archive {archive}", hint="BELLJAR_ENGINE_ARCHIVE is a path on this machine")
    if "runsc" not in files:
        raise InvalidArgument(f"{archive} holds no runsc")
    return files


def wheel_folder() -> Path | None:
    """Where the wheel with the programs is installed, if it is."""
    spec = importlib.util.find_spec(WHEEL_PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / "runsc").is_file():
            return Path(place)
    return None


def _from_folder(folder: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for path in (folder / "runsc", *sorted((folder / _BESIDE).glob("*"))):
        if path.is_file() and path.suffix not in (".sha512", ".sha256") and path.name not in _SUMS:
            name = path.relative_to(folder).as_posix()
            files[name] = _bounded(path)
            _check(folder, name, files[name])
    return files


def _from_members(archive: Path) -> dict[str, bytes]:
    """Only the programs, by reading members: nothing is unpacked, so no name of the archive becomes a path here."""
    files: dict[str, bytes] = {}
    for name, data in _members(archive):
        parts = PurePosixPath(name).parts
        if parts[-2:-1] == (_BESIDE,):
            files[f"{_BESIDE}/{parts[-1]}"] = data
        elif parts and parts[-1] == "runsc":
            files["runsc"] = data
    return files


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                for entry in opened.infolist():
                    if not entry.is_dir() and _wanted(entry.filename):
                        _bound(entry.filename, entry.file_size)
                        yield entry.filename, opened.read(entry)
            return
        with tarfile.open(archive) as opened:
            for member in opened:
                if member.isfile() and _wanted(member.name) and (file := opened.extractfile(member)) is not None:
                    _bound(member.name, member.size)
                    yield member.name, file.read()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise InvalidArgument(f"{archive} is no archive that can be read: {error}") from error


def _wanted(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name == "runsc" or path.parent.name == _BESIDE


def _check(folder: Path, name: str, data: bytes) -> None:
    for text in _checksum_texts(folder, name):
        for line in text.splitlines():
            word, _, subject = line.strip().partition(" ")
            subject = subject.strip().lstrip("*")
            if subject and PurePosixPath(subject) not in (PurePosixPath(name), PurePosixPath(PurePosixPath(name).name)):
                continue
            if (kind := _DIGESTS.get(len(word))) and re.fullmatch(r"[0-9a-fA-F]+", word):
                if hashlib.new(kind, data).hexdigest() != word.lower():
                    raise InvalidArgument(
                        f"{name} does not have the {kind} that its checksum file says", hint="download it again"
                    )
                return
    raise InvalidArgument(
        f"{name} comes without a checksum", hint=f"put the release's {name}.sha512 (or .sha256, SHA512SUMS) beside it"
    )


def _checksum_texts(folder: Path, name: str) -> Iterator[str]:
    for path in (folder / f"{name}.sha512", folder / f"{name}.sha256", *(folder / sums for sums in _SUMS)):
        if path.is_file() and path.stat().st_size < 1 << 20:
            yield path.read_text(errors="replace")


def _bounded(path: Path) -> bytes:
    _bound(str(path), path.stat().st_size)
    return path.read_bytes()


def _bound(name: str, size: int) -> None:
    if size > _BOUND:
        raise InvalidArgument(f"{name} has {size} bytes; no program of gVisor has more than {_BOUND >> 20} MiB")
