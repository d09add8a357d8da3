"""The life of a sandbox as a pure machine: `step(life, event)` gives the next life and what must be done.

No I/O and no clock: every event brings its time. Whoever performs the instructions reports back with further events. A step
that means nothing in the current status changes nothing and asks for nothing, so late or repeated events are harmless.

To rest and to wake takes time. Meanwhile `Life.toward` says where it is going and its status is the one that it comes from:
what a server that dies half-way leaves is a sandbox in its former status.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TypeAlias

from belljar.model.sandbox import Ended, OnTimer, Status

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
    "RestAsked",
    "TerminateAsked",
    "TimerFired",
    "Turned",
    "TurnFailed",
    "WakeAsked",
    "begin",
    "check",
    "deadline",
    "step",
)


@dataclass(frozen=True, slots=True)
class Life:
    """`lifetime` and `idle` in seconds as asked for; `ending` is the end that follows once everything is released.

    `toward`: what it is about to become, `why` that is or was (``asked``, ``idle``, ``lifetime``, ``pressure``). `left`: of one
    that rests, the seconds of its lifetime that are left when it wakes. `quiet`: until when no timer is tried again, after it
    could not rest.
    """

    status: Status
    created: float
    lifetime: float | None
    started: float | None = None
    expires: float | None = None
    ending: Status | None = None
    ended: Ended | None = None
    idle: float | None = None
    on_lifetime: OnTimer = OnTimer.TERMINATE
    on_idle: OnTimer = OnTimer.TERMINATE
    toward: Status | None = None
    why: str = ""
    left: float | None = None
    quiet: float | None = None


class Instruction(Enum):
    RECORD = auto()
    """Write the life down, durably, before anything that follows."""
    PROVISION = auto()
    """Make it; report Ready or ProvisionFailed."""
    RELEASE = auto()
    """Stop making it, end it by force and free all it holds; report Released."""
    TURN = auto()
    """Make it rest, or wake it, as `toward` says; report Turned or TurnFailed."""
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
class RestAsked:
    """`status`: one that rests."""

    at: float
    status: Status
    why: str = "asked"


@dataclass(frozen=True, slots=True)
class WakeAsked:
    at: float


@dataclass(frozen=True, slots=True)
class Turned:
    """It is now what it was to become."""

    at: float


@dataclass(frozen=True, slots=True)
class TurnFailed:
    """It is what it was before."""

    at: float


@dataclass(frozen=True, slots=True)
class LifetimeSet:
    """`lifetime` in seconds from `at` on, or, of one that rests, from when it wakes; None is unlimited."""

    at: float
    lifetime: float | None


@dataclass(frozen=True, slots=True)
class IdleSet:
    """`idle`: seconds without a use after which `on_idle` is done; None is never."""

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
    | RestAsked
    | WakeAsked
    | Turned
    | TurnFailed
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
_NEW = (Instruction.RECORD, Instruction.PUBLISH)
_DEPTH = (Status.RUNNING, Status.PAUSED, Status.STANDBY, Status.STOPPED)
"""What rests can only go on, or rest deeper."""
QUIET_SECONDS = 60.0
"""After a timer could not make it rest."""


def begin(
    at: float,
    lifetime: float | None,
    idle: float | None = None,
    on_lifetime: OnTimer = OnTimer.TERMINATE,
    on_idle: OnTimer = OnTimer.TERMINATE,
) -> Step:
    """A sandbox was asked for at `at` (seconds since 1970)."""
    life = Life(Status.CREATING, at, lifetime, idle=idle, on_lifetime=on_lifetime, on_idle=on_idle)
    return life, (Instruction.RECORD, Instruction.PROVISION)


def step(life: Life, event: Event) -> Step:
    """The only way from one status to another."""
    if isinstance(event, Found | HostRebooted):
        life = replace(life, toward=None)  # it went there by the hands of another server
    match life.status:
        case Status.CREATING:
            return _creating(life, event)
        case Status.RUNNING:
            return _running(life, event)
        case Status.PAUSED | Status.STANDBY | Status.STOPPED:
            return _resting(life, event)
        case Status.TERMINATING:
            return _terminating(life, event)
        case Status.TERMINATED | Status.FAILED | Status.LOST:
            return life, _NOTHING


def deadline(life: Life) -> float | None:
    """When its lifetime is to be looked at, in seconds since 1970; None is never."""
    if life.status is not Status.RUNNING or life.toward is not None or life.expires is None:
        return None
    return life.expires if life.quiet is None else max(life.expires, life.quiet)


def _creating(life: Life, event: Event) -> Step:
    match event:
        case Ready(at):
            expires = None if life.lifetime is None else at + life.lifetime
            return replace(life, status=Status.RUNNING, started=at, expires=expires), _NEW
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
        case TimerFired() | Released() | RestAsked() | WakeAsked() | Turned() | TurnFailed():
            return life, _NOTHING


def _running(life: Life, event: Event) -> Step:
    match event:
        case TimerFired(at, idle):
            return _timed(life, at, idle)
        case LifetimeSet(at, lifetime):
            expires = None if lifetime is None else at + lifetime
            return replace(life, lifetime=lifetime, expires=expires), _NEW
        case WakeAsked():
            return life, _NOTHING
        case Ready() | ProvisionFailed() | Released():
            return life, _NOTHING
        case _:
            return _living(life, event)


def _timed(life: Life, at: float, idle: float) -> Step:
    if life.toward is not None or (life.quiet is not None and at < life.quiet):
        return life, _NOTHING
    if life.expires is not None and at >= life.expires:
        done, why = life.on_lifetime, "lifetime"
    elif life.idle is not None and idle >= life.idle:
        done, why = life.on_idle, "idle"
    else:
        return life, _NOTHING
    if done is OnTimer.TERMINATE:
        return _end(life, Status.TERMINATED, Ended(why, at))
    return _living(life, RestAsked(at, done.status, why))


def _resting(life: Life, event: Event) -> Step:
    match event:
        case WakeAsked():
            if life.toward is not None:
                return life, _NOTHING
            return replace(life, toward=Status.RUNNING), (Instruction.TURN,)
        case LifetimeSet(_, lifetime):
            return replace(life, lifetime=lifetime, left=lifetime), _NEW
        case TimerFired() | Ready() | ProvisionFailed() | Released():
            return life, _NOTHING
        case GuestEnded() | AgentLost() | HostRebooted() | Found() if life.status.on_disk:
            return life, (Instruction.PUBLISH,) if isinstance(event, Found | HostRebooted) else _NOTHING
        case _:
            return _living(life, event)


def _living(life: Life, event: Event) -> Step:
    """What is the same for one that runs and one that rests."""
    match event:
        case TerminateAsked(at, reason):
            return _end(life, Status.TERMINATED, Ended(reason, at))
        case RestAsked(_, status, why):
            if life.toward is not None or not status.rests or _DEPTH.index(status) <= _DEPTH.index(life.status):
                return life, _NOTHING
            return replace(life, toward=status, why=why), (Instruction.TURN,)
        case Turned(at):
            return (life, _NOTHING) if life.toward is None else (_turned(life, life.toward, at), _NEW)
        case TurnFailed(at):
            if life.toward is None:
                return life, _NOTHING
            quiet = at + QUIET_SECONDS if life.status is Status.RUNNING else life.quiet
            return replace(life, toward=None, quiet=quiet), _NOTHING
        case IdleSet(_, idle):
            return replace(life, idle=idle), _NEW
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
        case _:
            return life, _NOTHING


def _turned(life: Life, status: Status, at: float) -> Life:
    if status is Status.RUNNING:
        expires = None if life.left is None else at + life.left
        return replace(life, status=status, toward=None, expires=expires, left=None, quiet=None)
    if life.status is not Status.RUNNING:  # deeper: its time has stood still before
        return replace(life, status=status, toward=None)
    left = life.lifetime
    if life.expires is not None and life.why != "lifetime":
        left = max(life.expires - at, 0.0)
    return replace(life, status=status, toward=None, expires=None, left=left, quiet=None)


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
    return replace(life, status=Status.TERMINATING, ending=ending, ended=ended, toward=None), _END


def check(life: Life) -> None:
    """Raises AssertionError where a life breaks an invariant; for tests and for records read back from disk."""
    status = life.status
    assert (life.ending is not None) == (status is Status.TERMINATING), "only one that is ending has an end before it"
    assert (life.ended is not None) == (status is Status.TERMINATING or status.is_end), "an end has a reason"
    assert life.ending is None or life.ending.is_end
    assert life.toward is None or life.toward in _DEPTH, "it can only go where it can live"
    assert life.toward is None or status is Status.RUNNING or status.rests
    if status is Status.CREATING:
        assert life.started is None and life.expires is None
    if status.rests:
        assert life.started is not None and life.expires is None, "the time of one that rests stands still"
        assert (life.left is None) == (life.lifetime is None)
    if status is Status.RUNNING:
        assert life.started is not None
        assert (life.expires is None) == (life.lifetime is None)
