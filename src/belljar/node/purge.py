"""`down --purge`: takes away everything that a state directory has on the host, and the directory."""

from dataclasses import dataclass

from belljar.base.files import remove_tree
from belljar.base.log import get_logger
from belljar.base.mounts import unmount_below
from belljar.base.tasks import in_thread
from belljar.model.errors import Conflict
from belljar.node.holding import reclaim
from belljar.node.machine import Machine
from belljar.node.provision import release
from belljar.node.record import Records

__all__ = ("Purged", "purge")

_log = get_logger("node.purge")


@dataclass(frozen=True, slots=True)
class Purged:
    """How many sandboxes were ended."""

    sandboxes: int


async def purge(machine: Machine) -> Purged:
    """No server may run on the state directory (the caller holds its lock). May be repeated after a crash.

    Raises Conflict when something of it would be left behind, naming it, and Internal when its object store does not answer;
    the records then stay.
    """
    instance = machine.instance
    records = Records(instance.sandboxes)
    found, _ = records.load()
    live = [record for record in found if not record.life.status.is_end]
    for record in live:
        await release(machine, record)
    await reclaim(machine, ())
    await machine.engine.close()
    if left := await machine.engine.residue():
        names = ", ".join(f"{thing.kind} {thing.name}" for thing in left[:5])
        raise Conflict(
            f"{len(left)} things of the engine are still on the host: {names}", hint="belljar doctor --leaks"
        )
    if machine.slots is not None:
        # By the pool itself: left at work it would put back what is taken away.
        await machine.slots.purge()
    await machine.snapshots.purge()
    await in_thread(unmount_below, instance.run)
    await in_thread(remove_tree, instance.run)
    await in_thread(remove_tree, instance.home)
    _log.info("purged", home=str(instance.home), sandboxes=len(live))
    return Purged(len(live))
