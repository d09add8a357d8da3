"""glob. Apart from the rest, because regular expressions take a while to load."""

from __future__ import annotations

import fnmatch
import os
import re

from belljar_agent import arguments
from belljar_agent.api import Refused
from belljar_agent.files.look import append_entry, page_limit
from belljar_agent.files.refusals import printable, refusing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from belljar_agent.api import Args, Context, Steps

__all__ = ("glob_files",)

_MAX_DEPTH = 256


def glob_files(ctx: Context, args: Args) -> Steps:
    """As pathlib's glob, depth first in the order of the names; the cursor is the last relative path of a page."""
    path = ctx.resolve(args.get("path"))
    parts = _pattern(arguments.text(args, "pattern"))
    limit = page_limit(args)
    cursor = arguments.optional_text(args, "cursor")
    after = None if cursor is None else () if cursor == "." else tuple(cursor.split("/"))
    with refusing(path):
        os.listdir(path)
    entries: list[dict[str, Any]] = []
    last: tuple[str, ...] = ()
    for match in _walk(path, parts, after):
        if match is None:
            yield
            continue
        if len(entries) == limit:
            return {"entries": entries, "next": "/".join(last) or "."}
        if append_entry(ctx, entries, os.path.join(path, *match)):
            last = match
    return {"entries": entries, "next": None}


def _pattern(pattern: str) -> list[re.Pattern[str] | None]:
    """One expression for each part of the path; None is ``**``."""
    words = [word for word in pattern.split("/") if word not in ("", ".")]
    if pattern.startswith("/") or not words or ".." in words:
        raise Refused("invalid_argument", f"a pattern is relative and has no '..', not {printable(pattern)}")
    if len(words) > _MAX_DEPTH:
        raise Refused("invalid_argument", f"a pattern has at most {_MAX_DEPTH} parts")
    return [None if word == "**" else re.compile(fnmatch.translate(word)) for word in words]


def _walk(
    top: str, parts: list[re.Pattern[str] | None], after: tuple[str, ...] | None
) -> Generator[tuple[str, ...] | None, None, None]:
    """The relative paths that match and come later than `after`; None where others may have their turn.

    `active` are the parts of the pattern that may match the next name: each folder is read once, whatever the pattern.
    """
    end = len(parts)
    start = _closure({0}, parts)
    if end in start and after is None:
        yield ()
    pending: list[tuple[tuple[str, ...], frozenset[int]]] = [((), start - {end})]
    while pending:
        path, active = pending.pop()
        if path and end in active and (after is None or path > after):
            yield path
        if not active - {end} or len(path) >= _MAX_DEPTH:
            continue
        inner: list[tuple[tuple[str, ...], frozenset[int]]] = []
        for name, is_folder in _names(os.path.join(top, *path)):
            following = _following(name, active, parts)
            if not is_folder:
                following &= {end}
            below = (*path, name)
            if following and (after is None or below >= after[: len(below)]):
                inner.append((below, following))
        pending += reversed(inner)
        yield None


def _following(name: str, active: frozenset[int], parts: list[re.Pattern[str] | None]) -> frozenset[int]:
    found: set[int] = set()
    for index in active:
        if index < len(parts):
            part = parts[index]
            if part is None:
                found.add(index)
            elif part.match(name):
                found.add(index + 1)
    return _closure(found, parts) if found else frozenset()


def _closure(active: set[int], parts: list[re.Pattern[str] | None]) -> frozenset[int]:
    """``**`` also matches nothing, so what follows it may match too."""
    found = set(active)
    for index in range(len(parts)):
        if index in found and parts[index] is None:
            found.add(index + 1)
    return frozenset(found)


def _names(folder: str) -> list[tuple[str, bool]]:
    try:
        with os.scandir(folder) as found:
            return sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
    except OSError:
        return []  # not readable, or gone: pathlib passes it over too
