"""What a kernel says of itself to a server that begins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

__all__ = ("MAX_QUEUED", "State")

MAX_QUEUED = 64
"""Executions that wait in one context."""
_LONGEST = 1e9


@dataclass(frozen=True, slots=True)
class State:
    """What a kernel says of itself to a new server; what it says badly counts as not said."""

    running: str | None
    elapsed: float
    queued: tuple[str, ...]
    ended: frozenset[str]
    calls: set[str]
    warm: bool

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Self:
        running, elapsed = event.get("running"), event.get("elapsed")
        good = isinstance(elapsed, int | float) and 0 <= elapsed < _LONGEST
        return cls(
            running if isinstance(running, str) else None,
            float(elapsed) if good and elapsed is not None else 0.0,
            _keys(event.get("queued")),
            frozenset(_texts(event.get("ended"))),
            _texts(event.get("calls")),
            event.get("warm") is True,
        )


def _keys(value: object) -> tuple[str, ...]:
    """In their order, no more than there may be."""
    found = [item for item in value if isinstance(item, str)] if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]
    return tuple(found[:MAX_QUEUED])


def _texts(value: object) -> set[str]:
    return {item for item in value if isinstance(item, str)} if isinstance(value, list) else set()  # pyright: ignore[reportUnknownVariableType]
