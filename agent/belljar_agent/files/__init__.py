"""The agent's file operations. See README.md."""

from __future__ import annotations

from belljar_agent.api import Refused
from belljar_agent.files import change, look, make, move, read, uploads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from belljar_agent.api import Answer, Args, Context, Operation, Sink, Source, Steps

__all__ = ("OPERATIONS", "close", "housekeeping", "open_sink", "open_source", "quiesce")


def _glob(ctx: Context, args: Args) -> Answer | Steps:
    from belljar_agent.files.pattern import glob_files

    return glob_files(ctx, args)


def _unmount(ctx: Context, args: Args) -> Answer | Steps:
    from belljar_agent.mounts import unmount

    return unmount(ctx, args)


def _mounts(ctx: Context, args: Args) -> Answer | Steps:
    from belljar_agent.mounts import list_mounts

    return list_mounts(ctx, args)


OPERATIONS: dict[str, Operation] = {
    "stat": look.stat_file,
    "list": look.list_directory,
    "glob": _glob,
    "mkdir": make.make_directory,
    "remove": change.remove_path,
    "move": move.move_path,
    "chmod": change.change_mode,
    "chown": change.change_owner,
    "symlink": make.symbolic_link,
    "hardlink": make.hard_link,
    "touch": make.touch_file,
    "uploaded": uploads.uploaded,
    "unmount": _unmount,
    "mounts": _mounts,
}


_MOUNTED: list[Callable[[], None]] = []
"""What tidies up after mounts, once there was one."""


def open_source(op: str, ctx: Context, args: Args) -> Source:
    """Raises Refused. What tar and inotify need is loaded when it is first asked for: the idle agent stays small."""
    if op == "read":
        return read.FileSource(ctx, args)
    if op == "pull":
        from belljar_agent.files.pull import TreeSource

        return TreeSource(ctx, args)
    if op == "watch":
        from belljar_agent.files.watch import ChangeSource

        return ChangeSource(ctx, args)
    raise Refused("not_supported", f"no such stream: {op}")


def open_sink(op: str, ctx: Context, args: Args) -> Sink:
    """Raises Refused."""
    if op == "write":
        return uploads.UploadSink(ctx, args)
    if op == "push":
        from belljar_agent.files.push import push_tree

        return push_tree(ctx, args)
    if op == "mount":
        from belljar_agent.mounts import MountSink, tidy

        _MOUNTED[:] = [tidy]
        return MountSink(ctx, args)
    raise Refused("not_supported", f"no such stream: {op}")


def housekeeping(now: float) -> None:
    """Once in a while (monotonic clock): unfinished uploads of which nothing was heard for long go, with their files."""
    uploads.UPLOADS.expire(now)
    for tidy in _MOUNTED:
        tidy()


def quiesce() -> None:
    """Before a checkpoint. Nothing needs an end: an upload's file and table go on in the clone."""


def close() -> None:
    """The agent ends: no temporary file stays."""
    uploads.UPLOADS.close()
