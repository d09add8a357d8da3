"""What a sandbox used over time: points, kept close together for a while and further apart for longer."""

from array import array
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields

__all__ = ("Ring", "StatsPoint")


@dataclass(frozen=True, slots=True)
class StatsPoint:
    """One look, as the host counts it. `at`: seconds since 1970. `cpu_seconds`, `received_bytes` and `sent_bytes` since the
    sandbox was first running: they only grow. `memory` and `disk`: bytes in use.
    """

    at: float
    cpu_seconds: float
    memory: int
    disk: int
    received_bytes: int
    sent_bytes: int
    processes: int


_WIDTH = len(fields(StatsPoint))


class Ring:
    """The newest points, about `every` seconds apart: as many as fit into `seconds`, 56 bytes each. `early`: so much sooner one
    may come."""

    def __init__(self, *, every: float, seconds: float, early: float) -> None:
        self._least = every - early
        self._most = max(2, int(seconds / every) + 1)
        self._numbers = array("d")

    def add(self, point: StatsPoint) -> None:
        """One that is too close to the newest, or not behind it, is left out."""
        if self._numbers and point.at - self._numbers[-_WIDTH] < self._least:
            return
        self._numbers.extend(astuple(point))
        # Taking each away by itself would move the whole ring each time.
        if len(self._numbers) > (self._most + self._most // 4 + 1) * _WIDTH:
            del self._numbers[: -self._most * _WIDTH]

    def points(self) -> Iterator[StatsPoint]:
        """The oldest first."""
        first = max(0, len(self._numbers) - self._most * _WIDTH)
        for start in range(first, len(self._numbers), _WIDTH):
            at, cpu, *whole = self._numbers[start : start + _WIDTH]
            yield StatsPoint(at, cpu, *map(int, whole))
