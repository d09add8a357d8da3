"""Snapshots as a product: taken, named, listed, compared, carried away and brought in, and gone when their time is up."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from belljar.base.clock import Clock, SystemClock
from belljar.base.ids import is_id, new_id
from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.base.telemetry import span
from belljar.control.changes import KEEP, Keep
from belljar.control.eventlog import EventLog
from belljar.control.origins import Origins
from belljar.control.pages import Pages
from belljar.control.sandboxes import MAX_PAGE, Sandboxes
from belljar.control.store.place import Change
from belljar.control.store.snapshots import (
    Gone,
    SnapshotFilter,
    SnapshotRecord,
    SnapshotStore,
    Source,
    State,
    ended,
)
from belljar.control.store.tables import DEFAULT_WORKSPACE
from belljar.model.errors import AlreadyExists, Conflict, Error, InvalidArgument, LimitExceeded, NotSupported
from belljar.model.events import EventKind
from belljar.model.sandbox import Sandbox, check_labels, check_name
from belljar.model.snapshot import CHANGES_PAGE, PREFIX, PathChange, Snapshot, SnapshotKind, SnapshotSpec
from belljar.node.api import NodeApi

__all__ = ("MAX_SNAPSHOTS", "SnapshotChanges", "Snapshots")

MAX_SNAPSHOTS = 10_000
_SIZES_SECONDS = 5.0
_LOOK_SECONDS = 60.0
_AGAIN_SECONDS = 5.0
_ENDS = {"failed": EventKind.SNAPSHOT_FAILED, "lost": EventKind.SNAPSHOT_LOST}
"""Of any other reason: it was deleted."""
_WORDS = ("import",)
"""Of addresses below those of snapshots."""
_log = get_logger("control.snapshots")


@dataclass(frozen=True, slots=True)
class SnapshotChanges:
    """What is KEEP stays. `ttl` in seconds from now on, None never; `labels` replace those that are there."""

    name: str | Keep | None = KEEP
    labels: Mapping[str, str] | None = None
    ttl: float | Keep | None = KEEP

    def said(self) -> list[str]:
        """What it changes."""
        changed = {"name": self.name is not KEEP, "labels": self.labels is not None, "ttl": self.ttl is not KEEP}
        return [name for name, is_said in changed.items() if is_said]


class Snapshots:
    """Own it as an async context manager: entering brings the rows in line with the node, then what expires is deleted.

    A row is durable before the node is asked, and says `making` until the node has answered; an end is durable before the node
    deletes. So after a crash each snapshot has a row that says what is to become of it. `limit`: for each workspace.
    """

    def __init__(
        self,
        node: NodeApi,
        store: SnapshotStore,
        sandboxes: Sandboxes,
        origins: Origins,
        events: EventLog,
        *,
        limit: int = MAX_SNAPSHOTS,
        clock: Clock | None = None,
    ) -> None:
        self._node = node
        self._store = store
        self._sandboxes = sandboxes
        self._origins = origins
        self._events = events
        self._limit = limit
        self._clock = clock or SystemClock()
        self._making: dict[str, tuple[tuple[object, ...], asyncio.Task[SnapshotRecord]]] = {}
        self._undeleted: set[str] = set()
        """Ended, and the node could not delete them yet."""
        self._sizes: dict[str, Snapshot] = {}
        self._sized = float("-inf")
        self._wake = asyncio.Event()
        self._tasks = TaskSet(_report)
        self._pages: Pages[PathChange] = Pages(_report)

    async def __aenter__(self) -> Self:
        await self._sync()
        self._tasks.start(self._expire(), name="expiry of snapshots")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pages.close()
        await self._tasks.close()

    # verbs -----------------------------------------------------------------------------------------------------------

    async def create(self, workspace: str, ref: str, spec: SnapshotSpec, *, id: str | None = None) -> SnapshotRecord:
        """Of a running sandbox; returns when it is durable, and goes on when the caller leaves. The same id again gives the
        snapshot that is there.

        Raises AlreadyExists (the name), LimitExceeded, Conflict (it is being snapshotted; the id was used for something
        else), and what NodeApi.snapshot raises; then nothing is left of it.
        """
        request = (workspace, ref, spec.kind, spec.path)
        id = _checked(id) if id is not None else new_id(PREFIX)
        known = self._making.get(id)
        if known is None:
            # The task is made before anything is awaited: a second call in the meantime finds it.
            known = self._begin(id, request, self._create(workspace, ref, spec, id))
        if known[0] != request:
            raise _other(id)
        return await asyncio.shield(known[1])

    async def _create(self, workspace: str, ref: str, spec: SnapshotSpec, id: str) -> SnapshotRecord:
        if (there := await self._there(workspace, id)) is not None:
            if (there.snapshot.kind, there.snapshot.path) != (spec.kind, spec.path):
                raise _other(id)
            return there
        return await self._take(workspace, await self._sandboxes.running(workspace, ref), spec, id)

    async def take(
        self, workspace: str, sandbox: Sandbox, spec: SnapshotSpec, *, id: str, also: Sequence[Change]
    ) -> SnapshotRecord:
        """Of a template: `also` is written in the same step that acknowledges it."""
        work = self._take(workspace, sandbox, spec, id, template=True, also=also)
        return await asyncio.shield(self._begin(id, (), work)[1])

    async def _take(
        self,
        workspace: str,
        sandbox: Sandbox,
        spec: SnapshotSpec,
        id: str,
        *,
        template: bool = False,
        also: Sequence[Change] = (),
    ) -> SnapshotRecord:
        limits = sandbox.spec.limits
        now = self._clock.now()
        planned = Snapshot(
            id=id,
            kind=spec.kind,
            sandbox=sandbox.id,
            image=sandbox.spec.image,
            created=now,
            size=0,
            stored=0,
            cpus=limits.cpus,
            memory=limits.memory,
            disk=limits.disk,
            path=spec.path,
            template=template,
        )
        source = Source(sandbox.spec.env, sandbox.spec.workdir, sandbox.spec.user, limits.pids)
        expires = None if spec.ttl is None else now + spec.ttl
        record = SnapshotRecord(workspace, planned, spec.name, spec.labels, expires, source, State.MAKING)
        return await self._make(
            record, lambda: self._node.snapshot(sandbox.id, id, spec.kind, path=spec.path, template=template), also
        )

    async def get(self, workspace: str, ref: str) -> SnapshotRecord:
        """By id or name. Raises NotFound, with the reason for one that is gone."""
        (record,) = await self._sized_now([await self._origins.snapshot(workspace, ref)])
        return record

    async def list(
        self, workspace: str, filter: SnapshotFilter, *, cursor: str | None = None, limit: int = 100
    ) -> tuple[Sequence[SnapshotRecord], str | None]:
        """The newest first, and the cursor of the next page. Raises InvalidArgument for a cursor that is none of ours."""
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidArgument(f"limit lies between 1 and {MAX_PAGE}, not {limit}")
        if cursor is not None and not is_id(cursor, PREFIX):
            raise InvalidArgument("cursor is what `next` of the page before said")
        now = self._clock.now()
        rows = await self._store.page(workspace, filter, now=now, after=cursor, limit=limit + 1)
        items = await self._sized_now(rows[:limit])
        return items, items[-1].id if len(rows) > limit else None

    async def update(self, workspace: str, ref: str, changes: SnapshotChanges) -> SnapshotRecord:
        """Raises NotFound, AlreadyExists (the name), InvalidArgument; with an error nothing was changed."""
        record = await self._origins.snapshot(workspace, ref)
        name = record.name if isinstance(changes.name, Keep) else changes.name
        if name is not None and name != record.name:
            _check_free_word(check_name(name))
            await self._free(workspace, name)
        if changes.labels is not None:
            check_labels(changes.labels)
        expires = record.expires
        if not isinstance(changes.ttl, Keep):
            if changes.ttl is not None and changes.ttl <= 0:
                raise InvalidArgument("ttl is more than 0 seconds, or null for one that never expires")
            if changes.ttl is not None:
                self._not_of_a_template(record, "expire")
            expires = None if changes.ttl is None else self._clock.now() + changes.ttl
        labels = record.labels if changes.labels is None else changes.labels
        said = {"message": ", ".join(changes.said()), "name": name}
        with self._events.told(workspace, EventKind.SNAPSHOT_UPDATED, **_of(record) | said) as told:
            await self._store.change(record.id, *told, name=name, labels=labels, expires=expires)
        self._wake.set()
        return await self.get(workspace, record.id)

    async def delete(self, workspace: str, ref: str) -> None:
        """One that has gone is fine by its id; one that is being made is waited for. What was made from it goes on.

        Raises NotFound, Conflict (a template's).
        """
        if is_id(ref, PREFIX):
            if (under_way := self._making.get(ref)) is not None:
                await asyncio.wait([under_way[1]])
            known = await self._store.get(ref)
            if known is not None and known.workspace == workspace and known.gone is not None:
                await self._node.delete_snapshot(known.id)
                return
        record = await self._origins.snapshot(workspace, ref)
        self._not_of_a_template(record, "be deleted")
        await self._remove(record, "deleted")

    async def changes(
        self, workspace: str, ref: str, *, cursor: str | None = None, limit: int = CHANGES_PAGE
    ) -> tuple[Sequence[PathChange], str | None]:
        """A page of what it changed, sorted by path, and the cursor of the next. Raises NotSupported for a memory snapshot."""
        if not 1 <= limit <= CHANGES_PAGE:
            raise InvalidArgument(f"limit lies between 1 and {CHANGES_PAGE}, not {limit}")
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
            raise InvalidArgument("cursor is what `next` of the page before said")
        record = await self._origins.snapshot(workspace, ref)
        if record.snapshot.kind is SnapshotKind.MEMORY:
            raise NotSupported(
                f"snapshot {record.id} holds memory, whose changes cannot be told",
                hint="take a filesystem snapshot of a sandbox that is made from it",
            )
        # A snapshot never changes, so a number of paths is a good place to go on from.
        items, following = await self._pages.page(
            record.id, int(cursor or 0), limit, lambda: self._node.changes(record.id)
        )
        return items, None if following is None else str(following)

    async def export(self, workspace: str, ref: str) -> tuple[SnapshotRecord, AsyncGenerator[bytes, None]]:
        """One file, as it comes."""
        record = await self._origins.snapshot(workspace, ref)
        return record, self._node.export_snapshot(record.id)

    async def import_(
        self,
        workspace: str,
        chunks: AsyncIterator[bytes],
        *,
        id: str | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        ttl: float | None = None,
    ) -> SnapshotRecord:
        """What `export` gave, here or elsewhere, under a new id. The same id again gives the snapshot that is there.

        Raises what NodeApi.import_snapshot raises, AlreadyExists (the name), LimitExceeded; then nothing is kept.
        """
        id = _checked(id) if id is not None else new_id(PREFIX)
        if id in self._making:
            raise Conflict(f"snapshot {id} is being made")
        asked = SnapshotSpec(SnapshotKind.FILESYSTEM, name=name, labels=labels or {}, ttl=ttl)
        # Not shielded: without its caller there is nothing more to read.
        return await self._begin(id, (), self._import(workspace, chunks, asked, id))[1]

    async def _import(
        self, workspace: str, chunks: AsyncIterator[bytes], asked: SnapshotSpec, id: str
    ) -> SnapshotRecord:
        if (there := await self._there(workspace, id)) is not None:
            return there
        now = self._clock.now()
        planned = Snapshot(id, asked.kind, "", "", now, 0, 0, 0.0, 0, 0)
        expires = None if asked.ttl is None else now + asked.ttl
        record = SnapshotRecord(workspace, planned, asked.name, asked.labels, expires, state=State.MAKING)
        return await self._make(record, lambda: self._node.import_snapshot(id, chunks), ())

    @contextlib.contextmanager
    def ending(self, record: SnapshotRecord, reason: str) -> Generator[Sequence[Change]]:
        """The end of its row and the event that tells of it, which the caller writes; then the node is to `discard` it."""
        kind = _ENDS.get(reason, EventKind.SNAPSHOT_DELETED)
        with self._events.told(record.workspace, kind, **_of(record), reason=reason) as told:
            yield [ended(record.id, Gone(reason, self._clock.now())), *told]

    async def _remove(self, record: SnapshotRecord, reason: str) -> None:
        """Ends the row, then has the node delete it."""
        with self.ending(record, reason) as changes:
            await self._store.write(*changes)
        await self.discard([record.id])

    async def discard(self, ids: Sequence[str]) -> None:
        """Has the node delete what has ended; what it cannot delete now it is asked for again."""
        for id in ids:
            try:
                await self._node.delete_snapshot(id)
                self._undeleted.discard(id)
            except Error as error:
                _log.warning("a snapshot could not be deleted, trying again", snapshot=id, reason=error.message)
                self._undeleted.add(id)

    # making ----------------------------------------------------------------------------------------------------------

    def _begin(
        self, id: str, request: tuple[object, ...], work: Coroutine[Any, Any, SnapshotRecord]
    ) -> tuple[tuple[object, ...], asyncio.Task[SnapshotRecord]]:
        task = self._tasks.start(work, name="snapshot")
        self._making[id] = request, task
        task.add_done_callback(lambda _: self._making.pop(id, None))
        return self._making[id]

    async def _make(
        self, record: SnapshotRecord, ask: Callable[[], Awaitable[Snapshot]], also: Sequence[Change]
    ) -> SnapshotRecord:
        if record.name is not None:
            _check_free_word(record.name)
            await self._free(record.workspace, record.name)
        if await self._store.count(record.workspace) >= self._limit:
            raise LimitExceeded(
                f"there are {self._limit} snapshots, more are not allowed", hint="delete some, or let them expire (ttl)"
            )
        await self._store.insert(record)
        try:
            with span("snapshot.create", {"belljar.snapshot": record.id, "belljar.kind": record.snapshot.kind.value}):
                await self._ready(record, await ask(), also)
        except BaseException:
            await asyncio.shield(self._tasks.start(self._failed(record), name="a snapshot that failed"))
            raise
        self._wake.set()
        made = await self._store.get(record.id)
        assert made is not None
        return made

    async def _ready(self, record: SnapshotRecord, made: Snapshot, also: Sequence[Change] = ()) -> None:
        with self._events.told(record.workspace, EventKind.SNAPSHOT_CREATED, **_of(record)) as told:
            await self._store.ready(made, *told, *also)

    async def _failed(self, record: SnapshotRecord) -> None:
        try:
            await self._remove(record, "failed")
        except Error:  # the next start of the server finds the row, which still says that it was never acknowledged
            _log.exception("a snapshot that failed could not be written down", snapshot=record.id)

    async def _there(self, workspace: str, id: str) -> SnapshotRecord | None:
        """One that an earlier call with this id made."""
        record = await self._store.get(id)
        if record is None or (record.gone is not None and record.gone.reason == "failed"):
            return None
        if record.workspace != workspace:
            raise AlreadyExists(f"the id {id} is taken")
        return await self._origins.snapshot(workspace, id)

    async def _free(self, workspace: str, name: str) -> None:
        """A name whose holder has expired is free, whether it was deleted yet or not."""
        holder = await self._store.named(workspace, name)
        if holder is None or holder.gone is not None:
            return
        if holder.expires is not None and holder.expires <= self._clock.now() and holder.state is State.READY:
            await self._remove(holder, "expired")
            return
        raise AlreadyExists(f"a snapshot has the name {name}: {holder.id}")

    def _not_of_a_template(self, record: SnapshotRecord, what: str) -> None:
        template = self._origins.template_of(record.id)
        if template is not None:
            raise Conflict(
                f"snapshot {record.id} is what template {template.spec.name} is made of and cannot {what}",
                hint=f"belljar template rm {template.spec.name}",
            )

    # the node --------------------------------------------------------------------------------------------------------

    async def _sized_now(self, records: Sequence[SnapshotRecord]) -> Sequence[SnapshotRecord]:
        """With what they take now: the node compresses and shares what is cold."""
        now = asyncio.get_running_loop().time()
        if records and now - self._sized > _SIZES_SECONDS:
            self._sized = now
            try:
                self._sizes = {snapshot.id: snapshot for snapshot in await self._node.snapshots()}
            except Error as error:
                _log.warning("the node does not say what snapshots take", reason=error.message)
        return [
            replace(record, snapshot=replace(record.snapshot, stored=self._sizes[record.id].stored))
            if record.id in self._sizes
            else record
            for record in records
        ]

    async def _sync(self) -> None:
        there = {snapshot.id: snapshot for snapshot in await self._node.snapshots()}
        known = await self._store.states()
        for id, (state, has_ended, template) in known.items():
            snapshot = there.get(id)
            if has_ended:
                if snapshot is not None:
                    await self.discard([id])
            elif state is State.MAKING or snapshot is None:
                record = await self._store.get(id)
                assert record is not None
                await self._settle(record, snapshot, template=template)
        for id in there.keys() - known.keys():
            # Each that was ever asked for has a row, so this one comes from another store than ours: it may be all that is left.
            _log.warning("the node has a snapshot that the store does not know: taking it in", snapshot=id)
            await self._store.insert(SnapshotRecord(DEFAULT_WORKSPACE, there[id], state=State.READY))

    async def _settle(self, record: SnapshotRecord, snapshot: Snapshot | None, *, template: bool) -> None:
        """One that was not acknowledged, or that the node does not have."""
        if record.state is State.MAKING and snapshot is not None and not template:
            await self._ready(record, snapshot)  # whoever asked for it asks again, with the same id
        elif record.state is State.MAKING:
            await self._remove(record, "failed")
        else:
            _log.error("a snapshot is lost: the node does not have it", snapshot=record.id)
            with self.ending(record, "lost") as changes:
                await self._store.write(*changes)

    async def _expire(self) -> None:
        while True:
            wait = _AGAIN_SECONDS
            self._wake.clear()
            try:
                now = self._clock.now()
                over = await self._store.expired(now)
                for record in over:
                    await self._remove(record, "expired")
                await self.discard(list(self._undeleted))
                following = await self._store.next_expiry()
                wait = _LOOK_SECONDS if following is None else min(max(following - now, 0.0), _LOOK_SECONDS)
            except Exception:  # noqa: BLE001 (the task's boundary)
                _log.exception("deleting what has expired failed, trying again")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()


def _of(record: SnapshotRecord) -> dict[str, Any]:
    """As an event names it. One that was imported was taken of no sandbox that is known here."""
    return {"snapshot": record.id, "sandbox": record.snapshot.sandbox or None, "name": record.name}


def _checked(id: str) -> str:
    if not is_id(id, PREFIX):
        raise InvalidArgument(f"an id starts with {PREFIX} and is made as Belljar makes them, not {id[:80]!r}")
    return id


def _other(id: str) -> Conflict:
    return Conflict(f"the id {id} was used for another snapshot")


def _check_free_word(name: str) -> None:
    if name in _WORDS or is_id(name, PREFIX):
        raise InvalidArgument(f"{name} means something else where a snapshot is named: choose another name")


def _report(name: str, error: BaseException) -> None:
    if not isinstance(error, Error):
        _log.error("a task failed", task=name, exc_info=error)
