"""Rows of API keys."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update

from belljar.control.store.database import Database
from belljar.control.store.tables import KeyRow
from belljar.model.key import Key, Scope
from belljar.model.workspace import Quota

__all__ = ("KeyStore",)


class KeyStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, key: Key, digest: str) -> None:
        """`digest` is the SHA-256 of the key, in hex. The key itself is nowhere."""
        values: dict[str, Any] = {"id": key.id, "workspace": key.workspace, "name": key.name, "digest": digest}
        values |= {"scope": key.scope.value, "created": key.created, "expires": key.expires, "used": key.used}
        values |= {"quota": key.quota.said()}
        await self._database.write((insert(KeyRow), values))

    async def revoke(self, key: Key, at: float) -> None:
        await self._database.write((update(KeyRow).where(KeyRow.id == key.id).values(revoked=at), {}))

    async def note_used(self, used: Mapping[str, float]) -> None:
        """Id → when."""
        statement = update(KeyRow).where(KeyRow.id == bindparam("key_id")).values(used=bindparam("key_used"))
        changes = [(statement, {"key_id": id, "key_used": at}) for id, at in used.items()]
        await self._database.write(*changes, durable=False)

    async def valid(self, now: float) -> dict[str, Key]:
        """Digest → key, of those that are neither revoked nor expired."""
        valid = select(KeyRow).where(KeyRow.revoked.is_(None), KeyRow.expires.is_(None) | (KeyRow.expires > now))
        return {row.digest: _key(row) for row in await self._database.rows(valid)}

    async def list(self, workspace: str, *, after: str | None, limit: int) -> list[Key]:
        """The newest first, from the one after the id `after` on."""
        wanted = select(KeyRow).where(KeyRow.workspace == workspace)
        if after is not None:
            wanted = wanted.where(KeyRow.id < after)
        return [_key(row) for row in await self._database.rows(wanted.order_by(KeyRow.id.desc()).limit(limit))]

    async def get(self, workspace: str, id: str) -> Key | None:
        found = await self._database.rows(select(KeyRow).where(KeyRow.workspace == workspace, KeyRow.id == id))
        return _key(found[0]) if found else None

    async def count(self, workspace: str, now: float) -> int:
        """How many are valid."""
        valid = KeyRow.revoked.is_(None) & (KeyRow.expires.is_(None) | (KeyRow.expires > now))
        return await self._database.scalar(select(func.count()).where(KeyRow.workspace == workspace, valid)) or 0


def _key(row: KeyRow) -> Key:
    times = (row.created, row.expires, row.used, row.revoked)
    return Key(row.id, row.workspace, row.name, Scope(row.scope), *times, Quota.of(row.quota))
