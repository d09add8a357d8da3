"""Opens a store, brings its tables up to date, and gives out transactions: each one visit of a thread."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from sqlalchemy import Select
from sqlalchemy.exc import DBAPIError

from belljar.base.tasks import TaskSet, in_thread, opened_in_thread
from belljar.control.store.place import BUSY_SECONDS, Change, Link, Place, Question, rows
from belljar.control.store.steps import step_of, upgrade
from belljar.control.store.tables import HEAD
from belljar.model.errors import Internal, Starting

__all__ = ("Database",)

T = TypeVar("T")
_READERS = 4
_LONGEST_SECONDS = 20.0
"""A transaction that takes longer is cut."""
_LOOK_SECONDS = 1.0


class Database:
    """A store for one server. Own this as an async context manager.

    Reads and writes are small functions and lists of statements that a thread of the store runs from begin to end: a busy event
    loop has its turn once, and not at each statement, and nothing can wait for a node or a network in the middle. Raises Starting
    while the place cannot be reached, is locked, or is too busy: then nothing was done, and the same may be asked again.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._writer: _Lane | None = None
        self._readers: _Lane | None = None
        self._writes: set[asyncio.Future[None]] = set()
        self._tasks = TaskSet(lambda name, error: None)

    async def __aenter__(self) -> Self:
        writer = await opened_in_thread(lambda link: link.close(), self.place.writer)
        self._writer = _Lane(lambda: writer, 1)
        self._readers = _Lane(self.place.reader, _READERS)
        try:
            if await self._step() != HEAD:
                await in_thread(upgrade, self.place)
        except BaseException:
            await self._close()
            raise
        self._tasks.start(self._cut_long_ones(), name="store")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.settled()
        await self._close()

    async def _close(self) -> None:
        await self._tasks.close()
        lanes, self._writer, self._readers = (self._writer, self._readers), None, None
        for lane in lanes:
            if lane is not None:
                await in_thread(lane.close)

    async def _step(self) -> str | None:
        try:
            return await self.read(step_of)
        except DBAPIError as error:
            raise Internal(f"the store {self.place} cannot be read: {error.orig}") from error

    async def read(self, question: Question[T]) -> T:
        """Each statement of it sees a moment of its own."""
        if self._readers is None:
            raise Internal("the store is closed")
        return await self._readers.visit(lambda link: link.read(question))

    async def rows(self, query: Select[T]) -> list[T]:
        """Of one table."""
        return await self.read(lambda connection: rows(connection, query))

    async def scalar(self, query: Select[T]) -> T | None:
        return await self.read(lambda connection: connection.scalar(query))

    async def write(self, *changes: Change, durable: bool = True) -> None:
        """All changes in one transaction, behind those that were asked for before. It goes on when the caller leaves.

        `durable`: on the disk before this returns (one fsync); else after a power cut the newest of these may be missing,
        never half there. Raises DiskFull, and IntegrityError for what a constraint forbids; then nothing was written. Raises
        Internal when the place was lost in the middle of a commit and it cannot be found out whether that happened.
        """
        if self._writer is None:
            raise Internal("the store is closed")
        writing = self._writer.visit(lambda link: link.write(changes, durable=durable))
        self._writes.add(writing)
        writing.add_done_callback(self._written)
        await asyncio.shield(writing)

    def _written(self, writing: "asyncio.Future[None]") -> None:
        self._writes.discard(writing)
        if not writing.cancelled():
            writing.exception()  # whoever asked is told, unless they have left

    async def settled(self) -> None:
        """Returns when every write that was asked for before is there to be read, or has failed."""
        if self._writes:
            await asyncio.wait(tuple(self._writes))

    async def _cut_long_ones(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for lane in (self._writer, self._readers):
                if lane is not None:
                    lane.cut(_LONGEST_SECONDS)


class _Lane:
    """Threads, each with a link while it works. Who comes first is served first."""

    def __init__(self, make: Callable[[], Link], threads: int) -> None:
        self._make = make
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._idle: list[Link] = []
        self._busy: dict[Link, float] = {}
        """Since when. Both are changed by single operations, which no other thread interrupts."""

    def visit(self, work: Callable[[Link], Any]) -> "asyncio.Future[Any]":
        return asyncio.get_running_loop().run_in_executor(self._threads, self._do, work, time.monotonic())

    def _do(self, work: Callable[[Link], T], asked: float) -> T:
        if (waited := time.monotonic() - asked) > BUSY_SECONDS:
            raise Starting(f"the store is busy: this had to wait for {waited:.0f} s and was not tried", retry_after=1.0)
        try:
            link = self._idle.pop()
        except IndexError:
            link = self._make()
        self._busy[link] = time.monotonic()
        try:
            return work(link)
        finally:
            del self._busy[link]
            self._idle.append(link)

    def cut(self, seconds: float) -> None:
        """What has taken longer than that."""
        began = time.monotonic() - seconds
        for link, since in tuple(self._busy.items()):
            if since < began:
                link.cut()

    def close(self) -> None:
        """Blocking; what was asked for before is done."""
        self._threads.shutdown()
        for link in self._idle:
            link.close()
        self._idle.clear()
