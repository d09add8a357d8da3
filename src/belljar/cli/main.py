"""The `belljar` command: reads the line, calls the command, and turns every error into words and a status."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import belljar
from belljar.cli import (
    audit,
    backup,
    doctor,
    env,
    events,
    key,
    mcp,
    run,
    sandbox,
    server,
    setup,
    snapshot,
    template,
    usage,
    workspace,
)
from belljar.cli.completion import complete_for, names_a_shell
from belljar.cli.console import UsageProblem, print_data, say
from belljar.cli.interrupts import Interrupted
from belljar.cli.suggest import did_you_mean
from belljar.model.errors import Error
from belljar.sdk.patience import listen

__all__ = ("app", "main")


class _Group(TyperGroup):
    """Names the whole corrected command when a command is unknown."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.parent is None and names_a_shell(args):
            complete_for(args, ctx)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        known = ctx.resilient_parsing or word.startswith("-") or self.get_command(ctx, word) is not None
        if not known:
            raise UsageProblem(f"there is no command {word!r}", did_you_mean(word, self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="belljar",
    cls=_Group,
    help="Sandboxes for the code of AI agents, inside gVisor, on your own machine.",
    epilog="Start with: belljar run script.py",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    suggest_commands=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
run.add_to(app)
server.add_to(app)
backup.add_to(app)
mcp.add_to(app)
setup.add_to(app)
doctor.add_to(app)
usage.add_to(app)
events.add_to(app)
env.add_to(app)
app.add_typer(sandbox.app, name="sandbox", cls=_Group)
app.add_typer(snapshot.app, name="snapshot", cls=_Group)
app.add_typer(template.app, name="template", cls=_Group)
app.add_typer(key.app, name="key", cls=_Group)
app.add_typer(workspace.app, name="workspace", cls=_Group)
app.add_typer(audit.app, name="audit", cls=_Group)


def _say_version(wanted: bool) -> None:
    if wanted:
        print_data(belljar.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Sandboxes for the code of AI agents, inside gVisor, on your own machine."""


def main() -> None:
    """Leaves with the command's status: 0, its own, 1 for a failure, 2 for a line that cannot be understood."""
    sys.exit(_status(lambda: typer.main.get_command(app).main(prog_name="belljar", standalone_mode=False)))


def _status(command: Callable[[], Any]) -> int:
    stop = listen(lambda line: say(f"  {line}"))
    try:
        status = command()
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except typer.TyperException as error:
        return _usage(error)
    except typer.Abort:
        return 1
    except Error as error:
        say(f"belljar: {error.message}" + (f"\n  hint: {error.hint}" if error.hint else ""))
        return 1
    except Interrupted as interrupted:
        if interrupted.signal == signal.SIGPIPE:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still to be flushed has no reader
        return 128 + interrupted.signal
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        say(f"belljar: {error}")
        return 1
    finally:
        stop()


def _usage(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    format_message = getattr(error, "format_message", None)
    message = format_message() if format_message is not None else str(error)
    if type(error).__name__ == "NoArgsIsHelpError":
        say(message)
        return 2
    hint = getattr(error, "hint", None)
    possible = getattr(error, "possibilities", None)
    if hint is None and possible:
        hint = did_you_mean(getattr(error, "option_name", ""), possible)
    if hint is None and context is not None:
        hint = f"{context.command_path} --help"
    say(f"belljar: {message}" + (f"\n  hint: {hint}" if hint else ""))
    return 2
