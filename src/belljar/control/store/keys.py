"""Rows of API keys."""

from dataclasses import dataclass

from sqlalchemy import insert, select

from belljar.control.store.database import Database
from belljar.control.store.tables import KeyRow

__all__ = ("KeyRecord", "KeyStore")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """`digest` is the SHA-256 of the key, in hex. The key itself is nowhere."""

    id: str
    workspace: str
    name: str
    digest: str
    created: float


class KeyStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, record: KeyRecord) -> None:
        values = {"id": record.id, "workspace": record.workspace, "name": record.name}
        values |= {"digest": record.digest, "created": record.created}
        await self._database.write((insert(KeyRow), values))

    async def valid(self) -> list[KeyRecord]:
        """Those that are not revoked."""
        async with self._database.reading() as session:
            rows = await session.scalars(select(KeyRow).where(KeyRow.revoked.is_(None)))
            return [KeyRecord(row.id, row.workspace, row.name, row.digest, row.created) for row in rows]
