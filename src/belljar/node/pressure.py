"""The host's disk is shared: before it is full, those that fill it fastest are stopped, and go on when there is room again.

Their limits do not prevent it: disk is promised to more sandboxes than could fill it (see `machine.Reserve`).
"""

import asyncio
import os
from collections.abc import Callable, Collection

from belljar.base.log import get_logger
from belljar.model.errors import Error
from belljar.model.sandbox import Status
from belljar.node.machine import Machine
from belljar.node.supervisor import Supervisor

__all__ = ("guard_disk",)

_log = get_logger("node.pressure")
_CALM = 1.0
_TENSE = 0.2
"""Seconds between looks; a disk takes about 1 GB/s, so half of the reserve lasts for a few looks."""


async def guard_disk(machine: Machine, supervisors: Callable[[], Collection[Supervisor]]) -> None:
    """Runs until it is cancelled. New sandboxes are refused below the reserve, writers are stopped below half of it."""
    written: dict[str, int] = {}
    while True:
        pause = _CALM
        try:
            free = _free(machine)
            written = await _look(machine, supervisors(), free, written)
            pause = _CALM if free > 4 * machine.reserve.disk else _TENSE
        except (Error, OSError) as error:
            _log.error("the disk could not be looked at", error=str(error))
        await asyncio.sleep(pause)


async def _look(
    machine: Machine, supervisors: Collection[Supervisor], free: int, written: dict[str, int]
) -> dict[str, int]:
    """What each has written by now, for the next look; nothing while there is room."""
    if free >= machine.reserve.disk:
        await _let_go(supervisors)
        return {}
    written, growth = await _growth(machine, supervisors, written)
    if free < machine.reserve.disk // 2:
        await _stop(supervisors, growth)
    return written


def _free(machine: Machine) -> int:
    stat = os.statvfs(machine.instance.home)
    return stat.f_bavail * stat.f_frsize


async def _growth(
    machine: Machine, supervisors: Collection[Supervisor], before: dict[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    now: dict[str, int] = {}
    for supervisor in tuple(supervisors):
        instance = supervisor.record.instance
        if instance is not None and supervisor.life.status is Status.RUNNING:
            now[supervisor.id] = (await machine.engine.usage(instance)).disk
    return now, {id: size - before.get(id, size) for id, size in now.items()}


async def _stop(supervisors: Collection[Supervisor], growth: dict[str, int]) -> None:
    """Everybody who writes at least half as fast as the fastest."""
    fastest = max(growth.values(), default=0)
    for supervisor in tuple(supervisors):
        if 0 < fastest <= 2 * growth.get(supervisor.id, 0):
            await _try(supervisor, held=True)


async def _let_go(supervisors: Collection[Supervisor]) -> None:
    for supervisor in tuple(supervisors):
        if supervisor.record.held:
            await _try(supervisor, held=False)


async def _try(supervisor: Supervisor, *, held: bool) -> None:
    try:
        await supervisor.hold(held)
    except Error as error:
        _log.error("a sandbox could not be held or let go", sandbox=supervisor.id, held=held, error=str(error))
