"""Files that outlive a power cut, with their digests."""

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import AsyncGenerator, Awaitable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Literal, TypeVar

from blake3 import blake3

from belljar.base.tasks import in_thread, to_the_end
from belljar.model.errors import DiskFull, Internal, SnapshotCorrupt

__all__ = (
    "all_of",
    "digest_files",
    "digest_of",
    "is_full",
    "opened_file",
    "storage_errors",
    "sync_file",
    "sync_folder",
)

T = TypeVar("T")

BUFFER = 4 << 20
"""Bytes at a time: enough for BLAKE3 to use every core, and small beside a sandbox."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sync_file(fd: int) -> None:
    """Its content is on the disk when this returns. A failed one is never asked again: the kernel forgets what it could not
    write, so a second call would succeed without having written it."""
    os.fsync(fd)


def sync_folder(path: Path) -> None:
    """Its names are on the disk when this returns."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file(fd)
    finally:
        os.close(fd)


def digest_of(path: Path) -> str:
    """BLAKE3 of the content, in hex, on every core. Reads instead of mapping: a bad sector is an OSError, not a SIGBUS."""
    digest, buffer = blake3(max_threads=blake3.AUTO), bytearray(BUFFER)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


def digest_files(paths: Iterable[Path], *, sync: bool) -> dict[str, tuple[int, str]]:
    """Of each regular file by its name the size and the digest. `sync`: all of them are on the disk when this returns; the disk
    writes while the digests are computed. Raises SnapshotCorrupt for what is no regular file.
    """
    found = list(paths)
    for path in found:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise SnapshotCorrupt(f"{path.name} is no regular file")
    with ThreadPoolExecutor(4, thread_name_prefix="storage") as pool:
        syncs = [pool.submit(_sync_path, path) for path in found] if sync else []
        digests = {path.name: (path.stat().st_size, digest_of(path)) for path in found}
        for done in syncs:
            done.result()
    return digests


def _sync_path(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        sync_file(fd)
    finally:
        os.close(fd)


@contextlib.asynccontextmanager
async def opened_file(path: Path, mode: Literal["rb", "xb"]) -> AsyncGenerator[FileIO]:
    """Without a buffer; opened and closed in threads. Raises OSError."""
    found: list[FileIO] = []

    def open_it() -> None:
        found.append(FileIO(path, mode))

    try:
        await to_the_end(in_thread(open_it))
        yield found[0]
    finally:
        for file in found:
            await to_the_end(in_thread(file.close))


async def all_of(work: Iterable[Awaitable[T]]) -> list[T]:
    """All at once. When one fails, the others come to their end before it raises."""
    done = await asyncio.gather(*work, return_exceptions=True)
    for one in done:
        if isinstance(one, BaseException):
            raise one
    return [one for one in done if not isinstance(one, BaseException)]


def is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in _FULL


@contextlib.contextmanager
def storage_errors(doing: str) -> Generator[None]:
    """Turns the file system's troubles into DiskFull and Internal. `doing`: what was tried, as in "keeping sn…"."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise DiskFull(f"{doing}: no space is left on the disk", hint="free some, or delete snapshots") from error
        raise Internal(f"{doing}: {error.strerror or error}") from error
