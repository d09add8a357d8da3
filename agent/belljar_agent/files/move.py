"""move: a rename, or between file systems a copy beside the target, a rename and the removal of the source."""

from __future__ import annotations

import errno
import os
import stat

from belljar_agent.api import Refused
from belljar_agent.files.change import remove_tree
from belljar_agent.files.refusals import printable, refusal, refusing
from belljar_agent.files.tree import walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from belljar_agent.api import Args, Context, Steps

__all__ = ("TEMPORARY", "beside", "copy_bytes", "move_path")

TEMPORARY = ".belljar-"
_CHUNK = 1 << 20


def move_path(ctx: Context, args: Args) -> Steps:
    """As `os.replace`."""
    source = ctx.resolve(args.get("source"))
    target = ctx.resolve(args.get("target"))
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise refusal(error, f"{source} → {target}") from None
        yield from _move_across(source, target)
    return {}


def beside(path: str) -> str:
    """A name that nobody uses in the same folder."""
    return os.path.join(os.path.dirname(path), TEMPORARY + os.urandom(8).hex())


def copy_bytes(source: int, target: int) -> Generator[None]:
    """From one descriptor to the other until the end."""
    while data := os.read(source, _CHUNK):
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
        yield


def _move_across(source: str, target: str) -> Steps:
    temporary = beside(target)
    with refusing(source):
        status = os.lstat(source)
    is_folder = stat.S_ISDIR(status.st_mode)
    if is_folder and os.path.realpath(target).startswith(os.path.realpath(source) + "/"):
        raise Refused("invalid_argument", f"{printable(target)} lies inside of what is moved")
    try:
        with refusing(f"{source} → {target}"):
            yield from _copy(source, temporary, status, {})
            if is_folder:
                yield from _copy_below(source, temporary)
                _dress(temporary, status)
            os.rename(temporary, target)
    except BaseException:
        _discard(temporary)
        raise
    if is_folder:
        yield from remove_tree(source)
    else:
        with refusing(source):
            os.unlink(source)
    return {}


def _copy_below(source: str, target: str) -> Generator[None]:
    links: dict[tuple[int, int], str] = {}
    folders: list[tuple[str, os.stat_result]] = []
    for found in walk(source):
        copy = os.path.join(target, found.path)
        yield from _copy(os.path.join(source, found.path), copy, found.status, links)
        if found.is_folder:
            folders.append((copy, found.status))
    for folder, status in reversed(folders):
        _dress(folder, status)


def _copy(source: str, target: str, status: os.stat_result, links: dict[tuple[int, int], str]) -> Generator[None]:
    """One entry, a folder without what is in it. Sockets are left out: nobody listens on a copy."""
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        os.mkdir(target, 0o700)
        return
    key = (status.st_dev, status.st_ino)
    if status.st_nlink > 1 and key in links:
        os.link(links[key], target, follow_symlinks=False)
        return
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(mode):
        yield from _copy_file(source, target)
    elif stat.S_ISSOCK(mode):
        return
    else:
        os.mknod(target, stat.S_IFMT(mode) | 0o600, status.st_rdev)
    _dress(target, status)
    if status.st_nlink > 1:
        links[key] = target
    yield


def _copy_file(source: str, target: str) -> Generator[None]:
    origin = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        copy = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            yield from copy_bytes(origin, copy)
        finally:
            os.close(copy)
    finally:
        os.close(origin)


def _dress(path: str, status: os.stat_result) -> None:
    """Owner, mode and times of the original. The owner first: changing it takes the set-uid bits away."""
    os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(path, stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _discard(path: str) -> None:
    """What was copied so far. In one go: a generator that is being closed must not yield."""
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            for _ in remove_tree(path):
                pass
        else:
            os.unlink(path)
    except (OSError, Refused):
        return
