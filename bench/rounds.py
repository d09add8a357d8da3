"""Candidates measured in turn, one sample each at a time, so that what else the machine does falls on all of them alike."""

import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

__all__ = ("Absent", "Case", "Found", "Sampler", "Side", "measure")

Sampler = Callable[[], Mapping[str, float]]
"""One sample: row → value, seconds unless the row has another unit."""
Case = Callable[[], AbstractContextManager[Sampler]]
"""Entered before its first sample, left after its last."""


class Absent(Exception):
    """The candidate has nothing like it, or it cannot run here; its words go into the table."""


@dataclass(frozen=True, slots=True)
class Side:
    """One candidate. `absent`: case → why it is not measured."""

    name: str
    cases: Mapping[str, Case]
    absent: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Found:
    """`values`: side → row → samples. `failed` and `absent`: side → case → why."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict[str, dict[str, list[float]]])
    failed: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    absent: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])


def measure(sides: list[Side], plan: Mapping[str, int], *, warm_up: int = 1) -> Found:
    """`plan`: case → samples per side; cases of one sample get no warm-up. A side that fails a case does not stop the others."""
    found = Found()
    for side in sides:
        found.values[side.name] = defaultdict(list)
        found.failed[side.name] = {}
        found.absent[side.name] = dict(side.absent)
    for case, rounds in plan.items():
        started = time.monotonic()
        _measure_case(sides, case, rounds, warm_up if rounds > 1 else 0, found)
        print(f"  {case}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return found


def _measure_case(sides: list[Side], case: str, rounds: int, warm_up: int, found: Found) -> None:
    with ExitStack() as stack:
        samplers: dict[str, Sampler] = {}
        for side in sides:
            if case in side.cases:
                with _Guarded(side, case, found):
                    samplers[side.name] = stack.enter_context(_closing(side, case, found))
        for number in range(warm_up + rounds):
            for side in sides:
                sampler = samplers.get(side.name)
                if sampler is None:
                    continue
                guarded = _Guarded(side, case, found)
                with guarded:
                    for row, value in sampler().items():
                        if number >= warm_up:
                            found.values[side.name][row].append(value)
                if guarded.failed:
                    del samplers[side.name]


class _Guarded:
    def __init__(self, side: Side, case: str, found: Found) -> None:
        self._side, self._case, self._found = side.name, case, found
        self.failed = False

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        self.failed = True
        if isinstance(error, Absent):
            self._found.absent[self._side][self._case] = str(error)
        else:
            self._found.failed[self._side][self._case] = f"{type(error).__name__}: {str(error)[:400]}"
            traceback.print_exception(error, limit=-4)
        return True


def _closing(side: Side, case: str, found: Found) -> AbstractContextManager[Sampler]:
    """The case's context, whose trouble at the end is its own."""

    class Closing:
        def __enter__(self) -> Sampler:
            self._inner = side.cases[case]()
            return self._inner.__enter__()

        def __exit__(self, *error: object) -> bool:
            with _Guarded(side, case, found):
                self._inner.__exit__(None, None, None)
            return False

    return Closing()
