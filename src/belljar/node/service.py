"""The node: every sandbox of one machine behind NodeApi."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet, in_thread
from belljar.model import lifecycle
from belljar.model.errors import AlreadyExists, DeadlineExceeded, Error, NotFound
from belljar.model.process import Tail
from belljar.model.sandbox import Limits, Sandbox, SandboxSpec, Status
from belljar.model.snapshot import PathChange, Snapshot, SnapshotKind
from belljar.model.usage import Reading
from belljar.node.adopt import adopt
from belljar.node.api import API_VERSION, GuestApi, NodeBackup, NodeEvent, NodeInfo, SandboxUsage
from belljar.node.housekeeping import keep_house
from belljar.node.logs import Logs
from belljar.node.machine import Machine
from belljar.node.origin import Origin
from belljar.node.origins import Origins
from belljar.node.pressure import guard_disk
from belljar.node.provision import Provisioner
from belljar.node.record import Record, Records, gone, sandbox_of
from belljar.node.rests import Rests
from belljar.node.snapshot import directory
from belljar.node.snapshot.memory import FastLane
from belljar.node.snapshots import Snapshots
from belljar.node.storage.durable import storage_errors
from belljar.node.supervisor import Supervisor
from belljar.node.templates import Templates

__all__ = ("NodeService",)

_log = get_logger("node.service")
_RELEASE = 60.0
_AGAIN = 1.0
_EVENTS_KEPT = 1000


class NodeService:
    """Implements NodeApi. An (async) context manager: entering adopts what an earlier server left, leaving leaves it running."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._records = Records(machine.instance.sandboxes)
        self._templates = Templates(machine, machine.templates)
        self._origins = Origins(machine, self._templates)
        self._provisioner = Provisioner(machine, self._origins)
        self._logs = Logs(
            machine.instance.home / "logs",
            days=machine.logs_days,
            size=machine.logs_size,
            keys=machine.snapshots.keys,
        )
        fast = FastLane(machine.instance, machine.reserve, secret=machine.snapshots.encrypts)
        self._snapshots = Snapshots(machine, self._origins, fast, self._begin_fork)
        self._rests = Rests(machine, self._origins, fast)
        self._live: dict[str, Supervisor] = {}
        self._ended: dict[str, Record] = {}
        self._tasks = TaskSet(self._task_failed)
        self._watchers: set[asyncio.Queue[NodeEvent]] = set()
        self._events = 0

    async def __aenter__(self) -> Self:
        await self._snapshots.open()
        await adopt(self._machine, self._records, self._ended, self._adopt_one)
        await self._rests.sweep(self._live_records())
        await self._templates.__aenter__()
        await self._provisioner.pool.__aenter__()
        self._stand()
        self._tasks.start(keep_house(self._machine, self._logs, self._live_records), name="housekeeping")
        self._tasks.start(guard_disk(self._machine, self._live.values), name="disk guard")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._snapshots.close()
        await self._tasks.close()
        await self._provisioner.pool.__aexit__(None, None, None)
        await self._templates.__aexit__()

    async def info(self) -> NodeInfo:
        capabilities = await self._machine.engine.capabilities()
        reasons = {name: getattr(capabilities, name).reason for name in capabilities.__slots__}
        machine = self._machine
        return NodeInfo(API_VERSION, machine.engine.name, machine.build, machine.images.names(), reasons)

    async def create(self, id: str, spec: SandboxSpec) -> Sandbox:
        supervisor = self._live.get(id)
        if supervisor is None:
            if id in self._ended:
                raise AlreadyExists(f"sandbox {id} has been, and has ended")
            self._origins.check(spec)  # unknown ones leave no trace
            supervisor = self._begin(id, spec)
        sandbox = await self._settled(supervisor)
        if sandbox.status is not Status.RUNNING and not sandbox.status.rests:
            raise supervisor.failure or gone(supervisor.record)
        return sandbox

    async def fork(self, id: str, children: Mapping[str, SandboxSpec]) -> dict[str, Sandbox | Error]:
        if ended := next((child for child in children if child in self._ended), None):
            raise AlreadyExists(f"sandbox {ended} has been, and has ended")
        return await self._snapshots.fork(await self._awake(id), children)

    async def rollback(self, id: str, snapshot: str) -> Sandbox:
        return await self._snapshots.rollback(await self._awake(id), snapshot)

    async def snapshot(
        self, id: str, snapshot: str, kind: SnapshotKind, *, path: str | None = None, template: bool = False
    ) -> Snapshot:
        return await self._snapshots.take(await self._awake(id), snapshot, kind, path=path, template=template)

    async def snapshots(self) -> list[Snapshot]:
        return await self._snapshots.all()

    async def delete_snapshot(self, snapshot: str) -> None:
        await self._snapshots.delete(snapshot)

    def changes(self, snapshot: str) -> AsyncGenerator[PathChange, None]:
        return self._snapshots.changes(snapshot)

    def export_snapshot(self, snapshot: str) -> AsyncGenerator[bytes, None]:
        return self._snapshots.export(snapshot)

    async def import_snapshot(self, snapshot: str, chunks: AsyncIterator[bytes]) -> Snapshot:
        return await self._snapshots.import_(snapshot, chunks)

    def backup(self, *, content: bool) -> AbstractAsyncContextManager[NodeBackup]:
        return self._machine.snapshots.backup(content=content)

    async def mount(self, id: str, snapshot: str, path: str) -> None:
        await self._snapshots.mount((await self._awake(id)).guest, snapshot, path)

    async def unmount(self, id: str, path: str) -> None:
        await directory.unmount((await self._awake(id)).guest, path)

    async def mounts(self, id: str) -> dict[str, str]:
        return await directory.mounts((await self._awake(id)).guest)

    async def get(self, id: str) -> Sandbox:
        if id in self._live:
            return self._live[id].sandbox
        if id in self._ended:
            return sandbox_of(self._ended[id])
        raise NotFound(f"no sandbox {id}")

    async def sandboxes(self) -> list[Sandbox]:
        return [supervisor.sandbox for supervisor in self._live.values()] + [
            sandbox_of(record) for record in self._ended.values()
        ]

    async def terminate(self, id: str, *, reason: str = "killed") -> Sandbox:
        supervisor = self._live.get(id)
        if supervisor is None:
            return await self.get(id)
        supervisor.post(lifecycle.TerminateAsked(self._machine.clock.now(), reason))
        try:
            async with asyncio.timeout(_RELEASE):
                return await supervisor.ended()
        except TimeoutError:
            raise DeadlineExceeded(f"sandbox {id} is still being released") from None

    async def rest(self, id: str, status: Status) -> Sandbox:
        return await self._running(id).rest(status)

    async def resume(self, id: str) -> Sandbox:
        return (await self._awake(id)).sandbox

    async def set_lifetime(self, id: str, lifetime: float | None) -> Sandbox:
        return await self._running(id).apply(lifecycle.LifetimeSet(self._machine.clock.now(), lifetime))

    async def set_idle(self, id: str, idle: float | None) -> Sandbox:
        return await self._running(id).set_idle(idle)

    async def set_limits(self, id: str, limits: Limits) -> Sandbox:
        return await self._running(id).set_limits(limits)

    def guest(self, id: str) -> GuestApi:
        return self._running(id).used_guest

    async def last_output(self, id: str) -> list[Tail]:
        return await in_thread(self._logs.read, id)

    async def usage(self, id: str) -> SandboxUsage:
        supervisor = self._running(id)
        instance = supervisor.record.instance
        usage = await self._machine.engine.usage(instance) if instance is not None else await supervisor.resting_usage()
        limits = supervisor.record.spec.limits
        return SandboxUsage(usage.memory, limits.memory, usage.cpu_seconds, limits.cpus, usage.processes, usage.disk)

    async def meter(self, ids: Collection[str]) -> dict[str, Reading]:
        found: dict[str, Reading] = {}
        for id in ids:  # one after the other: nobody waits for it
            supervisor = self._live.get(id)
            if supervisor is not None and (seen := await supervisor.reading()) is not None:
                found[id] = seen
        return found

    def waiting(self) -> tuple[int, int]:
        """Guests of the pool: those that are ready, and those that were only created."""
        return self._provisioner.pool.waiting()

    async def events(self) -> AsyncIterator[NodeEvent]:
        queue: asyncio.Queue[NodeEvent] = asyncio.Queue(_EVENTS_KEPT)
        self._watchers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.discard(queue)

    def _running(self, id: str) -> Supervisor:
        if id in self._live:
            return self._live[id]
        if id in self._ended:
            raise gone(self._ended[id])
        raise NotFound(f"no sandbox {id}")

    async def _awake(self, id: str) -> Supervisor:
        """As `_running`, and woken if it rested."""
        supervisor = self._running(id)
        await supervisor.awake()
        return supervisor

    async def _settled(self, supervisor: Supervisor) -> Sandbox:
        waiter = asyncio.ensure_future(supervisor.settled())
        try:
            return await asyncio.shield(waiter)
        except asyncio.CancelledError:
            # Its creator left before it was made: nobody knows its id, so nobody would end it.
            waiter.cancel()
            supervisor.post(lifecycle.TerminateAsked(self._machine.clock.now(), "cancelled"))
            raise

    def _stand(self) -> None:
        """The class that most people want always has one waiting."""
        with contextlib.suppress(NotFound):  # the image is not there
            self._provisioner.pool.stand(SandboxSpec())

    def _live_records(self) -> list[Record]:
        return [supervisor.record for supervisor in self._live.values()]

    def _begin(self, id: str, spec: SandboxSpec, origin: Origin | None = None, forked: str | None = None) -> Supervisor:
        """Raises DiskFull, Internal when it cannot be written down; then it has never been."""
        record, todo = Supervisor.begin(id, spec, self._machine.clock.now(), forked)
        try:
            with storage_errors(f"writing {id} down"):
                self._records.write(record)
        except Error:
            self._records.forget(id)
            raise
        supervisor = self._supervise(record, origin)
        self._tasks.start(self._keep(supervisor, supervisor.run(todo)), name=f"sandbox {id}")
        return supervisor

    def _begin_fork(self, id: str, spec: SandboxSpec, origin: Origin, parent: str) -> Supervisor:
        return self._live.get(id) or self._begin(id, spec, origin, parent)

    def _supervise(self, record: Record, origin: Origin | None = None) -> Supervisor:
        supervisor = Supervisor(
            record, self._machine, self._provisioner, self._records, self._rests, self._logs, self._publish, origin
        )
        self._live[record.id] = supervisor
        return supervisor

    def _adopt_one(self, record: Record) -> Supervisor:
        supervisor = self._supervise(record)
        self._tasks.start(self._keep(supervisor, supervisor.find()), name=f"sandbox {record.id}")
        return supervisor

    async def _keep(self, supervisor: Supervisor, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:  # noqa: BLE001 (the task's boundary)
            # A fault of ours must not leave a sandbox without an owner: look at it again as a new server would.
            _log.exception("a sandbox lost its supervisor", sandbox=supervisor.id)
            await asyncio.sleep(_AGAIN)
            self._adopt_one(supervisor.record)
            return
        self._live.pop(supervisor.id, None)
        self._ended[supervisor.id] = supervisor.record
        for id in self._records.prune(list(self._ended.values())):
            self._ended.pop(id, None)

    def _publish(self, supervisor: Supervisor) -> None:
        self._events += 1
        life = supervisor.life
        event = NodeEvent(
            *(self._events, supervisor.id, life.status, self._machine.clock.now()),
            *(life.started, life.expires, life.ended),
            final=supervisor.record.meter.final,
        )
        for queue in self._watchers:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(event)

    def _task_failed(self, name: str, error: BaseException) -> None:
        _log.error("a task failed", task=name, exc_info=error)
