"""What is told of a file."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from belljar_agent.api import Context

__all__ = ("describe",)

_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}


def describe(ctx: Context, path: str, found: os.stat_result) -> dict[str, Any]:
    """`path` is where it is for this process."""
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "other")
    target = None
    if kind == "symlink":
        try:
            target = os.readlink(path)
        except OSError:
            target = None  # it went away, or became something else, between the two calls
    return {
        "path": ctx.shown(path),
        "kind": kind,
        "size": found.st_size,
        "mode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
        "user": ctx.user_name(found.st_uid),
        "group": ctx.group_name(found.st_gid),
        "mtime": found.st_mtime,
        "target": target,
    }
