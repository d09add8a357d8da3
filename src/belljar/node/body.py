"""A sandbox's guest and what it holds of this machine, with the record that names it all. Its life is not decided here."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from belljar.base.clock import boot_id
from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet, in_thread
from belljar.model import lifecycle
from belljar.model.errors import Conflict, Error
from belljar.model.sandbox import Status
from belljar.model.usage import Counters, Reading
from belljar.node.engine.api import Instance, InstanceState
from belljar.node.guest.guest import Guest
from belljar.node.holding import Holding, connect, free, settle
from belljar.node.limits import renew_limits
from belljar.node.logs import Logs
from belljar.node.machine import Machine
from belljar.node.metering import Meter, look, meter_of
from belljar.node.origin import Origin
from belljar.node.provision import Provisioner, Running, release
from belljar.node.record import Record, Records, gone
from belljar.node.rests import Rests
from belljar.node.storage.durable import storage_errors

__all__ = ("Body",)

_log = get_logger("node.body")
_RELEASE_AGAIN = 5.0
_QUIESCE = 2.0
_LAST_WORDS = 0.25


class Body:
    """`tasks` are its owner's; `tell` hears of what happens to the guest by itself.

    At any time `record` names all that is held, or the thing is this server's own (see `holding.owned_folder`).
    """

    def __init__(
        self,
        record: Record,
        machine: Machine,
        provisioner: Provisioner,
        records: Records,
        rests: Rests,
        logs: Logs,
        tasks: TaskSet,
        tell: Callable[[lifecycle.Event], None],
    ) -> None:
        self.record = record
        self.guest: Guest | None = None
        self._machine = machine
        self._provisioner = provisioner
        self._records = records
        self._rests = rests
        self._logs = logs
        self._tasks = tasks
        self._tell = tell
        self._ends: asyncio.Task[None] | None = None
        self._still = False
        self._told = Counters()
        """The most that its counters said: whoever was told that is never told less."""

    # the record ------------------------------------------------------------------------------------------------------

    def note(self, record: Record) -> None:
        """Writes down what is about to be made; the life may have moved on meanwhile and stays."""
        self.record = replace(record, life=self.record.life)
        self._records.write(self.record)

    async def write(self) -> None:
        """As it is now. What rests on the disk has to be found there after a power cut, and so has whose it is."""
        if self.record.rest is None:
            self._records.write(self.record)
        else:
            await self._write_durably()

    async def _write_durably(self) -> None:
        with storage_errors(f"writing {self.record.id} down"):
            await in_thread(partial(self._records.write, self.record, durable=True))

    # made, found, changed, freed -------------------------------------------------------------------------------------

    async def make(self, origin: Origin | None) -> None:
        """What the record asks for, or what goes on from `origin`. Raises as Provisioner.provision."""
        running = await self._provisioner.provision(
            self.record, note=self.note, on_lost=self._agent_lost, origin=origin
        )
        self.guest = running.guest
        meter = await meter_of(self._machine, running.holding.instance, running.holding.slot)
        self.note(replace(running.noted(self.record), meter=meter))
        settle(self._machine, running.holding)
        self._watch()

    async def find(self, *, rebooted: bool) -> bool:
        """What an earlier server left: whether it is as its record says. Frees what it should not hold any more."""
        record, engine = self.record, self._machine.engine
        if record.life.status.on_disk:
            await self.let_go(there=not rebooted)
            return True
        if record.rest is not None:  # it had just gone on from there
            await self._rests.drop(record.rest)
            self.note(replace(self.record, rest=None))
        instance, status = record.instance, record.life.status
        if rebooted or instance is None or status not in (Status.RUNNING, Status.PAUSED):
            return False
        try:
            if await engine.state(instance) != InstanceState.RUNNING:
                return False
            if status is Status.PAUSED:
                await engine.pause(instance)  # its agent is asked when it wakes
            else:
                await engine.resume(instance)  # it was held, or on its way to rest
                if record.held:
                    self.note(replace(self.record, held=False))
                self.guest = await self._connected(instance)
        except Error as error:
            _log.warning("a sandbox did not answer its new server", sandbox=record.id, error=str(error))
            return False
        self._watch()
        return True

    async def become(self, origin: Origin) -> None:
        """Goes on from `origin` in place of what runs now, which ends when the new guest answers, and not before.

        Raises what a create would; then nothing has changed.
        """
        former = self.record
        running, meter = await self._risen(origin)
        if self.record.life.status is not Status.RUNNING or self.guest is None:
            await self._discard(running)
            raise gone(self.record)
        old, self.guest = self.guest, running.guest
        self._unwatch()
        self.note(replace(running.noted(self.record), meter=meter))
        settle(self._machine, running.holding)
        self._watch()
        await old.close(Conflict(f"sandbox {former.id} was rolled back"))
        assert former.instance is not None
        await self._free(Holding(former.instance, former.slot))

    async def _risen(self, origin: Origin) -> tuple[Running, Meter]:
        """A guest in its place, which no record names yet; what it used as another one stays its own."""
        running: Running | None = None
        try:
            running = await self._provisioner.provision(
                replace(self.record, instance=None, slot=None),
                note=lambda _: None,
                on_lost=self._agent_lost,
                origin=origin,
            )
            meter = await meter_of(self._machine, running.holding.instance, running.holding.slot)
            await self.look()
        except BaseException:
            if running is not None:
                await asyncio.shield(self._tasks.start(self._discard(running), name=f"discard {self.record.id}"))
            raise
        return running, replace(meter, past=self._told.at_least(self.record.meter.past))

    async def _discard(self, running: Running) -> None:
        await running.guest.close(gone(self.record))
        await self._free(running.holding)

    async def _free(self, holding: Holding) -> None:
        """What no record names: where it cannot be freed, the next server does it."""
        try:
            await free(self._machine, holding)
        except (Error, OSError) as error:
            _log.error("a former guest could not be freed", sandbox=self.record.id, held=holding.id, error=str(error))

    async def keep_last_words(self, *, ask: bool) -> None:
        """What its processes wrote, before the guest is let go. `ask` its agent, for a moment; of a guest that died or stands
        still only what passed through here is left."""
        if self.guest is None or self.record.life.started is None:
            return
        found = await self.guest.last_words(ask=ask and not self.record.held, seconds=_LAST_WORDS)
        try:
            await in_thread(self._logs.keep, self.record.id, found)
        except OSError as error:
            _log.warning("what its processes wrote is not kept", sandbox=self.record.id, error=str(error))

    async def release(self) -> None:
        """Ends it and frees everything, however long that takes."""
        if self.guest is not None:
            await self.guest.close(gone(self.record))
            self.guest = None
        await self._read_last()
        while True:
            try:
                await release(self._machine, self.record)
                break
            except (Error, OSError) as error:
                # Nothing may be left behind: the record stays, and so does the attempt.
                _log.error("a sandbox could not be released", sandbox=self.record.id, error=str(error))
                await asyncio.sleep(_RELEASE_AGAIN)
        if self.record.rest is not None:
            await self._rests.drop(self.record.rest)
        self.record = replace(self.record, instance=None, slot=None, rest=None)

    async def _read_last(self) -> None:
        """What it had used, while its cgroup and its link are still there; a successor that releases it again keeps that."""
        record = self.record
        if record.life.started is not None and record.meter.final is None and (seen := await self.look()) is not None:
            self.note(replace(self.record, meter=replace(self.record.meter, final=seen)))

    # stopped for a moment, at rest, woken ----------------------------------------------------------------------------

    def stand_still(self, still: bool) -> None:
        """True while its kernel stands for a moment (a checkpoint): its agent's silence does not count."""
        self._still = still
        if self.guest is not None:
            self.guest.stand_still(still or self.record.held)

    async def hold(self, held: bool) -> None:
        """Stops its kernel because the disk is nearly full, or lets it go on. Raises EngineFailed."""
        instance = self.record.instance
        if held == self.record.held or instance is None or self.guest is None:
            return
        # Written down before: a successor lets it go on, and letting go is harmless only for one that is stopped.
        if held:
            self.note(replace(self.record, held=True))
            self.stand_still(self._still)
            await self._machine.engine.pause(instance)
        else:
            await self._machine.engine.resume(instance)
            self.note(replace(self.record, held=False))
            self.stand_still(self._still)

    async def checkpoint(self, guest: Guest, instance: Instance, target: Path) -> float:
        """Writes its memory into `target` (a new folder) and lets it go on: the seconds for which it stood still at most.

        Does not need its agent: one that does not get quiet in time is taken as it is.
        """
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

    async def stop(self, guest: Guest, instance: Instance) -> None:
        """Its kernel stands still until `go_on`."""
        with contextlib.suppress(Error):
            await guest.quiesce(timeout=_QUIESCE)
        self.stand_still(True)
        try:
            await self._machine.engine.pause(instance)
        except BaseException:
            self.stand_still(False)
            raise

    async def go_on(self) -> None:
        """Of one whose kernel stands still. Raises EngineFailed, DeadlineExceeded."""
        instance = self.record.instance
        if instance is None:
            raise gone(self.record)
        await self._machine.engine.resume(instance)
        if self.guest is None:  # another server put it to rest
            self.guest = await self._connected(instance)
        self.stand_still(False)

    async def keep(self, status: Status) -> None:
        """All that it is, on the disk, while its kernel stands still; `let_go` of the rest when the record says that it rests.

        Raises NoCapacity, DiskFull, EngineFailed; then nothing is kept.
        """
        rest = await self._rests.keep(self.record, status)
        last = await self.look()
        self.record = replace(self.record, rest=rest, meter=replace(self.record.meter, final=last))

    async def let_go(self, *, there: bool = True) -> None:
        """Frees what one that rests on the disk still holds. `there`: it is of this boot of the machine."""
        record, guest = self.record, self.guest
        if record.instance is None:
            return
        self._unwatch()
        await self.keep_last_words(ask=False)
        self.guest = None
        if guest is not None:
            status = record.life.status
            await guest.close(Conflict(f"sandbox {record.id} is {status}", hint="call into it, and it wakes"))
        if there:
            await self._free(Holding(record.instance, record.slot))
        last = record.meter.final
        past = last.counters if last is not None and last.counters is not None else record.meter.past
        self.record = replace(self.record, instance=None, slot=None, meter=Meter(past=past))
        await self._write_durably()

    async def get_up(self) -> None:
        """From the disk; `up` when the record says that it runs. Raises as a create does; then it rests on."""
        record = self.record
        async with self._rests.opened(record) as origin:
            running, meter = await self._risen(origin)
        if self.record.life.status is not record.life.status:
            await self._discard(running)
            raise gone(self.record)
        self.guest = running.guest
        self.record = replace(running.noted(self.record), boot=boot_id(), meter=meter)
        self._watch()

    async def up(self) -> None:
        """What it rested in is not needed any more."""
        record = self.record
        if record.instance is not None:
            settle(self._machine, Holding(record.instance, record.slot))
        if record.rest is not None:
            await self._rests.drop(record.rest)
            self.note(replace(self.record, rest=None))

    async def _connected(self, instance: Instance) -> Guest:
        guest = await connect(self._machine, instance, on_lost=self._agent_lost)
        await guest.find_contexts()
        # Its server may have died between its first moment and its limits, or while it changed them.
        await renew_limits(self._machine, guest, instance, self.record.spec.limits)
        return guest

    # what it uses, and its end ---------------------------------------------------------------------------------------

    async def look(self) -> Reading | None:
        """Of all its guests; between a look at one and its answer there is no other."""
        before = self.record
        if before.instance is None:
            return self.look_at_the_disk()
        seen = await look(self._machine, before.instance, before.slot)
        if self.record.instance != before.instance:
            return None
        seen = before.meter.of(seen)
        if seen.counters is None:
            return seen
        self._told = seen.counters.at_least(self._told)
        return replace(seen, counters=self._told)

    def look_at_the_disk(self) -> Reading | None:
        """Of one that rests there; None of any other."""
        if self.record.rest is None:
            return None
        self._told = self.record.meter.past.at_least(self._told)
        return Reading(self._machine.clock.now(), self._told, 0, self._rests.size(self.record.rest))

    def _watch(self) -> None:
        self._ends = self._tasks.start(self._wait_for_the_end(), name=f"wait {self.record.id}")

    def _unwatch(self) -> None:
        if self._ends is not None:
            self._ends.cancel()

    async def _wait_for_the_end(self) -> None:
        assert self.record.instance is not None
        exit = await self._machine.engine.wait(self.record.instance)
        self._tell(lifecycle.GuestEnded(self._machine.clock.now(), exit.out_of_memory, exit.message))

    def _agent_lost(self, reason: str, message: str) -> None:
        self._tell(lifecycle.AgentLost(self._machine.clock.now(), reason, message))
