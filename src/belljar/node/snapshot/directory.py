"""Directory snapshots: one path of a sandbox as a tar, and a private copy of it in another."""

import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from belljar.base.tasks import in_thread, to_the_end
from belljar.model.errors import Conflict, DiskFull, SnapshotCorrupt
from belljar.model.file import FileInfo, FileKind
from belljar.model.snapshot import check_mount_point
from belljar.node.snapshot.entries import read_entries
from belljar.node.storage.durable import storage_errors

__all__ = ("FILE", "Trees", "capture", "mount", "mounts", "unmount")

FILE = "tree.tar"
_GATHERED: Final = 1 << 20
_PIECE: Final = 256 << 10


class Trees(Protocol):
    """What is needed of a `Guest`."""

    async def stat(self, path: str) -> FileInfo: ...
    def pull(self, path: str) -> AsyncGenerator[bytes]: ...
    async def mount_tree(self, path: str, label: str, chunks: AsyncIterator[bytes]) -> int: ...
    async def unmount_tree(self, path: str) -> None: ...
    async def mounted_trees(self) -> dict[str, str]: ...


async def capture(guest: Trees, path: str, folder: Path, *, reserve: int) -> None:
    """Writes `tree.tar` into the folder. `reserve`: bytes of the disk that stay free.

    Raises NotFound, Conflict (no directory, or it was changed too much meanwhile), DiskFull; then nothing is left in the folder.
    """
    if (await guest.stat(path)).kind is not FileKind.DIRECTORY:
        raise Conflict(f"{path} is not a directory")
    target = folder / FILE
    done = False
    try:
        with storage_errors(f"keeping {FILE}"), target.open("xb", buffering=0) as file:
            gathered = bytearray()
            async with contextlib.aclosing(guest.pull(path)) as chunks:
                async for chunk in chunks:
                    gathered += chunk
                    if len(gathered) >= _GATHERED:
                        await to_the_end(in_thread(_append, file, gathered, reserve))
                        gathered = bytearray()
            await to_the_end(in_thread(_append, file, gathered, reserve))
        try:
            await to_the_end(in_thread(_check, target))
        except SnapshotCorrupt as error:
            raise Conflict(f"what came of {path} is no whole archive: {error.message}") from None
        done = True
    finally:
        if not done:
            await to_the_end(in_thread(target.unlink, True))


async def mount(guest: Trees, snapshot: str, folder: Path, path: str) -> None:
    """Puts a private copy of the snapshot that is open in `folder` over `path` of the guest, which is made if it is missing.

    `snapshot` is what `mounts` tells again. Raises InvalidArgument (a path of the system's), Conflict (mounted already),
    DiskFull.
    """
    point = check_mount_point(path)
    async with contextlib.aclosing(_read(folder / FILE)) as chunks:
        await guest.mount_tree(point, snapshot, chunks)


async def unmount(guest: Trees, path: str) -> None:
    """With all that was written to it. Raises NotFound, Conflict (in use)."""
    await guest.unmount_tree(check_mount_point(path))


async def mounts(guest: Trees) -> dict[str, str]:
    """Path → snapshot, as the guest says."""
    return await guest.mounted_trees()


async def _read(file: Path) -> AsyncGenerator[bytes]:
    with file.open("rb", buffering=0) as tar:
        while piece := await to_the_end(in_thread(tar.read, _PIECE)):
            yield piece


def _append(file: BinaryIO, data: bytearray, reserve: int) -> None:
    now = os.fstatvfs(file.fileno())
    free = now.f_bavail * now.f_frsize
    if free - len(data) < reserve:
        raise DiskFull(
            f"{free >> 20} MiB of disk are free and {reserve >> 20} MiB are kept in reserve",
            hint="free some disk, or lower BELLJAR_DISK_RESERVE",
        )
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _check(file: Path) -> None:
    for _ in read_entries(file):
        pass
