"""``python -m belljar.server``: reads the command line, runs the server, says what went wrong in words."""

import argparse
import asyncio
import json
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import SecretStr

from belljar.base.home import ServerFile, state_home
from belljar.base.log import set_up_logging
from belljar.model.errors import Error, Internal, InvalidArgument
from belljar.server.hold import HomeHeld
from belljar.server.listen import Tls
from belljar.server.machine import check_rights, open_node
from belljar.server.serve import Options, serve
from belljar.server.settings import Settings, read_settings
from belljar.server.unit import unit

__all__ = ("EXIT_HELD", "main", "run_server")

EXIT_HELD = 75
"""Another server has the state directory: whoever wanted one can use that."""
_GIVE_WAY_SECONDS = 0.001
"""So long the event loop, or any other thread, keeps the interpreter while another one waits for it. Of its own 5 ms
each row that is read costs one: beside a loop that never rests twenty rows took 21 ms, and take 10."""


def main(words: Sequence[str] | None = None) -> int:
    """The exit status: 0 after an ordered end, 75 when another server runs, else 1."""
    parser = _parser()
    said = parser.parse_args(words)
    if said.print_unit:
        sys.stdout.write(unit(sys.executable))
        return 0
    home = state_home()
    try:
        settings = read_settings(home)
        if said.database:
            settings = settings.model_copy(update={"database": SecretStr(said.database)})
        return run_server(_options(said, settings, home), settings, as_json=said.json)
    except Error as error:
        return _report(error)
    except OSError as error:
        # Of the state directory itself: a full disk, a folder that cannot be made.
        return _report(Internal(f"the server cannot run on {home}: {error}"))


def run_server(options: Options, settings: Settings, *, as_json: bool = False) -> int:
    """Runs it to its end. Raises Error when it cannot start."""
    set_up_logging(settings.log_level)
    os.umask(0o077)  # the state directory can be passed through: nothing in it is for others unless it says so
    check_rights(settings)
    _allow_many_files()
    sys.setswitchinterval(_GIVE_WAY_SECONDS)

    def ready(server: ServerFile) -> None:
        url = server.url or f"unix://{server.socket}"
        print(f"listening on {url}", file=sys.stderr, flush=True)  # noqa: T201
        if as_json:
            print(json.dumps({"url": url, "pid": server.pid, "state": str(options.home)}), flush=True)  # noqa: T201

    asyncio.run(serve(options, settings, open_node, ready))
    return 0


def _allow_many_files() -> None:
    """Each sandbox and each client holds some; the soft limit of 1,024 is for programs that still use select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _report(error: Error) -> int:
    print(f"belljar: {error}", file=sys.stderr, flush=True)  # noqa: T201
    return EXIT_HELD if isinstance(error, HomeHeld) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="belljar serve", description="Run a Belljar server in the foreground.")
    parser.add_argument("--embedded", action="store_true", help="the unix socket alone; leave when nobody needs it")
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (8585); 0 picks a free one")
    parser.add_argument("--insecure", action="store_true", help="allow other machines without TLS")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE")
    parser.add_argument("--tls-key", type=Path, metavar="FILE")
    parser.add_argument("--domain", help="the name under which clients reach this server")
    parser.add_argument("--database", metavar="URL", help="postgresql://…; without: a file in the state directory")
    parser.add_argument("--json", action="store_true", help="say on stdout, as one line of JSON, when it is ready")
    parser.add_argument("--print-unit", action="store_true", help="print a systemd unit and end")
    return parser


def _options(said: argparse.Namespace, settings: Settings, home: Path) -> Options:
    if (said.tls_cert is None) != (said.tls_key is None):
        raise InvalidArgument("TLS needs both --tls-cert and --tls-key")
    port = settings.port if said.port is None else said.port
    if not 0 <= port <= 65535:
        raise InvalidArgument(f"a port lies between 0 and 65535, not {port}")
    return Options(
        home=home,
        embedded=said.embedded,
        host=said.host or settings.host,
        port=port,
        insecure=said.insecure,
        tls=Tls(said.tls_cert, said.tls_key) if said.tls_cert else None,
        domain=said.domain,
    )
