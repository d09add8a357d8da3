"""`belljar sandbox stats`: what a sandbox uses, once, over and over, or lately."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import pairwise
from typing import Annotated

import typer

import belljar
from belljar.base.units import format_size
from belljar.cli import options, parse
from belljar.cli.choose import sandbox_named
from belljar.cli.console import UsageProblem, print_data, print_json, table
from belljar.cli.interrupts import interruptible

__all__ = ("add_to",)

_HEAD = ("WHEN", "CPU", "MEMORY", "DISK", "RECEIVED", "SENT", "PROCESSES")
_WATCH_SECONDS = 2.0


def add_to(app: typer.Typer) -> None:
    app.command(
        "stats",
        epilog="Examples:  belljar sandbox stats web --watch   ·   belljar sandbox stats web --since 1h --json",
    )(_stats)


def _stats(
    ref: options.SandboxName,
    watch: Annotated[bool, typer.Option("--watch", help="Again every two seconds, until Ctrl-C.")] = False,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="What it used in the last 90s, 10m, 24h.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show what a sandbox uses now; with --since what it used lately, a line a point."""
    if watch and since is not None:
        raise UsageProblem("--watch and --since exclude each other")
    sandbox = sandbox_named(ref)
    if since is not None:
        _lately(sandbox.stats_history(parse.duration(since)), as_json=as_json)
    elif watch:
        with interruptible():
            _watched(sandbox, as_json=as_json)
    elif as_json:
        print_json(asdict(sandbox.stats()))
    else:
        stats = sandbox.stats()
        print_data(f"cpu        {stats.cpu_seconds:.2f} s of {stats.cpus:g} cores")
        print_data(f"memory     {format_size(stats.memory)} of {format_size(stats.memory_limit)}")
        print_data(f"disk       {format_size(stats.disk)}")
        print_data(f"processes  {stats.processes}")


def _watched(sandbox: "belljar.Sandbox", *, as_json: bool) -> None:
    """A line each time; `cpu` is what it took since the line before, of one core."""
    before: tuple[float, float] | None = None
    while True:
        stats, now = sandbox.stats(), time.monotonic()
        if as_json:
            print_data(json.dumps({"at": time.time()} | asdict(stats)))
        else:
            used = "" if before is None else _percent(stats.cpu_seconds - before[1], now - before[0])
            words = (used, format_size(stats.memory), format_size(stats.disk), str(stats.processes))
            print_data("cpu {:>6}   memory {:>9}   disk {:>9}   processes {}".format(*words))
        before = (now, stats.cpu_seconds)
        time.sleep(_WATCH_SECONDS)


def _lately(points: "Sequence[belljar.StatsPoint]", *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(point) for point in points])
        return
    rows = [
        (
            datetime.fromtimestamp(point.at).astimezone().isoformat(" ", "seconds"),
            _percent(point.cpu_seconds - before.cpu_seconds, point.at - before.at),
            *(format_size(point.memory), format_size(point.disk)),
            format_size(max(0, point.received_bytes - before.received_bytes)),
            *(format_size(max(0, point.sent_bytes - before.sent_bytes)), str(point.processes)),
        )
        for before, point in pairwise(points)
    ]
    table(_HEAD, rows)


def _percent(used: float, seconds: float) -> str:
    """Of one core."""
    return f"{100 * max(0.0, used) / max(seconds, 0.001):.0f} %"
