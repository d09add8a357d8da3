"""One execution as the host sees it: its events, whoever follows them, and what still waits."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable

from belljar.model.code import CodeEvent, CodeSpec, Done, HostCall, Raised, Status
from belljar.model.errors import Conflict, Error

__all__ = ("Execution",)

_WAITING = 1 << 20
"""Bytes of events that may wait for the follower before the kernel has to."""
_HISTORY = 4 << 20
"""Bytes of events that the follower got and may ask for again: the connection may have broken over them."""
_HISTORY_EVENTS = 8192
_MAX_CALLS = 64


class Execution:
    """Events in the order of `seq`. One follower at a time, the newest wins; with none, events wait (and so does the kernel)."""

    def __init__(self, spec: CodeSpec, *, left: Callable[["Execution"], None]) -> None:
        self.spec = spec
        self.key = spec.key
        self.remaining = spec.timeout
        """Seconds of its own running that are left, as of `running_since`."""
        self.running_since: float | None = None
        self.timed_out = False
        self.abandoned = False
        """Nobody will follow: events are dropped, the end is kept."""
        self.calls: set[str] = set()
        """Calls to the host that wait for their answer."""
        self.last = 0
        self.done: Done | None = None
        self.followed = False
        self.found = False
        """Begun by a server before us; known by its key alone until its client comes back."""
        self.raised = False
        self._left = left
        self._events: list[CodeEvent] = []
        self._sizes: list[int] = []
        self._taken = 0
        """How many of `_events` the follower got."""
        self._history = 0
        self._waiting = 0
        self._failure: Error | None = None
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._follower: object | None = None
        self._ignored = False

    @property
    def over(self) -> bool:
        return self.done is not None or self._failure is not None

    async def room(self) -> None:
        """Waits while too much waits for a follower."""
        while self.is_full:
            self._room.clear()
            await self._room.wait()

    def add(self, event: CodeEvent, size: int) -> bool:
        """False for a repeat, or more calls at once than there may be."""
        if event.seq <= self.last or self.over:
            return False
        if isinstance(event, HostCall):
            if len(self.calls) >= _MAX_CALLS:
                return False
            self.calls.add(event.call)
        self.last = event.seq
        self.raised = self.raised or isinstance(event, Raised)
        if isinstance(event, Done):
            self.done = event
            self.calls.clear()
        if not self.abandoned or isinstance(event, Raised | Done):
            self._events.append(event)
            self._sizes.append(size)
            self._waiting += size
            if self._ignored:
                self._pass_by()
        self._more.set()
        self._room.set()
        return True

    def end(self, name: str, value: str) -> None:
        """Ends it from here, with an error of ours."""
        if not self.over:
            self.add(Raised(self.last + 1, name, value, ""), len(value))
            self.add(Done(self.last + 1, Status.ERROR, 0), 0)

    def fail(self, error: Error) -> None:
        """It cannot be known how it went on: the follower gets `error`."""
        if not self.over:
            self._failure = error
            self._more.set()
            self._room.set()

    def ignore(self) -> None:
        """Nobody may ever follow: what it says waits for nobody, and the newest of it is kept for who does."""
        self._ignored = True
        self._pass_by()

    def abandon(self) -> None:
        self.abandoned = True
        self._room.set()

    async def follow(self, after: int) -> AsyncGenerator[CodeEvent, None]:
        """Events with a greater `seq`, to Done. Raises Conflict when another follower takes over, or some are gone."""
        me = self._follower = object()
        self.followed, self.abandoned, self._ignored = True, False, False
        self._more.set()  # the follower before leaves
        try:
            while True:
                if self._follower is not me:
                    raise Conflict("somebody else follows this execution now")
                event = self._next(after)
                if event is not None:
                    after = event.seq
                    yield event
                    if isinstance(event, Done):
                        return
                elif self._failure is not None:
                    raise self._failure
                elif self.done is not None:
                    return
                else:
                    self._more.clear()
                    await self._more.wait()
        finally:
            if self._follower is me:
                self._follower = None
                if not self.over:
                    self._left(self)

    @property
    def is_full(self) -> bool:
        return self._waiting > _WAITING and not self.abandoned and not self.over

    @property
    def is_followed(self) -> bool:
        return self._follower is not None

    def _next(self, after: int) -> CodeEvent | None:
        index = bisect_right(self._events, after, key=_seq)
        if index == 0 and self._events and self._events[0].seq > after + 1:
            raise Conflict(f"events {after + 1} to {self._events[0].seq - 1} of this execution are not kept any more")
        if index >= len(self._events):
            return None
        event = self._events[index]
        if index >= self._taken:
            size = sum(self._sizes[self._taken : index + 1])
            self._count_taken(index + 1, size)
        return event

    def _pass_by(self) -> None:
        self._count_taken(len(self._events), self._waiting)

    def _count_taken(self, count: int, size: int) -> None:
        """The first `count` events are taken, `size` bytes more than before."""
        self._waiting -= size
        self._history += size
        self._taken = count
        if self._history > _HISTORY or self._taken > _HISTORY_EVENTS:
            self._trim()
        self._room.set()

    def _trim(self) -> None:
        """Down to half, so that it costs little; the newest one that was taken always stays."""
        count = 0
        while count < self._taken - 1 and (self._history > _HISTORY // 2 or self._taken - count > _HISTORY_EVENTS // 2):
            self._history -= self._sizes[count]
            count += 1
        del self._events[:count], self._sizes[:count]
        self._taken -= count


def _seq(event: CodeEvent) -> int:
    return event.seq
