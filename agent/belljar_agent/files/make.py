"""mkdir, symlink, hardlink and touch: what is made belongs to the user named."""

from __future__ import annotations

import os

from belljar_agent import arguments
from belljar_agent.api import Refused
from belljar_agent.files.refusals import printable, refusing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from belljar_agent.api import Answer, Args, Context

__all__ = ("hard_link", "make_directory", "make_parents", "symbolic_link", "touch_file")


def make_directory(ctx: Context, args: Args) -> Answer:
    path = ctx.resolve(args.get("path"))
    mode = arguments.number(args, "mode", 0o777, most=0o7777)
    owner = ctx.uid_gid(args.get("user"))
    exist_ok = arguments.flag(args, "exist_ok")
    if arguments.flag(args, "parents"):
        make_parents(path, owner)
    with refusing(path):
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            if exist_ok and os.path.isdir(path):
                return {}
            raise
        os.chown(path, *owner, follow_symlinks=False)
        if mode & 0o7000:
            os.chmod(path, mode)  # mkdir itself may leave the special bits out
    return {}


def make_parents(path: str, owner: tuple[int, int]) -> None:
    """The folders above `path` that are missing."""
    missing: list[str] = []
    above = os.path.dirname(path)
    while above not in ("", "/") and not os.path.lexists(above):
        missing.append(above)
        above = os.path.dirname(above)
    for folder in reversed(missing):
        with refusing(folder):
            try:
                os.mkdir(folder, 0o777)
            except FileExistsError:
                continue  # somebody else was faster
            os.chown(folder, *owner, follow_symlinks=False)


def symbolic_link(ctx: Context, args: Args) -> Answer:
    path = ctx.resolve(args.get("path"))
    target = arguments.text(args, "target")  # as it is: a relative one is relative to the link
    arguments.encoded(target)
    owner = ctx.uid_gid(args.get("user"))
    with refusing(path):
        os.symlink(target, path)
        os.chown(path, *owner, follow_symlinks=False)
    return {}


def hard_link(ctx: Context, args: Args) -> Answer:
    path = ctx.resolve(args.get("path"))
    target = ctx.resolve(args.get("target"))
    with refusing(f"{path} → {target}"):
        os.link(target, path, follow_symlinks=False)
    return {}


def touch_file(ctx: Context, args: Args) -> Answer:
    """Makes an empty file, or sets the times of one that is there to now."""
    path = ctx.resolve(args.get("path"))
    owner = ctx.uid_gid(args.get("user"))
    exist_ok = arguments.flag(args, "exist_ok", True)
    with refusing(path):
        try:
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOCTTY, 0o666)
        except FileExistsError:
            if not exist_ok:
                raise Refused("already_exists", f"{printable(path)} is there already") from None
            os.utime(path)
            return {}
        try:
            os.fchown(made, *owner)
        finally:
            os.close(made)
    return {}
