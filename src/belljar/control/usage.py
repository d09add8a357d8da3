"""Who used how much: read from the node now and then, told by sandbox, hour or workspace."""

import asyncio
import random
from typing import Self

from belljar.base.clock import Clock, SystemClock
from belljar.base.ids import is_id
from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.control.history import History
from belljar.control.keys import Principal
from belljar.control.meters import Meters
from belljar.control.sandboxes import PREFIX
from belljar.control.store.sandboxes import SandboxStore
from belljar.control.store.usage import UsageStore
from belljar.model.errors import InvalidArgument, NotFound
from belljar.model.usage import BY, HOUR_US, UsageEntry, hour_of, micros
from belljar.model.workspace import check_workspace_id
from belljar.node.api import NodeApi

_chance = random.Random()
__all__ = ("Usage",)

_LOOKS = 30
"""Times in the interval between two readings of a sandbox that those are read whose turn has come."""
_AT_ONCE = 256
"""Sandboxes of one look; more wait for the next."""
_PATIENCE_SECONDS = 10.0
"""For the node's answer about so many."""
_DAY = 86400.0
_HOUR = HOUR_US // 1_000_000
_LATEST = 253_402_300_800
"""Seconds since 1970: the year 10000."""
_log = get_logger("control.usage")


class Usage:
    """Own it as an async context manager, entered when the store is in line with the node. `every`: seconds between two readings
    of a sandbox. `days`: how long hours are kept, 0 forever.
    """

    def __init__(
        self,
        node: NodeApi,
        meters: Meters,
        store: UsageStore,
        sandboxes: SandboxStore,
        *,
        every: float = 30.0,
        days: int = 400,
        clock: Clock | None = None,
    ) -> None:
        self._node = node
        self._meters = meters
        self._store = store
        self._sandboxes = sandboxes
        self._every = every
        self._history = History(every=every)
        self._days = days
        self._clock = clock or SystemClock()
        self._due: dict[str, float] = {}
        """By sandbox, when it is to be read next."""
        self._tasks = TaskSet(lambda name, error: _log.error("a task failed", task=name, exc_info=error))

    @property
    def history(self) -> History:
        """What was read of those that run."""
        return self._history

    @property
    def meters(self) -> Meters:
        return self._meters

    async def __aenter__(self) -> Self:
        self._meters.close_orphans()
        self._tasks.start(self._read_on(), name="usage")
        if self._days:
            self._tasks.start(self._prune_daily(), name="age of the usage")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()

    async def report(
        self,
        who: Principal,
        by: str,
        *,
        since: float | None = None,
        until: float | None = None,
        workspace: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> tuple[list[UsageEntry], str | None]:
        """A page, and the cursor of the next one. `since` and `until` (seconds since 1970): all hours that the time touches.

        An operator is told of every workspace, or the one that is named; others of their own. Sandboxes and hours come the
        newest first, workspaces by their names. Raises InvalidArgument (a period without an hour, no name, a cursor that is none
        of ours), NotFound (somebody else's workspace, or one that never was).
        """
        hours = self._hours(since, until)
        if not who.operates:
            if workspace not in (None, who.workspace):
                raise _no_workspace(workspace)
            workspace = who.workspace
        elif workspace is not None:
            check_workspace_id(workspace)
            if not await self._store.has_been(workspace):
                raise _no_workspace(workspace)
        after = _checked(by, cursor)
        await self._meters.write()
        await self._sandboxes.catch_up()  # and with it the ends
        match by:
            case "sandbox":
                found = await self._store.by_sandbox(workspace, hours, after=cursor, limit=limit + 1)
            case "hour":
                found = await self._store.by_hour(workspace, hours, after=after, limit=limit + 1)
            case _:
                found = await self._store.by_workspace(workspace, hours, after=cursor, limit=limit + 1)
        if len(found) <= limit:
            return found, None
        last = found[limit - 1]
        return found[:limit], str(getattr(last, by))

    async def read(self, ids: list[str]) -> None:
        """Looks at these sandboxes now and writes down what is there. Raises what the node and the store raise."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            readings = await self._node.meter(ids)
        self._meters.add(readings)
        self._history.add(readings)
        await self._meters.write()

    def _hours(self, since: float | None, until: float | None) -> tuple[int, int]:
        first = 0.0 if since is None else since
        last = self._clock.now() + _HOUR if until is None else until
        if not 0 <= first < last <= _LATEST:
            raise InvalidArgument("from lies before to, and both between 1970 and the year 10000")
        return hour_of(micros(first)), -(-micros(last) // HOUR_US)

    def _turn(self) -> list[str]:
        """Whose turn it is. Each keeps its own rhythm, so that they are spread; those that a server finds are spread at first."""
        now = self._clock.monotonic()
        running = self._meters.open()
        self._history.keep_only(running.keys())
        due: dict[str, float] = {}
        for id, ledger in running.items():
            first = now + _chance.random() * self._every if ledger.until > ledger.begun else now
            due[id] = self._due.get(id, first)
        self._due = due
        found = sorted((id for id, at in due.items() if at <= now), key=due.__getitem__)[:_AT_ONCE]
        for id in found:
            due[id] = now + self._every
        return found

    async def _read_on(self) -> None:
        while True:
            try:
                if found := self._turn():
                    await self.read(found)
            except Exception as error:  # noqa: BLE001 (whatever it is: nothing is lost, the next reading has it)
                _log.warning("what sandboxes use could not be read or written: later", error=str(error))
            await asyncio.sleep(self._every / _LOOKS)

    async def _prune_daily(self) -> None:
        while True:
            try:
                before = hour_of(micros(self._clock.now() - self._days * _DAY))
                if removed := await self._store.prune(before):
                    _log.info("old hours of the usage were removed", hours=removed)
            except Exception as error:  # noqa: BLE001 (tomorrow again)
                _log.warning("old hours of the usage could not be removed", error=str(error))
            await asyncio.sleep(_DAY)


def _checked(by: str, cursor: str | None) -> int | None:
    """The hour that the cursor names, where it names one. Raises InvalidArgument."""
    if by not in BY:
        raise InvalidArgument(f"by is one of {', '.join(BY)}")
    if cursor is None:
        return None
    if by == "hour":
        if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 12):
            raise _no_cursor()
        return int(cursor) // _HOUR
    if by == "workspace":
        check_workspace_id(cursor)
    elif not is_id(cursor, PREFIX):
        raise _no_cursor()
    return None


def _no_workspace(id: str | None) -> NotFound:
    return NotFound(f"there is no workspace {str(id)[:64]}")


def _no_cursor() -> InvalidArgument:
    return InvalidArgument("cursor is what `next` of the page before said")
