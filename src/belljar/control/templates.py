"""Templates: a sandbox made ready once, its memory kept, and everything after a restore of that."""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

from belljar.base.clock import Clock, SystemClock
from belljar.base.ids import new_id
from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.control.eventlog import EventLog
from belljar.control.origins import Origins, Wanted
from belljar.control.ready import make_ready
from belljar.control.sandboxes import PREFIX as SANDBOX
from belljar.control.sandboxes import Sandboxes
from belljar.control.snapshots import Snapshots
from belljar.control.store.templates import TemplateRecord, TemplateStore
from belljar.model.errors import AlreadyExists, Cancelled, Conflict, Error, NotFound
from belljar.model.events import EventKind
from belljar.model.sandbox import Sandbox
from belljar.model.snapshot import PREFIX as SNAPSHOT
from belljar.model.snapshot import SnapshotKind, SnapshotSpec
from belljar.model.template import Template, TemplateSpec

__all__ = ("Templates",)

T = TypeVar("T")
_PREFIX = "tp"
_SPARE_SECONDS = 900.0
"""How much longer than its check the sandbox of a template lives by itself, if nobody ends it."""
_log = get_logger("control.templates")


@dataclass(slots=True)
class _Making:
    digest: str
    record: TemplateRecord
    key: str | None
    task: "asyncio.Task[Template] | None" = field(default=None, repr=False)
    step: str = ""
    output: str = ""

    def said(self, step: str, output: str) -> None:
        self.step, self.output = step, output


class Templates:
    """Own it as an async context manager: entering ends what an earlier server was making, leaving awaits what is being made."""

    def __init__(
        self,
        store: TemplateStore,
        sandboxes: Sandboxes,
        snapshots: Snapshots,
        origins: Origins,
        events: EventLog,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._snapshots = snapshots
        self._origins = origins
        self._events = events
        self._clock = clock or SystemClock()
        self._making: dict[tuple[str, str], _Making] = {}
        self._tasks = TaskSet(_report)

    async def __aenter__(self) -> Self:
        for record in await self._store.all():
            if record.snapshot is None:
                _log.warning("a template was half made: ending it", template=record.spec.name)
                await self._end(record)
                await self._fail(record, "the server ended while it was being made")
            elif not await self._is_there(record):
                _log.error("a template has lost its snapshot", template=record.spec.name, snapshot=record.snapshot)
                await self._fail(record, "its snapshot is lost")
            else:
                self._origins.put(record)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()

    async def create(
        self, workspace: str, spec: TemplateSpec, *, overwrite: bool = False, key: str | None = None
    ) -> Template:
        """Returns when it can be started from; goes on when the caller leaves. The same recipe again gives what is there.
        `key`: the API key that asks.

        `overwrite`: makes it anew, in the place of the one with this name, which serves until then. Raises AlreadyExists
        (another recipe, or an image has the name), TemplateFailed, and as the create and the snapshot of a sandbox do; then
        nothing is left of it.
        """
        under_way = self._making.get((workspace, spec.name))
        digest = spec.digest()
        if under_way is not None:
            if under_way.digest != digest:
                raise Conflict(f"template {spec.name} is being made after another recipe")
            assert under_way.task is not None
            return await asyncio.shield(under_way.task)
        there = self._origins.template(workspace, spec.name)
        if there is not None and not overwrite:
            if there.spec.digest() != digest:
                raise AlreadyExists(
                    f"template {spec.name} was made after another recipe", hint="replace=True makes it anew"
                )
            return await self._shown(there)
        record = TemplateRecord(new_id(_PREFIX), workspace, spec, new_id(SANDBOX), self._clock.now())
        making = self._making[workspace, spec.name] = _Making(digest, record, key)
        making.task = self._tasks.start(self._make(making), name="template")
        making.task.add_done_callback(lambda _: self._making.pop((workspace, spec.name), None))
        return await asyncio.shield(making.task)

    async def get(self, workspace: str, name: str) -> Template:
        """Also one that is being made, with its `step`. Raises NotFound."""
        making = self._making.get((workspace, name))
        record = self._origins.template(workspace, name)
        if record is None and making is None:
            raise NotFound(f"no template {name[:80]!r}", hint="belljar template ls")
        if record is None:
            assert making is not None
            return _half(making)
        shown = await self._shown(record)
        return shown if making is None else replace(shown, step=making.step, output=making.output)

    async def list(self, workspace: str) -> Sequence[Template]:
        """In the order of their names; those being made too."""
        made = [await self._shown(record) for record in self._origins.templates(workspace)]
        names = {template.spec.name for template in made}
        new = [_half(one) for (owner, name), one in self._making.items() if owner == workspace and name not in names]
        return sorted([*made, *new], key=lambda template: template.spec.name)

    async def delete(self, workspace: str, name: str) -> None:
        """With its snapshot; what was made from it goes on. One that is being made is given up, and an earlier one stays.

        Raises NotFound.
        """
        making = self._making.get((workspace, name))
        if making is not None and making.task is not None:
            making.task.cancel()
            await asyncio.wait([making.task])
            if making.task.cancelled() or making.task.exception() is not None:
                return
        record = self._origins.template(workspace, name)
        if record is None:
            raise NotFound(f"no template {name[:80]!r}", hint="belljar template ls")
        assert record.snapshot is not None
        kept = await self._origins.snapshot(workspace, record.snapshot)
        with (
            self._snapshots.ending(kept, "deleted") as gone,
            self._events.told(workspace, EventKind.TEMPLATE_DELETED, **_of(record)) as told,
        ):
            await self._store.remove([record.id], *gone, *told)
        self._origins.drop(workspace, name)
        await self._snapshots.discard([record.snapshot])

    # making ----------------------------------------------------------------------------------------------------------

    async def _make(self, making: _Making) -> Template:
        record = making.record
        spec = record.spec
        making.said("starting a sandbox", "")
        if spec.name in (await self._sandboxes.node()).images:
            raise AlreadyExists(f"an image is called {spec.name}: choose another name")
        await self._store.begin(record)
        try:
            wanted = _wanted(spec)
            sandbox = await self._sandboxes.create(record.workspace, wanted, id=record.sandbox, key=making.key)
            guest = await self._sandboxes.guest(record.workspace, sandbox.id)
            await make_ready(guest, spec, making.said)
            making.said("keeping its memory", making.output)
            # From here on it is made: whoever gives it up now deletes it after.
            made = replace(record, snapshot=await _to_its_end(self._keep(record, sandbox)))
        except BaseException as error:
            undo = self._tasks.start(self._undo(record, error), name="a template that failed")
            await asyncio.shield(undo)
            if isinstance(error, asyncio.CancelledError):
                raise Cancelled(f"template {spec.name} was given up") from None
            raise
        await self._end(record)
        return await self._shown(made)

    async def _keep(self, record: TemplateRecord, sandbox: Sandbox) -> str:
        """Its snapshot, acknowledged in one step with the template that it is for and the end of an earlier one."""
        earlier = self._origins.template(record.workspace, record.spec.name)
        id = new_id(SNAPSHOT)
        wanted = SnapshotSpec(SnapshotKind.MEMORY, labels=record.spec.labels)
        with contextlib.ExitStack() as stack:
            changes = self._store.finished(record, id)
            if earlier is not None and earlier.snapshot is not None:
                kept = await self._origins.snapshot(record.workspace, earlier.snapshot)
                changes += stack.enter_context(self._snapshots.ending(kept, "replaced"))
            made = _of(record) | {"snapshot": id}
            changes += stack.enter_context(self._events.told(record.workspace, EventKind.TEMPLATE_CREATED, **made))
            await self._snapshots.take(record.workspace, sandbox, wanted, id=id, also=changes)
        self._origins.put(replace(record, snapshot=id))
        if earlier is not None and earlier.snapshot is not None:
            await self._snapshots.discard([earlier.snapshot])
        return id

    async def _undo(self, record: TemplateRecord, error: BaseException) -> None:
        await self._end(record)
        try:
            await self._fail(record, error.message if isinstance(error, Error) else type(error).__name__)
        except Error:  # the next start of the server finds it
            _log.exception("a template that failed could not be written down", template=record.spec.name)

    async def _fail(self, record: TemplateRecord, message: str) -> None:
        with self._events.told(record.workspace, EventKind.TEMPLATE_FAILED, **_of(record), message=message) as told:
            await self._store.remove([record.id], *told)

    async def _end(self, record: TemplateRecord) -> None:
        try:
            with contextlib.suppress(NotFound):
                await self._sandboxes.terminate(record.workspace, record.sandbox, reason="template")
        except Error as error:  # its lifetime ends it
            _log.warning("the sandbox of a template stays", sandbox=record.sandbox, reason=error.message)

    async def _is_there(self, record: TemplateRecord) -> bool:
        assert record.snapshot is not None
        try:
            await self._origins.snapshot(record.workspace, record.snapshot)
        except (NotFound, Conflict):
            return False
        return True

    async def _shown(self, record: TemplateRecord) -> Template:
        assert record.snapshot is not None
        kept = (await self._snapshots.get(record.workspace, record.snapshot)).snapshot
        return Template(record.id, record.spec, record.created, record.snapshot, kept.size, kept.stored)


def _of(record: TemplateRecord) -> dict[str, Any]:
    """As an event names it: with the sandbox in which it was made."""
    return {"template": record.spec.name, "snapshot": record.snapshot, "sandbox": record.sandbox}


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, also when the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()


def _wanted(spec: TemplateSpec) -> Wanted:
    limits = spec.limits
    return Wanted(
        image=spec.image,
        cpus=limits.cpus,
        memory=limits.memory,
        disk=limits.disk,
        pids=limits.pids,
        env=spec.env,
        workdir=spec.workdir,
        user=spec.user,
        lifetime=spec.ready.timeout + _SPARE_SECONDS,
    )


def _half(making: _Making) -> Template:
    record = making.record
    return Template(record.id, record.spec, record.created, step=making.step, output=making.output)


def _report(name: str, error: BaseException) -> None:
    if not isinstance(error, Error):
        _log.error("a task failed", task=name, exc_info=error)
