"""The two halves of a stream as the rest of the room uses them: bytes that wait to be taken, bytes that wait for credit."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from belljar.model.errors import Conflict, DeadlineExceeded, Error
from belljar.wire.inflow import InStream
from belljar.wire.outbox import BufferedOut

if TYPE_CHECKING:
    from belljar.node.guest.session import Session

__all__ = ("MAX_CHUNK", "Incoming", "Outgoing", "Piece")

MAX_CHUNK = 64 << 10
_MERGE_BELOW = 16 << 10
_BUFFERED = 256 << 10
"""Bytes that wait unsent before the caller waits too: enough that the pipe never runs dry."""

Piece = tuple[InStream, int, bytes]
"""A stream, the offset of the first byte, the bytes."""


class Incoming:
    """One or more streams from the agent, taken in the order in which their bytes came.

    What waits is bounded by the credit that was given. Small pieces are put together, so that a million of one byte cost
    what a big one does.
    """

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._waiting: deque[tuple[InStream, int, bytes | bytearray]] = deque()
        self._open: set[int] = set()
        self._taker: asyncio.Future[None] | None = None
        self._failure: Error | None = None

    def open(self, *, offset: int = 0, floating: bool = False) -> InStream:
        """One more stream, to be named in a request."""
        stream = self._session.wire_in(self, offset=offset, floating=floating)
        self._open.add(stream.id)
        return stream

    async def take(self) -> Piece | None:
        """The next bytes, at most 64 KiB; None when all streams have ended. Raises what ended one of them badly.

        One taker at a time.
        """
        while not self._waiting:
            if self._failure is not None:
                raise self._failure
            if not self._open:
                return None
            self._taker = self._session.future()
            try:
                await self._taker
            finally:
                self._taker = None
        stream, offset, data = self._waiting.popleft()
        stream.consumed(len(data))
        self._session.flush()
        return stream, offset, bytes(data)

    def close(self) -> None:
        """Wants no more. May be repeated."""
        self._session.forget(self._open)
        self._open.clear()
        self._waiting.clear()

    # called by the session ---------------------------------------------------------------------------------------------

    def received(self, stream: InStream, offset: int, data: bytes) -> None:
        if self._waiting and len(data) < _MERGE_BELOW:
            last, start, held = self._waiting[-1]
            if last is stream and start + len(held) == offset and len(held) + len(data) <= MAX_CHUNK:
                if isinstance(held, bytes):
                    held = bytearray(held)
                    self._waiting[-1] = (stream, start, held)
                held += data
                return
        self._waiting.append((stream, offset, data))
        self._wake()

    def ended(self, stream: int, error: Error | None) -> None:
        self._open.discard(stream)
        if error is not None:
            self.fail(error)
        else:
            self._wake()

    def fail(self, error: Error) -> None:
        """What has come is still taken; then the error."""
        if self._failure is None:
            self._failure = error
        self._session.forget(self._open)
        self._open.clear()
        self._wake()

    def _wake(self) -> None:
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)


class Outgoing:
    """A stream to the agent. `position` is the offset of the next byte given to `send`."""

    def __init__(self, session: "Session", stream: BufferedOut) -> None:
        self._session = session
        self._stream = stream
        self._over = False
        self._failure: Error | None = None
        self._result: dict[str, Any] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._flushed_at: int | None = None
        self.position = 0

    @property
    def id(self) -> int:
        return self._stream.id

    @property
    def over(self) -> bool:
        """The agent has ended it, or it failed: nothing more can be sent."""
        return self._over

    def begin(self, offset: int, credit: int) -> None:
        """As the answer to the request said."""
        self.position = offset
        self._stream.begin(offset, credit)

    async def send(self, data: bytes | memoryview, *, idle: float) -> None:
        """Gives bytes, and waits while too many are unsent. Raises DeadlineExceeded when none went for `idle` seconds,
        and what the agent ended the stream with."""
        self._check()
        self.position += len(data)
        self._flushed_at = None
        self._stream.write(data)
        self._session.flush()
        await self._progress(lambda: self._stream.buffered <= _BUFFERED, idle)

    async def flushed(self, *, idle: float) -> None:
        """Waits until every byte is in the pipe: then the agent gets it whatever becomes of us."""
        await self._progress(self._is_flushed, idle)

    async def finish(self, *, idle: float, timeout: float) -> dict[str, Any]:
        """Ends it, and waits at most `timeout` seconds after the last byte for what the agent makes of it."""
        self._check()
        self._stream.finish()
        self._session.flush()
        await self._progress(lambda: self._stream.closed, idle)
        await self._wait_over(timeout)
        if self._failure is not None:
            raise self._failure
        return self._result

    def close(self) -> None:
        """Wants no more, whatever is unsent. May be repeated."""
        if not self._over:
            self._over = True
            self._session.forget((self._stream.id,))

    @property
    def unsent(self) -> int:
        return self._stream.buffered

    # called by the session ---------------------------------------------------------------------------------------------

    def ended(self, result: dict[str, Any], error: Error | None) -> None:
        self._over = True
        self._result = result
        self._failure = error
        self.wake()

    def fail(self, error: Error) -> None:
        self.ended({}, error)

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._over:
            raise Conflict("the other end closed this stream")

    def _is_flushed(self) -> bool:
        if self._stream.buffered:
            return False
        if self._flushed_at is None:
            self._flushed_at = self._session.queued
        return self._session.written >= self._flushed_at

    async def _progress(self, enough: Callable[[], bool], idle: float) -> None:
        """Waits until `enough`, at most `idle` seconds for each step forward."""
        while not enough():
            if self._over:
                self._check()
            before = self._stream.buffered
            if not await self._wait(idle) and self._stream.buffered == before and not enough():
                raise DeadlineExceeded(f"nothing was taken for {idle:g} s")

    async def _wait_over(self, timeout: float) -> None:
        deadline = self._session.loop.time() + timeout
        while not self._over:
            if not await self._wait(deadline - self._session.loop.time()):
                raise DeadlineExceeded(f"the agent did not finish within {timeout:g} s")

    async def _wait(self, seconds: float) -> bool:
        """False when nothing happened in that time."""
        self._waiter = waiter = self._session.future()
        self._session.senders.add(self)
        timer = self._session.loop.call_later(max(seconds, 0.0), self.wake)
        started = self._session.loop.time()
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None
            self._session.senders.discard(self)
        return self._session.loop.time() - started < seconds
