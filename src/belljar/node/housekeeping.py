"""What a node does now and then, when nobody waits for it: cools snapshots, and takes away what nobody refers to."""

import asyncio
import contextlib
from collections.abc import Callable, Collection

from belljar.base.log import get_logger
from belljar.base.tasks import in_thread
from belljar.model.errors import Error, SnapshotCorrupt
from belljar.node.logs import Logs
from belljar.node.machine import Machine
from belljar.node.record import Record

__all__ = ("keep_house",)

_log = get_logger("node.housekeeping")
_EVERY = 60.0
_COLLECT_EVERY = 10
"""Rounds."""


async def keep_house(machine: Machine, logs: Logs, live: Callable[[], Collection[Record]]) -> None:
    """Runs until it is cancelled; every step of it may be killed."""
    rounds = 0
    while True:
        await asyncio.sleep(_EVERY)
        rounds += 1
        try:
            if cooled := await machine.snapshots.cool(machine.cool_after):
                _log.info("snapshots are cold now", count=len(cooled))
            await machine.filesystems.sweep()
            await in_thread(logs.prune)
            if rounds % _COLLECT_EVERY == 0:
                await machine.snapshots.collect()
                await _tidy(machine, live())
        except (Error, OSError) as error:
            _log.warning("housekeeping goes on later", error=str(error))


async def _tidy(machine: Machine, live: Collection[Record]) -> None:
    """Engine builds, runtimes and images of earlier set-ups, once no sandbox and no snapshot needs them any more."""
    needed = {record.image_key for record in live}
    for record in live:
        if record.instance is not None:
            needed |= {record.instance.spec.build, record.instance.spec.runtime.name}
    with contextlib.suppress(SnapshotCorrupt):  # as long as one cannot be read, nobody knows what it needs
        needed |= machine.snapshots.references()
        if removed := await machine.kept.tidy(needed):
            _log.info("what nobody needs any more is removed", artifacts=len(removed))
