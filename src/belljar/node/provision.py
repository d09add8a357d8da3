"""From a record to a running guest: claimed from the pool, restored, or booted."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from belljar.base.log import get_logger
from belljar.base.telemetry import span
from belljar.model.errors import Error
from belljar.model.sandbox import Network
from belljar.node.guest.guest import Guest
from belljar.node.holding import Holding, begin, configuration, connect, free, make, plan
from belljar.node.machine import Machine
from belljar.node.origin import Origin, shown_cpus
from belljar.node.origins import Origins
from belljar.node.pool.pool import Claimed, Pool
from belljar.node.record import Record

__all__ = ("Provisioner", "Running", "release")

_log = get_logger("node.provision")
_CONFIGURE = 10.0
_SLOW = 5.0
"""Seconds: a start that took longer is told in the log."""
Note = Callable[[Record], None]
OnLost = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Running:
    """A guest that answers, what it holds, and what it came from."""

    guest: Guest
    holding: Holding
    origin: Origin

    def noted(self, record: Record) -> Record:
        """The record of the sandbox whose guest this is."""
        holding = self.holding
        # What it shows of the disk was fixed when its memory was taken.
        made, origin = holding.instance.spec.limits, self.origin
        limits = replace(record.spec.limits, disk=made.disk)
        return replace(
            record,
            spec=replace(record.spec, limits=limits),
            instance=holding.instance,
            slot=holding.slot,
            image_key=origin.image_key,
            runtime=origin.runtime.key,
            parent=origin.parent,
            processors=origin.processors or shown_cpus(limits if origin.limits is None else origin.limits),
        )


class Provisioner:
    """Makes guests for records, in the fastest way there is; counts those that somebody waits for."""

    def __init__(self, machine: Machine, origins: Origins) -> None:
        self._machine = machine
        self._origins = origins
        self._under_way = 0
        self.pool = Pool(machine, origins, lambda: self._under_way > 0)

    async def provision(self, record: Record, *, note: Note, on_lost: OnLost, origin: Origin | None = None) -> Running:
        """Returns when the agent has answered. `note` writes the record before each thing is made. `origin`: instead of what
        the spec says.

        Raises ImageNotFound, NotFound, SnapshotCorrupt, SnapshotIncompatible, NoCapacity, DiskFull, EngineFailed,
        DeadlineExceeded; what was made until then is freed, or, where that fails, in the record.
        """
        self._machine.reserve.check(self._machine.instance.home)
        self._under_way += 1
        began = time.monotonic()
        try:
            if origin is not None:
                return await self._make(record, origin, note, on_lost)
            while (claimed := self.pool.claim(record.spec)) is not None:
                try:
                    with span("node.claim", {"belljar.sandbox": record.id, "belljar.hot": claimed.guest is not None}):
                        return await self._take_over(record, claimed, note, on_lost)
                except Error as error:
                    _log.warning("a waiting guest was no good", error=str(error))
                    await self._free(claimed.holding)
            async with self._origins.open(record.spec) as origin:
                return await self._make(record, origin, note, on_lost)
        finally:
            self._under_way -= 1
            if (seconds := time.monotonic() - began) > _SLOW:
                _log.warning("a start took long", sandbox=record.id, image=record.spec.image, seconds=round(seconds, 1))

    async def _take_over(self, record: Record, claimed: Claimed, note: Note, on_lost: OnLost) -> Running:
        """A member becomes the record's: awake, and with its own identity."""
        machine, holding, guest = self._machine, claimed.holding, claimed.guest
        try:
            note(replace(record, instance=holding.instance, slot=holding.slot))
            await self._set_network(holding, record)
            origin = claimed.origin
            if guest is None:
                async with machine.starts, self._origins.open(record.spec) as origin:
                    await begin(machine, holding, origin)
            await machine.engine.limit(holding.instance, record.spec.limits)
            if guest is None:
                guest = await connect(machine, holding.instance, on_lost=on_lost)
            else:
                guest.take_over(on_lost)
                await machine.engine.resume(holding.instance)
                guest.stand_still(False)
            await self._introduce(guest, record, origin, holding)
        except BaseException:
            if guest is not None:
                await guest.close(None)
            raise
        return Running(guest, holding, origin)

    async def _make(self, record: Record, origin: Origin, note: Note, on_lost: OnLost) -> Running:
        machine = self._machine
        guest: Guest | None = None
        async with machine.starts:
            limits = origin.fitted(record.spec.limits)
            ready = self.pool.created(origin, limits)
            planned = ready or plan(machine, origin, limits)
            note(replace(record, instance=planned.instance, slot=planned.slot))
            try:
                if ready is None:
                    with span("node.make", {"belljar.sandbox": record.id}):
                        holding = await make(machine, planned, record.spec.network)
                    note(replace(record, instance=holding.instance, slot=holding.slot))
                else:
                    holding = ready
                    await self._set_network(ready, record)
                with span("node.boot" if origin.checkpoint is None else "node.restore", {"belljar.sandbox": record.id}):
                    await begin(machine, holding, origin)
                    guest = await connect(machine, holding.instance, on_lost=on_lost)
                    await self._introduce(guest, record, origin, holding)
            except BaseException:
                if guest is not None:
                    await guest.close(None)
                await asyncio.shield(self._free(planned))
                raise
            return Running(guest, holding, origin)

    async def _set_network(self, holding: Holding, record: Record) -> None:
        """Members of the pool have an open one, and nobody in them who could use it."""
        slots = self._machine.slots
        if slots is not None and holding.slot is not None and record.spec.network is not Network.OPEN:
            await slots.set_network(holding.slot, record.spec.network)

    async def _free(self, holding: Holding) -> None:
        try:
            await free(self._machine, holding)
        except (Error, OSError) as error:
            _log.error("what failed to start could not be freed yet", instance=holding.id, error=str(error))

    async def _introduce(self, guest: Guest, record: Record, origin: Origin, holding: Holding) -> None:
        """Tells the guest, and the kernels of its contexts, who it is now."""
        said = configuration(origin, record.spec, record.id, holding.slot)
        if origin.checkpoint is None:
            await guest.configure(**said, timeout=_CONFIGURE)
            return
        await asyncio.gather(
            guest.configure(**said, timeout=_CONFIGURE),
            guest.wake(
                reseed=record.spec.reseed and not origin.same,
                env=said["env"],
                cwd=said.get("workdir"),
                user=said.get("user"),
            ),
        )


async def release(machine: Machine, record: Record) -> None:
    """Ends the guest and frees everything the record names. May be repeated; raises EngineFailed when something stays."""
    if record.instance is not None:
        await free(machine, Holding(record.instance, record.slot))
