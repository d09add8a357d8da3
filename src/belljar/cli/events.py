"""`belljar events`: what happened to sandboxes, snapshots and templates."""

import json
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

import typer

import belljar
from belljar.base.units import parse_duration
from belljar.cli import options, parse
from belljar.cli.console import UsageProblem, plain, print_data, print_json, table
from belljar.cli.interrupts import interruptible
from belljar.model.events import Event, event_json

__all__ = ("add_to", "event_row")

_HEAD = ("NUMBER", "WHEN", "WHAT", "ON", "WHY")


def add_to(app: typer.Typer) -> None:
    app.command(
        "events",
        epilog="Examples:  belljar events --since 1h   ·   belljar events --kind sandbox.failed   ·   belljar events -f --json",
    )(_events)


def _events(
    sandbox: Annotated[
        str | None, typer.Option("--sandbox", "-s", help="Of this one: an id, or a living one's name.")
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", "-k", help="Such as sandbox.ended, or a noun: sandbox, snapshot, template."),
    ] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="Not older than: 90s, 1h, 7d.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Older than: 1d.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens from now on.")] = False,
    after: Annotated[
        int | None, typer.Option("--after", min=0, metavar="NUMBER", help="With --follow: begin behind this one.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List what happened, the newest first; with --follow as it comes, the oldest first (with --json one a line)."""
    if follow:
        if since or until:
            raise UsageProblem("--follow goes on from now, or from --after", "belljar events --follow --after 0")
        with interruptible():
            _follow(belljar.Events.follow(sandbox=sandbox, kind=kind, after=after), as_json=as_json)
        return
    if after is not None:
        raise UsageProblem("--after is for --follow", f"belljar events --follow --after {after}")
    found = belljar.Events.list(sandbox=sandbox, kind=kind, since=_ago(since), until=_ago(until), limit=limit)
    if as_json:
        print_json([event_json(event) for event in found])
    else:
        table(_HEAD, [event_row(event) for event in found])


def _follow(events: Iterable[Event], *, as_json: bool) -> None:
    for event in events:
        print_data(json.dumps(event_json(event)) if as_json else "\t".join(plain(cell) for cell in event_row(event)))


def event_row(event: Event) -> tuple[str, ...]:
    """Number, time, kind, what it is about, and why."""
    about = event.template if event.kind.startswith("template.") else None
    about = about or (event.snapshot if event.kind.startswith("snapshot.") else event.sandbox) or ""
    why = "  ".join(word for word in (event.reason, event.message) if word)
    named = f"{about} ({event.name})" if event.name else about
    return (
        str(event.seq),
        datetime.fromtimestamp(event.at).astimezone().isoformat(" ", "seconds"),
        event.kind,
        named,
        why,
    )


def _ago(word: str | None) -> float | None:
    """Seconds since 1970."""
    return None if word is None else max(0.0, time.time() - parse_duration(parse.duration(word)))
