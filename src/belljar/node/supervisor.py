"""One sandbox: its life, and the task that performs what its life asks for."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from belljar.base.clock import boot_id
from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.model import lifecycle
from belljar.model.errors import Conflict, EngineFailed, Error, NoCapacity
from belljar.model.lifecycle import Instruction, Life
from belljar.model.sandbox import Limits, Sandbox, SandboxSpec, Status
from belljar.model.usage import Reading
from belljar.node.activity import Activity, used
from belljar.node.api import GuestApi
from belljar.node.body import Body
from belljar.node.engine.api import Instance, Usage
from belljar.node.guest.failures import fresh
from belljar.node.guest.guest import Guest
from belljar.node.limits import change_limits
from belljar.node.logs import Logs
from belljar.node.machine import Machine
from belljar.node.origin import Origin
from belljar.node.provision import Provisioner
from belljar.node.record import Record, Records, gone, sandbox_of
from belljar.node.rests import Rests
from belljar.node.storage.durable import storage_errors

__all__ = ("Supervisor",)

_log = get_logger("node.supervisor")
_LONGEST_NAP = 3600.0
ACTIVITY = "active"
"""File beside the record."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """On its way to `status`. The task gives the reason for which it stayed what it was."""

    status: Status
    task: asyncio.Task[Error | None]

    def error(self) -> Error | None:
        return None if self.task.cancelled() else self.task.result()


class Supervisor:
    """Only its own task changes its life; everybody else posts events and waits.

    Leaving the task (cancellation) leaves the sandbox running for a successor: only RELEASE ends it.
    """

    def __init__(
        self,
        record: Record,
        machine: Machine,
        provisioner: Provisioner,
        records: Records,
        rests: Rests,
        logs: Logs,
        publish: "Callable[[Supervisor], None]",
        origin: Origin | None = None,
    ) -> None:
        """`origin`: what it begins with, instead of what its spec says."""
        self._machine = machine
        self._origin = origin
        self._publish = publish
        self._inbox: asyncio.Queue[tuple[lifecycle.Event, asyncio.Future[None] | None]] = asyncio.Queue()
        self._making: asyncio.Task[None] | None = None
        self._turn: _Turn | None = None
        self._tasks = TaskSet(self._task_failed)
        self._body = Body(record, machine, provisioner, records, rests, logs, self._tasks, self.post)
        self._changed = asyncio.Condition()
        self._busy = ""
        self._limiting = asyncio.Lock()
        self._activity = Activity(machine.clock.monotonic, records.folder(record.id) / ACTIVITY)
        self._kept_alive: set[int] = set()
        """Processes of this guest that count as a use while they run."""
        self.failure: Error | None = None
        """Why it could not be made, as its creator should hear it."""

    @staticmethod
    def begin(
        id: str, spec: SandboxSpec, at: float, forked: str | None = None
    ) -> tuple[Record, tuple[Instruction, ...]]:
        """The record, which the caller writes down before anything else, and what is to be done then."""
        life, (first, *then) = lifecycle.begin(at, spec.lifetime, spec.idle, spec.on_lifetime, spec.on_idle)
        assert first is Instruction.RECORD
        return Record(id, spec, life, boot_id(), forked=forked), tuple(then)

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def record(self) -> Record:
        return self._body.record

    @property
    def life(self) -> Life:
        return self.record.life

    @property
    def sandbox(self) -> Sandbox:
        return sandbox_of(self.record)

    @property
    def guest(self) -> Guest:
        """Raises SandboxGone when it has ended, or is about to; Conflict when it rests; NoCapacity (held)."""
        if self.life.status.rests:
            raise Conflict(f"sandbox {self.id} is {self.life.status}", hint="resume it, or call into it, and it wakes")
        guest = self._body.guest
        if guest is None or self.life.status is not Status.RUNNING:
            raise gone(self.record)
        if self.record.held:
            raise NoCapacity(
                f"sandbox {self.id} is paused: the host's disk is nearly full, and it was writing fastest",
                hint="free some disk on the host, or terminate sandboxes; it goes on by itself",
            )
        return guest

    def _running(self) -> tuple[Guest, Instance]:
        guest, instance = self.guest, self.record.instance
        if instance is None:
            raise gone(self.record)
        return guest, instance

    @property
    def _lives(self) -> bool:
        return self.life.status is Status.RUNNING or self.life.status.rests

    # use -------------------------------------------------------------------------------------------------------------

    @property
    def used_guest(self) -> GuestApi:
        """For those whose calls keep it from being idle, and wake it. Raises as `guest` for one that can not be woken."""
        if not self.life.status.rests:
            _ = self.guest
        return used(self.awake, self._activity, self._keep_alive)

    async def set_idle(self, idle: float | None) -> Sandbox:
        """Counts from the last use."""
        known = await self.apply(lifecycle.IdleSet(self._machine.clock.now(), idle))
        await self._follow_use()
        return known

    async def _follow_use(self) -> None:
        """Whatever was there before: processes that want to keep it alive, and what is written down."""
        if self.life.ended is not None:
            return  # what was noted is taken away with the rest
        self._activity.keep(self.life.idle is not None)
        guest = self._body.guest
        if self.life.idle is None or guest is None:
            return
        with contextlib.suppress(Error):  # its agent is gone, and somebody else is told
            for process in await guest.processes():
                if process.keep_alive and process.returncode is None:
                    self._keep_alive(process.id)

    def _keep_alive(self, process: int) -> None:
        guest = self._body.guest
        if guest is not None and self.life.idle is not None and process not in self._kept_alive:
            self._kept_alive.add(process)
            self._tasks.start(self._kept_alive_by(guest, process), name=f"process {process} of {self.id}")

    async def _kept_alive_by(self, guest: Guest, process: int) -> None:
        try:
            with contextlib.suppress(Error):  # it is forgotten, or the guest is another one now
                await self._activity.last_as_long_as(guest, process)
        finally:
            self._kept_alive.discard(process)

    # rest ------------------------------------------------------------------------------------------------------------

    async def awake(self) -> Guest:
        """The guest that runs now, woken if it rests. However many ask at once, it wakes once.

        Raises SandboxGone, and what kept it from waking: NoCapacity, DiskFull, SnapshotCorrupt, EngineFailed, ….
        """
        if self.life.status is not Status.RUNNING or self.life.toward is not None:
            await self._turn_to(Status.RUNNING, lambda: lifecycle.WakeAsked(self._machine.clock.now()))
        return self.guest

    async def rest(self, status: Status, why: str = "asked") -> Sandbox:
        """Returns when it rests like that: paused holds its memory, standby and stopped nothing but the disk.

        Raises SandboxGone, Conflict (it rests deeper, or is being snapshotted), NoCapacity, DiskFull, EngineFailed; then it is
        what it was before.
        """
        if status is Status.STOPPED and self.life.status is Status.STANDBY:
            await self.awake()  # only its kernel can read what its files are
        await self._turn_to(status, lambda: lifecycle.RestAsked(self._machine.clock.now(), status, why))
        return self.sandbox

    async def _turn_to(self, status: Status, ask: Callable[[], lifecycle.Event]) -> None:
        while self.life.status is not status or self.life.toward is not None:
            if not self._lives:
                raise gone(self.record)
            if self.life.toward is None:
                self._turn = None
                await self.apply(ask())
            turn = self._turn
            if turn is not None:
                await asyncio.wait([turn.task])
                if turn.status is status and (error := turn.error()) is not None:
                    raise fresh(error)
            elif self.life.status.rests:
                raise Conflict(f"sandbox {self.id} is {self.life.status} already", hint="resume it first")

    async def _go(self, status: Status) -> Error | None:
        doing = "waking" if status is Status.RUNNING else "putting to rest"
        try:
            with storage_errors(f"{doing} {self.id}"):
                await (self._wake() if status is Status.RUNNING else self._lie_down(status))
        except Error as error:
            _log.warning("a sandbox stayed what it was", sandbox=self.id, wanted=status.value, error=error.message)
            await self.apply(lifecycle.TurnFailed(self._machine.clock.now()))
            return error
        return None

    async def _lie_down(self, status: Status) -> None:
        async with self._limiting:
            if self._busy:
                raise Conflict(f"sandbox {self.id} is {self._busy}", hint="try again when it is done")
            self._busy = "being put to rest"
        try:
            ran = self.life.status is Status.RUNNING
            if ran:
                await self._body.stop(*self._running())
            if not status.on_disk:
                await self.apply(lifecycle.Turned(self._machine.clock.now()))
                return
            try:
                await self._body.keep(status)
            except BaseException:
                if ran:
                    await asyncio.shield(self._tasks.start(self._body.go_on(), name=f"go on {self.id}"))
                raise
            await self.apply(lifecycle.Turned(self._machine.clock.now()))
            await self._body.let_go()
        finally:
            self._busy = ""

    async def _wake(self) -> None:
        on_disk = self.life.status.on_disk
        await (self._body.get_up() if on_disk else self._body.go_on())
        with self._activity:  # its time begins now
            await self.apply(lifecycle.Turned(self._machine.clock.now()))
            self._kept_alive.clear()
            await self._follow_use()
        if on_disk and self.life.status is Status.RUNNING:
            await self._body.up()

    # changes ---------------------------------------------------------------------------------------------------------

    async def set_limits(self, limits: Limits) -> Sandbox:
        """See NodeApi.set_limits. Of two that are asked for at once, one waits for the other."""
        async with self._limiting:
            guest, instance = self._undisturbed()
            try:
                before = self.record.spec.limits
                await change_limits(self._machine, guest, instance, before, limits, self._note_limits)
            except EngineFailed:
                if self.life.status is not Status.RUNNING:
                    raise gone(self.record) from None
                raise
            self._publish(self)
            return self.sandbox

    def _note_limits(self, limits: Limits) -> None:
        with storage_errors(f"writing {self.id} down"):
            self._body.note(replace(self.record, spec=replace(self.record.spec, limits=limits)))

    async def hold(self, held: bool) -> None:
        """Stops its kernel, or lets it go on. Raises EngineFailed. One that does not run is left as it is."""
        if held == self.record.held or self.life.status is not Status.RUNNING or self._body.guest is None:
            return
        await self._body.hold(held)
        _log.warning("held: the disk is nearly full" if held else "goes on", sandbox=self.id)

    @contextlib.asynccontextmanager
    async def undisturbed(self, what: str) -> AsyncGenerator[Instance]:
        """Its instance, while no other snapshot, fork or rollback of it goes on. `what` tells those who come meanwhile.

        Raises Conflict, SandboxGone, NoCapacity (held).
        """
        async with self._limiting:
            pass  # one that is being given other limits is so for a moment
        _, instance = self._undisturbed()
        self._busy = what
        try:
            with self._activity:
                yield instance
        finally:
            self._busy = ""

    def _undisturbed(self) -> tuple[Guest, Instance]:
        """Raises Conflict, SandboxGone, NoCapacity (held)."""
        running = self._running()
        if self._busy:
            raise Conflict(f"sandbox {self.id} is {self._busy}", hint="try again when it is done")
        return running

    def stand_still(self, still: bool) -> None:
        """True while its kernel stands for a moment (a checkpoint): its agent's silence does not count."""
        self._body.stand_still(still)

    async def checkpoint(self, target: Path) -> float:
        """Writes its memory into `target` (a new folder) and lets it go on: the seconds for which it stood still at most.

        Within `undisturbed`. Does not need its agent: one that does not get quiet in time is taken as it is.
        """
        return await self._body.checkpoint(*self._running(), target)

    async def become(self, origin: Origin) -> None:
        """Goes on from `origin` in place of what runs now, which ends when the new guest answers, and not before.

        Within `undisturbed`. Raises what a create would; then nothing has changed.
        """
        await self._body.become(origin)
        self._kept_alive.clear()
        await self._follow_use()

    # what it uses ----------------------------------------------------------------------------------------------------

    async def usage(self) -> Usage:
        """What the host counts for it. Raises SandboxGone, NoCapacity (held), EngineFailed."""
        _, instance = self._running()
        return await self._machine.engine.usage(instance)

    async def resting_usage(self) -> Usage:
        """Of one that holds nothing but the disk. Raises Conflict for one that is not made yet."""
        seen = self._body.look_at_the_disk()
        if seen is None or seen.counters is None:
            raise Conflict(f"sandbox {self.id} is not running")
        return Usage(0, seen.counters.cpu_us / 1e6, 0, seen.disk or 0)

    async def reading(self) -> Reading | None:
        """What it uses. None before it runs, or when its end began meanwhile: it is not counted beyond that."""
        seen = await self._body.look() if self._lives else None
        return seen if self._lives else None

    # its life --------------------------------------------------------------------------------------------------------

    def post(self, event: lifecycle.Event) -> None:
        self._inbox.put_nowait((event, None))

    async def apply(self, event: lifecycle.Event) -> Sandbox:
        """Posts it and waits until it was acted on."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait((event, done))
        await done
        return self.sandbox

    async def settled(self) -> Sandbox:
        """Waits until it can be used, rests, or has ended."""

        def settled() -> bool:
            if self.life.status.rests:
                return not self.life.status.on_disk or self.record.instance is None
            # One that a successor has read of is running before its agent has answered the successor.
            return self.life.status.is_end or (self.life.status is Status.RUNNING and self._body.guest is not None)

        async with self._changed:
            await self._changed.wait_for(settled)
        return self.sandbox

    async def ended(self) -> Sandbox:
        """Waits until all it held is released."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.life.status.is_end)
        return self.sandbox

    async def run(self, todo: tuple[Instruction, ...] = ()) -> None:
        """Performs `todo`, then whatever follows from the events, until its end."""
        try:
            async with self._tasks:
                await self._perform(todo)
                while not self.life.status.is_end:
                    event, done = await self._next_event()
                    life, todo = lifecycle.step(self.life, event)
                    self._body.record = replace(self.record, life=life)
                    await self._perform(todo)
                    if done is not None and not done.done():
                        done.set_result(None)
        finally:
            while not self._inbox.empty():
                _, done = self._inbox.get_nowait()
                if done is not None and not done.done():
                    done.set_result(None)
            if self._body.guest is not None:
                await self._body.guest.close(gone(self.record))

    async def find(self) -> None:
        """For a record of an earlier server: finds out what is left of it, and goes on from there."""
        now = self._machine.clock.now()
        rebooted = self.record.boot != boot_id()
        alive = await self._body.find(rebooted=rebooted)
        if alive and self._body.guest is not None:
            self._activity.recall()
            await self._follow_use()
        self.post(lifecycle.HostRebooted(now) if rebooted else lifecycle.Found(now, alive=alive))
        await self.run()

    async def _next_event(self) -> tuple[lifecycle.Event, asyncio.Future[None] | None]:
        clock = self._machine.clock
        naps = [_LONGEST_NAP]
        life, now = self.life, clock.now()
        if (deadline := lifecycle.deadline(life)) is not None:
            naps.append(deadline - now)
        if life.status is Status.RUNNING and life.toward is None and life.idle is not None:
            naps.append(max(life.idle - self._activity.idle(), (life.quiet or now) - now))
        try:
            async with asyncio.timeout(max(min(naps), 0.0)):
                return await self._inbox.get()
        except TimeoutError:
            return lifecycle.TimerFired(clock.now(), self._activity.idle()), None

    async def _perform(self, todo: tuple[Instruction, ...]) -> None:
        for instruction in todo:
            match instruction:
                case Instruction.RECORD:
                    await self._body.write()
                case Instruction.PROVISION:
                    self._making = self._tasks.start(self._provision(), name=f"provision {self.id}")
                case Instruction.RELEASE:
                    await self._release()
                case Instruction.TURN:
                    assert self.life.toward is not None
                    task = self._tasks.start(self._go(self.life.toward), name=f"{self.life.toward} {self.id}")
                    self._turn = _Turn(self.life.toward, task)
                case Instruction.PUBLISH:
                    self._publish(self)
        async with self._changed:
            self._changed.notify_all()

    async def _provision(self) -> None:
        try:
            await self._body.make(self._origin)
        except Error as error:
            self.failure = error
            self.post(lifecycle.ProvisionFailed(self._machine.clock.now(), error.message))
            return
        except Exception as error:
            self.failure = EngineFailed(f"the sandbox could not be made: {error}")
            self.post(lifecycle.ProvisionFailed(self._machine.clock.now(), str(error)))
            raise
        with self._activity:  # its time begins when it is ready
            await self._follow_use()
            self.post(lifecycle.Ready(self._machine.clock.now()))

    async def _release(self) -> None:
        for task in (self._making, self._turn.task if self._turn else None):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])
        guest = self._body.guest
        if guest is not None:
            await self._body.keep_last_words(ask=self.life.ending is Status.TERMINATED)
            await guest.close(gone(self.record))
        await self._tasks.close()
        await self._body.release()
        self._activity.keep(False)
        self.post(lifecycle.Released(self._machine.clock.now()))

    def _task_failed(self, name: str, error: BaseException) -> None:
        _log.error("a task of a sandbox failed", sandbox=self.id, task=name, exc_info=error)
        self.post(lifecycle.AgentLost(self._machine.clock.now(), "internal", f"{name}: {error}"))
