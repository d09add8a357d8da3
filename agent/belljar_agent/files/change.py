"""remove, chmod and chown, also of whole trees."""

from __future__ import annotations

import errno
import os
import stat

from belljar_agent import arguments
from belljar_agent.api import Refused
from belljar_agent.files.refusals import refusal, refusing
from belljar_agent.files.tree import Found, Place, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from belljar_agent.api import Args, Context, Steps

__all__ = ("change_mode", "change_owner", "remove_path", "remove_tree")

_STEP = 128
_ATTEMPTS = 5


def remove_path(ctx: Context, args: Args) -> Steps:
    """A file, link or empty folder; a tree with `recursive`."""
    path = ctx.resolve(args.get("path"))
    recursive = arguments.flag(args, "recursive")
    if path == "/":
        raise Refused("invalid_argument", "the root itself cannot be removed")
    try:
        with refusing(path):
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                os.unlink(path)
            elif recursive:
                yield from remove_tree(path)
            else:
                os.rmdir(path)
    except Refused as refused:
        if refused.code != "not_found" or not arguments.flag(args, "missing_ok"):
            raise
    return {}


def remove_tree(path: str) -> Steps:
    """Removes what is there, a few entries at a time. What others put in meanwhile goes too, but not for ever."""
    for _ in range(_ATTEMPTS):
        yield from _empty(path)
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise refusal(error, path) from None
        else:
            return {}
    raise refusal(OSError(errno.ENOTEMPTY, ""), path)


def _empty(path: str) -> Generator[None]:
    """Each folder is read once: its files go at once, its folders one after the other."""
    place = Place(path)
    levels: list[tuple[str, list[str]]] = []
    name = ""
    try:
        while True:
            folders: list[str] = []
            yield from _remove_files(place.fd, path, folders)
            levels.append((name, folders))
            while True:
                if levels[-1][1]:
                    name = levels[-1][1].pop()
                    try:
                        place.down(name)
                    except OSError:
                        continue  # gone, or no folder any more: the next attempt finds it
                    break
                name, _ = levels.pop()
                if not levels:
                    return
                place.up()
                _remove_empty(place.fd, name, path)
    finally:
        place.close()


def _remove_files(fd: int, path: str, folders: list[str]) -> Generator[None]:
    with os.scandir(fd) as entries:
        for count, entry in enumerate(entries):
            try:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                else:
                    os.unlink(entry.name, dir_fd=fd)
            except (FileNotFoundError, IsADirectoryError):
                continue
            except OSError as error:
                raise refusal(error, f"{path}/…/{entry.name}") from None
            if count % _STEP == 0:
                yield


def _remove_empty(fd: int, name: str, path: str) -> None:
    try:
        os.rmdir(name, dir_fd=fd)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise refusal(error, f"{path}/…/{name}") from None


def change_mode(ctx: Context, args: Args) -> Steps:
    path = ctx.resolve(args.get("path"))
    mode = arguments.number(args, "mode", 0, most=0o7777)
    if "mode" not in args:
        raise Refused("invalid_argument", "mode is missing")
    with refusing(path):
        os.chmod(path, mode)

    def change(found: Found) -> None:
        if not stat.S_ISLNK(found.status.st_mode):
            os.chmod(found.name, mode, dir_fd=found.fd)

    return (yield from _each(path, change)) if arguments.flag(args, "recursive") else {}


def change_owner(ctx: Context, args: Args) -> Steps:
    path = ctx.resolve(args.get("path"))
    uid, gid = ctx.uid_gid(args.get("user"))
    with refusing(path):
        os.chown(path, uid, gid)

    def change(found: Found) -> None:
        os.chown(found.name, uid, gid, dir_fd=found.fd, follow_symlinks=False)

    return (yield from _each(path, change)) if arguments.flag(args, "recursive") else {}


def _each(path: str, change: Callable[[Found], None]) -> Steps:
    """Below a folder; nothing for a file. What vanishes meanwhile is fine."""
    if not os.path.isdir(path):
        return {}
    for count, found in enumerate(walk(path)):
        try:
            change(found)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise refusal(error, os.path.join(path, found.path)) from None
        if count % _STEP == 0:
            yield
    return {}
