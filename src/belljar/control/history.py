"""What running sandboxes used in the last minutes and hours: looked at now and then, in memory."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Self

from belljar.base.clock import Clock, SystemClock
from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.control.index import Index
from belljar.model.sandbox import Status
from belljar.model.stats import Ring, StatsPoint
from belljar.model.usage import Reading
from belljar.node.api import NodeApi

__all__ = ("History",)

_NEAR_SECONDS = 600.0
_FAR_EVERY, _FAR_SECONDS = 60.0, 86400.0
_LOOKS = 10
"""Times in the interval between two looks at a sandbox that those are looked at whose turn has come."""
_AT_ONCE = 256
_PATIENCE_SECONDS = 10.0
_log = get_logger("control.history")


@dataclass(slots=True)
class _Kept:
    near: Ring
    far: Ring = field(default_factory=lambda: Ring(every=_FAR_EVERY, seconds=_FAR_SECONDS))
    due: float = 0.0


class History:
    """Own it as an async context manager. `every`: seconds between two looks at a sandbox, 0 for none. Ten minutes of these are
    kept, and a day of one each minute; they go with the sandbox's end and the server's.
    """

    def __init__(self, node: NodeApi, index: Index, *, every: float = 10.0, clock: Clock | None = None) -> None:
        self._node = node
        self._index = index
        self.every = every
        self._clock = clock or SystemClock()
        self._kept: dict[str, _Kept] = {}
        self._tasks = TaskSet(lambda name, error: _log.error("a task failed", task=name, exc_info=error))

    async def __aenter__(self) -> Self:
        if self.every:
            self._tasks.start(self._look_on(), name="history of stats")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()

    def of(self, sandbox: str, *, since: float = 0.0) -> list[StatsPoint]:
        """From `since` (seconds since 1970) on, the oldest first: one a minute, and the newest ten minutes closer together."""
        if (kept := self._kept.get(sandbox)) is None:
            return []
        near = list(kept.near.points())
        far = [point for point in kept.far.points() if not near or point.at < near[0].at]
        return [point for point in (*far, *near) if point.at >= since]

    async def look(self, ids: list[str]) -> None:
        """At these sandboxes, now. Raises what the node raises."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            readings = await self._node.meter(ids)
        for id, reading in readings.items():
            if (kept := self._kept.get(id)) is not None and (point := _point(reading)) is not None:
                kept.near.add(point)
                kept.far.add(point)

    def _turn(self) -> list[str]:
        """Whose turn it is; each keeps its own rhythm, so that they are spread. What has ended is forgotten."""
        now = self._clock.monotonic()
        running = [entry.sandbox.id for entry in self._index.live() if entry.sandbox.status is Status.RUNNING]
        kept: dict[str, _Kept] = {}
        for id in running:
            ring = Ring(every=self.every, seconds=_NEAR_SECONDS) if id not in self._kept else None
            kept[id] = self._kept[id] if ring is None else _Kept(ring, due=now + random.random() * self.every)
        self._kept = kept
        found = sorted((id for id, one in kept.items() if one.due <= now), key=lambda id: kept[id].due)[:_AT_ONCE]
        for id in found:
            kept[id].due = now + self.every
        return found

    async def _look_on(self) -> None:
        while True:
            try:
                if found := self._turn():
                    await self.look(found)
            except Exception as error:  # noqa: BLE001 (whatever it is: a point is missing)
                _log.warning("what sandboxes use could not be read: later", error=str(error))
            await asyncio.sleep(self.every / _LOOKS)


def _point(reading: Reading) -> StatsPoint | None:
    """None where something could not be read."""
    counters = reading.counters
    if counters is None or reading.memory is None or reading.disk is None or reading.processes is None:
        return None
    return StatsPoint(
        reading.at,
        counters.cpu_us / 1_000_000,
        reading.memory,
        reading.disk,
        counters.received_bytes,
        counters.sent_bytes,
        reading.processes,
    )
