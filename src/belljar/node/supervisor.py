"""One sandbox: its record, its life, and the task that performs what its life asks for."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path

from belljar.base.clock import boot_id
from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.model import lifecycle
from belljar.model.errors import Conflict, EngineFailed, Error, NoCapacity
from belljar.model.lifecycle import Instruction, Life
from belljar.model.sandbox import Limits, Sandbox, SandboxSpec, Status
from belljar.model.usage import Counters, Reading
from belljar.node.activity import Activity, used
from belljar.node.api import GuestApi
from belljar.node.engine.api import Instance, InstanceState, Usage
from belljar.node.guest.guest import Guest
from belljar.node.holding import Holding, connect, free, settle
from belljar.node.limits import change_limits, renew_limits
from belljar.node.machine import Machine
from belljar.node.metering import Meter, look, meter_of
from belljar.node.origin import Origin
from belljar.node.provision import Provisioner, Running, release
from belljar.node.record import Record, Records, gone, sandbox_of
from belljar.node.storage.durable import storage_errors

__all__ = ("Supervisor",)

_log = get_logger("node.supervisor")
_LONGEST_NAP = 3600.0
_RELEASE_AGAIN = 5.0
_QUIESCE = 2.0
ACTIVITY = "active"
"""File beside the record."""


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
        publish: "Callable[[Supervisor], None]",
        origin: Origin | None = None,
    ) -> None:
        """`origin`: what it begins with, instead of what its spec says."""
        self.record = record
        self._machine = machine
        self._provisioner = provisioner
        self._origin = origin
        self._records = records
        self._publish = publish
        self._inbox: asyncio.Queue[tuple[lifecycle.Event, asyncio.Future[None] | None]] = asyncio.Queue()
        self._guest: Guest | None = None
        self._making: asyncio.Task[None] | None = None
        self._tasks = TaskSet(self._task_failed)
        self._changed = asyncio.Condition()
        self._ends: asyncio.Task[None] | None = None
        self._busy = ""
        self._limiting = asyncio.Lock()
        self._still = False
        self._activity = Activity(machine.clock.monotonic, records.folder(record.id) / ACTIVITY)
        self._kept_alive: set[int] = set()
        """Processes of this guest that count as a use while they run."""
        self._told = Counters()
        """The most that its counters said: whoever was told that is never told less."""
        self.failure: Error | None = None
        """Why it could not be made, as its creator should hear it."""

    @staticmethod
    def begin(
        id: str, spec: SandboxSpec, at: float, forked: str | None = None
    ) -> tuple[Record, tuple[Instruction, ...]]:
        """The record, which the caller writes down before anything else, and what is to be done then."""
        life, (first, *then) = lifecycle.begin(at, spec.lifetime, spec.idle)
        assert first is Instruction.RECORD
        return Record(id, spec, life, boot_id(), forked=forked), tuple(then)

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def life(self) -> Life:
        return self.record.life

    @property
    def sandbox(self) -> Sandbox:
        return sandbox_of(self.record)

    @property
    def guest(self) -> Guest:
        """Raises SandboxGone when it has ended, or is about to."""
        if self._guest is None or self.life.status is not Status.RUNNING:
            raise gone(self.record)
        if self.record.held:
            raise NoCapacity(
                f"sandbox {self.id} is paused: the host's disk is nearly full, and it was writing fastest",
                hint="free some disk on the host, or terminate sandboxes; it goes on by itself",
            )
        return self._guest

    @property
    def used_guest(self) -> GuestApi:
        """For those whose calls keep it from being idle. Raises as `guest`."""
        return used(self.guest, self._activity, self._keep_alive)

    async def set_idle(self, idle: float | None) -> Sandbox:
        """Counts from the last use."""
        known = await self.apply(lifecycle.IdleSet(self._machine.clock.now(), idle))
        await self._follow_use()
        return known

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
            self._note(replace(self.record, spec=replace(self.record.spec, limits=limits)))

    async def _follow_use(self) -> None:
        """Whatever was there before: processes that want to keep it alive, and what is written down."""
        if self.life.ended is not None:
            return  # what was noted is taken away with the rest
        self._activity.keep(self.life.idle is not None)
        guest = self._guest
        if self.life.idle is None or guest is None:
            return
        with contextlib.suppress(Error):  # its agent is gone, and somebody else is told
            for process in await guest.processes():
                if process.keep_alive and process.returncode is None:
                    self._keep_alive(process.id)

    def _keep_alive(self, process: int) -> None:
        guest = self._guest
        if guest is not None and self.life.idle is not None and process not in self._kept_alive:
            self._kept_alive.add(process)
            self._tasks.start(self._kept_alive_by(guest, process), name=f"process {process} of {self.id}")

    async def _kept_alive_by(self, guest: Guest, process: int) -> None:
        try:
            with contextlib.suppress(Error):  # it is forgotten, or the guest is another one now
                await self._activity.last_as_long_as(guest, process)
        finally:
            self._kept_alive.discard(process)

    async def hold(self, held: bool) -> None:
        """Stops its kernel, or lets it go on. Raises EngineFailed. One that does not run is left as it is."""
        instance, guest = self.record.instance, self._guest
        if held == self.record.held or self.life.status is not Status.RUNNING or instance is None or guest is None:
            return
        # Written down before: a successor lets it go on, and letting go is harmless only for one that is stopped.
        if held:
            self._note(replace(self.record, held=True))
            guest.stand_still(True)
            await self._machine.engine.pause(instance)
        else:
            await self._machine.engine.resume(instance)
            self._note(replace(self.record, held=False))
            guest.stand_still(self._still)
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

    async def usage(self) -> Usage:
        """What the host counts for it. Raises SandboxGone, NoCapacity (held), EngineFailed."""
        _, instance = self._running()
        return await self._machine.engine.usage(instance)

    async def reading(self) -> Reading | None:
        """What it uses. None when it does not run, or its end began meanwhile: it is not counted beyond that."""
        seen = await self._look() if self.life.status is Status.RUNNING else None
        return seen if self.life.status is Status.RUNNING else None

    async def _look(self) -> Reading | None:
        """Of all its guests; between a look at one and its answer there is no other."""
        before = self.record
        if before.instance is None:
            return None
        seen = await look(self._machine, before.instance, before.slot)
        if self.record.instance != before.instance:
            return None
        seen = before.meter.of(seen)
        if seen.counters is None:
            return seen
        self._told = seen.counters.at_least(self._told)
        return replace(seen, counters=self._told)

    def stand_still(self, still: bool) -> None:
        """True while its kernel stands for a moment (a checkpoint): its agent's silence does not count."""
        self._still = still
        if self._guest is not None:
            self._guest.stand_still(still or self.record.held)

    def _running(self) -> tuple[Guest, Instance]:
        guest, instance = self.guest, self.record.instance
        if instance is None:
            raise gone(self.record)
        return guest, instance

    async def checkpoint(self, target: Path) -> float:
        """Writes its memory into `target` (a new folder) and lets it go on: the seconds for which it stood still at most.

        Within `undisturbed`. Does not need its agent: one that does not get quiet in time is taken as it is.
        """
        guest, instance = self._running()
        with contextlib.suppress(Error):
            await guest.quiesce(timeout=_QUIESCE)
        self.stand_still(True)
        started = time.monotonic()
        try:
            await self._machine.engine.checkpoint(instance, target)
        finally:
            seconds = time.monotonic() - started
            self.stand_still(False)
        return seconds

    async def become(self, origin: Origin) -> None:
        """Goes on from `origin` in place of what runs now, which ends when the new guest answers, and not before.

        Within `undisturbed`. Raises what a create would; then nothing has changed.
        """
        former = self.record
        running = await self._provisioner.provision(
            replace(former, instance=None, slot=None), note=lambda _: None, on_lost=self._agent_lost, origin=origin
        )
        try:
            meter = await self._meter_on(running.holding)
        except BaseException:  # no record names it yet
            await asyncio.shield(self._tasks.start(self._discard(running), name=f"discard {self.id}"))
            raise
        if self.life.status is not Status.RUNNING or self._guest is None:
            await self._discard(running)
            raise gone(self.record)
        old, self._guest = self._guest, running.guest
        if self._ends is not None:
            self._ends.cancel()
        self._note(replace(running.noted(self.record), meter=meter))
        settle(self._machine, running.holding)
        self._watch()
        await old.close(Conflict(f"sandbox {self.id} was rolled back"))
        self._kept_alive.clear()
        await self._follow_use()
        assert former.instance is not None
        await self._free(Holding(former.instance, former.slot))

    async def _meter_on(self, holding: Holding) -> Meter:
        """For the guest that it becomes, which is to be noted at once: what the one of now used stays its own."""
        meter = await meter_of(self._machine, holding.instance, holding.slot)
        await self._look()
        return replace(meter, past=self._told.at_least(self.record.meter.past))

    async def _discard(self, running: Running) -> None:
        await running.guest.close(gone(self.record))
        await self._free(running.holding)

    async def _free(self, holding: Holding) -> None:
        """What no record names: where it cannot be freed, the next server does it."""
        try:
            await free(self._machine, holding)
        except (Error, OSError) as error:
            _log.error("a former guest could not be freed", sandbox=self.id, instance=holding.id, error=str(error))

    def post(self, event: lifecycle.Event) -> None:
        self._inbox.put_nowait((event, None))

    async def apply(self, event: lifecycle.Event) -> Sandbox:
        """Posts it and waits until it was acted on."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait((event, done))
        await done
        return self.sandbox

    async def settled(self) -> Sandbox:
        """Waits until it can be used or has ended."""

        def settled() -> bool:
            # One that a successor has read of is running before its agent has answered the successor.
            return self.life.status.is_end or (self.life.status is Status.RUNNING and self._guest is not None)

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
                    self.record = replace(self.record, life=life)
                    await self._perform(todo)
                    if done is not None and not done.done():
                        done.set_result(None)
        finally:
            while not self._inbox.empty():
                _, done = self._inbox.get_nowait()
                if done is not None and not done.done():
                    done.set_result(None)
            if self._guest is not None:
                await self._guest.close(gone(self.record))

    async def find(self) -> None:
        """For a record of an earlier server: finds out what is left of it, and goes on from there."""
        now = self._machine.clock.now()
        if self.record.boot != boot_id():
            self.post(lifecycle.HostRebooted(now))
        else:
            self.post(lifecycle.Found(now, alive=await self._still_alive()))
        await self.run()

    async def _still_alive(self) -> bool:
        instance = self.record.instance
        if self.life.status is not Status.RUNNING or instance is None:
            return False
        try:
            if self.record.held:
                await self._machine.engine.resume(instance)
                self._note(replace(self.record, held=False))
            if await self._machine.engine.state(instance) != InstanceState.RUNNING:
                return False
            guest = await connect(self._machine, instance, on_lost=self._agent_lost)
            await guest.find_contexts()
            # Its server may have died between its first moment and its limits, or while it changed them.
            await renew_limits(self._machine, guest, instance, self.record.spec.limits)
            self._guest = guest
            self._activity.recall()
            await self._follow_use()
        except Error as error:
            _log.warning("a sandbox did not answer its new server", sandbox=self.id, error=str(error))
            return False
        self._watch()
        return True

    async def _next_event(self) -> tuple[lifecycle.Event, asyncio.Future[None] | None]:
        clock = self._machine.clock
        naps = [_LONGEST_NAP]
        if self.life.status is Status.RUNNING:
            if self.life.expires is not None:
                naps.append(self.life.expires - clock.now())
            if self.life.idle is not None:
                naps.append(self.life.idle - self._activity.idle())
        try:
            async with asyncio.timeout(max(min(naps), 0.0)):
                return await self._inbox.get()
        except TimeoutError:
            return lifecycle.TimerFired(clock.now(), self._activity.idle()), None

    async def _perform(self, todo: tuple[Instruction, ...]) -> None:
        for instruction in todo:
            match instruction:
                case Instruction.RECORD:
                    self._records.write(self.record)
                case Instruction.PROVISION:
                    self._making = self._tasks.start(self._provision(), name=f"provision {self.id}")
                case Instruction.RELEASE:
                    await self._release()
                case Instruction.PUBLISH:
                    self._publish(self)
        async with self._changed:
            self._changed.notify_all()

    async def _provision(self) -> None:
        try:
            running = await self._provisioner.provision(
                self.record, note=self._note, on_lost=self._agent_lost, origin=self._origin
            )
        except Error as error:
            self.failure = error
            self.post(lifecycle.ProvisionFailed(self._machine.clock.now(), error.message))
            return
        except Exception as error:
            self.failure = EngineFailed(f"the sandbox could not be made: {error}")
            self.post(lifecycle.ProvisionFailed(self._machine.clock.now(), str(error)))
            raise
        self._guest = running.guest
        meter = await meter_of(self._machine, running.holding.instance, running.holding.slot)
        self._note(replace(running.noted(self.record), meter=meter))
        settle(self._machine, running.holding)
        self._watch()
        with self._activity:  # its time begins when it is ready
            await self._follow_use()
            self.post(lifecycle.Ready(self._machine.clock.now()))

    def _note(self, record: Record) -> None:
        """Writes down what is about to be made; the life may have moved on meanwhile and stays."""
        self.record = replace(record, life=self.life)
        self._records.write(self.record)

    def _watch(self) -> None:
        self._ends = self._tasks.start(self._wait_for_the_end(), name=f"wait {self.id}")

    async def _wait_for_the_end(self) -> None:
        assert self.record.instance is not None
        exit = await self._machine.engine.wait(self.record.instance)
        self.post(lifecycle.GuestEnded(self._machine.clock.now(), exit.out_of_memory, exit.message))

    def _agent_lost(self, reason: str, message: str) -> None:
        self.post(lifecycle.AgentLost(self._machine.clock.now(), reason, message))

    async def _release(self) -> None:
        if self._making is not None and not self._making.done():
            self._making.cancel()
            await asyncio.wait([self._making])
        if self._guest is not None:
            await self._guest.close(gone(self.record))
            self._guest = None
        await self._tasks.close()
        await self._read_last()
        while True:
            try:
                await release(self._machine, self.record)
                break
            except (Error, OSError) as error:
                # Nothing may be left behind: the record stays, and so does the attempt.
                _log.error("a sandbox could not be released", sandbox=self.id, error=str(error))
                await asyncio.sleep(_RELEASE_AGAIN)
        self._activity.keep(False)
        self.record = replace(self.record, instance=None, slot=None)
        self.post(lifecycle.Released(self._machine.clock.now()))

    async def _read_last(self) -> None:
        """What it had used, while its cgroup and its link are still there; a successor that releases it again keeps that."""
        if (
            self.life.started is not None
            and self.record.meter.final is None
            and (seen := await self._look()) is not None
        ):
            self._note(replace(self.record, meter=replace(self.record.meter, final=seen)))

    def _task_failed(self, name: str, error: BaseException) -> None:
        _log.error("a task of a sandbox failed", sandbox=self.id, task=name, exc_info=error)
        self.post(lifecycle.AgentLost(self._machine.clock.now(), "internal", f"{name}: {error}"))
