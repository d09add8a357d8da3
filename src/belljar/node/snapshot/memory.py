"""Memory on its way to a snapshot or a fork: first into memory of the host, so that the guest stands still only for a moment."""

import contextlib
import ctypes
import os
import secrets
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Protocol

from belljar.base.files import remove_tree
from belljar.base.mounts import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount, unmount_below
from belljar.base.tasks import in_thread
from belljar.model.errors import DiskFull, NoCapacity
from belljar.node.engine.api import Usage
from belljar.node.instance import Instance
from belljar.node.machine import Reserve, available_memory

__all__ = ("MEMORY_FILES", "FastLane", "fast_lane", "keep_files")

MEMORY_FILES = ("checkpoint.img", "pages_meta.img", "pages.img")
_PAGES = "pages.img"
_SLACK = 24 << 20
"""Bytes that a checkpoint has beyond what the host counts: the kernel's own state, and what changes meanwhile."""
_PART = 3
"""A checkpoint may take one part in so many of the memory that is available; a bigger one goes to the disk."""
_FALLOC_FL_KEEP_SIZE = 1


class Standing(Protocol):
    async def checkpoint(self, target: Path) -> float:
        """See Supervisor.checkpoint."""
        ...

    async def usage(self) -> Usage: ...


class FastLane:
    """A file system of its own in the host's memory, made at the first use and emptied by every new server.

    Pages of it belong to whoever touches them first. The guest's kernel would pay with the sandbox's own limit, and die of
    it; so the room is taken by this process before.
    """

    def __init__(self, instance: Instance, reserve: Reserve, *, secret: bool = False) -> None:
        """`secret`: nothing may lie on the disk, not even for a moment."""
        self._folder = fast_lane(instance.run)
        self._disk = instance.home / "work"
        self._reserve = reserve
        self._secret = secret
        self._mounted = False

    async def open(self) -> None:
        """Removes what a killed server left."""
        await in_thread(self._clear)

    async def close(self) -> None:
        await in_thread(unmount_below, self._folder)

    @contextlib.asynccontextmanager
    async def folder(self, usage: Usage) -> AsyncGenerator[Path]:
        """A name for a checkpoint of a guest that uses so much; nothing is there yet, and all of it is gone afterwards.

        Raises NoCapacity and DiskFull where neither memory nor disk has room for it.
        """
        size = usage.memory + usage.disk + _SLACK
        if size <= (available_memory() - self._reserve.memory) // _PART:
            await in_thread(self._mount)
            place = self._folder / secrets.token_hex(8)
        elif self._secret:
            raise NoCapacity(f"a snapshot needs {size >> 20} MiB of memory: it is encrypted, so the disk is no help")
        else:
            await in_thread(self._check_disk, size)
            place = self._disk / secrets.token_hex(8)
        try:
            yield place
        finally:
            await in_thread(remove_tree, place)

    async def checkpoint(self, guest: Standing, place: Path) -> float:
        """Writes the guest's memory to `place`, which `folder` gave: the seconds for which it stood still at most."""
        usage = await guest.usage()
        await in_thread(self._take_room, place, usage.memory + usage.disk + _SLACK)
        seconds = await guest.checkpoint(place)
        await in_thread(_give_back, place / _PAGES)
        return seconds

    def _mount(self) -> None:
        if self._mounted:
            return
        self._folder.mkdir(exist_ok=True, mode=0o700)
        if not self._folder.is_mount():
            mount("tmpfs", self._folder, MS_NOSUID | MS_NODEV | MS_NOEXEC, kind="tmpfs", options="mode=700,size=75%")
        self._mounted = True

    def _clear(self) -> None:
        for folder in (self._folder, self._disk):
            with contextlib.suppress(FileNotFoundError):
                for entry in folder.iterdir():
                    remove_tree(entry)
        self._disk.mkdir(exist_ok=True, mode=0o700)

    def _check_disk(self, size: int) -> None:
        now = os.statvfs(self._disk)
        free = now.f_bavail * now.f_frsize
        if free - size < self._reserve.disk:
            raise DiskFull(
                f"the snapshot needs {size >> 20} MiB, {free >> 20} MiB are free and {self._reserve.disk >> 20} MiB are kept",
                hint="free some disk, or lower BELLJAR_DISK_RESERVE",
            )

    def _take_room(self, place: Path, size: int) -> None:
        place.mkdir(mode=0o700)
        if place.parent != self._folder:
            return
        with open(place / _PAGES, "wb") as file:
            if _libc.fallocate(file.fileno(), _FALLOC_FL_KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(size)) != 0:
                number = ctypes.get_errno()
                raise NoCapacity(f"no memory for a snapshot of {size >> 20} MiB: {os.strerror(number)}")


def _give_back(pages: Path) -> None:
    """What was taken beyond the end of the file."""
    os.truncate(pages, pages.stat().st_size)


def fast_lane(run: Path) -> Path:
    """Where it is mounted, and owned by the server."""
    return run / "fast"


def keep_files(source: Path, target: Path) -> None:
    """Copies a checkpoint to the disk; what the host took too much of it goes. Raises OSError."""
    for name in MEMORY_FILES:
        with _opened(source / name, target / name) as (reader, writer):
            done, size = 0, os.fstat(reader).st_size
            while done < size:
                moved = os.sendfile(writer, reader, done, min(size - done, 64 << 20))
                if moved <= 0:
                    raise OSError("a checkpoint became shorter while it was copied")
                done += moved


@contextlib.contextmanager
def _opened(source: Path, target: Path) -> Generator[tuple[int, int]]:
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            yield reader, writer
        finally:
            os.close(writer)
    finally:
        os.close(reader)


_libc = ctypes.CDLL(None, use_errno=True)
