"""stat and list."""

from __future__ import annotations

import os

from belljar_agent import arguments
from belljar_agent.api import Refused
from belljar_agent.files.entries import describe
from belljar_agent.files.refusals import refusing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from belljar_agent.api import Answer, Args, Context, Steps

__all__ = ("append_entry", "list_directory", "page_limit", "stat_file")

_MAX_PAGE = 1000
_STEP = 128


def stat_file(ctx: Context, args: Args) -> Answer:
    path = ctx.resolve(args.get("path"))
    try:
        with refusing(path):
            found = os.stat(path, follow_symlinks=arguments.flag(args, "follow", True))
    except Refused as refused:
        if refused.code == "conflict":  # a part of the path is no directory: then there is no such file
            raise Refused("not_found", refused.message) from None
        raise
    return describe(ctx, path, found)


def list_directory(ctx: Context, args: Args) -> Steps:
    """In the order of the names; the cursor is the last name of a page."""
    path = ctx.resolve(args.get("path"))
    limit = page_limit(args)
    cursor = args.get("cursor")
    if cursor is not None and not isinstance(cursor, str):
        raise Refused("invalid_argument", "cursor must be one that a page gave")
    with refusing(path):
        names = os.listdir(path)
    page = sorted(names if cursor is None else (name for name in names if name > cursor))[: limit + 1]
    more = page[limit - 1] if len(page) > limit else None
    entries: list[dict[str, Any]] = []
    for index, name in enumerate(page[:limit]):
        append_entry(ctx, entries, os.path.join(path, name))
        if index % _STEP == _STEP - 1:
            yield
    return {"entries": entries, "next": more}


def page_limit(args: Args) -> int:
    return max(1, min(arguments.number(args, "limit", _MAX_PAGE), _MAX_PAGE))


def append_entry(ctx: Context, entries: list[dict[str, Any]], path: str) -> bool:
    try:
        entries.append(describe(ctx, path, os.lstat(path)))
    except OSError:
        return False  # it went away meanwhile
    return True
