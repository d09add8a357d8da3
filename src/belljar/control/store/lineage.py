"""Who came from whom, as the rows say."""

from collections.abc import Collection

from sqlalchemy import or_, select

from belljar.control.store.database import Database
from belljar.control.store.place import rows
from belljar.control.store.sandboxes import Record, SandboxStore, record_of_sandbox
from belljar.control.store.snapshots import SnapshotRecord, State, record_of
from belljar.control.store.tables import SandboxRow, SnapshotRow

__all__ = ("LineageStore",)

_AT_ONCE = 500
"""Ids in one question: SQLite has a limit of its own."""


class LineageStore:
    def __init__(self, database: Database, sandboxes: SandboxStore) -> None:
        self._database = database
        self._sandboxes = sandboxes

    async def sandboxes(
        self,
        workspace: str,
        *,
        ids: Collection[str] = (),
        parents: Collection[str] = (),
        snapshots: Collection[str] = (),
        limit: int,
    ) -> list[Record]:
        """Those with one of the ids, forked from one of `parents`, or made from one of `snapshots`; the oldest first."""
        asked = ((SandboxRow.id, ids), (SandboxRow.parent, parents), (SandboxRow.snapshot, snapshots))
        queries = [
            select(SandboxRow)
            .where(SandboxRow.workspace == workspace, column.in_(some))
            .order_by(SandboxRow.id)
            .limit(limit)
            for column, wanted in asked
            for some in _parts(wanted)
        ]
        await self._sandboxes.catch_up()
        return await self._database.read(
            lambda connection: [record_of_sandbox(row) for query in queries for row in rows(connection, query)]
        )

    async def snapshots(
        self, workspace: str, *, ids: Collection[str] = (), sandboxes: Collection[str] = (), limit: int
    ) -> list[SnapshotRecord]:
        """Those with one of the ids, or taken of one of `sandboxes`; gone ones too, the oldest first."""
        queries = [
            select(SnapshotRow)
            .where(SnapshotRow.workspace == workspace, SnapshotRow.state == State.READY.value, column.in_(some))
            .order_by(SnapshotRow.id)
            .limit(limit)
            for column, wanted in ((SnapshotRow.id, ids), (SnapshotRow.sandbox, sandboxes))
            for some in _parts(wanted)
        ]
        return await self._database.read(
            lambda connection: [record_of(row) for query in queries for row in rows(connection, query)]
        )

    async def newest(self, workspace: str, *, limit: int) -> tuple[list[str], list[str]]:
        """Ids of the newest snapshots that are there, and of the newest live sandboxes that came from something."""
        snapshots = (
            select(SnapshotRow.id)
            .where(
                SnapshotRow.workspace == workspace,
                SnapshotRow.ended_at.is_(None),
                SnapshotRow.state == State.READY.value,
            )
            .order_by(SnapshotRow.id.desc())
            .limit(limit)
        )
        sandboxes = (
            select(SandboxRow.id)
            .where(
                SandboxRow.workspace == workspace,
                SandboxRow.ended_at.is_(None),
                or_(SandboxRow.parent.is_not(None), SandboxRow.snapshot.is_not(None)),
            )
            .order_by(SandboxRow.id.desc())
            .limit(limit)
        )
        await self._database.settled()
        return await self._database.read(
            lambda connection: (list(connection.scalars(snapshots)), list(connection.scalars(sandboxes)))
        )


def _parts(wanted: Collection[str]) -> list[list[str]]:
    each = sorted(wanted)
    return [each[at : at + _AT_ONCE] for at in range(0, len(each), _AT_ONCE)]
