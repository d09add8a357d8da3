"""`belljar setup`: engine, guest runtime and images, once per machine."""

import time
from typing import Annotated

import typer

from belljar.base.home import state_home
from belljar.base.units import format_duration
from belljar.cli.console import say
from belljar.model.errors import Error

__all__ = ("add_to",)


def add_to(app: typer.Typer) -> None:
    app.command("setup", epilog="Examples:  belljar setup   ·   belljar setup --refresh   ·   belljar setup --verify")(
        _setup
    )


def _setup(
    refresh: Annotated[bool, typer.Option("--refresh", help="Make the images from today's packages.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every byte with what was made.")] = False,
) -> None:
    """Make what sandboxes need; what is there already is kept.

    Each step says its seconds and what it downloaded. Ctrl-C stops it, and the next time goes on from there. The first sandbox
    does all this by itself, too.
    """
    import asyncio

    from belljar.base.log import set_up_logging
    from belljar.node.progress import PlainProgress
    from belljar.node.setup import damaged, set_up

    set_up_logging("warning")
    started = time.monotonic()
    try:
        asyncio.run(set_up(progress=PlainProgress(), refresh=refresh))
    except KeyboardInterrupt:
        say("stopped; what was finished is kept: belljar setup goes on from there")
        raise typer.Exit(130) from None
    if verify and (problems := damaged(state_home())):
        raise Error("\n  ".join(["damaged:", *problems]), hint="belljar setup makes what is damaged anew")
    say(f"all is there after {format_duration(time.monotonic() - started)}")
