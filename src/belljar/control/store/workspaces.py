"""Rows of workspaces."""

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError

from belljar.control.store.database import Database
from belljar.control.store.tables import KeyRow, SandboxRow, SnapshotRow, TemplateRow, WorkspaceRow
from belljar.model.errors import AlreadyExists
from belljar.model.workspace import Quota, Workspace

__all__ = ("WorkspaceStore",)


class WorkspaceStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, workspace: Workspace) -> None:
        """Raises AlreadyExists, also for one that was deleted."""
        values = {"id": workspace.id, "created": workspace.created, "quota": workspace.quota.said()}
        try:
            await self._database.write((insert(WorkspaceRow), values))
        except IntegrityError as error:
            raise AlreadyExists(f"there is, or was, a workspace {workspace.id}") from error

    async def set_quota(self, id: str, quota: Quota) -> None:
        changed = update(WorkspaceRow).where(WorkspaceRow.id == id).values(quota=quota.said())
        await self._database.write((changed, {}))

    async def end(self, id: str, at: float) -> None:
        """With all its keys."""
        revoked = update(KeyRow).where(KeyRow.workspace == id, KeyRow.revoked.is_(None)).values(revoked=at)
        ended = update(WorkspaceRow).where(WorkspaceRow.id == id).values(ended=at)
        await self._database.write((revoked, {}), (ended, {}))

    async def live(self) -> list[Workspace]:
        """In the order of their names."""
        wanted = select(WorkspaceRow).where(WorkspaceRow.ended.is_(None)).order_by(WorkspaceRow.id)
        found = await self._database.rows(wanted)
        return [Workspace(row.id, row.created, Quota.of(row.quota), row.ended) for row in found]

    async def holds(self, id: str) -> dict[str, int]:
        """What there is in it, by kind; nothing for an empty one."""
        await self._database.settled()
        kinds = {
            "sandboxes": (SandboxRow, SandboxRow.ended_at.is_(None)),
            "snapshots": (SnapshotRow, SnapshotRow.ended_at.is_(None)),
            "templates": (TemplateRow, TemplateRow.snapshot.is_not(None)),
        }
        counts = {
            kind: await self._database.scalar(select(func.count()).select_from(row).where(row.workspace == id, there))
            for kind, (row, there) in kinds.items()
        }
        return {kind: count for kind, count in counts.items() if count}
