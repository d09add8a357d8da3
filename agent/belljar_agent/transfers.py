"""Streams of the file operations: sources that the server reads, sinks that it writes."""

from __future__ import annotations

from belljar_agent.api import Refused, refusal_of
from belljar_agent.arguments import number
from belljar_agent.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from belljar.wire.agent import AgentSession
    from belljar.wire.inflow import InStream
    from belljar.wire.outbox import OutStream
    from belljar_agent.api import Answer, Args, Context, Sink, Source, Steps
    from belljar_agent.loop import Loop, Task

__all__ = ("SINKS", "SOURCES", "Transfers", "failure")

SOURCES = ("read", "pull", "watch")
SINKS = ("write", "push", "mount")
_WINDOW = 1 << 20


class _Reading:
    """A source on its way to the server."""

    def __init__(self, loop: Loop, source: Source, out: OutStream | None) -> None:
        self._loop = loop
        self._source = source
        self.out = out
        self._watched: int | None = None
        self._closed = False

    def pull(self, limit: int) -> bytes | None:
        if limit <= 0 or self._watched is not None:
            return b""
        try:
            data = self._source.read(limit)
        except (Refused, OSError) as error:
            code, message = failure(error)
            if self.out is not None:
                self.out.result = {"error": {"code": code, "message": message}}
            self.close()
            return None
        if data is None:
            self._wait()
            return b""
        if not data:
            self.close()
            return None
        return data

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._unwatch()
            self._source.close()

    def _wait(self) -> None:
        fd = self._source.fileno()
        if fd is not None:
            self._watched = fd
            self._loop.watch(fd, READ, self._ready)

    def _ready(self, _events: int) -> None:
        self._unwatch()
        if self.out is not None:
            self.out.wake()

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._loop.unwatch(self._watched)
            self._watched = None


class _Writing:
    """A sink that the server fills."""

    def __init__(self, loop: Loop, session: AgentSession, sink: Sink, inward: InStream) -> None:
        self._loop = loop
        self._session = session
        self._sink = sink
        self._inward = inward
        self._task: Task | None = None
        self._over = False

    def data(self, data: bytes) -> bool:
        """False when the stream has ended with an error."""
        try:
            self._sink.write(memoryview(data))
        except (Refused, OSError) as error:
            self._fail(error)
            return False
        self._inward.consumed(len(data))
        return True

    def end(self) -> None:
        """All came; the answer may take a while."""
        try:
            result = self._sink.finish()
        except (Refused, OSError) as error:
            self._fail(error)
            return
        if isinstance(result, dict):
            self._answer(result)
        else:
            self._task = self._loop.work(result, self._done)

    def abort(self) -> None:
        """The server left or does not want it."""
        if not self._over:
            self._over = True
            if self._task is not None:
                self._task.cancel()
            self._sink.abort()

    def _done(self, result: Any, error: BaseException | None) -> None:
        if self._over:
            return
        if error is not None:
            self._fail(error)
        else:
            self._answer(result)

    def _answer(self, result: Answer) -> None:
        self._over = True
        self._session.end_in(self._inward.id, result=result)

    def _fail(self, error: BaseException) -> None:
        self._over = True
        self._session.end_in(self._inward.id, error=failure(error))
        self._sink.abort()

    @property
    def over(self) -> bool:
        return self._over


class Transfers:
    """All of them in a session."""

    def __init__(self, loop: Loop, session: AgentSession, context: Context) -> None:
        self._loop = loop
        self._session = session
        self._context = context
        self._readings: dict[int, _Reading] = {}
        self._writings: dict[int, _Writing] = {}

    def open_source(self, op: str, args: Args) -> Answer | Steps:
        """Steps when the source has much to do before it can answer (a watch of a big tree)."""
        from belljar_agent import files

        stream = number(args, "stream", least=1, most=0xFFFF_FFFF)
        window = number(args, "window", 0, most=_WINDOW)
        source = files.open_source(op, self._context, args)
        reading = _Reading(self._loop, source, None)
        try:
            answer = source.size_info()
            if isinstance(answer, dict):
                self._open(reading, stream, window)
                return answer
        except BaseException:
            reading.close()
            raise
        later = self._open_later(answer, reading, stream, window)
        next(later)  # from here on closing it closes the source, also before its first step
        return later

    def _open_later(self, steps: Steps, reading: _Reading, stream: int, window: int) -> Steps:
        try:
            yield
            answer = yield from steps
            self._open(reading, stream, window)
        except BaseException:  # also when the server cancels it
            reading.close()
            raise
        return answer

    def _open(self, reading: _Reading, stream: int, window: int) -> None:
        try:
            out = self._session.open_out(stream, reading.pull, window=window)
        except ValueError as error:
            raise Refused("invalid_argument", str(error)) from None
        reading.out = out
        self._sweep()
        self._readings[stream] = reading
        out.wake()

    def open_sink(self, op: str, args: Args) -> Answer:
        from belljar_agent import files

        stream = number(args, "stream", least=1, most=0xFFFF_FFFF)
        sink = files.open_sink(op, self._context, args)
        try:
            inward = self._session.open_in(stream, offset=sink.offset, window=_WINDOW)
        except ValueError as error:
            sink.abort()
            raise Refused("invalid_argument", str(error)) from None
        self._sweep()
        self._writings[stream] = _Writing(self._loop, self._session, sink, inward)
        return {"offset": inward.offset, "credit": inward.granted}

    def data(self, stream: int, data: bytes) -> bool:
        """False if the stream is none of ours."""
        writing = self._writings.get(stream)
        if writing is None:
            return False
        if not writing.data(data):
            del self._writings[stream]
        return True

    def end_of_data(self, stream: int) -> bool:
        writing = self._writings.get(stream)
        if writing is None:
            return False
        writing.end()
        return True

    def cancelled(self, stream: int) -> bool:
        reading = self._readings.pop(stream, None)
        if reading is not None:
            reading.close()
        writing = self._writings.pop(stream, None)
        if writing is not None:
            writing.abort()
        return reading is not None or writing is not None

    def session_lost(self) -> None:
        for stream in [*self._readings, *self._writings]:
            self.cancelled(stream)

    @property
    def busy(self) -> bool:
        """Something is half done."""
        self._sweep()
        return bool(self._writings)

    def _sweep(self) -> None:
        """Forgets those that came to their end."""
        for stream in [stream for stream, each in self._readings.items() if each.out is not None and each.out.closed]:
            self._readings.pop(stream).close()
        for stream in [stream for stream, each in self._writings.items() if each.over]:
            del self._writings[stream]


def failure(error: BaseException) -> tuple[str, str]:
    """An exception of an operation as code and message."""
    if isinstance(error, OSError):
        error = refusal_of(error)
    if isinstance(error, Refused):
        return error.code, error.message
    return "internal", f"{type(error).__name__}: {error}"
