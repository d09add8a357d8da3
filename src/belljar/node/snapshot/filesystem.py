"""Filesystem snapshots: taking one, what a sandbox that starts from one begins with, and what one changed."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from belljar.base.clock import boot_id
from belljar.base.files import remove_tree
from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet, in_thread, to_the_end
from belljar.model.errors import DiskFull, Error, NotFound, NotSupported
from belljar.model.snapshot import PathChange, SnapshotKind
from belljar.node.artifacts import Store
from belljar.node.engine.api import Engine, Instance
from belljar.node.image.catalog import IMAGE_FILE
from belljar.node.image.catalog import KIND as IMAGE
from belljar.node.image.paths import PATHS
from belljar.node.snapshot.diff import contents_of, difference
from belljar.node.snapshot.directory import FILE as TREE
from belljar.node.snapshot.manifest import Manifest

__all__ = ("FILE", "Filesystems", "Root")

_log = get_logger("node.snapshot")
FILE = "upper.tar"
_PAYS: Final = 8 << 20
"""Bytes of a tar from which on it is made ready once for all; a smaller one is made ready in each start, in 10 to 40 ms."""
_PAGE: Final = 1000
_IN_USE: Final = 300.0
"""Seconds after its last use in which nothing is removed: a guest that is being made opens it."""
_HEADERS: Final = 256 << 20
"""Bytes that the names of files may take in a tar beyond what a sandbox's disk holds."""


class Snapshots(Protocol):
    """What is needed of the store."""

    def opened(self, id: str) -> contextlib.AbstractAsyncContextManager[tuple[Manifest, Path]]: ...

    def list(self) -> Collection[Manifest]: ...

    @property
    def encrypts(self) -> bool: ...


class Standing(Protocol):
    """What is needed of a guest's session."""

    def stand_still(self, still: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Root:
    """What a guest boots from. `image`: the EROFS file; `key`: the artifact that it belongs to, which a later snapshot of the
    guest names as its `image_key`: its changes are relative to this image, `upper` among them. `upper`: for InstanceSpec.
    """

    image: Path
    key: str
    upper: Path


class Filesystems:
    """`images`: the state's own artifacts, None where images are no files (the fake engine). `folder`: its own, for files that
    were made ready; what is there can be made again at any time. `reserve`: bytes of the disk that stay free.

    An (async) context manager: leaving it ends what is being made in the background.
    """

    def __init__(self, engine: Engine, images: Store | None, snapshots: Snapshots, folder: Path, reserve: int) -> None:
        self._engine = engine
        self._images = images
        self._snapshots = snapshots
        self._folder = folder
        self._reserve = reserve
        self._used: dict[str, float] = {}
        self._making: dict[str, asyncio.Lock] = {}
        self._boot = boot_id().replace("-", "")[:12]
        self._tasks = TaskSet(lambda name, error: _log.error("a task failed", task=name, exc_info=error))

    async def __aenter__(self) -> Self:
        await self.sweep()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tasks.close()

    async def capture(self, instance: Instance, guest: Standing, folder: Path) -> float:
        """Writes the snapshot's file into the folder: the seconds for which the guest stood still.

        Raises DiskFull, TooLarge, EngineFailed; then nothing is left in the folder.
        """
        room = _free(folder) - self._reserve
        if room <= 0:
            raise DiskFull(f"less than the {self._reserve >> 20} MiB of disk that stay free are left")
        guest.stand_still(True)
        try:
            limit = min(room, instance.spec.limits.disk + _HEADERS)
            return await self._engine.save_files(instance, folder / FILE, limit=limit)
        finally:
            guest.stand_still(False)

    async def root_of(self, manifest: Manifest, folder: Path) -> Root:
        """For a filesystem snapshot that is open in `folder`; good while it is. The first start from a big one waits until it is
        made ready (0.1 s per 100 MB). Raises NotFound when its image is gone, SnapshotCorrupt, DiskFull, EngineFailed.
        """
        key = manifest.draft.image_key
        if self._images is None:
            return Root(Path("/"), key, folder / FILE)
        artifact = self._images.get(IMAGE, key)
        if artifact is None:
            raise NotFound(
                f"the image {manifest.draft.spec.image} that {manifest.draft.id} was made on is not here any more"
            )
        image = artifact.folder / IMAGE_FILE
        if not self._pays(manifest):
            return Root(image, key, folder / FILE)
        return Root(image, key, await self._ready(manifest, folder))

    def request_ready(self, manifest: Manifest) -> None:
        """Soon, in the background, and if it pays: what starts from this snapshot then need not wait for it. After its commit."""
        if self._images is not None and self._pays(manifest):
            self._tasks.start(self._ready_soon(manifest.draft.id), name=f"files of {manifest.draft.id}")

    async def sweep(self) -> list[str]:
        """Removes what belongs to no snapshot any more, what a killed server left half made, and what was made before the machine
        started (it was never flushed to the disk). After snapshots were deleted. The names removed.
        """
        needed = {f"{_digest(found)}.{self._boot}" for found in self._snapshots.list() if FILE in found.files}
        recent = {name for name, at in self._used.items() if time.monotonic() - at < _IN_USE}
        half = {f".{name}" for name in self._making}
        return await to_the_end(in_thread(self._remove_all_but, needed | recent | half))

    async def changes(self, manifest: Manifest, folder: Path) -> AsyncGenerator[PathChange]:
        """What a filesystem snapshot changed on its image, or a directory snapshot holds, sorted by path (a folder before what is
        in it). Raises NotFound (its image), NotSupported (memory), SnapshotCorrupt.
        """
        match manifest.draft.kind:
            case SnapshotKind.FILESYSTEM:
                found = difference(folder / FILE, self._listing(manifest))
            case SnapshotKind.DIRECTORY:
                found = contents_of(folder / TREE)
            case SnapshotKind.MEMORY:
                raise NotSupported(
                    "a memory snapshot has no list of changes",
                    hint="take a filesystem snapshot of what goes on from it",
                )
        try:
            while page := await to_the_end(in_thread(lambda: list(islice(found, _PAGE)))):
                for change in page:
                    yield change
        finally:
            await in_thread(found.close)

    def _pays(self, manifest: Manifest) -> bool:
        """What is encrypted is made ready for one guest alone, and gone with it."""
        return manifest.files[FILE].size >= _PAYS and not self._snapshots.encrypts

    def _listing(self, manifest: Manifest) -> Path | None:
        if self._images is None:
            return None
        artifact = self._images.get(IMAGE, manifest.draft.image_key)
        if artifact is None or PATHS not in artifact.files:
            raise NotFound(f"there is no list of what the image {manifest.draft.spec.image} held")
        return artifact.folder / PATHS

    async def _ready_soon(self, id: str) -> None:
        try:
            async with self._snapshots.opened(id) as (manifest, folder):
                await self._ready(manifest, folder)
        except Error as error:
            _log.info("the files of a snapshot are not made ready", snapshot=id, reason=str(error))

    async def _ready(self, manifest: Manifest, folder: Path) -> Path:
        name = f"{_digest(manifest)}.{self._boot}"
        target = self._folder / name
        lock = self._making.setdefault(name, asyncio.Lock())
        try:
            async with lock:
                if not await in_thread(target.is_dir):
                    await self._make(manifest, folder, target)
                self._used[name] = time.monotonic()
        finally:
            if not lock.locked():
                self._making.pop(name, None)
        return target

    async def _make(self, manifest: Manifest, folder: Path, target: Path) -> None:
        size = manifest.files[FILE].size
        await self._make_room(size)
        half = target.with_name(f".{target.name}")
        await to_the_end(in_thread(remove_tree, half))
        await self._engine.ready_files(folder / FILE, half)
        await in_thread(half.rename, target)

    async def _make_room(self, size: int) -> None:
        """The ones that were not used for the longest time go first. Raises DiskFull."""
        now = time.monotonic()
        for name, at in sorted(self._used.items(), key=lambda item: item[1]):
            if await in_thread(_free, self._folder) - size >= self._reserve or now - at < _IN_USE:
                break
            self._used.pop(name)
            await to_the_end(in_thread(remove_tree, self._folder / name))
        free = await in_thread(_free, self._folder)
        if free - size < self._reserve:
            raise DiskFull(
                f"starting from the snapshot needs {size >> 20} MiB; {free >> 20} are free and {self._reserve >> 20} stay so",
                hint="free some disk, or lower BELLJAR_DISK_RESERVE",
            )

    def _remove_all_but(self, kept: Collection[str]) -> list[str]:
        self._folder.mkdir(exist_ok=True, mode=0o700)
        removed = [entry for entry in self._folder.iterdir() if entry.name not in kept]
        for entry in removed:
            remove_tree(entry)
            self._used.pop(entry.name, None)
        return [entry.name for entry in removed]


def _digest(manifest: Manifest) -> str:
    """Of the tar: equal ones are made ready once."""
    return manifest.files[FILE].digest[:40]


def _free(folder: Path) -> int:
    now = os.statvfs(folder)
    return now.f_bavail * now.f_frsize
