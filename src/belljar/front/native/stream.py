"""Answers that go on for as long as something happens, and waits that end when the client leaves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from belljar.base.log import get_logger
from belljar.model.errors import Cancelled, DeadlineExceeded, Error, Internal

__all__ = ("Streaming", "close", "first_of", "unless_left")

T = TypeVar("T")
IDLE_SECONDS = 10.0
_log = get_logger("front.native")


class Streaming(Response):
    """Sends each piece as it comes. The socket's back-pressure reaches the iterator; when the client leaves it is closed.

    `idle` is sent when nothing was for 10 s. `failure` makes the last piece of an error on the way; without it the body just
    breaks off, so that nobody takes it for whole. So does a body of which the client took nothing for `patience` seconds.
    """

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        *,
        media_type: str,
        idle: bytes = b"",
        failure: Callable[[Error], bytes] | None = None,
        patience: float | None = None,
    ) -> None:
        super().__init__(None, media_type=media_type)
        del self.headers["content-length"]
        self._pieces = pieces
        self._idle = idle
        self._failure = failure
        self._patience = patience
        self._sending = False
        self._sent = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pump = asyncio.ensure_future(self._pump(send))
        left = asyncio.ensure_future(_left(receive))
        try:
            while not pump.done():
                self._sent = False
                await asyncio.wait((pump, left), timeout=IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if left.done():
                    break
                if not (pump.done() or self._sent or self._sending) and self._idle:
                    await send({"type": "http.response.body", "body": self._idle, "more_body": True})
            if pump.done():
                pump.result()
        finally:
            await _cancel(pump, left)

    async def _pump(self, send: Send) -> None:
        try:
            async for piece in self._pieces:
                await self._send(send, piece)
        except Error as error:
            if self._failure is None:
                return  # without the end of the body: the connection is cut
            await self._send(send, self._failure(error))
        except Exception as error:  # noqa: BLE001 (the answer has begun: nobody above could tell the client)
            _log.error("a stream failed", exc_info=error)
            if self._failure is None:
                return
            await self._send(send, self._failure(Internal("something went wrong inside the server")))
        finally:
            await close(self._pieces)
        await send({"type": "http.response.body", "body": b""})

    async def _send(self, send: Send, piece: bytes) -> None:
        self._sending = True
        try:
            async with asyncio.timeout(self._patience):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:
            raise DeadlineExceeded(f"the client took nothing for {self._patience:g} s") from None
        self._sending = False
        self._sent = True
        # Neither a fast source nor a socket that takes all (or is closed) makes the loop turn by itself.
        await asyncio.sleep(0)


async def first_of(items: AsyncIterator[T]) -> T | None:
    """The first item, or None for an iterator that ends at once: an error before it still becomes an error of HTTP."""
    try:
        return await anext(items, None)
    except BaseException:
        await close(items)
        raise


async def unless_left(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client leaves. Only after the body was read. Raises Cancelled."""
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Cancelled("the client left")
    finally:
        await _cancel(task, left)


async def close(items: AsyncIterator[Any]) -> None:
    """Ends an iterator early, where it is a generator."""
    end: Callable[[], Awaitable[None]] | None = getattr(items, "aclose", None)
    if end is not None:
        await end()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
