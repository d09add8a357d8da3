"""`belljar audit …`: who changed what on a server."""

import contextlib
import re
import signal
import sys
import time
from collections.abc import Generator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

import belljar
from belljar.base.units import parse_duration
from belljar.cli import options, parse
from belljar.cli.console import UsageProblem, confirm, fail, print_data, print_json, say, table
from belljar.cli.interrupts import Interrupted, interruptible
from belljar.model.audit import MAX_LINE, START, Chain, entries_of, entry_json, verify

__all__ = ("app",)

app = typer.Typer(help="See who changed what on a server.", no_args_is_help=True, suggest_commands=False)
_HEAD = re.compile(r"([1-9][0-9]{0,18}):([0-9a-f]{64})")
_STDIO = "-"


@app.command("ls", epilog="Examples:  belljar audit ls --since 1h   ·   belljar audit ls -n 1000 --json")
def _list(
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only what is not older: 90s, 1h, 7d.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 50,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List changes, the newest first: who asked for what, from where, and what came of it."""
    at = None if since is None else time.time() - parse_duration(parse.duration(since))
    entries = list(belljar.AuditLog.list(since=at, limit=limit))
    if as_json:
        print_json([entry_json(entry) for entry in entries])
        return
    if quiet:
        for entry in entries:
            print_data(str(entry.seq))
        return
    rows = [
        (
            *(str(entry.seq), datetime.fromtimestamp(entry.at).astimezone().isoformat(" ", "seconds")),
            *(entry.key or entry.via, entry.peer or "", entry.method, entry.target),
            f"{entry.status} {entry.code}" if entry.code else str(entry.status),
        )
        for entry in entries
    ]
    table(("NUMBER", "WHEN", "WHO", "FROM", "WHAT", "ON", "OUTCOME"), rows)


@app.command(
    "export", epilog="Examples:  belljar audit export audit.jsonl   ·   belljar audit export - --after 5000 | gzip"
)
def _export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to; - is stdout.")],
    after: Annotated[int, typer.Option("--after", min=0, help="Only entries with a greater number.")] = 0,
    yes: options.Yes = False,
) -> None:
    """Write the audit log, an entry a line as JSON, the oldest first. Says what to note for `verify`."""
    if file == _STDIO:
        try:
            with interruptible():
                last = belljar.AuditLog.export(sys.stdout.buffer, after=after)
                sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise Interrupted(signal.SIGPIPE) from None
    else:
        target = Path(file)
        if not target.parent.is_dir():
            raise UsageProblem(f"there is no folder {str(target.parent)!r} here")
        if target.is_dir():
            raise UsageProblem(f"{file} is a folder", f"belljar audit export {target / 'audit.jsonl'}")
        if target.exists():
            confirm(f"Write over {target}?", yes=yes)
        with interruptible():
            last = belljar.AuditLog.export(target, after=after)
        print_data(str(target))
    say("there is no such entry" if last is None else f"the newest is --head {last.seq}:{last.hash}: note it elsewhere")


@app.command("verify", epilog="Examples:  belljar audit verify audit.jsonl   ·   cat old new | belljar audit verify -")
def _verify(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `export` wrote; - is stdin.")],
    head: Annotated[
        str | None,
        typer.Option("--head", metavar="NUMBER:HASH", help="An entry noted before: it must still be there."),
    ] = None,
) -> None:
    """Check that no entry of an export was changed, taken out or put in. Needs no server."""
    noted = None
    if head is not None:
        if (found := _HEAD.fullmatch(head)) is None:
            raise UsageProblem(
                "--head is a number, a colon and 64 hexadecimal digits, as `belljar audit export` says it"
            )
        noted = int(found[1]), found[2]
    with _opened(file) as lines:
        chain = verify(entries_of(_bounded(lines)), noted=noted)
    if chain.broken is not None:
        fail(f"{file} does not hold: {chain.broken}", _so_far(chain))
    print_data(_so_far(chain))


def _so_far(chain: Chain) -> str:
    if chain.first is None or chain.last is None:
        return "there is no entry that holds" if chain.broken else "there is no entry"
    older = "" if chain.first.prev == START else f" (older than {chain.first.seq}: not here)"
    return (
        f"entries {chain.first.seq} to {chain.last.seq} hold{older}; the newest is {chain.last.seq}:{chain.last.hash}"
    )


@contextlib.contextmanager
def _opened(file: str) -> Generator[BinaryIO]:
    if file == _STDIO:
        yield sys.stdin.buffer
        return
    if not Path(file).is_file():
        raise UsageProblem(f"there is no file {file!r} here")
    with open(file, "rb") as lines:
        yield lines


def _bounded(lines: BinaryIO) -> Iterator[bytes]:
    """A file without ends of lines is not read as a whole."""
    while line := lines.readline(MAX_LINE + 1):
        yield line
