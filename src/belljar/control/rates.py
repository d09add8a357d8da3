"""How fast something may come: a bucket for each name, which fills by the second."""

from collections.abc import Hashable

from belljar.base.clock import Clock, SystemClock

__all__ = ("Rates",)

_MOST = 4096


class Rates:
    """A second's worth may come at once. Who takes more in one go is let through and waits the longer for the next."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._left: dict[Hashable, tuple[float, float]] = {}
        """Of each name what was left, and when."""

    def wait(self, name: Hashable, rate: float) -> float:
        """Seconds until `name` may take again at `rate` per second; 0 when it may now."""
        return max(0.0, (1.0 - self._now(name, rate)) / rate)

    def take(self, name: Hashable, rate: float, count: int = 1) -> None:
        """Also more than there is."""
        left = self._now(name, rate) - count
        self._left.pop(name, None)
        self._left[name] = (left, self._clock.monotonic())
        if len(self._left) > _MOST:
            del self._left[next(iter(self._left))]

    def _now(self, name: Hashable, rate: float) -> float:
        full = max(rate, 1.0)
        left, since = self._left.get(name, (full, 0.0))
        return min(full, left + (self._clock.monotonic() - since) * rate)
