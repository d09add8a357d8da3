"""What the command line says: data on stdout, all else on stderr; a table on a terminal, JSON for programs."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import typer

from belljar.base.units import format_duration
from belljar.cli.interrupts import Interrupted

__all__ = (
    "UsageProblem",
    "ago",
    "confirm",
    "fail",
    "is_terminal",
    "plain",
    "print_data",
    "print_json",
    "say",
    "table",
    "until",
)


class UsageProblem(typer.BadParameter):
    """The command line cannot be understood; `hint` is a line to try."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def format_message(self) -> str:
        """Without the parser's own words in front."""
        return self.message


def say(text: str) -> None:
    """A word to the person, on stderr."""
    with contextlib.suppress(BrokenPipeError):  # nobody listens
        print(plain(text, keep="\n"), file=sys.stderr, flush=True)  # noqa: T201


def fail(message: str, hint: str | None = None, *, code: int = 1) -> NoReturn:
    say(f"belljar: {message}" + (f"\n  hint: {hint}" if hint else ""))
    raise typer.Exit(code)


def print_data(text: str) -> None:
    """Raises Interrupted(SIGPIPE) when the reader of our output has gone."""
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        raise Interrupted(signal.SIGPIPE) from None


def print_json(value: Any) -> None:
    print_data(json.dumps(value, indent=2, ensure_ascii=True))


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def plain(text: str, *, keep: str = "") -> str:
    """Text from a sandbox may hold sequences that take over a terminal: control characters become U+FFFD."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else "\N{REPLACEMENT CHARACTER}" for letter in text)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """On a terminal with head and colours; else tab-separated lines without a head."""
    found = [[plain(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in found:
            print_data("\t".join(row))
        return
    from rich import box  # 60 ms, only here
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        drawn.add_column(column, no_wrap=number == 0, overflow="fold")  # an id is copied whole
    for row in found:
        drawn.add_row(*(Text(cell) for cell in row))
    Console(no_color="NO_COLOR" in os.environ, highlight=False).print(drawn)


def ago(at: float | None) -> str:
    return "" if at is None else f"{format_duration(max(0.0, time.time() - at))} ago"


def until(at: float | None) -> str:
    return "never" if at is None else f"in {format_duration(max(0.0, at - time.time()))}"


def confirm(question: str, *, yes: bool) -> None:
    """Asks on a terminal; without one `--yes` is needed. Leaves with status 1 on no."""
    if yes:
        return
    if not is_terminal():
        fail(f"{question} Nobody can answer here.", hint="add --yes", code=2)
    say(f"{question} [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        fail("left as it was")
