"""`belljar sandbox shell`: a terminal in a sandbox."""

import typer

from belljar.cli import options, parse
from belljar.cli.choose import sandbox_named
from belljar.cli.pipes import exit_status
from belljar.cli.terminal import attached_terminal

__all__ = ("add_to",)

_SHELL = "command -v bash >/dev/null 2>&1 && exec bash -l; exec sh -l"


def add_to(app: typer.Typer) -> None:
    app.command("shell", epilog="Example:  belljar sandbox shell web")(_shell)


def _shell(
    ref: options.SandboxName, env: options.Env = None, user: options.User = None, cwd: options.Cwd = None
) -> None:
    """Open a login shell in a sandbox. Every key goes to it; Enter ~ . leaves a shell that hangs."""
    sandbox = sandbox_named(ref)
    words = ["/bin/sh", "-c", _SHELL]
    raise typer.Exit(exit_status(attached_terminal(sandbox, words, env=parse.env_of(env or []), user=user, cwd=cwd)))
