"""MCP over streamable HTTP: a token and checks of the headers in front of the official transport."""

import contextlib
import hmac
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings

from belljar.integrations.mcp.policy import MAX_REQUEST
from belljar.integrations.mcp.server import McpServer
from belljar.model.errors import InvalidArgument

__all__ = ("LOOPBACK", "MIN_TOKEN", "PATH", "Asgi", "http_app")

PATH = "/mcp"
MIN_TOKEN = 16
"""Characters that a token has at least."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

_SESSIONS = 200
_SESSION_SECONDS = 1800.0
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


@contextlib.asynccontextmanager
async def http_app(server: McpServer, token: str, hosts: Sequence[str]) -> AsyncGenerator[Asgi]:
    """An ASGI app that answers at /mcp those who bear the token. `hosts`: names under which clients may come.

    A page that a browser loaded from elsewhere has another Host or Origin: it is refused, also with the token.
    """
    if len(token) < MIN_TOKEN or not (token.isascii() and token.isprintable() and " " not in token):
        raise InvalidArgument(f"a token has at least {MIN_TOKEN} printable ASCII characters and no space")
    origins = [f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts]
    settings = TransportSecuritySettings(
        allowed_hosts=[name for host in hosts for name in (host, f"{host}:*")],
        allowed_origins=[name for origin in origins for name in (origin, f"{origin}:*")],
    )
    manager = StreamableHTTPSessionManager(
        server,
        security_settings=settings,
        max_request_body_size=MAX_REQUEST,
        session_idle_timeout=_SESSION_SECONDS,
        max_sessions=_SESSIONS,
    )
    async with manager.run():
        yield _Gate(manager.handle_request, token)


class _Gate:
    """Nothing of a request but its head is looked at before the token is found right."""

    def __init__(self, app: Asgi, token: str) -> None:
        self._app = app
        self._expected = f"bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"].rstrip("/") != PATH:
            await _refuse(send, 404, "not_found", f"MCP is at {PATH}")
        elif not self._knows(scope):
            await _refuse(send, 401, "unauthenticated", "send the header Authorization: Bearer TOKEN")
        else:
            await self._app(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        return hmac.compare_digest(scheme.lower() + b" " + token.strip(), self._expected)


async def _refuse(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="belljar"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
