"""`belljar mcp`: sandboxes as tools for a model's client."""

import importlib.util
import json
import os
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from belljar.base.files import write_atomic
from belljar.base.units import parse_duration
from belljar.cli import options, parse
from belljar.cli.console import UsageProblem, fail, print_data, print_json, say
from belljar.model.errors import InvalidArgument

if TYPE_CHECKING:
    from belljar.integrations.mcp import Policy

__all__ = ("add_to",)

_PORT = 8586
_LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")
_WILDCARDS = ("0.0.0.0", "::", "")
_OF_THIS_MACHINE = ("BELLJAR_HOME", "BELLJAR_URL", "BELLJAR_API_KEY", "BELLJAR_CACHE")
"""Clients start their servers with few variables: a configuration names these, where they are set."""


class Client(StrEnum):
    """Whose form of configuration."""

    CLAUDE = "claude"
    CURSOR = "cursor"
    VSCODE = "vscode"


@dataclass(frozen=True, slots=True)
class _Listener:
    """How HTTP is spoken. `hosts`: names under which clients come."""

    host: str
    port: int
    hosts: tuple[str, ...]
    tls_cert: Path | None
    tls_key: Path | None
    insecure: bool
    as_json: bool


def add_to(app: typer.Typer) -> None:
    app.command(
        "mcp",
        epilog="Examples:  belljar mcp   ·   belljar mcp --network none --memory 512MiB   ·   "
        "belljar mcp --print-config claude   ·   belljar mcp --http --token-file token",
    )(_mcp)


def _mcp(
    image: Annotated[
        list[str] | None,
        typer.Option("--image", "-i", help="Image (code); several: the model may choose, the first is the default."),
    ] = None,
    cpu: options.Cpu = None,
    memory: options.Memory = None,
    disk: options.Disk = None,
    network: options.Network = "open",
    lifetime: Annotated[
        str, typer.Option("--lifetime", callback=parse.duration, help="A sandbox ends so long after its start.")
    ] = "24h",
    idle: Annotated[
        str, typer.Option("--idle", callback=parse.duration, help="A sandbox ends so long after its last call.")
    ] = "1h",
    sandboxes: Annotated[int, typer.Option("--max-sandboxes", help="So many at once.")] = 5,
    calls: Annotated[int, typer.Option("--max-calls", help="So many calls at once; others wait.")] = 8,
    timeout: Annotated[
        str,
        typer.Option(
            "--timeout", callback=parse.duration, help="A command is stopped after this, unless it asks for more."
        ),
    ] = "60s",
    max_timeout: Annotated[
        str, typer.Option("--max-timeout", callback=parse.duration, help="What a command may ask for at most.")
    ] = "10m",
    output: Annotated[int, typer.Option("--output", help="Characters of each stream that an answer shows.")] = 30_000,
    all_sandboxes: Annotated[
        bool, typer.Option("--all-sandboxes", help="Also sandboxes that were not made here, by id or name.")
    ] = False,
    http: Annotated[bool, typer.Option("--http", help="Streamable HTTP at /mcp instead of stdin and stdout.")] = False,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 picks a free one.")] = _PORT,
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", help="Name or address under which clients reach it; may be repeated."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="Token of clients; made when the file is missing."),
    ] = None,
    token_env: Annotated[
        str | None, typer.Option("--token-env", metavar="NAME", help="Variable that holds the token.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow other machines without TLS.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --http: one line of JSON on stdout when it is ready.")
    ] = False,
    print_config: Annotated[
        Client | None, typer.Option("--print-config", help="Print what this client's configuration needs, and leave.")
    ] = None,
) -> None:
    """Serve sandboxes to a model's client, by the Model Context Protocol.

    Speaks over stdin and stdout, as clients on this machine want it, or over HTTP with a token. The model gets tools to make
    sandboxes, run code and commands and handle files in them; nothing of this machine is in reach, and only sandboxes that this
    server made. They end with it.
    """
    if print_config is not None:
        print_json(_configuration(print_config, sys.argv[1:]))
        return
    if importlib.util.find_spec("mcp") is None:
        fail("belljar mcp needs the Python package mcp", hint="pip install 'belljar[mcp]'")
    import asyncio

    from belljar.integrations.mcp import Policy  # with pydantic and the protocol: a second that no other command pays

    policy = Policy(
        images=tuple(image or ("code",)),
        cpu=1.0 if cpu is None else cpu,
        memory=memory or "1GiB",
        disk=disk or "10GiB",
        network=network,
        lifetime=parse_duration(lifetime),
        idle=parse_duration(idle),
        sandboxes=sandboxes,
        calls=calls,
        timeout=parse_duration(timeout),
        max_timeout=max(parse_duration(max_timeout), parse_duration(timeout)),
        output=output,
        default_sandbox=not http,
        all_sandboxes=all_sandboxes,
    )
    if http:
        hosts = _hosts(host, domain or [])
        listener = _Listener(host, port, hosts, tls_cert, tls_key, insecure, as_json)
        work = _http(policy, listener, _token(token_file, token_env))
    else:
        work = _stdio(policy)
    raise typer.Exit(asyncio.run(_until_signal(work)))


def _hosts(host: str, domains: Sequence[str]) -> tuple[str, ...]:
    """Names that a request's Host header may have."""
    named = [f"[{name}]" if ":" in name and not name.startswith("[") else name for name in domains]
    if host in _LOOPBACK_HOSTS:
        return (*_loopback(), *named)
    if host in _WILDCARDS and not named:
        raise UsageProblem(
            f"--host {host or '(empty)'} is every address of this machine: under which name do clients come?",
            f"belljar mcp --http --host {host} --domain NAME",
        )
    own = [] if host in _WILDCARDS else [f"[{host}]" if ":" in host else host]
    return (*own, *named)


def _loopback() -> tuple[str, ...]:
    from belljar.integrations.mcp.http import LOOPBACK

    return LOOPBACK


def _token(file: Path | None, variable: str | None) -> str:
    """From where the operator says, else a new one, which is told on stderr."""
    if file is not None and variable is not None:
        raise UsageProblem("--token-file or --token-env, not both")
    if variable is not None:
        token = os.environ.get(variable, "")
        if not token:
            raise InvalidArgument(f"--token-env {variable}: it is not set here", hint=f"export {variable}=…")
        return token
    if file is not None and file.exists():
        return file.read_text().strip()
    token = secrets.token_urlsafe(32)
    if file is not None:
        write_atomic(file, f"{token}\n".encode(), mode=0o600)
        say(f"made a token: {file}")
    else:
        say(f"token: {token}")
    return token


async def _until_signal(work: Callable[[], Awaitable[None]]) -> int:
    """The status. The first signal ends the work in order; until it has, others are not heard."""
    import asyncio

    loop = asyncio.get_running_loop()
    heard: list[int] = []
    working = asyncio.ensure_future(work())

    def stop(number: int) -> None:
        if not heard:
            working.cancel()
        heard.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    try:
        await working
    except asyncio.CancelledError:
        if not heard:
            raise
    return 130 if heard[:1] == [signal.SIGINT] else 0


def _stdio(policy: "Policy") -> Callable[[], Awaitable[None]]:
    from belljar.integrations.mcp import opened, serve_stdio

    async def work() -> None:
        async with opened(policy) as server:
            await serve_stdio(server)

    return work


def _http(policy: "Policy", listener: _Listener, token: str) -> Callable[[], Awaitable[None]]:
    import asyncio

    from belljar.integrations.mcp import http_app, opened
    from belljar.integrations.mcp.http import PATH
    from belljar.server.listen import Tls, check_address, serving, tcp_socket

    if (listener.tls_cert is None) != (listener.tls_key is None):
        raise InvalidArgument("TLS needs both --tls-cert and --tls-key")
    tls = Tls(listener.tls_cert, listener.tls_key) if listener.tls_cert and listener.tls_key else None
    check_address(listener.host, tls=tls, insecure=listener.insecure)

    async def work() -> None:
        async with opened(policy) as server, http_app(server, token, listener.hosts) as app:
            with tcp_socket(listener.host, listener.port) as made:
                async with serving(app, [made], listener="mcp", tls=tls):
                    url = f"{'https' if tls else 'http'}://{_reached_at(listener)}:{made.getsockname()[1]}{PATH}"
                    say(f"listening on {url}")
                    if listener.as_json:
                        print_data(json.dumps({"url": url, "pid": os.getpid()}))
                    await asyncio.Event().wait()

    return work


def _reached_at(listener: _Listener) -> str:
    if listener.host in _WILDCARDS:
        return listener.hosts[0]
    return f"[{listener.host}]" if ":" in listener.host else listener.host


def _configuration(client: Client, words: Sequence[str]) -> dict[str, Any]:
    """The same command line as this one's, without the wish to print it."""
    left: list[str] = []
    skip = False
    for word in words:
        if not skip and word != "--print-config" and not word.startswith("--print-config="):
            left.append(word)
        skip = not skip and word == "--print-config"
    environ = {name: os.environ[name] for name in _OF_THIS_MACHINE if os.environ.get(name)}
    entry: dict[str, Any] = {"command": _this_command(), "args": left, "env": environ}
    if client is Client.VSCODE:
        return {"servers": {"belljar": {"type": "stdio", **entry}}}
    return {"mcpServers": {"belljar": entry}}


def _this_command() -> str:
    """By its whole path: clients seldom have this shell's PATH."""
    beside = Path(sys.executable).with_name("belljar")
    return str(beside) if beside.exists() else str(Path(sys.argv[0]).absolute())
