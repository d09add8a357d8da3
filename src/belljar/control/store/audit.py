"""Rows of the audit log: put at the end, read, and taken away from the beginning."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, delete, func, insert, select

from belljar.control.store.database import Database
from belljar.control.store.place import rows
from belljar.control.store.tables import AuditRow
from belljar.model.audit import AuditEntry, entry_json

__all__ = ("AuditStore",)

_INSERT = insert(AuditRow)
_PRUNED = 2000
"""Rows that are taken away at once: other writes get their turn in between."""


class AuditStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        """All of them or none. There also after a kill of the server, not flushed for a power cut."""
        await self._database.write((_INSERT, [entry_json(entry) for entry in entries]), durable=False)

    async def last(self, workspace: str) -> AuditEntry | None:
        newest = await self.newest(workspace, limit=1)
        return newest[0] if newest else None

    async def newest(
        self,
        workspace: str,
        *,
        before: int | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int,
    ) -> list[AuditEntry]:
        """The newest first: those with a smaller number than `before`, from the time `since` on and before `until`."""
        wanted = select(AuditRow).where(AuditRow.workspace == workspace)
        if before is not None:
            wanted = wanted.where(AuditRow.seq < before)
        if since is not None:
            wanted = wanted.where(AuditRow.at >= since)
        if until is not None:
            wanted = wanted.where(AuditRow.at < until)
        return await self._entries(wanted.order_by(AuditRow.seq.desc()).limit(limit))

    async def between(self, workspace: str, after: int, last: int, *, limit: int) -> list[AuditEntry]:
        """The oldest first, behind number `after` and up to number `last`."""
        wanted = select(AuditRow).where(AuditRow.workspace == workspace, AuditRow.seq > after, AuditRow.seq <= last)
        return await self._entries(wanted.order_by(AuditRow.seq).limit(limit))

    async def _entries(self, query: Select[AuditRow]) -> list[AuditEntry]:
        return await self._database.read(lambda connection: [_entry(row) for row in rows(connection, query)])

    async def prune(self, before: float) -> int:
        """Takes away the entries in front of the first that is not older than `before`, and tells how many. The newest of a
        workspace always stays: the next one is tied to it."""
        removed = 0
        oldest = await self._first("")
        while oldest is not None:
            workspace, start = oldest
            kept = await self._first_kept(workspace, before)
            for seq in range(start, kept, _PRUNED):
                old = delete(AuditRow).where(AuditRow.workspace == workspace, AuditRow.seq < min(seq + _PRUNED, kept))
                await self._database.write((old, {}), durable=False)
            removed += kept - start
            oldest = await self._first(workspace)
        return removed

    async def _first(self, behind: str) -> tuple[str, int] | None:
        """The next workspace in the order of their ids, and its oldest entry."""
        wanted = select(AuditRow.workspace, AuditRow.seq).where(AuditRow.workspace > behind)
        ordered = wanted.order_by(AuditRow.workspace, AuditRow.seq).limit(1)
        row = await self._database.read(lambda connection: connection.execute(ordered).one_or_none())
        return None if row is None else (row[0], row[1])

    async def _first_kept(self, workspace: str, before: float) -> int:
        of_workspace = AuditRow.workspace == workspace
        # The sum keeps the index of times out of it: in the order of numbers the search ends at the first one that is kept.
        young = select(AuditRow.seq).where(of_workspace, AuditRow.at + 0 >= before).order_by(AuditRow.seq).limit(1)
        newest = select(func.max(AuditRow.seq)).where(of_workspace)
        return await self._database.scalar(young) or await self._database.scalar(newest) or 0


def _entry(row: AuditRow) -> AuditEntry:
    said: dict[str, Any] = {name: getattr(row, name) for name in AuditEntry.__dataclass_fields__}
    return AuditEntry(**said)
