"""What a node has to make sandboxes with, and the bounds that hold for the whole machine."""

import asyncio
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from belljar.base.clock import Clock, SystemClock
from belljar.model.errors import NoCapacity
from belljar.node.artifacts import Store
from belljar.node.engine.api import Engine
from belljar.node.guest.runtime import GuestRuntime
from belljar.node.instance import Instance
from belljar.node.net.slots import SlotPool
from belljar.node.snapshot.filesystem import Filesystems
from belljar.node.snapshot.store import SnapshotStore

__all__ = ("ImageEntry", "Images", "Kept", "Machine", "Reserve", "available_memory")

_STARTS_AT_ONCE = 2 * (os.cpu_count() or 1)


class ImageEntry(Protocol):
    """An image that is here: a file for the engine, and what its maker set."""

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str:
        """Stands for its content."""
        ...

    @property
    def path(self) -> Path: ...
    @property
    def env(self) -> Mapping[str, str]: ...
    @property
    def user(self) -> str: ...
    @property
    def workdir(self) -> str: ...


class Images(Protocol):
    def get(self, name: str) -> ImageEntry:
        """Raises ImageNotFound, InvalidArgument."""
        ...

    def names(self) -> tuple[str, ...]: ...


class Kept(Protocol):
    """What was made by other releases and is still needed: by key. All raise NotFound."""

    def check_build(self, key: str) -> None:
        """Whether this engine build is here."""
        ...

    def runtime(self, key: str) -> GuestRuntime: ...

    def image(self, key: str, name: str) -> ImageEntry:
        """With this content, whatever the name stands for by now."""
        ...

    async def tidy(self, needed: Collection[str]) -> list[str]:
        """Removes what is neither among these keys nor of the set-up of now: the keys. Never raises NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class Reserve:
    """What stays free for the machine itself, in bytes."""

    disk: int = 1 << 30
    memory: int = 512 << 20

    def check(self, folder: Path) -> None:
        """Raises NoCapacity when the machine is short of memory, or of disk where `folder` is.

        Counts what is used now, not what was promised: sandboxes rarely use their limit, and each has its own.
        """
        stat = os.statvfs(folder)
        free = stat.f_bavail * stat.f_frsize
        if free < self.disk:
            raise NoCapacity(
                f"{free >> 20} MiB of disk are free and {self.disk >> 20} MiB are kept in reserve",
                hint="free some disk, end sandboxes, or lower BELLJAR_DISK_RESERVE",
            )
        if (free := available_memory()) < self.memory:
            raise NoCapacity(
                f"{free >> 20} MiB of memory are available and {self.memory >> 20} MiB are kept in reserve",
                hint="end sandboxes, or lower BELLJAR_MEMORY_RESERVE",
            )


def available_memory() -> int:
    """Bytes that the kernel could hand out without swapping."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    raise OSError("/proc/meminfo has no MemAvailable")


@dataclass(frozen=True, slots=True)
class Machine:
    """`slots` None: an engine without a network (the fake one). `pool`: how many guests may wait for a claim; None: as many
    as the machine's memory suggests.
    """

    instance: Instance
    engine: Engine
    build: str
    images: Images
    runtime: GuestRuntime
    slots: SlotPool | None
    kept: Kept
    snapshots: SnapshotStore
    filesystems: Filesystems
    templates: Store | None = None
    pool: int | None = None
    cool_after: float = 6 * 3600.0
    """Seconds after its last use from which on a snapshot is kept compressed."""
    logs_days: float = 7.0
    """So long what processes wrote last is kept after the end of their sandbox; 0: not at all."""
    logs_size: int = 256 << 20
    """Bytes of that in all."""
    reserve: Reserve = field(default_factory=Reserve)
    clock: Clock = field(default_factory=SystemClock)
    starts: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_STARTS_AT_ONCE))
    """Kernels that start at the same time: each takes a core for its start, so more only makes all of them slower."""
