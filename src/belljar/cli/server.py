"""`belljar serve` and `belljar down`."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from belljar.base.files import LockHeld, lock_file
from belljar.base.home import ServerFile, read_server_file, state_home
from belljar.cli import options
from belljar.cli.console import confirm, fail, say
from belljar.model.errors import Error

__all__ = ("add_to",)

_GRACE_SECONDS = 30.0
_SANDBOXES_SECONDS = 300.0


def add_to(app: typer.Typer) -> None:
    app.command(
        "serve", epilog="Examples:  belljar serve   ·   belljar serve --port 0 --json   ·   belljar serve --print-unit"
    )(_serve)
    app.command("down", epilog="Examples:  belljar down   ·   belljar down --purge --yes")(_down)


def _serve(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port (8585); 0 picks a free one.")] = None,
    domain: Annotated[str | None, typer.Option("--domain", help="Name under which clients reach it.")] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key.")] = None,
    database: Annotated[
        str | None, typer.Option("--database", metavar="URL", help="postgresql://…; without: a file in the state.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow other machines without TLS.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON on stdout when it is ready.")] = False,
    print_unit: Annotated[bool, typer.Option("--print-unit", help="Print a systemd unit and leave.")] = False,
) -> None:
    """Run a server in the foreground, with HTTP on loopback and API keys.

    SIGTERM or Ctrl-C ends the server; its sandboxes stay and the next server goes on with them.
    """
    from belljar.server.main import main  # the whole server: half a second that no other command pays

    words = {"--host": host, "--port": port, "--domain": domain, "--tls-cert": tls_cert, "--tls-key": tls_key}
    words |= {"--database": database}
    line = [word for name, value in words.items() if value is not None for word in (name, str(value))]
    flags = {"--insecure": insecure, "--json": as_json, "--print-unit": print_unit}
    raise typer.Exit(main([*line, *(name for name, given in flags.items() if given)]))


def _down(
    purge: Annotated[bool, typer.Option("--purge", help="Also remove all state: sandboxes, images, keys.")] = False,
    yes: options.Yes = False,
) -> None:
    """End the server of this state directory and all its sandboxes."""
    from belljar.base.proc import is_alive  # brings asyncio: 25 ms

    home = state_home()
    if purge:
        confirm(f"Remove {home} and everything in it?", yes=yes)
    server = read_server_file(home)
    if server is not None and is_alive(server.pid):
        _end(server)
        say(f"the server of {home} has ended, and its sandboxes with it")
    elif not purge:
        say(f"no server runs on {home}")
    if purge:
        left = _purge(home)
        say(f"{home} is removed")
        if left is not None:
            say(f"note: {left}")


def _end(server: ServerFile) -> None:
    """Asks it, through the socket; a server that does not answer gets SIGTERM, then SIGKILL."""
    asked = True
    try:
        _shut_down(server)
    except Error as error:
        say(f"the server does not answer ({error.message}): ending its process {server.pid}")
        asked = False
    for number, seconds in ((None, _GRACE_SECONDS), (signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, 5.0)):
        if number is None and not asked:
            continue
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.pid, number)
        if _wait_for_end(server.pid, seconds):
            return
    fail(f"the server's process {server.pid} does not end")


def _shut_down(server: ServerFile) -> None:
    from belljar.sdk._sync.link import Link
    from belljar.sdk.patience import Patience
    from belljar.sdk.places import Settings

    link = Link(Settings(url=f"unix://{server.socket}", key=None, home=state_home(), may_start=False))
    try:
        link.call("POST", "/v1/shutdown", json={"sandboxes": True}, timeout=_SANDBOXES_SECONDS, patience=Patience(0.0))
    finally:
        link.close()


def _wait_for_end(pid: int, seconds: float) -> bool:
    from belljar.base.proc import is_alive

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not is_alive(pid):
            return True
        time.sleep(0.02)
    return False


def _purge(home: Path) -> str | None:
    """Everything of it on the host and in its database, then the folder; what is left, in words. Raises Conflict while a server
    runs on it."""
    import asyncio

    from belljar.base.log import set_up_logging
    from belljar.node.instance import instance_of
    from belljar.node.purge import purge
    from belljar.server.machine import open_machine
    from belljar.server.settings import read_settings
    from belljar.server.stores import drop_store

    set_up_logging("warning")

    settings = read_settings(home)

    async def work() -> None:
        async with open_machine(settings, instance_of(home)) as machine:
            await purge(machine)

    if not home.exists():
        return None
    try:
        with lock_file(home / "lock", about="purge"):
            left = drop_store(settings, home)
            asyncio.run(work())
            return left
    except LockHeld as held:
        fail(f"a server runs on {home}: process {held.holder}", hint="belljar down, or end it where it was started")
