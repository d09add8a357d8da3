"""`belljar sandbox exec`: a command in a sandbox that is there."""

import contextlib
import signal
from collections.abc import Mapping
from typing import Annotated

import typer

import belljar
from belljar.base.units import parse_duration
from belljar.cli import options, parse
from belljar.cli.choose import sandbox_named
from belljar.cli.console import say
from belljar.cli.deadline import Deadline
from belljar.cli.interrupts import Interrupted, interruptible
from belljar.cli.pipes import exit_status, follow, give_stdin, stdin_is_ours
from belljar.cli.terminal import attached_terminal
from belljar.model.errors import Error, NotFound, PermissionDenied

__all__ = ("add_to", "started")

_NOT_FOUND, _NOT_PERMITTED, _TIMED_OUT = 127, 126, 124


def add_to(app: typer.Typer) -> None:
    app.command(
        "exec",
        context_settings={"allow_interspersed_args": False},
        epilog="Examples:  belljar sandbox exec web ls -l /   ·   belljar sandbox exec -t web python3   ·   "
        "tar c . | belljar sandbox exec web tar x -C /srv",
    )(_exec)


def _exec(
    ref: options.SandboxName,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND…", help="The command and its arguments.")],
    env: options.Env = None,
    user: options.User = None,
    cwd: options.Cwd = None,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Give it a terminal, joined with this one.")] = False,
    timeout: Annotated[
        str | None, typer.Option("--timeout", help="End it after this long, for example 5m (status 124).")
    ] = None,
) -> None:
    """Run a command in a sandbox. Output comes live, stdin and exit status pass through; Ctrl-C interrupts the command."""
    seconds = parse_duration(parse.duration(timeout)) if timeout else None
    sandbox = sandbox_named(ref)
    variables = parse.env_of(env or [])
    if command[0] == "--" and len(command) > 1:  # as people part options from a command
        command = command[1:]
    if tty:
        raise typer.Exit(exit_status(attached_terminal(sandbox, command, env=variables, user=user, cwd=cwd)))
    has_stdin = stdin_is_ours()
    with interruptible():
        process = started(sandbox, command, stdin=has_stdin, env=variables, user=user, cwd=cwd)
        if has_stdin:
            give_stdin(process)
        with Deadline(process, seconds) as deadline:
            status = _followed(process)
    raise typer.Exit(_TIMED_OUT if deadline.passed else exit_status(status))


def started(
    sandbox: "belljar.Sandbox",
    command: list[str],
    *,
    stdin: bool,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    cwd: str | None = None,
) -> "belljar.Process":
    """Leaves with 127 or 126, as a shell does, when the command is not there or may not be run."""
    try:
        return sandbox.popen(command, stdin=stdin, env=env, user=user, cwd=cwd)
    except NotFound as error:
        if error.code != "not_found":
            raise
        say(f"belljar: {error}")
        raise typer.Exit(_NOT_FOUND) from None
    except PermissionDenied as error:
        say(f"belljar: {error}")
        raise typer.Exit(_NOT_PERMITTED) from None


def _followed(process: "belljar.Process") -> int:
    try:
        return follow(process)
    except BaseException as error:
        number = error.signal if isinstance(error, Interrupted) else signal.SIGTERM
        with contextlib.suppress(Error):
            process.send_signal(number, group=True)
            process.wait(timeout=2)
        raise
