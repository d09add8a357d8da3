"""What waits to be written: messages first, then the streams that have something to say, one frame each in turn."""

from __future__ import annotations

from belljar.wire.frames import MAX_PAYLOAD, Kind, encode
from belljar.wire.messages import dump

TYPE_CHECKING = False  # `typing` and `collections` cost the agent milliseconds at its start
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from belljar.wire.messages import Message

    Pull = Callable[[int], bytes | memoryview | None]
else:
    from _collections import deque

__all__ = ("BufferedOut", "OutStream", "Outbox")


class Outbox:
    """The order of frames towards the peer. Nothing is encoded before there is room for it in the pipe."""

    __slots__ = ("_control", "_frames", "_ready", "_written", "gone", "waiting")

    def __init__(self, gone: Callable[[int], object] | None = None) -> None:
        self.gone = gone
        """Told the id of each stream whose END is on its way."""
        self._control: deque[bytes] = deque()
        self._ready: deque[OutStream] = deque()
        self._frames: deque[bytes] = deque()
        """Chosen for writing; of the first one `_written` bytes are in the pipe."""
        self._written = 0
        self.waiting = 0
        """Bytes of messages that are queued."""

    def message(self, frame: bytes) -> None:
        """Queues an encoded frame that is not DATA."""
        self._control.append(frame)
        self.waiting += len(frame)

    def buffers(self, limit: int = 65_536) -> list[memoryview]:
        """What to write now, of about `limit` bytes; the same again until `wrote` says that some is in the pipe."""
        frames = self._frames
        size = sum(map(len, frames)) - self._written
        while size < limit:
            frame = self._next()
            if frame is None:
                break
            frames.append(frame)
            size += len(frame)
        views = [memoryview(frame) for frame in frames]
        if views and self._written:
            views[0] = views[0][self._written :]
        return views

    def wrote(self, count: int) -> None:
        """`count` more bytes are in the pipe."""
        self._written += count
        frames = self._frames
        while frames and self._written >= len(frames[0]):
            self._written -= len(frames.popleft())

    def reset(self) -> None:
        """Forgets everything but the frame that is partly in the pipe: it must be completed."""
        self._control.clear()
        self.waiting = 0
        for stream in self._ready:
            stream.queued = False
        self._ready.clear()
        while len(self._frames) > (1 if self._written else 0):
            self._frames.pop()

    def ready(self, stream: OutStream) -> None:
        self._ready.append(stream)

    def _next(self) -> bytes | None:
        if self._control:
            frame = self._control.popleft()
            self.waiting -= len(frame)
            return frame
        while self._ready:
            stream = self._ready.popleft()
            stream.queued = False
            frame = stream.next_frame()
            if frame is not None:
                return frame
        return None


class OutStream:
    """The sending half of a stream: never beyond the credit that the peer gave.

    `pull(limit)` gives the next bytes (at most `limit`, maybe 0), empty when there are none now (call `wake` later) and None
    at the end: then END goes out, with `result`.
    """

    __slots__ = ("_outbox", "closed", "credit", "id", "offset", "pull", "queued", "result")

    def __init__(self, id: int, outbox: Outbox, pull: Pull, *, offset: int = 0, credit: int = 0) -> None:
        self.id = id
        self.pull = pull
        self.offset = offset
        """Of the next byte to send."""
        self.credit = credit
        """The peer takes bytes up to this offset."""
        self.result: Message = {}
        self.queued = False
        self.closed = False
        self._outbox = outbox

    def grant(self, credit: int) -> None:
        """The peer takes bytes up to `credit`; a smaller one than before is an old one."""
        if credit > self.credit:
            self.credit = credit
            self.wake()

    def wake(self) -> None:
        """There may be something to send, or the end."""
        if not self.queued and not self.closed:
            self.queued = True
            self._outbox.ready(self)

    def end(self, result: Message | None = None) -> None:
        """Sends END now, whatever waits unsent."""
        if not self.closed:
            self._outbox.message(self._last(result))

    def close(self) -> None:
        """Sends nothing more."""
        self.closed = True

    def next_frame(self) -> bytes | None:
        """For the outbox: the stream's next frame."""
        if self.closed:
            return None
        chunk = self.pull(min(max(self.credit - self.offset, 0), MAX_PAYLOAD))
        if chunk is None:
            return self._last(None)
        if not len(chunk):
            return None
        frame = encode(Kind.DATA, self.id, self.offset, chunk)
        self.offset += len(chunk)
        self.wake()
        return frame

    def _last(self, result: Message | None) -> bytes:
        self.closed = True
        if self._outbox.gone is not None:
            self._outbox.gone(self.id)
        return encode(Kind.END, self.id, self.offset, dump(self.result if result is None else result))


class BufferedOut(OutStream):
    """An OutStream that is written to. Its user keeps an eye on `buffered`: nothing here bounds it."""

    __slots__ = ("_chunks", "_ended", "buffered")

    def __init__(self, id: int, outbox: Outbox, *, offset: int = 0, credit: int = 0) -> None:
        super().__init__(id, outbox, self._take, offset=offset, credit=credit)
        self._chunks: deque[memoryview] = deque()
        self._ended = False
        self.buffered = 0

    def begin(self, offset: int, credit: int) -> None:
        """The peer said where the stream goes on, and how far. A CREDIT may have come before."""
        self.offset = offset
        self.credit = max(self.credit, credit)
        self.wake()

    def write(self, data: bytes | memoryview) -> None:
        """Goes out as far as the credit allows; the rest waits."""
        if data:
            view = memoryview(data)
            self._chunks.append(view)
            self.buffered += len(view)
            self.wake()

    def finish(self, result: Message | None = None) -> None:
        """END goes out after all that was written."""
        if result is not None:
            self.result = result
        self._ended = True
        self.wake()

    def _take(self, limit: int) -> bytes | memoryview | None:
        if not self._chunks:
            return None if self._ended else b""
        if limit <= 0:
            return b""
        first = self._chunks[0]
        if len(first) > limit:
            self._chunks[0] = first[limit:]
            first = first[:limit]
        else:
            self._chunks.popleft()
        self.buffered -= len(first)
        return first
