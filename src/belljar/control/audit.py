"""The audit log as it is kept: acts come in, entries are written in their order, many at once, by one task."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

from belljar.base.clock import Clock, SystemClock
from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.control.store.audit import AuditStore
from belljar.model.audit import START, Act, AuditEntry, seal
from belljar.model.errors import DeadlineExceeded, NoCapacity

__all__ = ("MOST_WAITING", "Audit")

MOST_WAITING = 10_000
"""Entries that the store does not take; beyond that there are no more changes."""
_AT_ONCE = 200
_GATHER_SECONDS = 0.05
"""So long an entry that nobody waits for may wait for others: one transaction takes half a millisecond of processor time."""
_PATIENCE_SECONDS = 30.0
"""For a change that was made and is not acknowledged before its entry is written."""
_AGAIN_SECONDS = (0.1, 1.0)
"""The first wait before a batch is tried again, and the longest."""
_END_SECONDS = 2.0
_READ_SECONDS = 5.0
"""So long whoever reads waits for what is not written yet."""
_PAGE = 500
_DAY = 86400.0
_log = get_logger("control.audit")


@dataclass(slots=True)
class _Waiting:
    act: Act
    at: float
    written: "asyncio.Future[None] | None" = None


class Audit:
    """Own it as an async context manager: leaving writes what still waits. `days`: how long entries are kept, 0 forever.

    While the store takes nothing (a full disk, a lock) entries wait and are tried again; their order and their times stay.
    """

    def __init__(self, store: AuditStore, *, days: int = 90, clock: Clock | None = None) -> None:
        self._store = store
        self._days = days
        self._clock = clock or SystemClock()
        self._waiting: deque[_Waiting] = deque()
        self._heads: dict[str, tuple[int, str]] = {}
        """Number and hash of the newest written entry of a workspace."""
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = TaskSet(lambda name, error: _log.error("a task failed", task=name, exc_info=error))

    async def __aenter__(self) -> Self:
        self._tasks.start(self._write_on(), name="audit")
        if self._days:
            self._tasks.start(self._prune_daily(), name="age of the audit log")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.settled(_END_SECONDS)
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.close()
        if self._waiting:
            _log.error("entries of the audit log could not be written", lost=len(self._waiting))

    def require_room(self) -> None:
        """Before a change. Raises NoCapacity while too many entries wait for the store."""
        if len(self._waiting) >= MOST_WAITING:
            raise NoCapacity(
                "the server cannot write its audit log: nothing is changed until it can",
                hint="its log says why; often its disk is full",
            )

    def note(self, act: Act) -> None:
        """Written soon: nobody waits for it."""
        self._put(act)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._wake.set)

    async def write(self, act: Act) -> None:
        """Returns when it is written: a kill of the server does not take it back, only a power cut may. It stays on its way when
        the caller leaves. Raises DeadlineExceeded.
        """
        self._put(act)
        if not await self.settled(_PATIENCE_SECONDS):
            raise DeadlineExceeded(
                f"it was done, but for {_PATIENCE_SECONDS:.0f} s the server could not write that into its audit log",
                hint="its log says why; often its disk is full",
            )

    async def settled(self, seconds: float) -> bool:
        """Whether all that was noted before is written; waits for it, at most so long."""
        if not self._waiting:
            return True
        last = self._waiting[-1]
        if last.written is None:
            last.written = asyncio.get_running_loop().create_future()
        self._wake.set()
        await asyncio.wait((last.written,), timeout=seconds)
        return last.written.done()

    async def page(
        self,
        workspace: str,
        *,
        before: int | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
    ) -> tuple[list[AuditEntry], int | None]:
        """The newest first, and the `before` of the next page. `since` and `until`: seconds since 1970."""
        await self.settled(_READ_SECONDS)
        found = await self._store.newest(workspace, before=before, since=since, until=until, limit=limit + 1)
        return found[:limit], found[limit - 1].seq if len(found) > limit else None

    async def export(self, workspace: str, *, after: int = 0) -> AsyncGenerator[list[AuditEntry]]:
        """All there are now behind number `after`, the oldest first, some hundred at a time."""
        await self.settled(_READ_SECONDS)
        last = await self._store.last(workspace)
        while last is not None and after < last.seq:
            found = await self._store.between(workspace, after, last.seq, limit=_PAGE)
            if not found:
                return  # pruned meanwhile
            yield found
            after = found[-1].seq

    def _put(self, act: Act) -> None:
        self._waiting.append(_Waiting(_writable(act), self._clock.now()))

    async def _write_on(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            # What comes meanwhile has a timer of its own, or wakes this again.
            due = len(self._waiting)
            while due > 0:
                batch = list(islice(self._waiting, min(due, _AT_ONCE)))
                await self._write(batch)
                due -= len(batch)
                for one in batch:
                    self._waiting.popleft()
                    if one.written is not None:
                        one.written.set_result(None)

    async def _write(self, batch: list[_Waiting]) -> None:
        """Until it works."""
        pause, longest = _AGAIN_SECONDS
        failed = False
        while True:
            try:
                await self._append(batch)
            except Exception as error:  # noqa: BLE001 (whatever it is: they are not written, and none may be lost)
                if not failed:
                    _log.error("the audit log cannot be written", waiting=len(self._waiting), error=str(error))
                failed = True
                self._heads.clear()  # what is really there is asked for again
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
            else:
                if failed:
                    _log.info("the audit log can be written again", waiting=len(self._waiting))
                return

    async def _append(self, batch: list[_Waiting]) -> None:
        heads: dict[str, tuple[int, str]] = {}
        entries: list[AuditEntry] = []
        for one in batch:
            workspace = one.act.workspace
            seq, prev = heads.get(workspace) or await self._head(workspace)
            entries.append(seal(one.act, seq=seq + 1, at=one.at, prev=prev))
            heads[workspace] = (seq + 1, entries[-1].hash)
        await self._store.append(entries)
        self._heads |= heads

    async def _head(self, workspace: str) -> tuple[int, str]:
        if workspace not in self._heads:
            last = await self._store.last(workspace)
            self._heads[workspace] = (0, START) if last is None else (last.seq, last.hash)
        return self._heads[workspace]

    async def _prune_daily(self) -> None:
        while True:
            try:
                if removed := await self._store.prune(self._clock.now() - self._days * _DAY):
                    _log.info("old entries of the audit log were removed", entries=removed)
            except Exception as error:  # noqa: BLE001 (tomorrow again)
                _log.warning("old entries of the audit log could not be removed", error=str(error))
            await asyncio.sleep(_DAY)


def _writable(act: Act) -> Act:
    """An address may have a NUL, which not every store takes. An entry that cannot be written would hold up all others."""
    if "\0" not in act.target and "\0" not in act.route:
        return act
    return replace(act, target=act.target.replace("\0", "%00"), route=act.route.replace("\0", "%00"))
