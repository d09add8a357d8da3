"""The server's end of a session, without any input or output."""

from __future__ import annotations

from belljar.wire.events import Credited, Data, Ended, Happened, Response, ServerEvent, Welcomed
from belljar.wire.faults import Busy, WireFault
from belljar.wire.frames import PAD, Frame, Kind, Parser, WelcomeSearch, encode
from belljar.wire.inflow import MAX_WINDOW, InStream
from belljar.wire.messages import Assembler, dump, frames_of, load
from belljar.wire.outbox import BufferedOut, Outbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from belljar.wire.messages import Message

__all__ = (
    "MAX_REQUESTS",
    "MAX_STREAMS",
    "PING_AFTER",
    "PING_EVERY",
    "SILENT_AFTER",
    "VERSION_MAX",
    "VERSION_MIN",
    "ServerSession",
)

VERSION_MIN = 1
VERSION_MAX = 1
MAX_REQUESTS = 1_024
MAX_STREAMS = 4_096
PING_AFTER = 2.0
SILENT_AFTER = 10.0
PING_EVERY = 8.0
"""Also an agent that talks all the time must hear from us: one that hears nothing for 30 s takes us for dead."""
_STALL = 3.0
"""Two ticks further apart than this: it was we who slept, and the agent's silence in between proves nothing."""
_WORN = 1 << 31


class ServerSession:
    """One session with an agent, from HELLO on. Times are seconds of a monotonic clock that the caller reads.

    The owner reads the pipe and calls `receive`, writes what `buffers` gives and says so with `wrote`, and calls `tick` at
    the time it asked for. After a WireFault the session is over and the sandbox has failed (reason ``bad_agent``).
    """

    def __init__(self, nonce: str, *, now: float, wall_time: float = 0.0) -> None:
        self.welcome: Welcomed | None = None
        self._search: WelcomeSearch | None = WelcomeSearch(nonce.encode())
        self._nonce = nonce
        self._parser = Parser(strict=True)
        self._assembler = Assembler()
        self._outbox = Outbox()
        self._next_id = 1
        self._requests: set[int] = set()
        self._ins: dict[int, InStream] = {}
        self._outs: dict[int, BufferedOut] = {}
        self._heard = self._ticked = self._pinged = now
        self._asked: float | None = now
        self._ping = 0
        self._outbox.message(PAD)
        hello = {"nonce": nonce, "version_min": VERSION_MIN, "version_max": VERSION_MAX, "time": wall_time}
        self._outbox.message(encode(Kind.HELLO, 0, 0, dump(hello)))

    # requests and streams --------------------------------------------------------------------------------------------

    def request(self, op: str, args: Message) -> int:
        """Queues a request; its Response carries the id. Raises Busy, and ValueError for one beyond 8 MiB."""
        if len(self._requests) >= MAX_REQUESTS:
            raise Busy(f"{MAX_REQUESTS} requests wait for the agent")
        request = self._take_id()
        frames = frames_of(Kind.REQUEST, request, dump({"op": op, "args": args}))
        self._requests.add(request)
        for frame in frames:
            self._outbox.message(frame)
        return request

    def open_in(self, *, offset: int = 0, window: int = MAX_WINDOW, floating: bool = False) -> InStream:
        """A stream from the agent; name its id and window in a request. `floating`: it may start later than `offset`."""
        stream = InStream(self._stream_id(), self._outbox, offset=offset, window=window, floating=floating)
        self._ins[stream.id] = stream
        return stream

    def open_out(self) -> BufferedOut:
        """A stream to the agent; name its id in a request, and `begin` it with what the answer says."""
        stream = BufferedOut(self._stream_id(), self._outbox)
        self._outs[stream.id] = stream
        return stream

    def cancel(self, id: int) -> None:
        """Ends a request or stream from our side; nothing more is heard of it. Ended ones are fine."""
        out = self._outs.pop(id, None)
        inward = self._ins.pop(id, None)
        if out is not None:
            out.close()
        if inward is not None:
            inward.closed = True
        if out is not None or inward is not None or id in self._requests:
            self._requests.discard(id)
            self._outbox.message(encode(Kind.CANCEL, id))

    @property
    def worn(self) -> bool:
        """Half of all ids are used: begin a new session soon."""
        return self._next_id > _WORN

    # bytes -----------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes | memoryview, now: float) -> list[ServerEvent]:
        """Raises WireFault for what an honest agent never says."""
        if not data:
            return []
        events: list[ServerEvent] = []
        if self._search is not None:
            found = self._search.feed(data)
            if found is None:
                return events
            self._search = None
            data = found[1]
            events.append(self._welcomed(load(found[0])))
        self._heard = now
        self._asked = None
        for frame in self._parser.feed(data):
            event = self._frame(frame)
            if event is not None:
                events.append(event)
        return events

    def buffers(self, limit: int = 65_536) -> list[memoryview]:
        """What to write now (as `os.writev` takes it); empty: nothing."""
        return self._outbox.buffers(limit)

    def wrote(self, count: int) -> None:
        self._outbox.wrote(count)

    # time ------------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> float:
        """Pings when it is time and returns when to call again. Raises TimeoutError when the agent is silent."""
        if now - self._ticked > _STALL:
            self.forgive(now)
        self._ticked = now
        if self._asked is None and (now - self._heard >= PING_AFTER or now - self._pinged >= PING_EVERY):
            self.rouse()
            self._asked = self._pinged = now
        if self._asked is not None and now - max(self._heard, self._asked - PING_AFTER) >= SILENT_AFTER:
            raise TimeoutError("the agent says nothing")
        return now + 1.0

    def rouse(self) -> None:
        """Has the agent look at its pipe: one that was stopped does not notice what was written to it meanwhile."""
        if self.welcome is not None:
            self._ping += 1
            self._outbox.message(encode(Kind.PING, 0, self._ping))

    def forgive(self, now: float) -> None:
        """The clock stood still for the agent (a pause) or for us: silence counts from now."""
        self._heard = now
        self._ticked = now
        if self._asked is not None:
            self._asked = now

    # frames ----------------------------------------------------------------------------------------------------------

    def _frame(self, frame: Frame) -> ServerEvent | None:
        kind, stream = frame.kind, frame.stream
        if kind in (Kind.RESPONSE, Kind.EVENT):
            payload = self._assembler.add(frame)
            if payload is None:
                return None
            return self._response(stream, load(payload)) if kind == Kind.RESPONSE else Happened(load(payload))
        if frame.more or self._assembler.busy:
            raise WireFault("a message was interrupted by another frame")
        if kind == Kind.DATA:
            inward = self._ins.get(stream)
            if inward is None:
                return self._nobody(stream)
            data = inward.receive(frame.offset, frame.payload)
            return Data(stream, inward.offset - len(data), data) if data else None
        if kind == Kind.CREDIT:
            out = self._outs.get(stream)
            if out is None:
                return self._nobody(stream)
            out.grant(frame.offset)
            return Credited(stream, out.credit)
        if kind == Kind.END:
            return self._ended(stream, frame)
        if kind == Kind.PONG and frame.offset <= self._ping:
            return None
        raise WireFault(f"a frame of kind {kind} from an agent")

    def _ended(self, stream: int, frame: Frame) -> ServerEvent | None:
        inward = self._ins.pop(stream, None)
        out = self._outs.pop(stream, None)
        if inward is None and out is None:
            return self._nobody(stream)
        if inward is not None:
            inward.closed = True
        if out is not None:
            out.close()
        value = load(frame.payload)
        error = _error_of(value) if "error" in value else None
        if inward is not None and error is None and frame.offset < inward.offset:
            raise WireFault("a stream ended before its end")
        return Ended(stream, frame.offset, {} if error else value, error)

    def _response(self, request: int, value: Message) -> Response | None:
        if request not in self._requests:
            self._nobody(request)
            return None
        self._requests.discard(request)
        if "error" in value:
            return Response(request, None, _error_of(value))
        ok: object = value.get("ok")
        if not isinstance(ok, dict):
            raise WireFault("a response without an answer")
        return Response(request, value["ok"], None)

    def _nobody(self, id: int) -> None:
        """Frames for what we cancelled are still on their way; an id that we never gave out is a lie."""
        if not 0 < id < self._next_id:
            raise WireFault("a frame for an id that was never used")

    def _welcomed(self, value: Message) -> Welcomed:
        version: object = value.get("version")
        agent: object = value.get("agent", "")
        features: object = value.get("features", [])
        started: object = value.get("started", 0)
        if value.get("nonce") != self._nonce or type(version) is not int or not isinstance(agent, str):
            raise WireFault("a welcome that is none")
        if version and not VERSION_MIN <= version <= VERSION_MAX:
            raise WireFault("a welcome to a version that we did not offer")
        if not isinstance(features, list) or not isinstance(started, int | float):
            raise WireFault("a welcome that is none")
        words = frozenset(word for word in features if isinstance(word, str))  # pyright: ignore[reportUnknownVariableType]
        self.welcome = Welcomed(version, agent[:64], words, float(started))
        return self.welcome

    def _stream_id(self) -> int:
        if len(self._ins) + len(self._outs) >= MAX_STREAMS:
            raise Busy(f"{MAX_STREAMS} streams are open")
        return self._take_id()

    def _take_id(self) -> int:
        if self._next_id > 0xFFFF_FFFF:
            raise Busy("all ids of this session are used")
        self._next_id += 1
        return self._next_id - 1


def _error_of(value: Message) -> tuple[str, str]:
    """What an error of the agent says, cut to what a person can read."""
    error: object = value.get("error")
    if not isinstance(error, dict):
        raise WireFault("an error that is none")
    code: object = value["error"].get("code")
    message: object = value["error"].get("message")
    if not isinstance(code, str) or not isinstance(message, str):
        raise WireFault("an error that is none")
    return code[:64], message[:4096]
