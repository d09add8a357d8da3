"""The agent's event loop: one thread, epoll, timers, and long operations in small steps."""

from __future__ import annotations

from _heapq import heappop, heappush
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, epoll
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Generator
    from typing import Any
else:
    from _collections import deque

__all__ = ("READ", "WRITE", "Loop", "Task", "Timer")

READ = EPOLLIN | EPOLLHUP | EPOLLERR
WRITE = EPOLLOUT
_TURN = 0.005
"""Seconds that long operations may take before descriptors are looked at again."""


class Timer:
    """Something to be done at a time of the monotonic clock."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class Task:
    """A long operation. `done` is told its result, or the exception that ended it."""

    __slots__ = ("_done", "_steps", "running")

    def __init__(self, steps: Generator[None, None, Any], done: Callable[[Any, BaseException | None], object]) -> None:
        self._steps = steps
        self._done = done
        self.running = True

    def cancel(self) -> None:
        """Nobody wants the result: its clean-up runs, `done` is not called."""
        if self.running:
            self.running = False
            self._steps.close()

    def step(self) -> None:
        try:
            next(self._steps)
        except StopIteration as end:
            self.running = False
            self._done(end.value, None)
        except Exception as error:  # noqa: BLE001 - whatever an operation raises becomes its answer
            self.running = False
            self._done(None, error)


class Loop:
    """`run` calls what is ready until `stop`. Callbacks must not block; what they raise goes to `on_error`."""

    def __init__(self, on_error: Callable[[BaseException], object]) -> None:
        self._epoll = epoll()
        self._handlers: dict[int, tuple[int, Callable[[int], object]]] = {}
        self._timers: list[Timer] = []
        self._tasks: deque[Task] = deque()
        self._soon: deque[Callable[[], object]] = deque()
        self._on_error = on_error
        self._running = True
        self.each_turn: Callable[[], object] | None = None
        """Called at the end of every turn, before waiting."""

    def watch(self, fd: int, events: int, callback: Callable[[int], object]) -> None:
        """Calls ``callback(events)`` while `fd` is ready. Again for the same descriptor: the events change."""
        known = self._handlers.get(fd)
        if known is None:
            self._epoll.register(fd, events)
        elif known[0] != events:
            self._epoll.modify(fd, events)
        self._handlers[fd] = (events, callback)

    def unwatch(self, fd: int) -> None:
        """Before the descriptor is closed. One that is not watched is fine."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def at(self, when: float, callback: Callable[[], object]) -> Timer:
        timer = Timer(when, callback)
        heappush(self._timers, timer)
        return timer

    def after(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return self.at(monotonic() + seconds, callback)

    def soon(self, callback: Callable[[], object]) -> None:
        """In this turn, after what is being called now."""
        self._soon.append(callback)

    def work(self, steps: Generator[None, None, Any], done: Callable[[Any, BaseException | None], object]) -> Task:
        """Runs a generator step by step between other things."""
        task = Task(steps, done)
        self._tasks.append(task)
        return task

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        while self._running:
            self._turn()

    def _turn(self) -> None:
        for fd, events in self._epoll.poll(self._timeout()):
            handler = self._handlers.get(fd)
            if handler is not None:
                self._call(handler[1], events)
        timers = self._timers
        now = monotonic()
        while timers and (timers[0].when <= now or timers[0].callback is None):
            callback = heappop(timers).callback
            if callback is not None:
                self._call(callback)
        while self._soon:
            self._call(self._soon.popleft())
        if self._tasks:
            self._work(now + _TURN)
        if self.each_turn is not None:
            self._call(self.each_turn)

    def _work(self, until: float) -> None:
        tasks = self._tasks
        while tasks:
            task = tasks.popleft()
            if task.running:
                self._call(task.step)
                if task.running:
                    tasks.append(task)
            if monotonic() >= until:
                return

    def _timeout(self) -> float:
        if self._soon or self._tasks:
            return 0
        timers = self._timers
        while timers and timers[0].callback is None:
            heappop(timers)
        return max(timers[0].when - monotonic(), 0) if timers else -1

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        try:
            callback(*args)
        except Exception as error:  # noqa: BLE001 - one fault must not end the agent, and with it the sandbox
            self._on_error(error)
