"""Other limits for a sandbox that runs: inside, on the host and in its record, all of them or none."""

import contextlib
from collections.abc import Callable

from belljar.model.errors import Error, NotSupported
from belljar.model.sandbox import Limits
from belljar.node.engine.api import Instance
from belljar.node.guest.guest import Guest
from belljar.node.machine import Machine

__all__ = ("change_limits", "renew_limits")


async def change_limits(
    machine: Machine, guest: Guest, instance: Instance, before: Limits, after: Limits, note: Callable[[Limits], None]
) -> None:
    """`note` writes down what holds from now on. Raises what NodeApi.set_limits does; then `before` holds."""
    if after.disk != before.disk:
        raise NotSupported(
            "the disk of a sandbox that runs cannot be changed",
            hint="take a filesystem snapshot, and create a sandbox from it with another disk",
        )
    if after.memory > before.memory or after.cpus > before.cpus:
        machine.reserve.check(machine.instance.home)
    try:
        # The guest first: it refuses less than it uses, and more than its kernel shows it does not take. Then the record: whoever
        # follows a server that dies here gives all of them what is written.
        await guest.limit(after)
        note(after)
        await machine.engine.limit(instance, after)
        await machine.engine.show(instance, after)
    except Exception:
        with contextlib.suppress(Error):
            note(before)
        await renew_limits(machine, guest, instance, before)
        raise


async def renew_limits(machine: Machine, guest: Guest, instance: Instance, limits: Limits) -> None:
    """What is written holds, whatever held before. What cannot be said to a guest that is gone, or of an earlier release, is
    left: it has the limits that it began with.
    """
    with contextlib.suppress(Error):
        await machine.engine.limit(instance, limits)
    with contextlib.suppress(Error):
        await machine.engine.show(instance, limits)
    with contextlib.suppress(Error):
        await guest.limit(limits, force=True)
