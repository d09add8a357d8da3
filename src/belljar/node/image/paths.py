"""What an image holds: a list of its paths beside it, so that it can be told what changed on it without reading the image."""

import gzip
import os
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from belljar.model.errors import Internal

__all__ = ("PATHS", "ImagePath", "order", "read_paths", "write_paths")

PATHS = "paths.gz"
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class ImagePath:
    """`path` is relative to the root, without a slash in front; `mode` has the kind of file in it; `size` is 0 but for files."""

    path: bytes
    mode: int
    uid: int
    gid: int
    size: int


def order(path: bytes) -> bytes:
    """What paths are sorted by: a folder comes before what is in it, and nothing else between."""
    return path.replace(b"/", b"\0")


def write_paths(root: Path, file: Path) -> None:
    """Lists everything below `root` in the order of `order`. The same tree gives the same bytes. Raises OSError."""
    with file.open("wb") as plain, gzip.GzipFile("", "wb", 6, plain, mtime=0) as packed:
        for found in _walk(os.fsencode(root)):
            packed.write(b"%o %d %d %d %b\0" % (found.mode, found.uid, found.gid, found.size, found.path))


def read_paths(file: Path) -> Generator[ImagePath]:
    """One after the other, however many there are. Raises OSError, Internal for a list that is damaged."""
    rest = b""
    try:
        with gzip.open(file, "rb") as packed:
            while piece := packed.read(_PIECE):
                *records, rest = (rest + piece).split(b"\0")
                for record in records:
                    mode, uid, gid, size, path = record.split(b" ", 4)
                    yield ImagePath(path, int(mode, 8), int(uid), int(gid), int(size))
    except (EOFError, ValueError, gzip.BadGzipFile) as error:
        raise Internal(f"{file} is damaged", hint="belljar setup --refresh") from error
    if rest:
        raise Internal(f"{file} ends in the middle", hint="belljar setup --refresh")


def _walk(root: bytes) -> Iterator[ImagePath]:
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        now = os.lstat(os.path.join(root, path))  # noqa: PTH118 - names are bytes
        if path:
            size = now.st_size if stat.S_ISREG(now.st_mode) else 0
            yield ImagePath(path, now.st_mode, now.st_uid, now.st_gid, size)
        if stat.S_ISDIR(now.st_mode):
            names = sorted(os.listdir(os.path.join(root, path)), reverse=True)  # noqa: PTH118, PTH208
            waiting += [os.path.join(path, name) for name in names]  # noqa: PTH118
