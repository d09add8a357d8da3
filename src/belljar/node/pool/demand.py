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
    """`hot`: restored and paused; `warm`: created."""

    hot: int
    warm: int


@dataclass(slots=True)
class _Class:
    standing: bool
    last: float
    claims: deque[float] = field(default_factory=deque[float])


class Demand(Generic[S]):
    """`most`: hot members of all classes together. The class used last is served first."""

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
        known.last = at
        known.claims.append(at)
        while known.claims and known.claims[0] < at - _LATELY:
            known.claims.popleft()
        if len(self._classes) > _MOST_CLASSES:
            rest = [shape for shape, known in self._classes.items() if not known.standing]
            del self._classes[min(rest, key=lambda shape: self._classes[shape].last)]

    def wishes(self, at: float) -> dict[S, Wish]:
        """For the classes of the last ten minutes and the standing ones, the most recent first."""
        left = self._most
        found: dict[S, Wish] = {}
        for shape, known in sorted(self._classes.items(), key=lambda item: -item[1].last):
            if not known.standing and known.last < at - _REMEMBERED:
                del self._classes[shape]
                continue
            lately = sum(1 for claim in known.claims if claim > at - _LATELY)
            hot = min(1 + lately, _MOST_EACH, left)
            left -= hot
            found[shape] = Wish(hot, min((1 + lately) // 2, hot))
        return found
