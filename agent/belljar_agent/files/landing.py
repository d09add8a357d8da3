"""The folder an archive is unpacked into. Nothing is written, linked or changed outside of it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from belljar_agent.api import Refused
from belljar_agent.files.refusals import printable, refusal
from belljar_agent.files.tree import open_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ("Landing",)

_MODES = 0o1777
"""Set-uid and set-gid bits are not taken over where the owner is another one than in the archive."""
_ALL_MODES = 0o7777
_MAX_ID = (1 << 32) - 2
_MAX_NAME = 4096
_STEP = 128


class Landing:
    """Folders are walked one name at a time without following links, so a link put there meanwhile leads nowhere.

    Everything made belongs to `owner`, or with `keep` to whom the archive says. `dress_top`: the folder is new, so that the
    archive may set its mode and time. What is there already keeps its own.
    """

    def __init__(self, path: str, owner: tuple[int, int], *, dress_top: bool, keep: bool = False) -> None:
        self._path = path
        self._owner = owner
        self._keep = keep
        self._modes = _ALL_MODES if keep else _MODES
        self._dress_top = dress_top
        self._dressed: list[tuple[tuple[str, ...], int, float]] = []
        self._file = -1
        self._file_place: tuple[int, str] | None = None
        self._file_mtime = 0.0
        self._file_mode = 0
        self._parent: tuple[tuple[str, ...], int] | None = None
        try:
            self._top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise refusal(error, path) from None
        self._real = os.path.realpath(path)

    def belong_to(self, uid: int, gid: int) -> None:
        """Whose the next entry is, in the archive's words."""
        if self._keep:
            if not (0 <= uid <= _MAX_ID and 0 <= gid <= _MAX_ID):
                raise Refused("invalid_argument", "the archive has an impossible owner")
            self._owner = (uid, gid)

    def folder(self, name: str, mode: int, mtime: float) -> None:
        parts = self._parts(name)
        if not parts:
            if self._dress_top:
                if self._keep:
                    os.fchown(self._top, *self._owner)
                self._dressed.append(((), mode & self._modes, mtime))
            return
        with self._naming(name):
            parent = self._open_parent(parts)
            try:
                os.mkdir(parts[-1], 0o700, dir_fd=parent)
            except FileExistsError:
                self._check_folder(parent, parts[-1], name)
                return
            os.chown(parts[-1], *self._owner, dir_fd=parent, follow_symlinks=False)
        self._dressed.append((parts, mode & self._modes, mtime))

    def begin_file(self, name: str, mode: int, mtime: float) -> None:
        """Then `write` and `end_file`. One that is there is replaced, never written into."""
        parts = self._parts(name)
        with self._naming(name):
            parent = self._make_way(parts, name)
            self._file = os.open(
                parts[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent
            )
            self._file_place = (parent, parts[-1])
            self._file_mtime = mtime
            os.fchown(self._file, *self._owner)
            self._file_mode = mode & self._modes
            os.fchmod(self._file, self._file_mode)

    def write(self, data: memoryview) -> None:
        if self._file < 0:
            return  # the content of an entry that is passed over
        with self._naming(""):
            while data:
                data = data[os.write(self._file, data) :]

    def end_file(self) -> None:
        if self._file >= 0:
            if self._file_mode & 0o6000:
                with contextlib.suppress(OSError):  # writing takes these bits away
                    os.fchmod(self._file, self._file_mode)
            with contextlib.suppress(OSError, OverflowError, ValueError):  # a time that the file system cannot hold
                os.utime(self._file, (self._file_mtime, self._file_mtime))
            os.close(self._file)
            self._file = -1

    def symbolic_link(self, name: str, target: str) -> None:
        """Any `target`, as it is: a link is only text, and later entries do not go through one that leads out."""
        parts = self._parts(name)
        if not target or "\0" in target:
            raise Refused("invalid_argument", f"{printable(name)} is a link to nothing")
        with self._naming(name):
            parent = self._make_way(parts, name)
            os.symlink(target, parts[-1], dir_fd=parent)
            os.chown(parts[-1], *self._owner, dir_fd=parent, follow_symlinks=False)

    def hard_link(self, name: str, target: str) -> None:
        """`target` is the name of an entry that came before."""
        parts, origin = self._parts(name), self._parts(target)
        if not origin:
            raise self._leaves(name, target)
        if parts == origin:
            return
        with self._naming(name):
            source = os.dup(self._open_parent(origin))
            try:
                parent = self._make_way(parts, name)
                os.link(origin[-1], parts[-1], src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(source)

    def finish(self) -> Generator[None]:
        """Sets the modes and times of the folders made, the inner ones first."""
        for count, (parts, mode, mtime) in enumerate(reversed(self._dressed)):
            with contextlib.suppress(OSError, OverflowError, ValueError, Refused):  # moved away meanwhile
                fd = open_folder(parts[-1], self._open_parent(parts)) if parts else os.dup(self._top)
                try:
                    os.fchmod(fd, mode)
                    os.utime(fd, (mtime, mtime))
                finally:
                    os.close(fd)
            if count % _STEP == 0:
                yield

    def close(self) -> None:
        """Also in the middle of a file: what there is of it goes."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            if self._file_place is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._file_place[1], dir_fd=self._file_place[0])
        self._forget_parent()
        if self._top >= 0:
            os.close(self._top)
            self._top = -1

    def _parts(self, name: str) -> tuple[str, ...]:
        if name.startswith("/") or "\0" in name or len(name) > _MAX_NAME:
            raise Refused("invalid_argument", f"the archive has an illegal name: {printable(name)}")
        parts = tuple(word for word in name.split("/") if word not in ("", "."))
        if ".." in parts:
            raise Refused("invalid_argument", f"the archive has a name with '..': {printable(name)}")
        return parts

    def _make_way(self, parts: tuple[str, ...], name: str) -> int:
        """The parent folder, after whatever had this name in it and is no folder was removed."""
        if not parts:
            raise Refused("invalid_argument", "the archive has an entry without a name")
        parent = self._open_parent(parts)
        try:
            os.unlink(parts[-1], dir_fd=parent)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            raise Refused("conflict", f"{printable(os.path.join(self._path, name))} is a directory") from None
        return parent

    def _open_parent(self, parts: tuple[str, ...]) -> int:
        """Kept open, since an archive goes folder by folder; missing folders are made."""
        above = parts[:-1]
        if self._parent is not None and self._parent[0] == above:
            return self._parent[1]
        fd = self._descend(above)
        self._forget_parent()
        self._parent = (above, fd)
        return fd

    def _descend(self, above: tuple[str, ...]) -> int:
        fd = os.dup(self._top)
        for index, word in enumerate(above):
            try:
                try:
                    inner = open_folder(word, fd)
                except FileNotFoundError:
                    os.mkdir(word, 0o755, dir_fd=fd)
                    os.chown(word, *self._owner, dir_fd=fd, follow_symlinks=False)
                    inner = open_folder(word, fd)
                except OSError as error:
                    if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                        raise
                    inner = self._through_link(above[: index + 1])
            finally:
                os.close(fd)
            fd = inner
        return fd

    def _through_link(self, parts: tuple[str, ...]) -> int:
        """A folder that is a symbolic link is gone through if it leads to a folder inside."""
        path = os.path.join(self._real, *parts)
        real = os.path.realpath(path)
        if real != self._real and not real.startswith(self._real.rstrip("/") + "/"):
            raise Refused("conflict", f"{printable(path)} leads out of the folder")
        if not stat.S_ISDIR(os.lstat(real).st_mode):
            raise Refused("conflict", f"{printable(path)} is not a directory")
        fd = os.dup(self._top)
        for word in os.path.relpath(real, self._real).split("/"):
            try:
                inner = open_folder(word, fd)
            finally:
                os.close(fd)
            fd = inner
        return fd

    def _check_folder(self, parent: int, last: str, name: str) -> None:
        kind = os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode
        if stat.S_ISDIR(kind) or (stat.S_ISLNK(kind) and stat.S_ISDIR(os.stat(last, dir_fd=parent).st_mode)):
            return  # a link that leads out is refused when something is to go through it
        raise Refused("conflict", f"{printable(os.path.join(self._path, name))} is there and is not a directory")

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def _leaves(self, name: str, target: str) -> Refused:
        return Refused("invalid_argument", f"{printable(name)} is a link that leaves the archive: {printable(target)}")

    @contextlib.contextmanager
    def _naming(self, name: str) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise refusal(error, os.path.join(self._path, name)) from None
