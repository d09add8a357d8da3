"""How many members of which class should wait: from who came lately. No clock: every call brings its time."""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ("Demand", "Wish")

S = TypeVar("S", bound=Hashable)
_LATELY = 10.0
"""Seconds: a burst is followed by the next one, or it was the only one."""
_REMEMBERED = 600.0
_MOST_EACH = 8
_MOST_CLASSES = 16


@dataclass(frozen=True, slots=True)
class Wish:
    """`hot`: restored and paused; `warm`: created, for a burst of the class or for who begins elsewhere."""

    hot: int
    warm: int


@dataclass(slots=True)
class _Class:
    standing: bool
    last: float
    claims: deque[float] = field(default_factory=deque[float])
    begun: deque[float] = field(default_factory=deque[float])

    def came(self, times: deque[float], at: float) -> None:
        self.last = at
        times.append(at)
        while times[0] < at - _LATELY:
            times.popleft()


class Demand(Generic[S]):
    """`most`: hot members of all classes together, and as many created ones for who begins elsewhere. The class used last is
    served first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._classes: dict[S, _Class] = {}

    def stand(self, shape: S, at: float) -> None:
        """A class that always has one, used or not."""
        known = self._classes.setdefault(shape, _Class(True, at))
        known.standing = True

    def asked(self, shape: S, at: float) -> None:
        """Somebody wanted one of this class, and got it or not."""
        known = self._classes.setdefault(shape, _Class(False, at))
        known.came(known.claims, at)
        self._forget_one()

    def began(self, shape: S, at: float) -> None:
        """Somebody begins elsewhere than this class does (a fork, a restored snapshot): one that was only created would do."""
        known = self._classes.setdefault(shape, _Class(False, at))
        known.came(known.begun, at)
        self._forget_one()

    def _forget_one(self) -> None:
        if len(self._classes) > _MOST_CLASSES:
            rest = [shape for shape, known in self._classes.items() if not known.standing]
            del self._classes[min(rest, key=lambda shape: self._classes[shape].last)]

    def wishes(self, at: float) -> dict[S, Wish]:
        """For the classes of the last ten minutes and the standing ones, the most recent first."""
        left = left_created = self._most
        found: dict[S, Wish] = {}
        for shape, known in sorted(self._classes.items(), key=lambda item: -item[1].last):
            if not known.standing and known.last < at - _REMEMBERED:
                del self._classes[shape]
                continue
            hot = min(_wanted(known.claims, at, standing=known.standing), left)
            created = min(_wanted(known.begun, at), left_created)
            left, left_created = left - hot, left_created - created
            found[shape] = Wish(hot, hot // 2 + created)
        return found


def _wanted(times: deque[float], at: float, *, standing: bool = False) -> int:
    if not standing and not (times and times[-1] >= at - _REMEMBERED):
        return 0
    return min(1 + sum(1 for time in times if time > at - _LATELY), _MOST_EACH)
