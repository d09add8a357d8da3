"""`belljar usage`: who used how much."""

import time
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

import belljar
from belljar.base.units import format_duration, format_size, parse_duration
from belljar.cli import options, parse
from belljar.cli.console import print_json, table
from belljar.model.usage import UsageEntry, entry_json

__all__ = ("add_to",)

_HEAD = ("RAN", "CPU", "MEMORY GIB·S", "DISK GIB·S", "RECEIVED", "SENT")


class _By(StrEnum):
    SANDBOX = "sandbox"
    HOUR = "hour"
    WORKSPACE = "workspace"


def add_to(app: typer.Typer) -> None:
    app.command(
        "usage",
        epilog="Examples:  belljar usage --from 7d   ·   belljar usage --by hour --from 1d   ·   belljar usage --by workspace",
    )(_usage)


def _usage(
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Since so long ago: 1h, 7d. Default: all that is kept.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Up to so long ago: 1d. Default: now.")
    ] = None,
    by: Annotated[_By, typer.Option("--by", help="What a line tells of.")] = _By.SANDBOX,
    workspace: Annotated[
        str | None, typer.Option("--workspace", help="Of this one alone; for the server's operators.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="At most so many lines.")] = None,
    as_json: options.Json = False,
) -> None:
    """Tell what sandboxes used: time, processor, memory, disk and network. Whole hours; `--json` has the exact numbers."""
    found = belljar.Usage.list(by=by.value, since=_ago(since), until=_ago(until), workspace=workspace, limit=limit)
    if as_json:
        print_json([entry_json(entry) for entry in found])
        return
    table((by.value.upper(), *_HEAD), [(_name(entry, by), *_cells(entry)) for entry in found])


def _ago(word: str | None) -> float | None:
    """Seconds since 1970."""
    return None if word is None else max(0.0, time.time() - parse_duration(parse.duration(word)))


def _name(entry: UsageEntry, by: _By) -> str:
    if entry.hour is not None:
        return datetime.fromtimestamp(entry.hour).astimezone().isoformat(" ", "minutes")
    return (entry.sandbox if by is _By.SANDBOX else entry.workspace) or ""


def _cells(entry: UsageEntry) -> tuple[str, ...]:
    return (
        *(format_duration(entry.running_seconds), format_duration(entry.cpu_seconds)),
        *(f"{entry.memory_gib_seconds:.1f}", f"{entry.disk_gib_seconds:.1f}"),
        *(format_size(entry.received_bytes), format_size(entry.sent_bytes)),
    )
