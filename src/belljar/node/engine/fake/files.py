"""The files of a fake instance as a tar: its image is empty, so all of them have changed."""

import errno
import tarfile
from pathlib import Path

from belljar.model.errors import DiskFull, EngineFailed, TooLarge

__all__ = ("pack", "unpack")


def pack(folder: Path, target: Path, limit: int) -> None:
    """Raises DiskFull, TooLarge, EngineFailed; then `target` is not there."""
    try:
        with tarfile.open(target, "x", format=tarfile.PAX_FORMAT) as archive:
            for path in (folder, *sorted(folder.rglob("*"))):
                if path.is_socket():
                    continue
                member = archive.gettarinfo(path, f"./{path.relative_to(folder)}")
                if archive.offset + member.size > limit:
                    raise TooLarge(
                        f"/{path.relative_to(folder)} has {member.size} bytes, and there is not that much room"
                    )
                if member.isreg():
                    with path.open("rb") as file:
                        archive.addfile(member, file)
                else:
                    archive.addfile(member)
    except (OSError, TooLarge) as error:
        target.unlink(missing_ok=True)
        if isinstance(error, TooLarge):
            raise
        said = f"saving files: {error.strerror or error}"
        raise DiskFull(said) if error.errno == errno.ENOSPC else EngineFailed(said) from error


def unpack(source: Path, folder: Path) -> None:
    """Raises EngineFailed for what is no such tar."""
    try:
        with tarfile.open(source) as archive:
            # Of our own making. Python 3.11.2, Debian 12's, has no filters yet.
            archive.extractall(folder)
    except (tarfile.TarError, OSError) as error:
        raise EngineFailed(f"these files cannot be unpacked: {error}") from error
