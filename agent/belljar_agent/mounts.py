"""Trees that the server puts over a path: each lies in a folder of ours on the sandbox's own disk, and is bound to its path.

Users share the agent's mount namespace, so they see it at once; what they write stays in it. A checkpoint has all of it, and each
clone its own. In plain mode nothing can be mounted: there the tree is put into the path itself, which must be empty.
"""

from __future__ import annotations

import os
import stat
from errno import EBUSY, ENOTEMPTY
from time import monotonic

from belljar_agent import arguments, system
from belljar_agent.api import Refused
from belljar_agent.files.change import remove_tree
from belljar_agent.files.landing import Landing
from belljar_agent.files.push import TreeSink
from belljar_agent.files.refusals import printable, refusal, refusing
from belljar_agent.files.tree import open_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from belljar_agent.api import Answer, Args, Context, Steps

__all__ = ("MountSink", "list_mounts", "tidy", "unmount")

_FOLDER = "/.belljar/mounts"
_SYSTEM = ("/", "/dev", "/proc", "/sys", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/run", "/tmp", "/.belljar")
_CLOSED = ("/.belljar/", "/proc/", "/sys/", "/dev/")
_MAX_LABEL = 200
_MOST = 64


class _Mount:
    """`path` as users know it, without links; `place` where the tree lies."""

    def __init__(self, path: str, label: str, place: str) -> None:
        self.path = path
        self.label = label
        self.place = place
        self.top: tuple[int, int] | None = None
        """The tree's own folder, known when it is there as a whole: tells whether it is what is mounted at the path."""


_MOUNTS: dict[str, _Mount] = {}
"""By path, those that are being made among them. Only this process changes it."""
_LEFT: list[str] = []
"""Folders of mounts that were given up in the middle: removed by the next operation, and in quiet moments."""
_MOMENT = 0.02
"""Seconds for which a quiet moment may hold the loop."""


class MountSink:
    """Takes the tree; owners and modes are the archive's. What goes wrong is told at the end, when all is cleared away."""

    def __init__(self, ctx: Context, args: Args) -> None:
        label = arguments.text(args, "label")
        if len(label) > _MAX_LABEL:
            raise Refused("invalid_argument", f"label has at most {_MAX_LABEL} characters")
        self._plain = _is_plain(ctx)
        path = _checked(ctx, args)
        if len(_MOUNTS) >= _MOST:
            raise Refused("limit_exceeded", f"{_MOST} trees are mounted already")
        place = ctx.resolve(path) if self._plain else f"{_FOLDER}/{os.urandom(8).hex()}"
        self._mount = _Mount(path, label, place)
        _prepare(place, self._plain)
        try:
            self._tree = TreeSink(Landing(place, (os.geteuid(), os.getegid()), dress_top=True, keep=not self._plain))
        except Refused:
            os.rmdir(place)
            raise
        self._refused: Refused | None = None
        self._taken = 0
        _MOUNTS[path] = self._mount

    @property
    def offset(self) -> int:
        return self._taken

    def write(self, data: memoryview) -> None:
        self._taken += len(data)
        if self._refused is None:
            try:
                self._tree.write(data)
            except Refused as refused:
                self._refused = refused
            except OSError as error:
                self._refused = refusal(error, self._mount.path)

    def finish(self) -> Answer | Steps:
        return self._finish()

    def abort(self) -> None:
        self._tree.abort()
        _MOUNTS.pop(self._mount.path, None)
        _LEFT.append(self._mount.place)
        if self._plain:
            tidy()  # its place is the path itself, which the next one needs

    def _finish(self) -> Steps:
        yield from _clear()
        try:
            if self._refused is not None:
                raise self._refused
            steps = self._tree.finish()
            answer = steps if isinstance(steps, dict) else (yield from steps)
            self._mount.top = _top_of(self._mount.place)
            if not self._plain:
                _bind(self._mount)
        except Refused:
            self._tree.abort()
            yield from remove_tree(self._mount.place)
            self._mount.top = None
            raise
        return answer


def unmount(ctx: Context, args: Args) -> Steps:
    """Takes it away, with what was written to it."""
    yield from _clear()
    path = _normal(args)
    mount = _MOUNTS.get(path) or _MOUNTS.get(os.path.realpath(path))
    if mount is None or mount.top is None:
        raise Refused("not_found", f"nothing of ours is mounted at {printable(path)}")
    if not _is_plain(ctx):
        _unbind(mount)
    del _MOUNTS[mount.path]
    yield from remove_tree(mount.place)
    return {}


def list_mounts(ctx: Context, args: Args) -> Steps:
    yield from _clear()
    return {"mounts": [{"path": each.path, "label": each.label} for each in _MOUNTS.values() if each.top is not None]}


def tidy() -> None:
    """In a quiet moment."""
    until = monotonic() + _MOMENT
    for _ in _clear():
        if monotonic() > until:
            return


def _is_plain(ctx: Context) -> bool:
    return bool(getattr(ctx, "plain", True))


def _normal(args: Args) -> str:
    path = arguments.text(args, "path")
    if not path.startswith("/") or len(arguments.encoded(path)) > 4096:
        raise Refused("invalid_argument", "a mount point is an absolute path of at most 4096 bytes")
    return os.path.normpath("/" + path.lstrip("/"))


def _checked(ctx: Context, args: Args) -> str:
    """The mount point behind all links, if something may be mounted there."""
    path = _normal(args)
    if not _is_plain(ctx):
        path = os.path.realpath(path)
    if path in _SYSTEM or path.startswith(_CLOSED):
        raise Refused("invalid_argument", f"nothing can be mounted over {printable(path)}")
    for other in _MOUNTS:
        if f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/"):
            raise Refused("conflict", f"{printable(other)} is mounted already")
    return path


def _prepare(place: str, plain: bool) -> None:
    """An empty folder that root alone can enter. Its own mode is the tree's, so that is one level up."""
    with refusing(place):
        if plain:
            os.makedirs(place, exist_ok=True)
            if os.listdir(place):
                raise OSError(ENOTEMPTY, "")
            return
        os.makedirs(_FOLDER, 0o700, exist_ok=True)
        os.chmod(_FOLDER, 0o700)
        os.mkdir(place, 0o700)


def _bind(mount: _Mount) -> None:
    """Goes to the mount point name by name, without following links, and mounts over where it stands: what somebody puts in
    place of a folder meanwhile is not what is covered.
    """
    with refusing(mount.path):
        fd = _walk(mount.path, make=True)
        try:
            for path in (*_SYSTEM, "/.belljar/run", "/.belljar/vol", _FOLDER):
                if os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(fd)):
                    raise Refused("invalid_argument", f"nothing can be mounted over {path}")
            os.fchdir(fd)
            try:
                system.mount(mount.place, ".", "", system.MS_BIND)
            finally:
                os.chdir("/")
        finally:
            os.close(fd)


def _unbind(mount: _Mount) -> None:
    with refusing(mount.path):
        fd = _walk(os.path.dirname(mount.path), make=False)
        name = os.path.basename(mount.path)
        try:
            here = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if (here.st_dev, here.st_ino) != mount.top:
                raise Refused("conflict", f"{printable(mount.path)} was moved or covered by somebody else")
            os.fchdir(fd)
            try:
                system.unmount(name, _UMOUNT_NOFOLLOW)
            except OSError as error:
                if error.errno == EBUSY:
                    raise Refused("conflict", f"{printable(mount.path)} is in use") from None
                raise
            finally:
                os.chdir("/")
        finally:
            os.close(fd)


_UMOUNT_NOFOLLOW = 8


def _walk(path: str, *, make: bool) -> int:
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for word in path.split("/"):
        if not word:
            continue
        try:
            try:
                inner = open_folder(word, fd)
            except FileNotFoundError:
                if not make:
                    raise
                os.mkdir(word, 0o755, dir_fd=fd)
                inner = open_folder(word, fd)
        finally:
            os.close(fd)
        fd = inner
    return fd


def _top_of(path: str) -> tuple[int, int]:
    with refusing(path):
        status = os.stat(path, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        raise Refused("conflict", f"{printable(path)} is not a directory")
    return status.st_dev, status.st_ino


def _clear() -> Steps:
    while _LEFT:
        if os.path.isdir(_LEFT[-1]):
            yield from remove_tree(_LEFT[-1])
        _LEFT.pop()
    return {}
