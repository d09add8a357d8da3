"""The agent's end of a session, without any input or output. One object serves all servers that come, one after the other."""

from __future__ import annotations

from belljar.wire.events import AgentEvent, Cancelled, Credited, Data, Ended, Hello, Request
from belljar.wire.faults import WireFault
from belljar.wire.frames import Frame, Kind, Parser, encode
from belljar.wire.inflow import InStream
from belljar.wire.messages import Assembler, dump, frames_of, load
from belljar.wire.outbox import Outbox, OutStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from belljar.wire.messages import Message
    from belljar.wire.outbox import Pull

__all__ = ("AgentSession",)

VERSION = 1
MAX_REQUESTS = 1_024
MAX_STREAMS = 4_096
MAX_WAITING = 32 << 20
"""Bytes of answers that may wait for a server that does not read; beyond that its requests are not read either."""


class AgentSession:
    """Events come from `receive`, answers go through `respond` and `refuse`, bytes leave by `buffers` and `wrote`.

    Before the first HELLO, and after a fault of the server, everything but HELLO is ignored.
    """

    def __init__(self, agent: str, features: list[str], started: float) -> None:
        self.open = False
        self.faults = 0
        self._about: Message = {"agent": agent, "features": features, "started": started}
        self._parser = Parser(strict=False)
        self._assembler = Assembler()
        self._outbox = Outbox(self._sent_end)
        self._requests: set[int] = set()
        self._ins: dict[int, InStream] = {}
        self._outs: dict[int, OutStream] = {}

    # answers ---------------------------------------------------------------------------------------------------------

    def respond(self, request: int, ok: Message) -> None:
        """Nothing is said on a request that was cancelled or belongs to an older session."""
        if request in self._requests:
            self._requests.discard(request)
            payload = dump({"ok": ok})
            try:
                frames = frames_of(Kind.RESPONSE, request, payload)
            except ValueError as error:
                frames = frames_of(
                    Kind.RESPONSE, request, dump({"error": {"code": "too_large", "message": str(error)}})
                )
            for frame in frames:
                self._outbox.message(frame)

    def refuse(self, request: int, code: str, message: str) -> None:
        """Answers with an error of the project's tree."""
        if request in self._requests:
            self._requests.discard(request)
            value = {"error": {"code": code, "message": message[:4096]}}
            self._outbox.message(encode(Kind.RESPONSE, request, 0, dump(value)))

    def tell(self, event: Message) -> None:
        """Sends an event, if somebody listens."""
        if self.open:
            for frame in frames_of(Kind.EVENT, 0, dump(event)):
                self._outbox.message(frame)

    def open_out(self, stream: int, pull: Pull, *, offset: int = 0, window: int = 0) -> OutStream:
        """A stream to the server, under the id that the request named. `window` is its first credit. Raises ValueError."""
        self._check_free(stream)
        out = self._outs[stream] = OutStream(stream, self._outbox, pull, offset=offset, credit=offset + window)
        return out

    def open_in(self, stream: int, *, offset: int = 0, window: int, waiting: int = 0) -> InStream:
        """A stream from the server; the answer to the request must say its offset and `granted`. Raises ValueError."""
        self._check_free(stream)
        inward = self._ins[stream] = InStream(stream, self._outbox, offset=offset, window=window, waiting=waiting)
        return inward

    def end_in(self, stream: int, *, result: Message | None = None, error: tuple[str, str] | None = None) -> None:
        """Answers an incoming stream with END: what came of it."""
        inward = self._ins.pop(stream, None)
        if inward is not None and not inward.closed:
            inward.closed = True
            value = {"error": {"code": error[0], "message": error[1][:4096]}} if error else result or {}
            self._outbox.message(encode(Kind.END, stream, inward.offset, dump(value)))

    def forget(self, stream: int) -> None:
        """Says nothing more on a stream, in either direction."""
        inward = self._ins.pop(stream, None)
        out = self._outs.pop(stream, None)
        if inward is not None:
            inward.closed = True
        if out is not None:
            out.close()

    # bytes -----------------------------------------------------------------------------------------------------------

    @property
    def reading(self) -> bool:
        """False while too much waits to be sent: do not read more requests."""
        return self._outbox.waiting < MAX_WAITING

    def receive(self, data: bytes | memoryview) -> list[AgentEvent]:
        """Never raises: bad bytes are skipped; a server that breaks the protocol loses its session (a Hello of time 0)."""
        events: list[AgentEvent] = []
        for frame in self._parser.feed(data):
            try:
                event = self._hello(frame) if frame.kind == Kind.HELLO else self._frame(frame) if self.open else None
            except WireFault:
                self.faults += 1
                self._reset()
                events.append(Hello(0.0))
                continue
            if event is not None:
                events.append(event)
        return events

    def buffers(self, limit: int = 65_536) -> list[memoryview]:
        """What to write now (as `os.writev` takes it); empty: nothing."""
        return self._outbox.buffers(limit)

    def wrote(self, count: int) -> None:
        self._outbox.wrote(count)

    # frames ----------------------------------------------------------------------------------------------------------

    def _hello(self, frame: Frame) -> AgentEvent | None:
        value = load(frame.payload)
        nonce: object = value.get("nonce")
        low: object = value.get("version_min")
        high: object = value.get("version_max")
        time: object = value.get("time", 0)
        if not isinstance(nonce, str) or len(nonce) > 128 or type(low) is not int or type(high) is not int:
            raise WireFault("a hello that is none")
        version = VERSION if low <= VERSION <= high else 0
        self._reset()
        self.open = version != 0
        self._outbox.message(encode(Kind.WELCOME, 0, 0, dump({"nonce": nonce, "version": version, **self._about})))
        return Hello(float(time) if isinstance(time, int | float) else 0.0)

    def _frame(self, frame: Frame) -> AgentEvent | None:
        kind, stream = frame.kind, frame.stream
        if kind == Kind.REQUEST:
            payload = self._assembler.add(frame)
            return None if payload is None else self._request(stream, load(payload))
        if frame.more or self._assembler.busy:
            raise WireFault("a message was interrupted by another frame")
        if kind == Kind.DATA:
            inward = self._ins.get(stream)
            if inward is None:
                return None
            data = inward.receive(frame.offset, frame.payload)
            return Data(stream, inward.offset - len(data), data) if data else None
        if kind == Kind.CREDIT:
            out = self._outs.get(stream)
            if out is None:
                return None
            out.grant(frame.offset)
            return Credited(stream, out.credit)
        if kind == Kind.END:
            inward = self._ins.get(stream)
            if inward is None:
                return None
            if frame.offset != inward.offset:
                raise WireFault("a stream ended before its end")
            return Ended(stream, frame.offset, load(frame.payload), None)
        if kind == Kind.CANCEL:
            self._requests.discard(stream)
            self.forget(stream)
            return Cancelled(stream)
        if kind == Kind.PING:
            self._outbox.message(encode(Kind.PONG, 0, frame.offset))
        return None

    def _request(self, id: int, value: Message) -> AgentEvent:
        op: object = value.get("op")
        args: object = value.get("args", {})
        if not isinstance(op, str) or not isinstance(args, dict) or not id:
            raise WireFault("a request that is none")
        if len(self._requests) >= MAX_REQUESTS:
            raise WireFault(f"more than {MAX_REQUESTS} requests at once")
        self._requests.add(id)
        return Request(id, op, value.get("args", {}))

    def _reset(self) -> None:
        self.open = False
        self._requests.clear()
        self._assembler.clear()
        for inward in self._ins.values():
            inward.closed = True
        for out in self._outs.values():
            out.close()
        self._ins.clear()
        self._outs.clear()
        self._outbox.reset()

    def _sent_end(self, stream: int) -> None:
        self._outs.pop(stream, None)

    def _check_free(self, stream: int) -> None:
        if not stream or stream in self._ins or stream in self._outs:
            raise ValueError(f"stream {stream} is in use")
        if len(self._ins) + len(self._outs) >= MAX_STREAMS:
            raise ValueError(f"{MAX_STREAMS} streams are open")
