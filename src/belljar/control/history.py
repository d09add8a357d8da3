"""What running sandboxes used in the last hours, in memory: what was read for their accounts, kept as it was."""

from collections.abc import Collection, Mapping

from belljar.model.stats import Ring, StatsPoint
from belljar.model.usage import Reading

__all__ = ("History",)

_NEAR_SECONDS = 3600.0
_FAR_EVERY, _FAR_SECONDS = 60.0, 86400.0


class History:
    """`every`: seconds between two readings of a sandbox. An hour of these is kept, and a day of one a minute; they go with the
    sandbox's end and the server's.
    """

    def __init__(self, *, every: float) -> None:
        self.every = every
        self._rings: dict[str, tuple[Ring, Ring]] = {}

    def add(self, readings: Mapping[str, Reading]) -> None:
        """By sandbox."""
        for id, reading in readings.items():
            if (point := _point(reading)) is None:
                continue
            if (rings := self._rings.get(id)) is None:
                early = self.every / 2  # readings come a little late or early
                near = Ring(every=self.every, seconds=_NEAR_SECONDS, early=early)
                far = Ring(every=max(_FAR_EVERY, self.every), seconds=_FAR_SECONDS, early=early)
                rings = self._rings[id] = near, far
            for ring in rings:
                ring.add(point)

    def keep_only(self, running: Collection[str]) -> None:
        """What has ended is forgotten."""
        for id in self._rings.keys() - running:
            del self._rings[id]

    def of(self, sandbox: str, *, since: float = 0.0) -> list[StatsPoint]:
        """From `since` (seconds since 1970) on, the oldest first: one a minute, and those of the last hour closer together."""
        if (rings := self._rings.get(sandbox)) is None:
            return []
        near = list(rings[0].points())
        far = [point for point in rings[1].points() if point.at < near[0].at]
        return [point for point in (*far, *near) if point.at >= since]


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
