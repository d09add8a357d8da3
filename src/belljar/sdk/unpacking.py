"""Tar streams from a sandbox into a folder of this machine. The stream is hostile; nothing lands outside of the folder."""

import contextlib
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO

from belljar.model.errors import Internal
from belljar.sdk.errors import UnsafeEntry

__all__ = ("unpack",)

_CHUNK = 256 << 10
_LONGEST_HEADER = 1 << 20
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(
    stream: BinaryIO,
    target: Path,
    *,
    skip_unsafe: bool = False,
    progress: Callable[[int], object] | None = None,
    skipped: Callable[[UnsafeEntry], object] | None = None,
) -> int:
    """Unpacks below `target` (made when missing, merged when there). Returns the number of entries.

    Files get the modes of the archive (never set-uid) and this user as owner. `progress` is called with the bytes of files so
    far. Raises UnsafeEntry for an absolute name, one with ``..``, a link that leaves the target, a path through a link, a device;
    with `skip_unsafe` such an entry is left out and told to `skipped`. Raises OSError for what this machine refuses.
    """
    target.mkdir(parents=True, exist_ok=True)
    try:
        with (
            tarfile.open(fileobj=stream, mode="r|", tarinfo=_BoundedHeader, errorlevel=1) as archive,
            _Unpacker(target) as unpacker,
        ):
            count = 0
            while (member := archive.next()) is not None:
                try:
                    unpacker.take(member, archive, progress)
                    count += 1
                except UnsafeEntry as error:
                    if not skip_unsafe:
                        raise
                    if skipped:
                        skipped(error)
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue] - else it keeps every header
            return count
    except (tarfile.TarError, RecursionError, ValueError) as error:
        raise Internal(f"the tree that came is damaged: {error}") from error


class _BoundedHeader(tarfile.TarInfo):
    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """tarfile reads long names and extended headers whole into memory, whatever size they claim."""
        if self.type in _EXTENDED and self.size > _LONGEST_HEADER:
            raise tarfile.HeaderError("a header of more than 1 MiB")
        return super()._proc_member(archive)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]


class _Unpacker:
    def __init__(self, target: Path) -> None:
        self._root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._folder: tuple[tuple[str, ...], int] = ((), self._root)
        self._folders: list[tuple[tuple[str, ...], int, float]] = []
        self._bytes = 0

    def __enter__(self) -> "_Unpacker":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            # Last, because a folder may be read-only and its time changes with each file in it.
            for parts, mode, mtime in reversed(self._folders):
                with contextlib.suppress(OSError, UnsafeEntry):
                    fd = self._open(parts)
                    os.fchmod(fd, mode)
                    os.utime(fd, (mtime, mtime))
        finally:
            self._forget()
            os.close(self._root)

    def take(self, member: tarfile.TarInfo, archive: tarfile.TarFile, progress: Callable[[int], object] | None) -> None:
        parts = _parts(member.name)
        if not parts:
            return  # the root itself
        if member.isdir():
            self._open(parts, make=True)
            self._folders.append((parts, member.mode & 0o777, member.mtime))
        elif member.isreg():
            content = archive.extractfile(member)
            if content is not None:
                self._write(parts, member, content, progress)
        elif member.issym():
            _check_target(parts, member.linkname)
            os.symlink(member.linkname, parts[-1], dir_fd=self._clear(parts))
        elif member.islnk():
            self._link(parts, member)
        else:
            raise UnsafeEntry(member.name, "it is a device or a pipe")

    def _write(
        self,
        parts: tuple[str, ...],
        member: tarfile.TarInfo,
        content: IO[bytes],
        progress: Callable[[int], object] | None,
    ) -> None:
        folder = self._clear(parts)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(parts[-1], flags, 0o600, dir_fd=folder), "wb", buffering=0) as file:
            while chunk := content.read(_CHUNK):
                file.write(chunk)
                self._bytes += len(chunk)
                if progress:
                    progress(self._bytes)
            os.fchmod(file.fileno(), member.mode & 0o777)
            os.utime(file.fileno(), (member.mtime, member.mtime))

    def _link(self, parts: tuple[str, ...], member: tarfile.TarInfo) -> None:
        source = _parts(member.linkname)
        if not source or source == parts:
            raise UnsafeEntry(member.name, "it links to itself")
        folder = os.dup(self._open(source[:-1]))
        try:
            if not stat.S_ISREG(os.stat(source[-1], dir_fd=folder, follow_symlinks=False).st_mode):
                raise UnsafeEntry(member.name, "it is a hard link to what is no file")
            target = self._clear(parts)
            os.link(source[-1], parts[-1], src_dir_fd=folder, dst_dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            raise UnsafeEntry(member.name, "it is a hard link to a file that is not in the tree") from None
        finally:
            os.close(folder)

    def _clear(self, parts: tuple[str, ...]) -> int:
        """The open folder of this entry, with nothing of its name in it."""
        folder = self._open(parts[:-1], make=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(parts[-1], dir_fd=folder)
        return folder

    def _open(self, parts: tuple[str, ...], *, make: bool = False) -> int:
        """Walks down without following a link; the descriptor is good until the next call."""
        if self._folder[0] == parts:
            return self._folder[1]
        self._forget()
        fd = os.dup(self._root)
        try:
            for part in parts:
                inner = self._step(fd, part, parts, make=make)
                os.close(fd)
                fd = inner
        except BaseException:
            os.close(fd)
            raise
        self._folder = (parts, fd)
        return fd

    @staticmethod
    def _step(fd: int, part: str, parts: tuple[str, ...], *, make: bool) -> int:
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=fd)
            return os.open(part, _FOLDER, dir_fd=fd)
        except (NotADirectoryError, FileNotFoundError) as error:
            raise UnsafeEntry("/".join(parts), f"{part!r} on its way is no folder") from error
        except OSError as error:
            if stat.S_ISLNK(os.stat(part, dir_fd=fd, follow_symlinks=False).st_mode):
                raise UnsafeEntry("/".join(parts), f"{part!r} on its way is a link") from error
            raise

    def _forget(self) -> None:
        if self._folder[1] != self._root:
            os.close(self._folder[1])
        self._folder = ((), self._root)


def _parts(name: str) -> tuple[str, ...]:
    if name.startswith("/"):
        raise UnsafeEntry(name, "it is absolute")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise UnsafeEntry(name, "it contains '..'")
    if "\0" in name:
        raise UnsafeEntry(name, "it contains NUL")
    return parts


def _check_target(parts: tuple[str, ...], target: str) -> None:
    """Steps up are legal only at the start of a link's target, where the folders on the way are known to be no links."""
    name = "/".join(parts)
    if target.startswith("/"):
        raise UnsafeEntry(name, f"it links to {target[:80]!r}, outside of the tree")
    steps = [step for step in target.split("/") if step not in ("", ".")]
    up = 0
    while up < len(steps) and steps[up] == "..":
        up += 1
    if up >= len(parts) or ".." in steps[up:] or not target or "\0" in target:
        raise UnsafeEntry(name, f"it links to {target[:80]!r}, outside of the tree")
