"""The receiving half of a stream: offsets without gaps, and credit as the consumer takes bytes."""

from belljar.wire.faults import WireFault
from belljar.wire.frames import Kind, encode
from belljar.wire.outbox import Outbox

__all__ = ("MAX_WINDOW", "InStream")

MAX_WINDOW = 1 << 20
MAX_OFFSET = 1 << 62


class InStream:
    """Takes DATA up to what was granted. `floating`: the first DATA may start later, because older bytes were dropped."""

    __slots__ = ("_floating", "_granted", "_outbox", "_taken", "closed", "id", "offset", "window")

    def __init__(
        self,
        id: int,
        outbox: Outbox,
        *,
        offset: int = 0,
        window: int = MAX_WINDOW,
        floating: bool = False,
        waiting: int = 0,
    ) -> None:
        """`waiting`: bytes before `offset` that the consumer has still to take (they count in the window)."""
        if not 0 < window <= MAX_WINDOW:
            raise ValueError(f"a window has between 1 and {MAX_WINDOW} bytes")
        self.id = id
        self.window = window
        self.offset = offset
        """Of the next byte to come."""
        self.closed = False
        self._floating = floating
        self._taken = offset - waiting
        self._granted = max(offset, self._taken + window)
        self._outbox = outbox

    @property
    def granted(self) -> int:
        return self._granted

    def receive(self, offset: int, payload: bytes) -> bytes:
        """The bytes that are new. Raises WireFault for a gap and for bytes beyond the credit."""
        if self._floating and offset > self.offset:
            if offset > MAX_OFFSET:
                raise WireFault("an offset beyond all streams")
            self.offset = self._taken = offset
            self._granted = offset + self.window
        self._floating = False
        if offset > self.offset:
            raise WireFault("a gap in a stream")
        end = offset + len(payload)
        if end > self._granted:
            raise WireFault("more data than there was credit for")
        if end <= self.offset:
            return b""
        if offset < self.offset:
            payload = payload[self.offset - offset :]
        self.offset = end
        return payload

    def consumed(self, count: int) -> None:
        """The consumer took `count` bytes: grants more once half of the window is free."""
        self._taken += count
        limit = min(self._taken, self.offset) + self.window
        if not self.closed and limit - self._granted >= max(self.window // 2, 1):
            self._granted = limit
            self._outbox.message(encode(Kind.CREDIT, self.id, limit))
