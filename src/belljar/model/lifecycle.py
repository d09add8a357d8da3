"""The life of a sandbox as a pure machine: `step(life, event)` gives the next life and what must be done.

No I/O and no clock: every event brings its time. Whoever performs the instructions reports back with further events. A step
that means nothing in the current status changes nothing and asks for nothing, so late or repeated events are harmless.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TypeAlias

from belljar.model.sandbox import Ended, Status

__all__ = (
    "AgentLost",
    "Event",
    "Found",
    "GuestEnded",
    "HostRebooted",
    "IdleSet",
    "Instruction",
    "Life",
    "LifetimeSet",
    "ProvisionFailed",
    "Ready",
    "Released",
    "TerminateAsked",
    "TimerFired",
    "begin",
    "check",
    "step",
)


@dataclass(frozen=True, slots=True)
class Life:
    """`lifetime` and `idle` in seconds as asked for; `ending` is the end that follows once everything is released."""

    status: Status
    created: float
    lifetime: float | None
    started: float | None = None
    expires: float | None = None
    ending: Status | None = None
    ended: Ended | None = None
    idle: float | None = None


class Instruction(Enum):
    RECORD = auto()
    """Write the life down, durably, before anything that follows."""
    PROVISION = auto()
    """Make it; report Ready or ProvisionFailed."""
    RELEASE = auto()
    """Stop making it, end it by force and free all it holds; report Released."""
    PUBLISH = auto()
    """Tell those who watch."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The agent has answered."""

    at: float


@dataclass(frozen=True, slots=True)
class ProvisionFailed:
    at: float
    message: str


@dataclass(frozen=True, slots=True)
class TerminateAsked:
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class LifetimeSet:
    """`lifetime` in seconds from `at` on; None is unlimited."""

    at: float
    lifetime: float | None


@dataclass(frozen=True, slots=True)
class IdleSet:
    """`idle`: seconds without a use after which it ends; None is never."""

    at: float
    idle: float | None


@dataclass(frozen=True, slots=True)
class TimerFired:
    """Time has passed; whether it is enough is decided here. `idle`: seconds since somebody used it, 0 while it is used."""

    at: float
    idle: float = 0.0


@dataclass(frozen=True, slots=True)
class GuestEnded:
    """The guest's kernel is dead, and nobody here asked for it."""

    at: float
    out_of_memory: bool
    message: str


@dataclass(frozen=True, slots=True)
class AgentLost:
    at: float
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Found:
    """A new server found the record. `alive`: its kernel and its agent answered."""

    at: float
    alive: bool


@dataclass(frozen=True, slots=True)
class HostRebooted:
    """A new server found the record of another boot of the machine."""

    at: float


@dataclass(frozen=True, slots=True)
class Released:
    at: float


Event: TypeAlias = (
    Ready
    | ProvisionFailed
    | TerminateAsked
    | LifetimeSet
    | IdleSet
    | TimerFired
    | GuestEnded
    | AgentLost
    | Found
    | HostRebooted
    | Released
)
Step: TypeAlias = tuple[Life, tuple[Instruction, ...]]

_NOTHING: tuple[Instruction, ...] = ()
_END = (Instruction.RECORD, Instruction.RELEASE)


def begin(at: float, lifetime: float | None, idle: float | None = None) -> Step:
    """A sandbox was asked for at `at` (seconds since 1970)."""
    return Life(Status.CREATING, at, lifetime, idle=idle), (Instruction.RECORD, Instruction.PROVISION)


def step(life: Life, event: Event) -> Step:
    """The only way from one status to another."""
    match life.status:
        case Status.CREATING:
            return _creating(life, event)
        case Status.RUNNING:
            return _running(life, event)
        case Status.TERMINATING:
            return _terminating(life, event)
        case Status.TERMINATED | Status.FAILED | Status.LOST:
            return life, _NOTHING


def _creating(life: Life, event: Event) -> Step:
    match event:
        case Ready(at):
            expires = None if life.lifetime is None else at + life.lifetime
            running = replace(life, status=Status.RUNNING, started=at, expires=expires)
            return running, (Instruction.RECORD, Instruction.PUBLISH)
        case ProvisionFailed(at, message):
            return _end(life, Status.FAILED, Ended("start_failed", at, message))
        case GuestEnded(at, out_of_memory, message):
            return _end(life, Status.FAILED, Ended("out_of_memory" if out_of_memory else "start_failed", at, message))
        case AgentLost(at, reason, message):
            return _end(life, Status.FAILED, Ended(reason, at, message))
        case TerminateAsked(at, reason):
            return _end(life, Status.TERMINATED, Ended(reason, at))
        case LifetimeSet(_, lifetime):
            return replace(life, lifetime=lifetime), (Instruction.RECORD,)
        case IdleSet(_, idle):
            return replace(life, idle=idle), (Instruction.RECORD,)
        case Found(at):
            # Its create was never answered: nobody can be using it.
            return _end(life, Status.FAILED, Ended("start_failed", at, "the server ended while it was being made"))
        case HostRebooted(at):
            return _end(life, Status.LOST, Ended("host_reboot", at))
        case TimerFired() | Released():
            return life, _NOTHING


def _running(life: Life, event: Event) -> Step:
    match event:
        case TerminateAsked(at, reason):
            return _end(life, Status.TERMINATED, Ended(reason, at))
        case TimerFired(at, idle):
            if life.expires is not None and at >= life.expires:
                return _end(life, Status.TERMINATED, Ended("lifetime", at))
            if life.idle is not None and idle >= life.idle:
                return _end(life, Status.TERMINATED, Ended("idle", at))
            return life, _NOTHING
        case LifetimeSet(at, lifetime):
            expires = None if lifetime is None else at + lifetime
            return replace(life, lifetime=lifetime, expires=expires), (Instruction.RECORD, Instruction.PUBLISH)
        case IdleSet(_, idle):
            return replace(life, idle=idle), (Instruction.RECORD, Instruction.PUBLISH)
        case GuestEnded(at, out_of_memory, message):
            return _end(life, Status.FAILED, Ended("out_of_memory" if out_of_memory else "exited", at, message))
        case AgentLost(at, reason, message):
            return _end(life, Status.FAILED, Ended(reason, at, message))
        case Found(at, alive):
            if alive:
                return life, (Instruction.PUBLISH,)
            return _end(life, Status.FAILED, Ended("exited", at, "it had ended while no server was running"))
        case HostRebooted(at):
            return _end(life, Status.LOST, Ended("host_reboot", at))
        case Ready() | ProvisionFailed() | Released():
            return life, _NOTHING


def _terminating(life: Life, event: Event) -> Step:
    match event:
        case Released():
            assert life.ending is not None
            return replace(life, status=life.ending, ending=None), (Instruction.RECORD, Instruction.PUBLISH)
        case Found() | HostRebooted():
            return life, (Instruction.RELEASE,)
        case _:
            return life, _NOTHING


def _end(life: Life, ending: Status, ended: Ended) -> Step:
    return replace(life, status=Status.TERMINATING, ending=ending, ended=ended), _END


def check(life: Life) -> None:
    """Raises AssertionError where a life breaks an invariant; for tests and for records read back from disk."""
    status = life.status
    assert (life.ending is not None) == (status is Status.TERMINATING), "only one that is ending has an end before it"
    assert (life.ended is not None) == (status is Status.TERMINATING or status.is_end), "an end has a reason"
    assert life.ending is None or life.ending.is_end
    if status is Status.CREATING:
        assert life.started is None and life.expires is None
    if status is Status.RUNNING:
        assert life.started is not None
        assert (life.expires is None) == (life.lifetime is None)
