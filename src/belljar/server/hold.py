"""One server per state directory: who holds it, and how a `serve` takes over from an embedded one."""

import asyncio
import contextlib
import http.client
import os
import signal
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

from belljar.base.files import LockHeld, lock_file
from belljar.base.home import make_home, read_server_file
from belljar.base.log import get_logger
from belljar.base.tasks import in_thread
from belljar.model.errors import Conflict

__all__ = ("EMBEDDED", "SERVE", "HomeHeld", "held_home")

EMBEDDED = "embedded"
SERVE = "serve"
_LOCK = "lock"
_TAKE_OVER_SECONDS = 15.0
_PATIENCE_SECONDS = 3.0
_POLL = 0.05
_log = get_logger("server")


class HomeHeld(Conflict):
    """Another server has the state directory."""


@contextlib.asynccontextmanager
async def held_home(home: Path, *, role: str) -> AsyncGenerator[None]:
    """Holds the state directory. A `serve` has an embedded server leave first; its sandboxes stay.

    Raises HomeHeld, which names the other process.
    """
    make_home(home)
    with contextlib.ExitStack() as held:
        await _take(home, role, held)
        yield


async def _take(home: Path, role: str, held: contextlib.ExitStack) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    asked = killed = False
    while True:
        try:
            held.enter_context(lock_file(home / _LOCK, about=role))
            return
        except LockHeld as error:
            pid, _, other = error.holder.partition(" ")
        waited = loop.time() - started
        unwritten = not other and waited < 1.0  # it has the lock and is about to say who it is
        if not unwritten and (role == EMBEDDED or other != EMBEDDED or waited > _TAKE_OVER_SECONDS):
            raise HomeHeld(
                f"a server runs on {home} already: process {pid or '?'} ({other or 'unknown'})",
                hint="use it, end it with `belljar down`, or choose another state directory with BELLJAR_HOME",
            )
        if not unwritten and not asked:
            asked = True
            _log.info("taking over from the embedded server", pid=pid)
            await in_thread(_ask_to_leave, home)
        elif asked and not killed and waited > _PATIENCE_SECONDS and pid.isdigit():
            # It does not answer, in the middle of a set-up perhaps; it holds the lock, so the process id is its own.
            killed = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)
        await asyncio.sleep(_POLL)


def _ask_to_leave(home: Path) -> None:
    server = read_server_file(home)
    if server is None:
        return
    connection = _UnixConnection(server.socket)
    try:
        body = b'{"sandboxes": false}'
        connection.request("POST", "/v1/shutdown", body, {"content-type": "application/json"})
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        pass  # it may be gone already: the lock tells
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_PATIENCE_SECONDS)
        self.sock.connect(self._path)
