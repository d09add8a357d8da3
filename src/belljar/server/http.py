"""HTTP on a connection: uvicorn's protocol with the bounds that it lacks, and our form of errors for what is no HTTP."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Generator

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ("HEAD_SECONDS", "MAX_HEAD", "Http", "HttpServer")

MAX_HEAD = 64 << 10
HEAD_SECONDS = 30.0
"""A connection whose next request has begun, or whose first has not, is given so long for its head."""
_CREDENTIALS = struct.Struct("iII")
"""Process, user and group."""


class Http(HttpToolsProtocol):
    """The parser keeps whatever comes before the end of a head, for as long as it comes: here it has a bound and a deadline."""

    _in_head = True
    _head = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is None:
            self.client = _local_client(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            if self._head > MAX_HEAD:
                self.send_400_response("")
                return
            self._head += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._in_head, self._head = True, 0
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_is_there()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if self.transport.is_closing():
            return
        message = f"this is no HTTP request, or its head has more than {MAX_HEAD >> 10} KiB"
        error = {"code": "invalid_argument", "message": message, "retryable": False, "request_id": ""}
        body = json.dumps({"error": error}).encode()
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def _head_is_there(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        if not self.cycle or self.cycle.response_complete:
            self.transport.close()


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
    """Ends when `stop` is set; signals belong to the process, which has several of these."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()

    async def main_loop(self) -> None:
        # Instead of a look ten times a second at what can only be said through `stop`.
        await self.stop.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
