"""Rows of snapshots."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from belljar.control.store.database import Database
from belljar.control.store.place import Change, rows
from belljar.control.store.tables import SnapshotRow
from belljar.model.errors import AlreadyExists
from belljar.model.snapshot import Snapshot, SnapshotKind

__all__ = ("Gone", "SnapshotFilter", "SnapshotRecord", "SnapshotStore", "Source", "State", "ended", "record_of")


class State(StrEnum):
    """`making`: asked for, and not yet acknowledged."""

    MAKING = "making"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Source:
    """What a sandbox that starts from the snapshot has unless told otherwise: as the one it was taken of."""

    env: Mapping[str, str] = field(default_factory=dict[str, str])
    workdir: str | None = None
    user: str | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """`reason`: deleted, expired, failed, lost or replaced. `at` in seconds since 1970."""

    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """A snapshot as its owner knows it: what the node says, and what it was called. `expires` in seconds since 1970."""

    workspace: str
    snapshot: Snapshot
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    expires: float | None = None
    source: Source = field(default_factory=Source)
    state: State = State.READY
    gone: Gone | None = None

    @property
    def id(self) -> str:
        return self.snapshot.id


@dataclass(frozen=True, slots=True)
class SnapshotFilter:
    kind: SnapshotKind | None = None
    sandbox: str | None = None
    image: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


class SnapshotStore:
    """Every write is durable when it returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, record: SnapshotRecord) -> None:
        """Raises AlreadyExists when a live snapshot of the workspace has the name. Takes the place of one that failed."""
        failed = delete(SnapshotRow).where(SnapshotRow.id == record.id, SnapshotRow.ended_reason == "failed")
        try:
            await self._database.write((failed, {}), (insert(SnapshotRow), _values_of(record)))
        except IntegrityError as error:
            raise _taken(record.name) from error

    async def ready(self, snapshot: Snapshot, *more: Change) -> None:
        """What the node has acknowledged, together with `more`."""
        values = _node_values(snapshot) | {"state": State.READY.value, "ended_at": None, "ended_reason": None}
        changed = update(SnapshotRow).where(SnapshotRow.id == snapshot.id).values(values)
        await self._database.write((changed, {}), *more)

    async def change(
        self, id: str, *more: Change, name: str | None, labels: Mapping[str, str], expires: float | None
    ) -> None:
        """Together with `more`. Raises AlreadyExists (the name)."""
        values = {"name": name, "labels": dict(labels), "expires": expires}
        try:
            await self._database.write((update(SnapshotRow).where(SnapshotRow.id == id).values(values), {}), *more)
        except IntegrityError as error:
            raise _taken(name) from error

    async def write(self, *changes: Change) -> None:
        """Ends of rows, and what belongs to them."""
        await self._database.write(*changes)

    async def get(self, id: str) -> SnapshotRecord | None:
        found = await self._records(select(SnapshotRow).where(SnapshotRow.id == id))
        return found[0] if found else None

    async def named(self, workspace: str, name: str) -> SnapshotRecord | None:
        """The live one with this name, else the newest that had it."""
        query = select(SnapshotRow).where(SnapshotRow.workspace == workspace, SnapshotRow.name == name)
        order = (SnapshotRow.ended_at.is_(None).desc(), SnapshotRow.ended_at.desc())
        found = await self._records(query.order_by(*order).limit(1))
        return found[0] if found else None

    async def page(
        self, workspace: str, filter: SnapshotFilter, *, now: float, after: str | None, limit: int
    ) -> list[SnapshotRecord]:
        """The newest first, at most `limit` of them, those older than `after`."""
        query = select(SnapshotRow).where(
            SnapshotRow.workspace == workspace,
            SnapshotRow.ended_at.is_(None),
            SnapshotRow.state == State.READY.value,
            (SnapshotRow.expires.is_(None)) | (SnapshotRow.expires > now),
        )
        if filter.kind is not None:
            query = query.where(SnapshotRow.kind == filter.kind.value)
        if filter.sandbox is not None:
            query = query.where(SnapshotRow.sandbox == filter.sandbox)
        if filter.image is not None:
            query = query.where(SnapshotRow.image == filter.image)
        for key, value in filter.labels.items():
            query = query.where(SnapshotRow.labels[key].as_string() == value)
        if after is not None:
            query = query.where(SnapshotRow.id < after)
        return await self._records(query.order_by(SnapshotRow.id.desc()).limit(limit))

    async def count(self, workspace: str) -> int:
        """Of those that are there or being made."""
        query = select(func.count()).where(SnapshotRow.workspace == workspace, SnapshotRow.ended_at.is_(None))
        await self._database.settled()
        return await self._database.scalar(query) or 0

    async def expired(self, now: float, *, limit: int = 100) -> list[SnapshotRecord]:
        """Of every workspace."""
        query = select(SnapshotRow).where(
            SnapshotRow.ended_at.is_(None), SnapshotRow.state == State.READY.value, SnapshotRow.expires <= now
        )
        return await self._records(query.order_by(SnapshotRow.expires).limit(limit))

    async def next_expiry(self) -> float | None:
        query = select(func.min(SnapshotRow.expires)).where(
            SnapshotRow.ended_at.is_(None), SnapshotRow.state == State.READY.value
        )
        await self._database.settled()
        return await self._database.scalar(query)

    async def states(self) -> dict[str, tuple[State, bool, bool]]:
        """Of every workspace: id → its state, whether it has ended, whether it belongs to a template."""
        query = select(SnapshotRow.id, SnapshotRow.state, SnapshotRow.ended_at, SnapshotRow.template)
        await self._database.settled()
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return {id: (State(state), at is not None, template) for id, state, at, template in found}

    async def _records(self, query: Select[SnapshotRow]) -> list[SnapshotRecord]:
        await self._database.settled()
        return await self._database.read(lambda connection: [record_of(row) for row in rows(connection, query)])


def ended(id: str, gone: Gone) -> Change:
    """The row's end, to be written together with other changes. One that has ended stays as it is."""
    alive = (SnapshotRow.id == id, SnapshotRow.ended_at.is_(None))
    return update(SnapshotRow).where(*alive).values(ended_at=gone.at, ended_reason=gone.reason), {}


def record_of(row: SnapshotRow) -> SnapshotRecord:
    snapshot = Snapshot(
        id=row.id,
        kind=SnapshotKind(row.kind),
        sandbox=row.sandbox,
        image=row.image,
        created=row.created,
        size=row.size,
        stored=row.stored,
        cpus=row.cpus,
        memory=row.memory,
        disk=row.disk,
        parent=row.parent,
        path=row.path,
        paused=row.paused,
        template=row.template,
    )
    gone = None if row.ended_at is None else Gone(row.ended_reason or "", row.ended_at)
    source = Source(**row.source)
    return SnapshotRecord(row.workspace, snapshot, row.name, row.labels, row.expires, source, State(row.state), gone)


def _node_values(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "kind": snapshot.kind.value,
        "sandbox": snapshot.sandbox,
        "image": snapshot.image,
        "parent": snapshot.parent,
        "path": snapshot.path,
        "template": snapshot.template,
        "size": snapshot.size,
        "stored": snapshot.stored,
        "cpus": snapshot.cpus,
        "memory": snapshot.memory,
        "disk": snapshot.disk,
        "paused": snapshot.paused,
        "created": snapshot.created,
    }


def _values_of(record: SnapshotRecord) -> dict[str, Any]:
    source = record.source
    return _node_values(record.snapshot) | {
        "id": record.id,
        "workspace": record.workspace,
        "name": record.name,
        "state": record.state.value,
        "labels": dict(record.labels),
        "source": {"env": dict(source.env), "workdir": source.workdir, "user": source.user, "pids": source.pids},
        "expires": record.expires,
        "ended_at": record.gone.at if record.gone else None,
        "ended_reason": record.gone.reason if record.gone else None,
    }


def _taken(name: str | None) -> AlreadyExists:
    return AlreadyExists(f"a snapshot has the name {name}" if name else "a snapshot has this id")
