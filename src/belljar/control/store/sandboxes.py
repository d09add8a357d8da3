"""Rows of sandboxes, and the keys with which a caller repeats a create."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from sqlalchemy import Select, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.control.store.database import Database
from belljar.control.store.place import Change, rows
from belljar.control.store.tables import IdempotencyRow, SandboxRow
from belljar.model.errors import AlreadyExists, Error
from belljar.model.sandbox import Ended, Limits, Network, OnTimer, Sandbox, SandboxSpec, Status

__all__ = ("Companion", "Filter", "Record", "Repeat", "SandboxStore", "record_of_sandbox")

_log = get_logger("control.store")
_BEHIND_SECONDS = 0.02
_AGAIN_SECONDS = 5.0
_MESSAGE_KEPT = 2000
_INSERT = insert(SandboxRow)
_INSERT_REPEAT = insert(IdempotencyRow)
_FOLLOW = (
    update(SandboxRow)
    .where(SandboxRow.id == bindparam("this"), SandboxRow.ended_at.is_(None))
    .values(
        {
            name: bindparam(name)
            for name in (
                "status",
                "started",
                "expires",
                "lifetime",
                "idle",
                "cpus",
                "memory",
                "disk",
                "pids",
                "ended_at",
                "ended_reason",
                "ended_message",
            )
        }
    )
)
REPEAT_SECONDS = 24 * 3600.0
"""How long a create can be repeated with its key."""


@dataclass(frozen=True, slots=True)
class Record:
    """A sandbox, whose it is, the boot of the machine it was asked for in, and the key it was made with."""

    workspace: str
    sandbox: Sandbox
    boot: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Repeat:
    """`digest`: of everything that was asked for with this key."""

    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class Filter:
    """`statuses` empty: the live ones; None: all."""

    statuses: tuple[Status, ...] | None = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    image: str | None = None
    name: str | None = None

    @property
    def only_live(self) -> bool:
        """Whether none that has ended can fit."""
        return self.statuses is not None and not any(status.is_end for status in self.statuses)

    def fits(self, sandbox: Sandbox) -> bool:
        """A live one; of others the store tells."""
        spec = sandbox.spec
        return (
            (not self.statuses or sandbox.status in self.statuses)
            and (self.image is None or spec.image == self.image)
            and (self.name is None or spec.name == self.name)
            and all(spec.labels.get(key) == value for key, value in self.labels.items())
        )


class Companion(Protocol):
    """Has something to write in the very transaction in which a sandbox's row follows the node."""

    def changes(self, ids: Collection[str]) -> tuple[list[Change], Callable[[], None]]:
        """And what to call once they are written. When they could not be, or nobody knows, this is asked again."""
        ...


class SandboxStore:
    """Own it as an async context manager: leaving writes down what is still on its way.

    What only follows the node is written behind, many rows at once, and before anything is read.
    """

    def __init__(self, database: Database, *companions: Companion) -> None:
        self._database = database
        self._companions = companions
        self._behind: dict[str, Sandbox] = {}
        self._wake = asyncio.Event()
        self._tasks = TaskSet(lambda name, error: _log.error("a task failed", task=name, exc_info=error))

    async def __aenter__(self) -> Self:
        self._tasks.start(self._write_behind(), name="store")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()
        await self.catch_up()

    async def insert(self, record: Record, repeat: Repeat | None = None) -> None:
        """Durable. Raises AlreadyExists when a live sandbox of the workspace has the name."""
        changes: list[Change] = [(_INSERT, _values_of(record))]
        if repeat is not None:
            key = {"workspace": record.workspace, "key": repeat.key, "digest": repeat.digest}
            changes.append((_INSERT_REPEAT, key | {"sandbox": record.sandbox.id, "created": record.sandbox.created}))
        try:
            await self._write(*changes, durable=True)
        except IntegrityError as error:
            raise AlreadyExists(f"a live sandbox has the name {record.sandbox.spec.name}") from error

    async def insert_all(self, records: Sequence[Record]) -> None:
        """All of them or none, durable. Raises AlreadyExists for a name or an id that is taken."""
        try:
            await self._write((_INSERT, [_values_of(record) for record in records]), durable=True)
        except IntegrityError as error:
            raise AlreadyExists("a live sandbox has one of the names, or one of the ids was used before") from error

    async def repeated(self, workspace: str, key: str, *, now: float) -> tuple[str, str] | None:
        """The digest and the sandbox of an earlier create with this key."""
        query = select(IdempotencyRow).where(IdempotencyRow.workspace == workspace, IdempotencyRow.key == key)
        found = await self._database.rows(query)
        return (found[0].digest, found[0].sandbox) if found and found[0].created >= now - REPEAT_SECONDS else None

    def follow(self, sandbox: Sandbox) -> None:
        """Status, times, timers and limits, written soon; a row that has ended stays as it is."""
        _put(self._behind, sandbox)
        self._wake.set()

    async def settle(self, sandbox: Sandbox) -> None:
        """The same, durable before this returns."""
        _put(self._behind, sandbox)
        await self._write(durable=True)

    async def set_labels(self, id: str, labels: Mapping[str, str], *more: Change) -> None:
        """Together with `more`."""
        changed = update(SandboxRow).where(SandboxRow.id == id).values(labels=dict(labels))
        await self._database.write((changed, {}), *more)

    async def forget_repeat(self, sandbox: str) -> None:
        """After a create that failed: the same key may try again."""
        forgotten = delete(IdempotencyRow).where(IdempotencyRow.sandbox == sandbox)
        await self._database.write((forgotten, {}), durable=False)

    async def prune_repeats(self, *, now: float) -> None:
        old = delete(IdempotencyRow).where(IdempotencyRow.created < now - REPEAT_SECONDS)
        await self._database.write((old, {}), durable=False)

    async def get(self, id: str) -> Record | None:
        found = await self._records(select(SandboxRow).where(SandboxRow.id == id))
        return found[0] if found else None

    async def used(self, ids: Sequence[str]) -> bool:
        """Whether there is, or was, one of these in any workspace."""
        await self.catch_up()
        return await self._database.scalar(select(SandboxRow.id).where(SandboxRow.id.in_(ids)).limit(1)) is not None

    async def latest_named(self, workspace: str, name: str) -> Record | None:
        """The newest with this name, ended ones too."""
        query = select(SandboxRow).where(SandboxRow.workspace == workspace, SandboxRow.name == name)
        found = await self._records(query.order_by(SandboxRow.id.desc()).limit(1))
        return found[0] if found else None

    async def live(self) -> list[Record]:
        """Of every workspace."""
        return await self._records(select(SandboxRow).where(SandboxRow.ended_at.is_(None)))

    async def page(self, workspace: str, filter: Filter, *, after: str | None, limit: int) -> list[Record]:
        """The newest first, at most `limit` of them, those older than `after`."""
        query = select(SandboxRow).where(SandboxRow.workspace == workspace)
        if filter.statuses is not None:
            query = query.where(
                SandboxRow.status.in_([status.value for status in filter.statuses])
                if filter.statuses
                else SandboxRow.ended_at.is_(None)
            )
        if filter.image is not None:
            query = query.where(SandboxRow.image == filter.image)
        if filter.name is not None:
            query = query.where(SandboxRow.name == filter.name)
        for key, value in filter.labels.items():
            query = query.where(SandboxRow.labels[key].as_string() == value)
        if after is not None:
            query = query.where(SandboxRow.id < after)
        return await self._records(query.order_by(SandboxRow.id.desc()).limit(limit))

    async def _records(self, query: Select[SandboxRow]) -> list[Record]:
        await self.catch_up()
        return await self._database.read(lambda connection: [record_of_sandbox(row) for row in rows(connection, query)])

    async def _write_behind(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(_BEHIND_SECONDS)
            self._wake.clear()
            try:
                await self.catch_up()
            except (Error, SQLAlchemyError):
                _log.exception("the store could not follow, trying again")
                await asyncio.sleep(_AGAIN_SECONDS)
                self._wake.set()

    async def catch_up(self) -> None:
        """What was said to be written soon is there to be read when this returns."""
        if self._behind:
            await self._write(durable=False)
        else:
            await self._database.settled()

    async def _write(self, *changes: Change, durable: bool) -> None:
        """The changes, and with them everything that is behind."""
        taken, self._behind = self._behind, {}
        following: list[Change] = [(_FOLLOW, [_progress_of(sandbox) for sandbox in taken.values()])] if taken else []
        written: list[Callable[[], None]] = []
        try:
            for companion in self._companions:
                more, done = companion.changes(taken)
                following += more
                written.append(done)
            await self._database.write(*following, *changes, durable=durable)
        except BaseException:
            for newer in self._behind.values():
                _put(taken, newer)
            self._behind = taken
            self._wake.set()
            raise
        for done in written:
            done()


def _put(behind: dict[str, Sandbox], sandbox: Sandbox) -> None:
    before = behind.get(sandbox.id)
    if before is None or before.ended is None:
        behind[sandbox.id] = sandbox


def _progress_of(sandbox: Sandbox) -> dict[str, Any]:
    """The values of `_FOLLOW`."""
    ended, limits = sandbox.ended, sandbox.spec.limits
    return {
        "this": sandbox.id,
        "status": sandbox.status.value,
        "started": sandbox.started,
        "expires": sandbox.expires,
        "lifetime": sandbox.spec.lifetime,
        "idle": sandbox.spec.idle,
        "cpus": limits.cpus,
        "memory": limits.memory,
        "disk": limits.disk,
        "pids": limits.pids,
        "ended_at": ended.at if ended else None,
        "ended_reason": ended.reason if ended else None,
        "ended_message": ended.message[:_MESSAGE_KEPT] if ended else None,
    }


def _values_of(record: Record) -> dict[str, Any]:
    sandbox, spec = record.sandbox, record.sandbox.spec
    progress = _progress_of(sandbox)
    del progress["this"]
    return progress | {
        "id": sandbox.id,
        "workspace": record.workspace,
        "name": spec.name,
        "image": spec.image,
        "env": dict(spec.env),
        "labels": dict(spec.labels),
        "workdir": spec.workdir,
        "user": spec.user,
        "network": spec.network.value,
        "on_lifetime": spec.on_lifetime.value,
        "on_idle": spec.on_idle.value,
        "boot": record.boot,
        "created": sandbox.created,
        "snapshot": spec.snapshot,
        "parent": sandbox.parent,
        "key": record.key,
    }


def record_of_sandbox(row: SandboxRow) -> Record:
    spec = SandboxSpec(
        image=row.image,
        snapshot=row.snapshot,
        name=row.name,
        limits=Limits(row.cpus, row.memory, row.disk, row.pids),
        env=row.env,
        labels=row.labels,
        workdir=row.workdir,
        user=row.user,
        network=Network(row.network),
        lifetime=row.lifetime,
        idle=row.idle,
        # Before there was a choice, it was ended.
        on_lifetime=OnTimer(row.on_lifetime or OnTimer.TERMINATE),
        on_idle=OnTimer(row.on_idle or OnTimer.TERMINATE),
    )
    ended = None if row.ended_at is None else Ended(row.ended_reason or "", row.ended_at, row.ended_message or "")
    sandbox = Sandbox(row.id, spec, Status(row.status), row.created, row.started, row.expires, ended, row.parent)
    return Record(row.workspace, sandbox, row.boot, row.key)
