"""What a sandbox uses, as the host counts it: of the guest that it is now, and of those that it was before."""

import asyncio
from dataclasses import dataclass, field, replace

from belljar.base.log import get_logger
from belljar.model.errors import Error
from belljar.model.usage import Counters, Reading
from belljar.node.engine.api import Instance
from belljar.node.machine import Machine
from belljar.node.net.slots import Slot

__all__ = ("Meter", "look", "meter_of")

_log = get_logger("node.metering")


@dataclass(frozen=True, slots=True)
class Meter:
    """`past`: of the guests before a rollback. `base`: where the counters stood when the guest of now became this sandbox's:
    its cgroup is as old as its kernel, which may have waited in the pool, and a link is used again. `final`: the last reading.
    """

    past: Counters = field(default_factory=Counters)
    base: Counters = field(default_factory=Counters)
    final: Reading | None = None

    def total(self, now: Counters) -> Counters:
        """Of the sandbox, when the counters of its guest are at `now`."""
        return self.past + now.since(self.base)

    def of(self, seen: Reading) -> Reading:
        """The same reading, of the sandbox instead of its guest."""
        return seen if seen.counters is None else replace(seen, counters=self.total(seen.counters))


async def look(machine: Machine, instance: Instance, slot: Slot | None) -> Reading:
    """Of the guest, as the host has it now: its counters are as old as its kernel and its link. What cannot be read is None;
    never raises.
    """
    at = machine.clock.now()
    try:
        counters = await _counters(machine, instance, slot)
        usage = await machine.engine.usage(instance)
    except (Error, OSError) as error:
        _log.warning("what a guest uses cannot be read", instance=instance.spec.id, error=str(error))
        return Reading(at)
    # A kernel that lives takes memory: zero is what could not be read.
    if not usage.memory:
        return Reading(at, counters)
    return Reading(at, counters, usage.memory, usage.disk, usage.processes)


async def meter_of(machine: Machine, instance: Instance, slot: Slot | None) -> Meter:
    """Of the sandbox that this guest becomes now. Never raises; 0.7 ms of a create."""
    base: Counters | None = None
    try:
        base = await _counters(machine, instance, slot)
    except (Error, OSError) as error:
        _log.warning("what a guest used until now cannot be read", instance=instance.spec.id, error=str(error))
    return Meter(base=base or Counters())


async def _counters(machine: Machine, instance: Instance, slot: Slot | None) -> Counters | None:
    if slot is None or machine.slots is None:
        cpu, traffic = await machine.engine.cpu_time(instance), (0, 0)
    else:
        cpu, traffic = await asyncio.gather(machine.engine.cpu_time(instance), machine.slots.traffic(slot))
    return None if cpu is None or traffic is None else Counters(cpu, *traffic)
