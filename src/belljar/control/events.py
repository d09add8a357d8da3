"""What happened, told: page by page, or as it comes; the oldest are pruned."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Self

from belljar.base.clock import Clock, SystemClock
from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.control.eventlog import EventLog
from belljar.control.store.events import EventStore
from belljar.control.store.sandboxes import SandboxStore
from belljar.model.events import Event, EventFilter

__all__ = ("Events",)

_PAGE = 500
_GATHER_SECONDS = 0.05
"""So long news may gather before a follower reads them: one that follows a burst asks the store twenty times a second at most."""
_LOOK_SECONDS = 30.0
"""A follower looks by itself too: after a write that nobody knows the end of nobody wakes it."""
_PRUNE_SECONDS = 600.0
_DAY = 86400.0
_log = get_logger("control.events")


class Events:
    """Own it as an async context manager: while it is open old events are removed. `days`: how long they are kept, 0 forever;
    `most`: of each workspace, 0 any number.
    """

    def __init__(
        self,
        log: EventLog,
        store: EventStore,
        sandboxes: SandboxStore,
        *,
        days: int = 30,
        most: int = 100_000,
        clock: Clock | None = None,
    ) -> None:
        self._log = log
        self._store = store
        self._sandboxes = sandboxes
        self._days = days
        self._most = most
        self._clock = clock or SystemClock()
        self._tasks = TaskSet(lambda name, error: _log.error("a task failed", task=name, exc_info=error))

    async def __aenter__(self) -> Self:
        if self._days or self._most:
            self._tasks.start(self._prune_on(), name="age of events")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()

    async def page(
        self, workspace: str, filter: EventFilter, *, before: int | None = None, limit: int = 100
    ) -> tuple[list[Event], int | None]:
        """The newest first, and the `before` of the next page."""
        await self._sandboxes.catch_up()
        found = await self._store.newest(workspace, filter, before=before, limit=limit + 1)
        return found[:limit], found[limit - 1].seq if len(found) > limit else None

    async def follow(
        self, workspace: str, filter: EventFilter, *, after: int | None = None
    ) -> AsyncGenerator[tuple[int, list[Event]]]:
        """Those behind number `after` that are kept, then new ones as they come, the oldest first; without it from now on. With
        each part comes the number to go on behind; the first part comes at once, and may be empty.

        Raises LimitExceeded.
        """
        with self._log.following(workspace) as news:
            await self._sandboxes.catch_up()
            place = await self._store.last(workspace) if after is None else after
            first = True
            while True:
                news.clear()
                found = await self._store.behind(workspace, filter, place, limit=_PAGE)
                if found:
                    place = found[-1].seq
                if found or first:
                    yield place, found
                first = False
                if len(found) < _PAGE:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_SECONDS):
                            await news.wait()
                    await asyncio.sleep(_GATHER_SECONDS)

    async def prune(self) -> int:
        before = self._clock.now() - self._days * _DAY if self._days else None
        return await self._store.prune(before, self._most)

    async def _prune_on(self) -> None:
        while True:
            try:
                if removed := await self.prune():
                    _log.info("old events were removed", events=removed)
            except Exception as error:  # noqa: BLE001 (later again)
                _log.warning("old events could not be removed", error=str(error))
            await asyncio.sleep(_PRUNE_SECONDS)
