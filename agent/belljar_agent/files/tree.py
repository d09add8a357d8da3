"""Walks a tree with one open folder at a time, however deep it is and whatever is done to it meanwhile."""

from __future__ import annotations

import errno
import os
import stat

from belljar_agent.api import Refused
from belljar_agent.files.refusals import printable, refusing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ("Found", "Place", "open_folder", "walk")


def open_folder(name: str, within: int) -> int:
    """A descriptor of the folder `name` in the open folder `within`. Raises OSError, NotADirectoryError for a link.

    Without O_DIRECTORY: gVisor follows a link when both that and O_NOFOLLOW are asked for. What is no folder is looked at
    first, because opening it could have an effect.
    """
    if not stat.S_ISDIR(os.stat(name, dir_fd=within, follow_symlinks=False).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=within)
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return fd


class Place:
    """An open folder that moves down and up again. A path could be longer than the kernel takes; this cannot."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._above: list[tuple[int, int]] = []
        with refusing(path):
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def down(self, name: str) -> None:
        """Raises OSError, also for a symbolic link."""
        here = os.fstat(self.fd)
        fd = open_folder(name, self.fd)
        self._above.append((here.st_dev, here.st_ino))
        os.close(self.fd)
        self.fd = fd

    def up(self) -> None:
        """Raises Refused when the folder was moved away meanwhile: its parent is no longer ours to work in."""
        with refusing(self._path):
            fd = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        os.close(self.fd)
        self.fd = fd
        here = os.fstat(fd)
        if (here.st_dev, here.st_ino) != self._above.pop():
            raise Refused("conflict", f"{printable(self._path)} was changed by somebody else meanwhile")

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Found:
    """`name` in the open folder `fd` (valid until the walk goes on); `path` is relative to the top."""

    __slots__ = ("fd", "name", "path", "status")

    def __init__(self, fd: int, name: str, path: str, status: os.stat_result) -> None:
        self.fd = fd
        self.name = name
        self.path = path
        self.status = status

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


def walk(top: str, *, skip: frozenset[str] = frozenset()) -> Generator[Found]:
    """Everything below the folder `top`, each folder before what is in it; symbolic links are not followed.

    `skip`: absolute paths of folders that are left out. What vanishes meanwhile is left out.
    """
    place = Place(top)
    try:
        # For each level the names of the folders still to visit, and the path of the level itself.
        levels: list[tuple[str, list[str]]] = []
        path = ""
        while True:
            folders: list[str] = []
            with refusing(top), os.scandir(place.fd) as entries:
                for entry in entries:
                    below = f"{path}/{entry.name}" if path else entry.name
                    try:
                        status = os.stat(entry.name, dir_fd=place.fd, follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if stat.S_ISDIR(status.st_mode):
                        if skip and os.path.join(top, below) in skip:
                            continue
                        folders.append(entry.name)
                    yield Found(place.fd, entry.name, below, status)
            levels.append((path, folders))
            while True:
                if not levels:
                    return
                path, folders = levels[-1]
                if not folders:
                    levels.pop()
                    if levels:
                        place.up()
                    continue
                name = folders.pop()
                try:
                    place.down(name)
                except OSError:
                    continue  # gone, or no folder any more
                path = f"{path}/{name}" if path else name
                break
    finally:
        place.close()
