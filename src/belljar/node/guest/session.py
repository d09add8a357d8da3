"""A session with the agent over its two pipes: requests with deadlines, streams with credit, and a watch on its pulse.

The agent is not trusted. Whatever it sends, this process neither waits nor grows: a read takes a bounded piece, a message has a
bound, a stream has its credit. The first thing an honest agent would not say ends the session.
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, Self

from belljar.base.log import get_logger
from belljar.model.errors import (
    DeadlineExceeded,
    EngineFailed,
    Error,
    LimitExceeded,
    NotSupported,
    SandboxGone,
    TooLarge,
)
from belljar.node.engine.api import Channel
from belljar.node.guest.failures import agent_error, fresh, printable
from belljar.node.guest.streams import Incoming, Outgoing
from belljar.wire.events import Credited, Data, Ended, Happened, Response, ServerEvent, Welcomed
from belljar.wire.faults import Busy, WireFault
from belljar.wire.inflow import InStream
from belljar.wire.server import ServerSession

__all__ = ("OnEvent", "OnLost", "Session")

_log = get_logger("node.guest")
OnLost = Callable[[str, str], None]
"""Called once, with `reason` (``agent_silent`` or ``bad_agent``) and a message, when the agent cannot be relied on any more."""
OnEvent = Callable[[dict[str, Any]], None]

_READ = 256 << 10
_READ_FIRST = 64 << 10
_READ_LEAST = 16 << 10
_WRITE = 256 << 10
_FROM_AGENT = 1 << 20
_TO_AGENT = 256 << 10
"""Capacity of the pipes. A request waits behind what is in the pipe already, and the agent takes an upload at 150 to 200 MB/s:
behind 1 MiB that is 6 ms, as long as an exec itself. We read at 600 MB/s, so the other one may be big."""
_TURN = 1 << 20
"""Bytes written in one turn of the event loop, so that other sandboxes have theirs."""
_MAX_BUFFERS = 512
_COSTLY = 0.004
"""Seconds in which 256 KiB of honest frames are taken many times over (measured: 0.3 ms)."""
_PAUSE = 4.0
"""An agent whose bytes cost that much is not read for so many times as long: it gets a fifth of the loop at most."""
_LONGEST_PAUSE = 1.0
_UNREAD = 10.0
"""Seconds in which an agent that lives reads something."""


class Session:
    """Owns the channel's descriptors. Everything happens in one event loop; all methods are called from there."""

    def __init__(self, channel: Channel, *, on_lost: OnLost, on_event: OnEvent) -> None:
        self.loop = asyncio.get_running_loop()
        self.queued = 0
        """Bytes given to the pipe so far or chosen to go next."""
        self.written = 0
        """Bytes given to the pipe so far."""
        self.senders: set[Outgoing] = set()
        """Those that wait for something to leave."""
        self._channel = channel
        self._on_lost = on_lost
        self._on_event = on_event
        self._wire = ServerSession(secrets.token_hex(16), now=self.loop.time(), wall_time=time.time())
        self._buffer = memoryview(bytearray(_READ))
        self._limit = _READ_FIRST
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._incoming: dict[int, tuple[Incoming, InStream]] = {}
        self._outgoing: dict[int, Outgoing] = {}
        self._welcome: asyncio.Future[Welcomed] = self.future()
        self._writing = False
        self._moved = self.loop.time()
        self._pause: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._still = False
        self._end: Error | None = None

    @classmethod
    async def open(cls, channel: Channel, *, on_lost: OnLost, on_event: OnEvent, timeout: float) -> Self:
        """Begins a session, whatever a server before us left in the pipes. Closes the channel if that fails.

        Raises DeadlineExceeded when the agent does not answer in `timeout` seconds, EngineFailed when what it answers is
        no good, NotSupported when it speaks no version that we do.
        """
        try:
            session = cls(channel, on_lost=on_lost, on_event=on_event)
        except BaseException:
            _close(channel)
            raise
        try:
            await session._begin(timeout)
        except BaseException:
            session.close(SandboxGone("the agent did not answer"))
            raise
        return session

    @property
    def welcome(self) -> Welcomed:
        """What the agent said of itself."""
        return self._welcome.result()

    @property
    def ended(self) -> Error | None:
        """Why nothing works any more, if so."""
        return self._end

    def future(self) -> "asyncio.Future[Any]":
        return self.loop.create_future()

    def stand_still(self, still: bool) -> None:
        """While the guest is stopped (a pause, a checkpoint) its silence does not count."""
        self._still = still
        self._forgive(self.loop.time())
        if not still:
            self._wire.rouse()
            self.flush()

    def take_over(self, on_lost: OnLost) -> None:
        """Somebody else is told from now on. Raises what has ended the session, if something has."""
        if self._end is not None:
            raise fresh(self._end)
        self._on_lost = on_lost

    def close(self, error: Error) -> None:
        """Ends everything that waits with `error`, and closes the pipes. May be repeated; the first error stays."""
        if self._end is not None:
            return
        self._end = error
        for timer in (self._timer, self._pause):
            if timer is not None:
                timer.cancel()
        for fd in (self._channel.read_fd, self._channel.write_fd):
            self.loop.remove_reader(fd)
            self.loop.remove_writer(fd)
        _close(self._channel)
        for pending in tuple(self._pending.values()):
            _fail(pending, fresh(error))
        self._pending.clear()
        for incoming, _ in tuple(self._incoming.values()):
            incoming.fail(fresh(error))
        self._incoming.clear()
        for outgoing in tuple(self._outgoing.values()):
            outgoing.fail(fresh(error))
        self._outgoing.clear()
        if not self._welcome.done():
            self._welcome.set_exception(EngineFailed(error.message))
            self._welcome.exception()  # maybe nobody waits for it any more

    def distrust(self, fault: WireFault) -> Error:
        """The agent said what no honest one says: the session is over. The error for whoever noticed."""
        return self._lose("bad_agent", f"the agent broke the protocol: {fault}")

    # requests --------------------------------------------------------------------------------------------------------

    async def call(self, op: str, args: dict[str, Any], *, timeout: float) -> dict[str, Any]:
        """The answer. Raises what the agent refused it with, DeadlineExceeded after `timeout` seconds, SandboxGone."""
        if self._end is not None:
            raise fresh(self._end)
        try:
            number = self._wire.request(op, args)
        except Busy as busy:
            raise LimitExceeded(f"the sandbox is busy: {busy}") from None
        except ValueError as error:
            raise TooLarge(str(error)) from None
        answer: asyncio.Future[dict[str, Any]] = self.future()
        self._pending[number] = answer
        self.flush()
        timer = self.loop.call_later(
            timeout, _fail, answer, DeadlineExceeded(f"no answer to {op} within {timeout:g} s")
        )
        try:
            return await answer
        finally:
            timer.cancel()
            if self._pending.pop(number, None) is not None and self._end is None:
                self._wire.cancel(number)
                self.flush()

    # streams ---------------------------------------------------------------------------------------------------------

    def incoming(self) -> Incoming:
        """For streams from the agent; the caller closes it."""
        if self._end is not None:
            raise fresh(self._end)
        return Incoming(self)

    def outgoing(self) -> Outgoing:
        """A stream to the agent; the caller closes it."""
        if self._end is not None:
            raise fresh(self._end)
        try:
            stream = self._wire.open_out()
        except Busy as busy:
            raise LimitExceeded(f"the sandbox is busy: {busy}") from None
        outgoing = self._outgoing[stream.id] = Outgoing(self, stream)
        return outgoing

    def wire_in(self, incoming: Incoming, *, offset: int, floating: bool) -> InStream:
        if self._end is not None:
            raise fresh(self._end)
        try:
            stream = self._wire.open_in(offset=offset, floating=floating)
        except Busy as busy:
            raise LimitExceeded(f"the sandbox is busy: {busy}") from None
        self._incoming[stream.id] = (incoming, stream)
        return stream

    def forget(self, streams: Iterable[int]) -> None:
        """Ends streams from our side. Ended ones are fine."""
        for stream in tuple(streams):
            known = self._incoming.pop(stream, None) or self._outgoing.pop(stream, None)
            if known is not None and self._end is None:
                self._wire.cancel(stream)
        self.flush()

    # bytes -----------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Writes what waits, as far as the pipe takes it; the rest goes when there is room."""
        if self._end is not None:
            return
        budget = _TURN
        moved = False
        full = False
        while budget > 0:
            buffers = self._wire.buffers(_WRITE)
            if not buffers:
                break
            try:
                count = os.writev(self._channel.write_fd, buffers[:_MAX_BUFFERS])
            except BlockingIOError:
                full = True
                break
            except OSError as error:
                self._lose("bad_agent", f"the pipe to the agent is broken: {error}")
                return
            self.queued = self.written + sum(map(len, buffers))
            self.written += count
            self._wire.wrote(count)
            budget -= count
            moved = True
        self._want_to_write(full or budget <= 0)
        if moved:
            self._moved = self.loop.time()
        if moved and self.senders:
            for sender in tuple(self.senders):
                sender.wake()

    def _want_to_write(self, wanted: bool) -> None:
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._moved = self.loop.time()
                self.loop.add_writer(self._channel.write_fd, self.flush)
            else:
                self.loop.remove_writer(self._channel.write_fd)

    def _readable(self) -> None:
        try:
            count = os.readv(self._channel.read_fd, (self._buffer[: self._limit],))
        except BlockingIOError:
            return
        except OSError as error:
            self._lose("bad_agent", f"the pipe from the agent is broken: {error}")
            return
        if count == 0:
            self._lose("bad_agent", "the agent closed its end")
            return
        started = self.loop.time()
        try:
            for event in self._wire.receive(self._buffer[:count], started):
                self._happened(event)
                if self._end is not None:
                    return
        except WireFault as fault:
            self.distrust(fault)
            return
        self.flush()
        self._rest(self.loop.time() - started)

    def _rest(self, spent: float) -> None:
        """Keeps the loop for the others when this agent's bytes are dear: a million empty frames, huge messages."""
        if spent < _COSTLY:
            self._limit = min(self._limit * 2, _READ)
        elif self._end is None:
            self._limit = max(self._limit // 2, _READ_LEAST)
            self.loop.remove_reader(self._channel.read_fd)
            self._pause = self.loop.call_later(min(spent * _PAUSE, _LONGEST_PAUSE), self._read_again)

    def _read_again(self) -> None:
        if self._end is None:
            self.loop.add_reader(self._channel.read_fd, self._readable)

    def _happened(self, event: ServerEvent) -> None:
        match event:
            case Data():
                known = self._incoming.get(event.stream)
                if known is not None:
                    known[0].received(known[1], event.offset, event.data)
            case Response():
                self._answered(event)
            case Ended():
                self._stream_ended(event)
            case Credited():
                pass  # the wire sends on by itself
            case Happened():
                self._on_event(event.event)
            case Welcomed():
                if not self._welcome.done():
                    self._welcome.set_result(event)

    def _answered(self, event: Response) -> None:
        answer = self._pending.pop(event.request, None)
        if answer is None or answer.done():
            return
        if event.error is not None:
            answer.set_exception(agent_error(event.error))
        else:
            answer.set_result(event.ok or {})

    def _stream_ended(self, event: Ended) -> None:
        error = None if event.error is None else agent_error(event.error)
        known = self._incoming.pop(event.stream, None)
        if known is not None:
            known[0].ended(event.stream, error)
        outgoing = self._outgoing.pop(event.stream, None)
        if outgoing is not None:
            outgoing.ended(event.result, error)

    # time ------------------------------------------------------------------------------------------------------------

    async def _begin(self, timeout: float) -> None:
        for fd, capacity in ((self._channel.read_fd, _FROM_AGENT), (self._channel.write_fd, _TO_AGENT)):
            os.set_blocking(fd, False)
            with contextlib.suppress(OSError):  # no pipe, beyond what the machine allows, or fuller than that
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, capacity)
        self.loop.add_reader(self._channel.read_fd, self._readable)
        self.flush()
        try:
            async with asyncio.timeout(timeout):
                welcome = await self._welcome
        except TimeoutError:
            raise DeadlineExceeded(f"the agent did not answer within {timeout:g} s") from None
        if not welcome.version:
            raise NotSupported(
                f"the agent of this sandbox ({printable(welcome.agent)}) speaks none of our versions of the wire",
                hint="it was made by another release of Belljar",
            )
        self._tick()

    def _tick(self) -> None:
        now = self.loop.time()
        if self._still:
            self._forgive(now)
        try:
            then = self._wire.tick(now)
        except TimeoutError:
            self._lose("agent_silent", "the agent in the sandbox does not answer any more")
            return
        if self._writing and now - self._moved > _UNREAD:
            self._lose("agent_silent", "the agent in the sandbox does not read any more")
            return
        self.flush()
        self._timer = self.loop.call_at(max(then, now + 0.05), self._tick)

    def _forgive(self, now: float) -> None:
        self._wire.forgive(now)
        self._moved = now

    def _lose(self, reason: str, message: str) -> Error:
        error = SandboxGone(message)
        if self._end is None:
            _log.warning("an agent is lost", reason=reason, message=message)
            was_welcome = self._welcome.done() and not self._welcome.cancelled()
            self.close(error)
            if was_welcome:
                self._on_lost(reason, message)
        return error


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _close(channel: Channel) -> None:
    for fd in {channel.read_fd, channel.write_fd}:
        with contextlib.suppress(OSError):
            os.close(fd)
