"""A snapshot after each step: taken, counted, and deleted again. How to go back to one: see `executor`."""

import contextlib
import secrets
import weakref
from collections.abc import Iterable
from dataclasses import dataclass

import belljar
from belljar.integrations.smolagents.home import CONTEXT, LABELS, Place
from belljar.integrations.smolagents.ledger import Ledger

__all__ = ("RUN", "STEP", "History", "Moment", "StepSnapshot")

RUN, STEP = "belljar-run", "belljar-step"
"""Labels of each snapshot: which executor's it is, and of which step."""
_DAY = 86400.0
_EXCERPT = 500


@dataclass(frozen=True, slots=True)
class StepSnapshot:
    """The sandbox as it was after the executor's step number `step`, from 1; 0 is before the first.

    `code` is that step's; `excerpt` is the end of what it printed, returned or raised, at most 500 characters.
    """

    step: int
    snapshot: "belljar.Snapshot"
    code: str
    excerpt: str


@dataclass(frozen=True, slots=True)
class Moment:
    """What it takes to go back: the snapshot, what this side had told the sandbox, and where its code ran."""

    shown: StepSnapshot
    ledger: Ledger
    place: Place


class History:
    """The newest `keep` moments of one executor. `kept`: their snapshots stay when it ends.

    Otherwise they go with `close`, when this is collected, at the end of the interpreter, or a day after the process was killed.
    """

    def __init__(self, kind: str, keep: int, kept: bool) -> None:
        self.run = secrets.token_hex(4)
        self._memory = kind == "memory"
        self._keep = keep
        self._kept = kept
        self._moments: list[Moment] = []
        self._times: dict[int, int] = {}
        self._there: dict[str, belljar.Snapshot] = {}
        if not kept:
            # With the snapshots alone: holding the history, it would never be collected.
            self._finalizer = weakref.finalize(self, _delete_all, self._there)

    @property
    def snapshots(self) -> list[StepSnapshot]:
        return [moment.shown for moment in self._moments]

    def has(self, step: int) -> bool:
        return any(moment.shown.step == step for moment in self._moments)

    def at(self, step: int) -> Moment:
        """Raises LookupError."""
        for moment in self._moments:
            if moment.shown.step == step:
                return moment
        there = ", ".join(str(moment.shown.step) for moment in self._moments) or "none"
        raise LookupError(f"no snapshot of step {step}; there are: {there}")

    def take(
        self, sandbox: "belljar.Sandbox", step: int, code: str, outcome: str, ledger: Ledger, place: Place
    ) -> None:
        """The sandbox is now after this step. Raises belljar.Error."""
        labels = LABELS | {RUN: self.run, STEP: str(step)}
        if place.context is not None:
            labels[CONTEXT] = place.context.id
        times = self._times[step] = self._times.get(step, 0) + 1
        name = f"agent-{self.run}-step-{step}{f'-{times}' if times > 1 else ''}"
        snapshot = sandbox.snapshot(name, memory=self._memory, labels=labels, ttl=None if self._kept else _DAY)
        self._there[snapshot.id] = snapshot
        self._moments.append(Moment(StepSnapshot(step, snapshot, code, outcome[-_EXCERPT:]), ledger, place))
        self._forget(self._moments[: -self._keep])

    def branch(self, step: int) -> None:
        """Another step follows on this one: those that did so before are given up."""
        self._forget([moment for moment in self._moments if moment.shown.step > step])

    def close(self) -> None:
        """Idempotent."""
        if not self._kept:
            self._moments = []
            _delete_all(self._there)

    def _forget(self, moments: list[Moment]) -> None:
        self._moments = [moment for moment in self._moments if moment not in moments]
        _delete(self._there, [moment.shown.snapshot.id for moment in moments])


def _delete_all(there: "dict[str, belljar.Snapshot]") -> None:
    _delete(there, list(there))


def _delete(there: "dict[str, belljar.Snapshot]", ids: Iterable[str]) -> None:
    """What cannot be deleted now stays in the dict, and is tried again at the end."""
    for id in ids:
        with contextlib.suppress(belljar.Error):
            there[id].delete()
            del there[id]
