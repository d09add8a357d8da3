"""Sockets, and the HTTP servers on them."""

import asyncio
import contextlib
import grp
import ipaddress
import os
import resource
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from belljar.front.native.gate import LISTENER
from belljar.model.errors import Conflict, InvalidArgument, PermissionDenied
from belljar.server.http import Http, HttpServer

__all__ = ("GROUP", "MAX_CONNECTIONS", "Tls", "check_address", "serving", "tcp_socket", "unix_socket")

MAX_CONNECTIONS = 4096
"""Of a listener for which nobody has set another number."""
GROUP = "belljar"
_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 75
_GRACE_SECONDS = 1
_SHARE_OF_FILES = 4
"""One in so many of the files that this process may open is a connection of one listener, at most."""


@dataclass(frozen=True, slots=True)
class Tls:
    certificate: Path
    key: Path


def check_address(host: str, *, tls: Tls | None, insecure: bool) -> None:
    """Raises PermissionDenied for an address that others reach while nothing protects the key on its way."""
    if tls is not None or insecure:
        return
    try:
        addresses = {
            str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        }
    except OSError as error:
        raise InvalidArgument(f"no address {host!r}: {error.strerror}") from error
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise PermissionDenied(
            f"{host} is reached from other machines, and keys would travel in the clear",
            hint="give --tls-cert and --tls-key, or --insecure where something in front speaks TLS",
        )


def tcp_socket(host: str, port: int) -> socket.socket:
    """Listening; port 0 picks a free one. Raises Conflict, InvalidArgument."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise InvalidArgument(f"no address {host!r}: {error.strerror}") from error
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(_BACKLOG)
        made.setblocking(False)
    except OSError as error:
        made.close()
        raise Conflict(
            f"cannot listen on {host} port {port}: {error.strerror}",
            hint="choose another port, or --port 0 for a free one",
        ) from error
    return made


@contextlib.contextmanager
def unix_socket(path: Path, *, group: bool = False) -> Generator[socket.socket]:
    """Listening, and gone at the end. Only for this user, or with `group` also for the members of group belljar.

    The caller holds the state directory: a socket file that is there was left by a dead server.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755 if group else 0o700)
    if path.parent.stat().st_uid != os.geteuid():
        raise PermissionDenied(f"{path.parent} belongs to another user")
    if group:
        path.parent.chmod(0o755)  # whatever the umask: the socket's own mode says who may use it
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            made.bind(os.fspath(path))
        finally:
            os.umask(before)
        if group:
            with contextlib.suppress(KeyError):
                os.chown(path, 0, grp.getgrnam(GROUP).gr_gid)
                path.chmod(0o660)
        made.listen(_BACKLOG)
        made.setblocking(False)
        yield made
    finally:
        path.unlink(missing_ok=True)
        made.close()


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    sockets: list[socket.socket],
    *,
    listener: str,
    tls: Tls | None = None,
    connections: int = MAX_CONNECTIONS,
) -> AsyncGenerator[Callable[[], int]]:
    """Answers on the sockets until the end of the context, then cuts what still runs after a second.

    Gives a function that counts the open connections. `listener` is what the gate is told. Of more than so many `connections` the
    one that has been idle longest is closed; whoever asks while all are busy is told to try again.
    """
    config = uvicorn.Config(
        _Marked(app, listener),
        loop="asyncio",
        http=Http,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        # Longer than any client keeps an idle connection, so that it is not closed in the moment it is used again.
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"the certificate or its key cannot be used: {error}") from error
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    server = HttpServer(config, most=max(1, min(connections, files // _SHARE_OF_FILES)))
    task = asyncio.create_task(server.serve(sockets=sockets), name=f"http {listener}")
    try:
        while not (server.started or task.done()):  # noqa: ASYNC110 (it has no event for this)
            await asyncio.sleep(0.002)
        yield lambda: len(server.server_state.connections)
    finally:
        server.stop.set()
        await task
        if cut := tuple(server.server_state.tasks):  # it has cancelled them, and does not wait
            await asyncio.wait(cut, timeout=_GRACE_SECONDS)


class _Marked:
    """Says in the scope through which door a request came."""

    def __init__(self, app: ASGIApp, listener: str) -> None:
        self._app = app
        self._listener = listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[LISTENER] = self._listener
        await self._app(scope, receive, send)
