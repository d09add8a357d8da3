"""Sandboxes as a product: asked for once, found by name or id, listed, changed, ended."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self
from weakref import WeakValueDictionary

from belljar.base.clock import Clock, SystemClock, boot_id
from belljar.base.ids import is_id, new_id
from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.base.telemetry import span
from belljar.control.changes import Changes, Keep
from belljar.control.eventlog import EventLog
from belljar.control.index import Index
from belljar.control.origins import Origins, Wanted
from belljar.control.quotas import Quotas
from belljar.control.store.sandboxes import Filter, Record, Repeat, SandboxStore
from belljar.model.errors import (
    AlreadyExists,
    Conflict,
    Error,
    Internal,
    InvalidArgument,
    NotFound,
    SandboxGone,
    Starting,
)
from belljar.model.events import EventKind
from belljar.model.process import Tail
from belljar.model.sandbox import Ended, Sandbox, SandboxSpec, Status
from belljar.node.api import GuestApi, NodeApi, NodeInfo, SandboxUsage

__all__ = ("MAX_PAGE", "PREFIX", "Sandboxes", "gone")

PREFIX = "sb"
MAX_PAGE = 1000
_MOMENT = 0.01
_log = get_logger("control")


@dataclass(slots=True)
class _Creating:
    digest: str
    task: asyncio.Task[Sandbox] = field(repr=False)


class Sandboxes:
    """Own it as an async context manager: leaving awaits the creates that are under way (their callers are gone)."""

    def __init__(
        self,
        node: NodeApi,
        store: SandboxStore,
        index: Index,
        origins: Origins,
        quotas: Quotas,
        events: EventLog,
        *,
        clock: Clock | None = None,
        boot: str | None = None,
    ) -> None:
        self._node = node
        self._store = store
        self._index = index
        self._origins = origins
        self._quotas = quotas
        self._events = events
        self._clock = clock or SystemClock()
        self._boot = boot or boot_id()
        self._creating: dict[tuple[str, str], _Creating] = {}
        self._making: set[str] = set()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._closing = False
        self._tasks = TaskSet(_report)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()

    async def create(
        self,
        workspace: str,
        wanted: Wanted | SandboxSpec,
        repeat: Repeat | None = None,
        *,
        id: str | None = None,
        key: str | None = None,
    ) -> Sandbox:
        """Returns when it runs. With `repeat` a second call gives what the first made, also after a restart of the server.
        `key`: the API key that asks.

        Goes on when the caller leaves. Raises AlreadyExists (the name), Conflict (the key was used for something else),
        LimitExceeded (the quota), what Origins.resolve raises, and what NodeApi.create raises; then the name and the
        idempotency key are free again.
        """
        if repeat is None:
            return await asyncio.shield(self._start(workspace, wanted, None, id, key))
        under_way = self._creating.get((workspace, repeat.key))
        if under_way is None:
            # The task is made before anything is awaited: a second call in the meantime finds it.
            under_way = _Creating(repeat.digest, self._start(workspace, wanted, repeat, id, key))
            self._creating[workspace, repeat.key] = under_way
            under_way.task.add_done_callback(lambda _: self._creating.pop((workspace, repeat.key), None))
        if under_way.digest != repeat.digest:
            raise _other_request(repeat)
        return await asyncio.shield(under_way.task)

    def _start(
        self, workspace: str, wanted: Wanted | SandboxSpec, repeat: Repeat | None, id: str | None, key: str | None
    ) -> asyncio.Task[Sandbox]:
        return self._tasks.start(self._create(workspace, wanted, repeat, id, key), name="create")

    async def _create(
        self, workspace: str, wanted: Wanted | SandboxSpec, repeat: Repeat | None, id: str | None, key: str | None
    ) -> Sandbox:
        with span("sandbox.create") as traced:
            if repeat is not None and (earlier := await self._repeated(workspace, repeat)) is not None:
                return earlier
            spec = await self._origins.resolve(workspace, wanted) if isinstance(wanted, Wanted) else wanted
            made = Sandbox(id or new_id(PREFIX), spec, Status.CREATING, self._clock.now())
            traced.set("belljar.sandbox", made.id)
            (result,) = await self._made(
                workspace, key, [made], repeat, lambda: self._one(made.id, self._node.create(made.id, spec))
            )
            if isinstance(result, Error):
                raise result
            return result

    async def _one(self, id: str, work: Awaitable[Sandbox]) -> dict[str, Sandbox | Error]:
        return {id: await work}

    async def make_all(
        self,
        workspace: str,
        key: str | None,
        planned: Sequence[Sandbox],
        make: Callable[[], Awaitable[Mapping[str, Sandbox | Error]]],
    ) -> Sequence[Sandbox | Error]:
        """Several at once, whose rows are durable before `make` asks the node for them; what became of each, in their order.

        Raises AlreadyExists (a name or an id), LimitExceeded (the quota), and what `make` raises; then none of them is left.
        """
        if await self._store.used([one.id for one in planned]):
            raise AlreadyExists("one of the ids was used before")
        return await self._made(workspace, key, planned, None, make)

    async def _made(
        self,
        workspace: str,
        key: str | None,
        planned: Sequence[Sandbox],
        repeat: Repeat | None,
        make: Callable[[], Awaitable[Mapping[str, Sandbox | Error]]],
    ) -> Sequence[Sandbox | Error]:
        if self._closing:
            raise Starting("this server is about to end")
        for one in planned:
            if self._index.entry(one.id) is not None:
                raise AlreadyExists(f"the id {one.id} was used before")
            if one.spec.name is not None and (holder := self._index.holder(workspace, one.spec.name)) is not None:
                raise AlreadyExists(f"a live sandbox has the name {one.spec.name}: {holder}")
        self._quotas.admit(workspace, key, [one.spec for one in planned])
        for one in planned:
            self._index.add(workspace, one, key)
            self._making.add(one.id)
            of = _named(one) | {"snapshot": one.spec.snapshot, "parent": one.parent}
            self._events.note(workspace, EventKind.SANDBOX_CREATED, at=one.created, **of)
        try:
            if len(planned) == 1:
                await self._store.insert(Record(workspace, planned[0], self._boot, key), repeat)
            else:
                await self._store.insert_all([Record(workspace, one, self._boot, key) for one in planned])
            return [await self._settled(one, found) for one, found in _in_order(planned, await make())]
        except BaseException as error:
            await asyncio.shield(self._tasks.start(self._all_failed(planned, error), name="creates that failed"))
            raise
        finally:
            self._making.difference_update(one.id for one in planned)

    async def _settled(self, planned: Sandbox, found: Sandbox | Error) -> Sandbox | Error:
        if isinstance(found, Error):
            await self._failed(planned, found)
            return found
        return await self._follow(found)

    async def _all_failed(self, planned: Sequence[Sandbox], error: BaseException) -> None:
        for one in planned:
            await self._failed(one, error)

    async def _repeated(self, workspace: str, repeat: Repeat) -> Sandbox | None:
        found = await self._store.repeated(workspace, repeat.key, now=self._clock.now())
        if found is None:
            return None
        digest, id = found
        if digest != repeat.digest:
            raise _other_request(repeat)
        known = self._index.find(workspace, id)
        if known is not None and known.status is Status.CREATING:
            # Asked for before a restart, and the node has not said yet what became of it.
            return await self._follow(await self._node.create(id, known.spec))
        return await self.get(workspace, id)

    async def _failed(self, wanted: Sandbox, error: BaseException) -> None:
        message = error.message if isinstance(error, Error) else type(error).__name__
        reason = "cancelled" if isinstance(error, asyncio.CancelledError) else "start_failed"
        said = replace(wanted, status=Status.FAILED, ended=Ended(reason, self._clock.now(), message))
        with contextlib.suppress(Error):
            known = await self._node.get(wanted.id)
            said = known if known.ended is not None else said
        self._index.follow(said)
        known = self._index.entry(wanted.id)
        self._store.follow(known.sandbox if known else wanted)
        await self._store.forget_repeat(wanted.id)

    async def get(self, workspace: str, ref: str) -> Sandbox:
        """By id, or by the name of a live one. Ended ones are found by id. Raises NotFound."""
        if (known := self._index.find(workspace, ref)) is not None:
            return known
        if is_id(ref, PREFIX):
            record = await self._store.get(ref)
            if record is not None and record.workspace == workspace:
                return record.sandbox
            raise NotFound(f"no sandbox {ref}")
        record = await self._store.latest_named(workspace, ref)
        if record is not None and record.sandbox.ended is not None:
            raise gone(record.sandbox)
        raise NotFound(f"no live sandbox has the name {ref[:80]!r}")

    def id_of(self, workspace: str, ref: str) -> str:
        """The id of the live one with this name; any other word as it is."""
        return self._index.holder(workspace, ref) or ref

    async def list(
        self, workspace: str, filter: Filter, *, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[Sandbox], str | None]:
        """The newest first, and the cursor of the next page. Raises InvalidArgument for a cursor that is none of ours."""
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidArgument(f"limit lies between 1 and {MAX_PAGE}, not {limit}")
        if cursor is not None and not is_id(cursor, PREFIX):
            raise InvalidArgument("cursor is what `next` of the page before said")
        if filter.only_live:
            found = self._index.page(workspace, filter.fits, after=cursor, limit=limit + 1)
        else:
            rows = await self._store.page(workspace, filter, after=cursor, limit=limit + 1)
            found = [row.sandbox for row in rows]
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def terminate(self, workspace: str, ref: str, *, reason: str = "killed") -> Sandbox:
        """Ends it and frees what it held before returning; one that has ended is fine. Raises NotFound."""
        known = await self.get(workspace, ref)
        if known.ended is not None:
            return known
        while True:
            try:
                with span("sandbox.terminate", {"belljar.sandbox": known.id}):
                    return await self._follow(await self._node.terminate(known.id, reason=reason))
            except NotFound:
                now = await self.get(workspace, known.id)
                if now.ended is not None:
                    return now
                if known.id not in self._making:
                    lost = Ended("node_lost", self._clock.now(), "the node lost it")
                    return await self._follow(replace(known, status=Status.LOST, ended=lost))
                await asyncio.sleep(_MOMENT)  # asked for just now, and on its way to the node

    async def terminate_all(self) -> None:
        """Of every workspace; no more are made."""
        self._closing = True
        live = [(entry.workspace, entry.sandbox.id) for entry in self._index.live()]
        failures = await asyncio.gather(*(self.terminate(*each) for each in live), return_exceptions=True)
        for failure in failures:
            if isinstance(failure, BaseException):
                _log.error("a sandbox could not be ended", exc_info=failure)

    async def update(self, workspace: str, ref: str, changes: Changes) -> Sandbox:
        """Goes on when the caller leaves. Raises SandboxGone, InvalidArgument, LimitExceeded (the quota), and what
        NodeApi.set_limits raises; with an error nothing was changed.
        """
        known = await self._live(workspace, ref)
        changes.check(known)
        return await asyncio.shield(self._tasks.start(self._update(workspace, known, changes), name="update"))

    async def _update(self, workspace: str, known: Sandbox, changes: Changes) -> Sandbox:
        await self._set_limits(known.id, changes)  # first: nothing else can be refused
        if not isinstance(changes.lifetime, Keep):
            now = await self._node.set_lifetime(known.id, changes.lifetime)
            self._events.note(workspace, EventKind.SANDBOX_UPDATED, message="lifetime", **_named(known))
            await self._follow(now, durable=True)
        if not isinstance(changes.idle, Keep):
            now = await self._node.set_idle(known.id, changes.idle)
            self._events.note(workspace, EventKind.SANDBOX_UPDATED, message="idle", **_named(known))
            await self._follow(now, durable=True)
        if changes.labels is not None:
            with self._events.told(workspace, EventKind.SANDBOX_UPDATED, message="labels", **_named(known)) as told:
                await self._store.set_labels(known.id, changes.labels, *told)
            self._index.relabel(known.id, dict(changes.labels))
        return await self.get(workspace, known.id)

    async def _set_limits(self, id: str, changes: Changes) -> None:
        """One after the other for each sandbox: what is not named stays as the one before has left it."""
        async with self._turns.setdefault(id, asyncio.Lock()):
            entry = self._index.entry(id)
            if entry is None:
                raise Internal(f"sandbox {id} is not known any more")
            before = entry.sandbox.spec.limits
            after = changes.limits(before)
            if after == before:
                return
            _check_running(entry.sandbox)
            try:
                with self._quotas.growing(entry.workspace, entry.key, before, after):
                    changed = await self._node.set_limits(id, after)
            except Error:
                with contextlib.suppress(Error):  # it may have ended, or the answer alone was lost
                    await self._follow(await self._node.get(id), durable=True)
                raise
            of = _named(entry.sandbox)
            self._events.note(entry.workspace, EventKind.SANDBOX_UPDATED, message="limits", **of)
            await self._follow(changed, durable=True)

    async def rest(self, workspace: str, ref: str, status: Status) -> Sandbox:
        """Lets it rest in this way; one that does is fine. Raises NotFound, SandboxGone, and what NodeApi.rest raises."""
        known = await self.running(workspace, ref)
        with span("sandbox.rest", {"belljar.sandbox": known.id}):
            return await self._follow(await self._node.rest(known.id, status), durable=True)

    async def resume(self, workspace: str, ref: str) -> Sandbox:
        """Returns when it runs; one that does is fine. Raises NotFound, SandboxGone, and what NodeApi.resume raises."""
        known = await self.running(workspace, ref)
        with span("sandbox.resume", {"belljar.sandbox": known.id}):
            return await self._follow(await self._node.resume(known.id), durable=True)

    def counts(self) -> dict[tuple[str, str], int]:
        """How many live, by workspace and status."""
        return dict(Counter((entry.workspace, entry.sandbox.status.value) for entry in self._index.live()))

    async def node(self) -> NodeInfo:
        """What the machine has and can do."""
        return await self._node.info()

    async def usage(self, workspace: str, ref: str) -> SandboxUsage:
        return await self._node.usage((await self.running(workspace, ref)).id)

    async def last_words(self, sandbox: Sandbox) -> Sequence[Tail]:
        """What the processes of one that has ended wrote last. Raises NotFound when it is not kept any more."""
        return await self._node.last_output(sandbox.id) if sandbox.started is not None else ()

    async def guest(self, workspace: str, ref: str) -> GuestApi:
        """The inside of a running one, or of one that rests and wakes with the first call. Asks the store only about what is not
        live.

        Raises NotFound, SandboxGone, Starting (why and when), Conflict (not running yet).
        """
        known = await self.running(workspace, ref)
        try:
            return self._node.guest(known.id)
        except SandboxGone:
            raise
        except NotFound:
            raise Internal(f"the node does not know sandbox {known.id}") from None

    async def running(self, workspace: str, ref: str) -> Sandbox:
        """One that runs, or would when it is called. Raises NotFound, SandboxGone (why and when), Conflict (not running yet)."""
        known = await self._live(workspace, ref)
        _check_running(known)
        return known

    async def _live(self, workspace: str, ref: str) -> Sandbox:
        known = await self.get(workspace, ref)
        if known.ended is not None:
            raise gone(known)
        return known

    async def rolled_back(self, workspace: str, sandbox: Sandbox, snapshot: str) -> Sandbox:
        """What the node said of it after a rollback."""
        self._events.note(workspace, EventKind.SANDBOX_ROLLED_BACK, snapshot=snapshot, **_named(sandbox))
        return await self._follow(sandbox)

    async def _follow(self, sandbox: Sandbox, *, durable: bool = False) -> Sandbox:
        """What the node says, put into memory and store. An end is durable before anybody hears of it."""
        now = self._index.follow(sandbox)
        if now is not None:
            if durable or now.ended is not None:
                await self._store.settle(now)
            else:
                self._store.follow(now)
            return now
        entry = self._index.entry(sandbox.id)
        return entry.sandbox if entry else sandbox


def _named(sandbox: Sandbox) -> dict[str, Any]:
    return {"sandbox": sandbox.id, "name": sandbox.spec.name}


def _check_running(sandbox: Sandbox) -> None:
    """Raises SandboxGone (why and when), Conflict (not running yet)."""
    if sandbox.ended is not None:
        raise gone(sandbox)
    if sandbox.status is not Status.RUNNING and not sandbox.status.rests:
        raise Conflict(f"sandbox {sandbox.id} is {sandbox.status}, not running")


def gone(sandbox: Sandbox) -> SandboxGone:
    """What a caller hears who comes too late: why, and when."""
    ended = sandbox.ended
    if ended is None:
        return SandboxGone(f"sandbox {sandbox.id} is gone")
    why = f"{ended.reason} ({ended.message})" if ended.message else ended.reason
    when = datetime.fromtimestamp(ended.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return SandboxGone(f"sandbox {sandbox.id} is gone: {sandbox.status} at {when}, {why}")


def _in_order(
    planned: Sequence[Sandbox], found: Mapping[str, Sandbox | Error]
) -> Sequence[tuple[Sandbox, Sandbox | Error]]:
    nothing = Internal("the node did not say what became of it")
    return [(one, found.get(one.id, nothing)) for one in planned]


def _other_request(repeat: Repeat) -> Conflict:
    return Conflict(
        f"the idempotency key {repeat.key[:80]!r} was used for another request", hint="use a new key for a new request"
    )


def _report(name: str, error: BaseException) -> None:
    if not isinstance(error, Error):
        _log.error("a task failed", task=name, exc_info=error)
