"""Folders of this machine as tar streams."""

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from belljar.model.errors import InvalidArgument

__all__ = ("pack", "tree_size")

_BLOCK = 512
_CHUNK = 256 << 10


def tree_size(root: Path) -> int:
    """Bytes of all files below `root`; links are not followed."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            status = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - half the time of Path on big trees
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def pack(root: Path) -> Iterator[bytes]:
    """The tree below `root` as an uncompressed tar, names relative to it, in chunks of about 256 KiB.

    Links stay links; owners are left to the receiver; sockets and pipes have no meaning elsewhere and are left out.
    A file that shrinks meanwhile is filled up with zeros, one that grows is cut at the size it had. Raises OSError.
    """
    pending = bytearray()
    for piece in _pieces(root):
        pending += piece
        if len(pending) >= _CHUNK:
            yield bytes(pending)
            pending.clear()
    yield bytes(pending) + bytes(2 * _BLOCK)


def _pieces(root: Path) -> Iterator[bytes]:
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        for entry in entries:
            name = f"{folder}{entry.name}"
            status = entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{name}/")
                yield _header(name, status, tarfile.DIRTYPE)
            elif entry.is_symlink():
                yield _header(name, status, tarfile.SYMTYPE, os.readlink(entry.path))  # noqa: PTH115
            elif stat.S_ISREG(status.st_mode):
                yield from _file(name, entry.path)


def _file(name: str, path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        yield _header(name, status, tarfile.REGTYPE)
        left = status.st_size
        while left and (chunk := file.read(min(left, _CHUNK))):
            left -= len(chunk)
            yield chunk
        while left:
            filler = bytes(min(left, _CHUNK))
            left -= len(filler)
            yield filler
        yield bytes(-status.st_size % _BLOCK)


def _header(name: str, status: os.stat_result, kind: bytes, target: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = stat.S_IMODE(status.st_mode)
    info.mtime = int(status.st_mtime)
    info.linkname = target
    info.size = status.st_size if kind == tarfile.REGTYPE else 0
    try:
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    except (ValueError, UnicodeError) as error:
        raise InvalidArgument(f"cannot send {name[:200]!r}: {error}") from None
