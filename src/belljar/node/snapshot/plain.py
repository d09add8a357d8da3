"""A place in the host's memory for what lies encrypted on the disk: the only one where it is ever plain."""

import ctypes
import os
from pathlib import Path

from belljar.base.files import remove_tree
from belljar.base.log import get_logger
from belljar.model.errors import NotSupported

__all__ = ("PlainRoom", "plain_room")

_log = get_logger("node.snapshot")
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_OPTIONS = (b"mode=700,size=75%,noswap", b"mode=700,size=75%")
"""Swap may be a disk without encryption. Kernels before 6.4 know no `noswap`."""
_MNT_DETACH = 2
_IN_MEMORY = ("tmpfs", "ramfs")


def plain_room(run: Path) -> Path:
    """Where it is mounted while the store of a server has a key."""
    return run / "plain"


class PlainRoom:
    """``<run>/plain``: a tmpfs of its own, mounted at the first use and emptied by every new server. All methods block."""

    def __init__(self, run: Path) -> None:
        self.folder = plain_room(run)

    def open(self) -> None:
        """Removes what a killed server left, and mounts. Raises NotSupported where there is no memory to be had."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.folder.is_mount():
            self._mount()
        for entry in self.folder.iterdir():
            remove_tree(entry)

    def close(self) -> None:
        """What is plain is gone."""
        if self.folder.is_mount():
            # Whoever still reads one keeps the memory until he is done; nobody else finds it.
            _libc.umount2(os.fsencode(self.folder), _MNT_DETACH)
        if self.folder.is_mount():
            why = os.strerror(ctypes.get_errno())
            _log.error("plain snapshots are still there", folder=str(self.folder), reason=why)
        elif self.folder.is_dir():
            remove_tree(self.folder)

    def make(self, name: str) -> Path:
        """An empty folder."""
        folder = self.folder / name
        remove_tree(folder)
        folder.mkdir(mode=0o700)
        return folder

    def drop(self, name: str) -> None:
        remove_tree(self.folder / name)

    def _mount(self) -> None:
        flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        number = 0
        for options in _OPTIONS:
            if _libc.mount(b"tmpfs", os.fsencode(self.folder), b"tmpfs", flags, options) == 0:
                return
            number = ctypes.get_errno()
        if _kind(self.folder) not in _IN_MEMORY:
            raise NotSupported(
                f"encrypted snapshots need a file system in memory at {self.folder}: {os.strerror(number)}",
                hint="run the server as root, or mount a tmpfs there",
            )


def _kind(folder: Path) -> str:
    """The kind of file system that a folder is on."""
    best, kind = -1, ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = Path(before.split()[4])
        if folder.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split()[0]
    return kind


_libc = ctypes.CDLL(None, use_errno=True)
