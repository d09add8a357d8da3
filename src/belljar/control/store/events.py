"""Rows of events: put at the end, read, and taken away from the beginning."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Select, bindparam, cast, delete, exists, func, insert, select

from belljar.control.store.database import Database
from belljar.control.store.place import Change, rows
from belljar.control.store.tables import EventRow
from belljar.model.events import Event, EventFilter, EventKind

__all__ = ("EventStore", "changes_of")

_PRUNED = 2000
"""Rows that are taken away at once: other writes get their turn in between."""
_FIELDS = tuple(Event.__dataclass_fields__)
_SAID = tuple(name for name in _FIELDS if name != "seq")


def _put() -> Any:
    """Behind the newest of its workspace, in the transaction itself: whoever reads upwards misses none that is written later.
    One whose id is there already is left out, so a write may be repeated.
    """
    columns = EventRow.__table__.columns
    # With their types said: a database that is strict cannot tell them in a SELECT.
    values = {name: cast(bindparam(f"new_{name}"), columns[name].type) for name in _SAID}
    newest = select(func.max(EventRow.seq)).where(EventRow.workspace == bindparam("new_workspace")).scalar_subquery()
    there = exists().where(EventRow.id == bindparam("new_id"))
    row = select(*values.values(), func.coalesce(newest, 0) + 1).where(~there)
    return insert(EventRow).from_select([*_SAID, "seq"], row)


_PUT = _put()


def changes_of(events: Iterable[Event]) -> list[Change]:
    """To be written together with what they tell of."""
    values = [{f"new_{name}": getattr(event, name) for name in _SAID} for event in events]
    for one in values:
        one["new_kind"] = str(one["new_kind"])
    return [(_PUT, values)] if values else []


class EventStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, workspace: str, filter: EventFilter, *, before: int | None, limit: int) -> list[Event]:
        """The newest first: those with a smaller number than `before`."""
        wanted = _wanted(workspace, filter)
        if before is not None:
            wanted = wanted.where(EventRow.seq < before)
        return await self._events(wanted.order_by(EventRow.seq.desc()).limit(limit))

    async def behind(self, workspace: str, filter: EventFilter, after: int, *, limit: int) -> list[Event]:
        """The oldest first: those with a greater number than `after`."""
        wanted = _wanted(workspace, filter).where(EventRow.seq > after)
        return await self._events(wanted.order_by(EventRow.seq).limit(limit))

    async def last(self, workspace: str) -> int:
        """The number of the newest; 0 where there is none."""
        return await self._number(select(func.max(EventRow.seq)).where(EventRow.workspace == workspace)) or 0

    async def prune(self, before: float | None, most: int) -> int:
        """Takes away those in front of the first that is not older than `before` (None: none is too old), then the oldest until
        `most` are left in a workspace (0: any number); tells how many. The newest always stays: the next one has its number
        from it."""
        removed = 0
        workspace = await self._next_workspace("")
        while workspace is not None:
            oldest = await self._number(select(func.min(EventRow.seq)).where(EventRow.workspace == workspace)) or 0
            kept = await self._first_kept(workspace, oldest, before, most)
            for seq in range(oldest, kept, _PRUNED):
                old = delete(EventRow).where(EventRow.workspace == workspace, EventRow.seq < min(seq + _PRUNED, kept))
                await self._database.write((old, {}), durable=False)
            removed += max(0, kept - oldest)
            workspace = await self._next_workspace(workspace)
        return removed

    async def _first_kept(self, workspace: str, oldest: int, before: float | None, most: int) -> int:
        newest = await self.last(workspace)
        kept = max(oldest, newest - most + 1) if most else oldest
        if before is not None:
            young = select(EventRow.seq).where(EventRow.workspace == workspace, EventRow.at >= before)
            kept = max(kept, await self._number(young.order_by(EventRow.seq).limit(1)) or newest)
        return kept

    async def _next_workspace(self, behind: str) -> str | None:
        return await self._database.scalar(select(func.min(EventRow.workspace)).where(EventRow.workspace > behind))

    async def _number(self, query: Select[int]) -> int | None:
        return await self._database.scalar(query)

    async def _events(self, query: Select[EventRow]) -> list[Event]:
        return await self._database.read(lambda connection: [_event(row) for row in rows(connection, query)])


def _wanted(workspace: str, filter: EventFilter) -> Select[EventRow]:
    wanted = select(EventRow).where(EventRow.workspace == workspace)
    if filter.sandbox is not None:
        wanted = wanted.where(EventRow.sandbox == filter.sandbox)
    if filter.kinds:
        wanted = wanted.where(EventRow.kind.in_([kind.value for kind in filter.kinds]))
    if filter.since is not None:
        wanted = wanted.where(EventRow.at >= filter.since)
    if filter.until is not None:
        wanted = wanted.where(EventRow.at < filter.until)
    return wanted


def _event(row: EventRow) -> Event:
    said: dict[str, Any] = {name: getattr(row, name) for name in _FIELDS}
    said["kind"] = EventKind(said["kind"])
    return Event(**said)
