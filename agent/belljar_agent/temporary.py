"""The sizes of /tmp and /dev/shm. A restored sandbox has those of its snapshot, whatever it may use now."""

from __future__ import annotations

import os

from belljar_agent import system

__all__ = ("SHARED", "TMP", "Temporary")

TMP = "/tmp"
SHARED = "/dev/shm"
_PAGE = 4096
_ROOT_ONLY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Temporary:
    """Knows which file systems are its own, so that repeated changes do not pile up."""

    def __init__(self) -> None:
        self._ours: dict[str, int] = {}
        """Path → device of what we mounted there."""

    def resize(self, path: str, size: int) -> None:
        """Gives an empty folder `size` bytes of its own, by a new file system over it. One with something in it stays as it is.

        Raises OSError.
        """
        try:
            fd = os.open(path, _ROOT_ONLY)
        except OSError:
            return  # the image, or the user, has no such folder
        try:
            now = os.fstatvfs(fd)
            if now.f_blocks * now.f_frsize == _pages(size) or os.listdir(fd):
                return
            device = os.fstat(fd).st_dev
        finally:
            os.close(fd)
        if self._ours.get(path) == device:
            system.unmount(path, system.MNT_DETACH)
        flags = system.MS_NOSUID | system.MS_NODEV
        system.mount("tmpfs", path, "tmpfs", flags, f"mode=1777,size={_pages(size)}")
        self._ours[path] = os.stat(path).st_dev


def _pages(size: int) -> int:
    return max(size & -_PAGE, _PAGE)
