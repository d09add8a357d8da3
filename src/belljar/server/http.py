"""HTTP on a connection: uvicorn's protocol with the bounds that it lacks, and our form of errors for what is no HTTP."""

import asyncio
import contextlib
import http
import json
import secrets
import socket
import struct
from collections.abc import Generator
from functools import partial
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from belljar.front.native.errors import error_headers, error_json, status_of
from belljar.model.errors import DeadlineExceeded, Error, InvalidArgument, NoCapacity

__all__ = ("HEAD_SECONDS", "MAX_FIELDS", "MAX_HEAD", "MAX_WAITING", "Http", "HttpServer", "State")

MAX_HEAD = 64 << 10
MAX_FIELDS = 256
"""Header fields of a request."""
MAX_WAITING = 64
"""Requests that a client may send on one connection before it has the answer to the first."""
HEAD_SECONDS = 30.0
"""For a head, once it has begun or the connection is new; and for the rest of a body whose request is answered already."""
_CREDENTIALS = struct.Struct("iII")
"""Process, user and group."""
_FLUSH_SECONDS = 30.0
"""For a client to take what was written before its connection was closed."""
_HANDSHAKE_SECONDS = 10.0
_LINGER_SECONDS = 2.0
_VERSIONS = ("1.0", "1.1")
_NO_HTTP = f"this is no HTTP request, or its head has more than {MAX_HEAD >> 10} KiB or {MAX_FIELDS} fields"


class State(ServerState):
    """What the connections of one server share. `idle`: those of which nothing is being answered, the longest idle first."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.idle: dict[Http, None] = {}


class Http(HttpToolsProtocol):
    """One connection.

    The parser keeps whatever comes before the end of a head, or behind the last chunk of a body, for as long as it comes: here
    that has a bound and a deadline. Whenever nothing is being answered, a timer runs that ends the connection.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: State,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._shared = server_state
        self._own: Any = self.app  # pyright: ignore[reportUnknownMemberType] # what the configuration has loaded
        self._in_head = self._in_body = False
        self._head = 0
        self._unread = 0
        """Bytes that came since the last that were anything: a whole head, or a piece of a body."""
        self._deaf = False
        self._deadline: asyncio.TimerHandle | None = None
        self._flush: asyncio.TimerHandle | None = None

    # the connection --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is None:
            self.client = _local_client(transport)
        idle = self._shared.idle
        if len(self.connections) > self._shared.most and idle:
            oldest = next(iter(idle))
            del idle[oldest]
            oldest.transport.abort()
        idle[self] = None
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.idle.pop(self, None)
        self._cancel_deadline()
        self._unset_keepalive_if_required()
        if self._flush is not None:
            self._flush.cancel()
        super().connection_lost(exc)

    def leave(self) -> None:
        """Closes it; a client that does not take what was written before has a while."""
        self._shared.idle.pop(self, None)
        self._cancel_deadline()
        self.transport.close()
        if self._flush is None:
            self._flush = self.loop.call_later(_FLUSH_SECONDS, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        self.leave()

    # what comes ------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._deaf or self.transport.is_closing():
            return
        self._unread += len(data)
        super().data_received(data)
        if self._deaf:
            return
        if self._unread > MAX_HEAD:
            self.send_400_response("")
        elif self._is_idle():
            self._expect()

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_WAITING:
            raise ValueError("too many requests wait for their answers")
        self._in_head, self._head, self._unread = True, 0, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(name, value)
        if len(self.headers) >= MAX_FIELDS:
            raise ValueError("too many fields")
        if not self._in_body:  # what stands behind a body means nothing to anybody here
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser is None or self.parser.get_http_version() not in _VERSIONS:
            raise ValueError("another version")
        self.app = _too_busy if len(self.tasks) >= self._shared.most else self._own
        super().on_headers_complete()
        self._in_head, self._in_body, self._unread = False, True, 0
        self._cancel_deadline()
        self._unset_keepalive_if_required()
        self._shared.idle.pop(self, None)

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body, self._unread = False, 0
        super().on_message_complete()
        if self._is_idle():  # this was the rest of a body whose request was answered before
            self._cancel_deadline()
            self._keep_alive()

    def _count(self, *parts: bytes) -> None:
        self._head += sum(map(len, parts))
        if self._head > MAX_HEAD:
            raise ValueError("a big head")

    # what goes -------------------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        last = not self.pipeline
        super().on_response_complete()
        if self.transport.is_closing():
            self.leave()
        elif last:
            self._shared.idle[self] = None
            if self._in_head or self._in_body:
                self._unset_keepalive_if_required()
                self._expect()

    def send_400_response(self, msg: str) -> None:
        """What comes makes no sense. Requests before it are answered; then, or at once, the connection ends."""
        if not self._is_idle() and (self.pipeline or self.cycle.response_started or not self.cycle.more_body):
            self._deaf, self.cycle.keep_alive = True, False
            return
        self._refuse(InvalidArgument(_NO_HTTP), 400)

    def _refuse(self, error: Error, status: int) -> None:
        """The last words on this connection."""
        said, body = _written(error)
        lines = [
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}",
            *(f"{name}: {value}" for name, value in said.items()),
        ]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self._deaf = True
        if not self._is_idle():  # it was the body that made no sense: for the application its client has left
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        # A client in the middle of sending reads this only when its sending does not fail.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._cancel_deadline()
        self._deadline = self.loop.call_later(_LINGER_SECONDS, self.leave)

    # time ------------------------------------------------------------------------------------------------------------

    def _is_idle(self) -> bool:
        return not self.cycle or self.cycle.response_complete

    def _expect(self) -> None:
        if self._deadline is None and self.timeout_keep_alive_task is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def _keep_alive(self) -> None:
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if self._in_head:
            self._refuse(DeadlineExceeded(f"the head of a request did not end within {HEAD_SECONDS:g} s"), 408)
        else:
            self.leave()


def _written(error: Error) -> tuple[dict[str, str], bytes]:
    """Headers and body of an answer that ends its connection."""
    request_id = secrets.token_hex(8)
    body = json.dumps({"error": error_json(error, request_id)}).encode()
    said = {"content-type": "application/json", "content-length": str(len(body)), "x-request-id": request_id}
    return said | error_headers(error) | {"connection": "close"}, body


async def _too_busy(scope: Scope, receive: Receive, send: Send) -> None:
    error = NoCapacity("the server is answering as many requests as it can", hint="try again", retry_after=1.0)
    said, body = _written(error)
    headers = [(name.encode(), value.encode()) for name, value in said.items()]
    await send({"type": "http.response.start", "status": status_of(error), "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _local_client(transport: asyncio.Transport) -> tuple[str, int] | None:
    """The user and the process at the other end of a unix socket, as the kernel saw them connect: ``("uid:1000", 4711)``."""
    made = transport.get_extra_info("socket")
    if made is None or made.family != socket.AF_UNIX:
        return None
    try:
        pid, uid, _ = _CREDENTIALS.unpack(made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    except OSError:  # it has left
        return None
    return f"uid:{uid}", pid


class HttpServer(uvicorn.Server):
    """Ends when `stop` is set; signals belong to the process, which has several of these.

    `most` connections: for one more, that which has been idle longest is closed; when all are busy, a request is refused.
    """

    def __init__(self, config: uvicorn.Config, *, most: int) -> None:
        super().__init__(config)
        self.server_state = State(most)
        self.stop = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but a TLS handshake has no minute."""
        loop = asyncio.get_running_loop()
        tls = self.config.ssl
        self.servers = [
            await loop.create_server(
                partial(Http, self.config, self.server_state, {}),
                sock=one,
                ssl=tls,
                backlog=self.config.backlog,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS if tls else None,
            )
            for one in sockets or ()
        ]
        self.started = True

    async def main_loop(self) -> None:
        # Instead of a look ten times a second at what can only be said through `stop`.
        await self.stop.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
