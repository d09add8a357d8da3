"""A new server on a state directory: goes on with what lives, finishes what was half done, frees what has no owner."""

import asyncio
from collections.abc import Callable

from belljar.base.log import get_logger
from belljar.node.holding import reclaim
from belljar.node.machine import Machine
from belljar.node.record import Record, Records
from belljar.node.supervisor import Supervisor

__all__ = ("adopt",)

_log = get_logger("node.adopt")
_SETTLE = 30.0


async def adopt(
    machine: Machine, records: Records, ended: dict[str, Record], adopt_one: Callable[[Record], Supervisor]
) -> None:
    """Returns when every live sandbox has answered or was given up; `ended` is filled with those that ended before.

    Order matters: owners first (slots of known records), then everything else of this instance is freed.
    """
    records.clear_half_written()
    found, broken = records.load()
    for id in broken:
        # A record is whole before anything else is made, so one that is not names nothing.
        records.forget(id)
    live: list[Record] = []
    for record in found:
        if record.life.status.is_end:
            ended[record.id] = record
        else:
            live.append(record)
    if machine.slots is not None:
        await machine.slots.adopt([record.slot for record in live if record.slot is not None])
    freed = await reclaim(machine, {record.instance.spec.id for record in live if record.instance is not None})
    supervisors = [adopt_one(record) for record in live]
    waiters = [asyncio.ensure_future(supervisor.settled()) for supervisor in supervisors]
    if waiters:
        _, late = await asyncio.wait(waiters, timeout=_SETTLE)
        for waiter in late:
            waiter.cancel()
    if live or freed:
        kept = sum(not supervisor.life.status.is_end for supervisor in supervisors)
        _log.info(
            "went on with the sandboxes of an earlier server", live=kept, ended=len(live) - kept, freed=len(freed)
        )
