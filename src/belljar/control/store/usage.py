"""Rows of what sandboxes used: accounts, and the hours they are made of."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, TextClause, delete, func, select, text

from belljar.control.store.database import Database
from belljar.control.store.place import Change
from belljar.control.store.tables import Base, UsageHourRow, UsageRow, WorkspaceRow
from belljar.model.usage import AMOUNTS, HOUR_US, Amounts, Counters, Ledger, UsageEntry, hour_of

__all__ = ("UsageStore", "changes_of")

_FIXED = ("sandbox", "workspace", "begun")
_MOVING = ("millicores", "memory", "until", "closed", "memory_seen", "disk_seen")
_SEEN = ("cpu_us", "received_bytes", "sent_bytes")
_KEYS = ("sandbox", "hour")
_LOADED = 500
"""Accounts that one query asks for: a statement may have so many parameters."""


def _upsert(table: type[Base], keys: tuple[str, ...], names: Iterable[str]) -> TextClause:
    """As text, which both databases read alike; SQLAlchemy has one construct for each."""
    columns = [column.name for column in table.__table__.columns]
    values, changed = (
        ", ".join(f":{name}" for name in columns),
        ", ".join(f"{name} = excluded.{name}" for name in names),
    )
    into = f"{table.__tablename__} ({', '.join(columns)})"
    return text(f"INSERT INTO {into} VALUES ({values}) ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changed}")


_ACCOUNT = _upsert(UsageRow, ("sandbox",), (*_MOVING, *(f"seen_{name}" for name in _SEEN), *AMOUNTS))
_HOUR = _upsert(UsageHourRow, _KEYS, AMOUNTS)


def changes_of(found: Iterable[tuple[Ledger, Mapping[int, Amounts]]]) -> list[Change]:
    """Accounts as they are now, and the whole of these hours of theirs: writing them a second time changes nothing."""
    accounts: list[dict[str, Any]] = []
    hours: list[dict[str, Any]] = []
    for ledger, used in found:
        accounts.append(
            {name: getattr(ledger, name) for name in (*_FIXED, *_MOVING)}
            | {f"seen_{name}": getattr(ledger.seen, name) for name in _SEEN}
            | _values(ledger.total)
        )
        own = {"sandbox": ledger.sandbox, "workspace": ledger.workspace}
        hours += [own | {"hour": hour} | _values(amounts) for hour, amounts in used.items()]
    changes: list[Change] = []
    if accounts:
        changes.append((_ACCOUNT, accounts))
    if hours:
        changes.append((_HOUR, hours))
    return changes


class UsageStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, changes: list[Change]) -> None:
        """All in one transaction. There also after a kill of the server, not flushed for a power cut."""
        if changes:
            await self._database.write(*changes, durable=False)

    async def unclosed(self) -> list[tuple[Ledger, dict[int, Amounts]]]:
        """Every account that goes on, with what is in the hour that it has come to."""
        accounts = await self._database.rows(select(UsageRow).where(UsageRow.closed.is_(False)))
        found = {row.sandbox: (_ledger(row), dict[int, Amounts]()) for row in accounts}
        ids = list(found)
        for start in range(0, len(ids), _LOADED):
            part = ids[start : start + _LOADED]
            oldest = min(hour_of(found[id][0].until) for id in part)
            wanted = select(UsageHourRow).where(UsageHourRow.sandbox.in_(part), UsageHourRow.hour >= oldest)
            for row in await self._database.rows(wanted):
                ledger, hours = found[row.sandbox]
                if row.hour >= hour_of(ledger.until):
                    hours[row.hour] = _amounts(row)
        return list(found.values())

    async def account(self, sandbox: str) -> Ledger | None:
        found = await self._database.rows(select(UsageRow).where(UsageRow.sandbox == sandbox))
        return _ledger(found[0]) if found else None

    async def by_sandbox(
        self, workspace: str | None, hours: tuple[int, int], *, after: str | None, limit: int
    ) -> list[UsageEntry]:
        """The newest first, older than `after`. `workspace` None: of all. `hours`: from the first, and before the second."""
        wanted = _sums(UsageHourRow.sandbox, UsageHourRow.workspace, within=_within(workspace, hours))
        if after is not None:
            wanted = wanted.where(UsageHourRow.sandbox < after)
        ordered = wanted.order_by(UsageHourRow.sandbox.desc()).limit(limit)
        return [_entry(row[2:], sandbox=row[0], workspace=row[1]) for row in await self._rows(ordered)]

    async def by_hour(
        self, workspace: str | None, hours: tuple[int, int], *, after: int | None, limit: int
    ) -> list[UsageEntry]:
        """The newest hour first, before the hour `after`."""
        wanted = _sums(UsageHourRow.hour, within=_within(workspace, hours))
        if after is not None:
            wanted = wanted.where(UsageHourRow.hour < after)
        ordered = wanted.order_by(UsageHourRow.hour.desc()).limit(limit)
        return [
            _entry(row[1:], workspace=workspace, hour=row[0] * HOUR_US // 1_000_000)
            for row in await self._rows(ordered)
        ]

    async def by_workspace(
        self, workspace: str | None, hours: tuple[int, int], *, after: str | None, limit: int
    ) -> list[UsageEntry]:
        """In the order of their names, behind `after`."""
        wanted = _sums(UsageHourRow.workspace, within=_within(workspace, hours))
        if after is not None:
            wanted = wanted.where(UsageHourRow.workspace > after)
        ordered = wanted.order_by(UsageHourRow.workspace).limit(limit)
        return [_entry(row[1:], workspace=row[0]) for row in await self._rows(ordered)]

    async def has_been(self, workspace: str) -> bool:
        """Whether there is or was such a workspace."""
        return await self._database.scalar(select(WorkspaceRow.id).where(WorkspaceRow.id == workspace)) is not None

    async def prune(self, before: int) -> int:
        """Takes away the hours before that one, and accounts that were closed before it; tells how many hours. One hour at a
        time: other writes get their turn in between.
        """
        removed = 0
        while (oldest := await self._oldest()) is not None and oldest < before:
            await self._database.write((delete(UsageHourRow).where(UsageHourRow.hour == oldest), {}), durable=False)
            removed += 1
        ended = delete(UsageRow).where(UsageRow.closed.is_(True), UsageRow.until < before * HOUR_US)
        await self._database.write((ended, {}), durable=False)
        return removed

    async def _oldest(self) -> int | None:
        return await self._database.scalar(select(func.min(UsageHourRow.hour)))

    async def _rows(self, query: Any) -> list[tuple[Any, ...]]:
        return await self._database.read(lambda connection: [tuple(row) for row in connection.execute(query)])


def _within(workspace: str | None, hours: tuple[int, int]) -> list[ColumnElement[bool]]:
    found = [UsageHourRow.hour >= hours[0], UsageHourRow.hour < hours[1]]
    return found if workspace is None else [*found, UsageHourRow.workspace == workspace]


def _sums(*keys: Any, within: list[ColumnElement[bool]]) -> Any:
    sums: list[Any] = [func.sum(getattr(UsageHourRow, name)) for name in AMOUNTS]
    return select(*keys, *sums).where(*within).group_by(*keys)


def _entry(sums: tuple[Any, ...], **of: Any) -> UsageEntry:
    said: dict[str, Any] = of | dict(zip(AMOUNTS, map(int, sums), strict=True))
    return UsageEntry(**said)


def _values(amounts: Amounts) -> dict[str, int]:
    return {name: getattr(amounts, name) for name in AMOUNTS}


def _amounts(row: UsageRow | UsageHourRow) -> Amounts:
    return Amounts(*(getattr(row, name) for name in AMOUNTS))


def _ledger(row: UsageRow) -> Ledger:
    said: dict[str, Any] = {name: getattr(row, name) for name in (*_FIXED, *_MOVING)}
    seen = Counters(*(getattr(row, f"seen_{name}") for name in _SEEN))
    return Ledger(**said, seen=seen, total=_amounts(row))
