"""The sandbox: what is asked for, and what is known of one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from belljar.model.errors import InvalidArgument
from belljar.model.usage import Reading

__all__ = (
    "DEFAULT_IMAGE",
    "DEFAULT_LIFETIME",
    "Ended",
    "Limits",
    "Network",
    "OnTimer",
    "Sandbox",
    "SandboxSpec",
    "Status",
    "check_env",
    "check_idle",
    "check_labels",
    "check_name",
)

DEFAULT_IMAGE = "code"
DEFAULT_LIFETIME = 3600.0
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
MAX_ENV = 512
MAX_ENV_BYTES = 256 << 10
MAX_LABELS = 64
MIN_IDLE = 1.0


class Status(StrEnum):
    """Where a sandbox is in its life. In `paused`, `standby` and `stopped` it rests: `paused` is frozen in memory, `standby` has
    its memory on the disk, `stopped` only its files. `terminated`, `failed` and `lost` are ends.
    """

    CREATING = "creating"
    RUNNING = "running"
    PAUSED = "paused"
    STANDBY = "standby"
    STOPPED = "stopped"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    FAILED = "failed"
    LOST = "lost"

    @property
    def is_end(self) -> bool:
        return self in (Status.TERMINATED, Status.FAILED, Status.LOST)

    @property
    def rests(self) -> bool:
        """It is there, stands still, and can go on."""
        return self in (Status.PAUSED, Status.STANDBY, Status.STOPPED)

    @property
    def on_disk(self) -> bool:
        """It rests, and holds nothing of the machine but what lies on the disk."""
        return self in (Status.STANDBY, Status.STOPPED)


class OnTimer(StrEnum):
    """What becomes of a sandbox when a timer of it has run out."""

    TERMINATE = "terminate"
    PAUSE = "pause"
    STANDBY = "standby"
    STOP = "stop"

    @property
    def status(self) -> Status:
        return {
            OnTimer.TERMINATE: Status.TERMINATED,
            OnTimer.PAUSE: Status.PAUSED,
            OnTimer.STANDBY: Status.STANDBY,
            OnTimer.STOP: Status.STOPPED,
        }[self]


class Network(StrEnum):
    """What a sandbox may reach: `open` is the internet without private ranges, `none` is nothing."""

    OPEN = "open"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sandbox may use. `memory` and `disk` in bytes, `cpus` in cores (0.5 is half of one)."""

    cpus: float = 1.0
    memory: int = 1 << 30
    disk: int = 10 << 30
    pids: int = 1024

    def __post_init__(self) -> None:
        if not 0.05 <= self.cpus <= 256:
            raise InvalidArgument(f"cpu lies between 0.05 and 256 cores, not {self.cpus}")
        if not 64 << 20 <= self.memory <= 1 << 42:
            raise InvalidArgument(f"memory lies between 64MiB and 4TiB, not {self.memory} bytes")
        if not 16 << 20 <= self.disk <= 1 << 44:
            raise InvalidArgument(f"disk lies between 16MiB and 16TiB, not {self.disk} bytes")
        if not 16 <= self.pids <= 32768:
            raise InvalidArgument(f"pids lies between 16 and 32768, not {self.pids}")

    def changed(
        self,
        *,
        cpus: float | None = None,
        memory: int | None = None,
        disk: int | None = None,
        pids: int | None = None,
    ) -> "Limits":
        """What is None stays. Raises InvalidArgument."""
        said = {"cpus": cpus, "memory": memory, "disk": disk, "pids": pids}
        return replace(self, **{name: value for name, value in said.items() if value is not None})


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What was asked for. `lifetime` in seconds of running, from the first moment on, None is unlimited; `on_lifetime` is done
    then, and `on_idle` when nobody has used it for `idle` seconds, None is never.

    `snapshot`: the id of the snapshot to go on from, of which `image` is the image. `pool` False: made anew, never taken from
    those that wait. `reseed` False: the random generators of its code go on as in the snapshot, as its clones' do.
    """

    image: str = DEFAULT_IMAGE
    snapshot: str | None = None
    name: str | None = None
    limits: Limits = field(default_factory=Limits)
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    workdir: str | None = None
    user: str | None = None
    network: Network = Network.OPEN
    lifetime: float | None = DEFAULT_LIFETIME
    idle: float | None = None
    on_lifetime: OnTimer = OnTimer.TERMINATE
    on_idle: OnTimer = OnTimer.TERMINATE
    pool: bool = True
    reseed: bool = True

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name)
        check_env(self.env)
        check_labels(self.labels)
        if self.workdir is not None and (
            not self.workdir.startswith("/") or "\0" in self.workdir or len(self.workdir) > 4096
        ):
            raise InvalidArgument(f"workdir is an absolute path, not {self.workdir[:80]!r}")
        if self.user is not None and (not self.user or len(self.user) > 64 or not self.user.isprintable()):
            raise InvalidArgument("user is a name or a number of at most 64 characters")
        if self.lifetime is not None and self.lifetime <= 0:
            raise InvalidArgument("lifetime is more than 0 seconds, or None for unlimited")
        check_idle(self.idle)


@dataclass(frozen=True, slots=True)
class Ended:
    """Why and when a sandbox ended. `at` in seconds since 1970."""

    reason: str
    """killed, lifetime, idle, out_of_memory, exited, agent_silent, bad_agent, start_failed, engine_failed, host_reboot, restored,
    …"""
    at: float
    message: str = ""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What is known of one sandbox. Times in seconds since 1970. `parent`: the sandbox that it was forked from.

    `final`: what one that has ended had used, as the node read it last.
    """

    id: str
    spec: SandboxSpec
    status: Status
    created: float
    started: float | None = None
    expires: float | None = None
    ended: Ended | None = None
    parent: str | None = None
    final: Reading | None = field(default=None, compare=False)


def check_name(name: str) -> str:
    """Raises InvalidArgument unless the name fits a DNS label."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"not a name: {name[:80]!r}", hint="a name has 1 to 63 lower-case letters, digits and inner hyphens"
        )
    return name


def check_env(env: Mapping[str, str], *, raw: bool = False) -> None:
    """Raises InvalidArgument unless names are legal, values are text without NUL, and all of it is within bounds.

    `raw`: values may also hold bytes that are no UTF-8, as Python writes them (U+DC80 to U+DCFF). What is kept may not.
    """
    if len(env) > MAX_ENV or sum(len(key) + len(value) for key, value in env.items()) > MAX_ENV_BYTES:
        raise InvalidArgument(f"env has at most {MAX_ENV} variables and {MAX_ENV_BYTES >> 10} KiB")
    for key, value in env.items():
        if not _ENV_NAME.fullmatch(key):
            raise InvalidArgument(f"not the name of a variable: {key[:80]!r}")
        if "\0" in value:
            raise InvalidArgument(f"the value of {key} contains a NUL")
        try:
            value.encode(errors="surrogateescape" if raw else "strict")
        except UnicodeEncodeError:
            raise InvalidArgument(f"the value of {key} is no text: it has no form in UTF-8") from None


def check_idle(idle: float | None) -> None:
    """Raises InvalidArgument. Shorter than the pauses between the calls of any client it would be a trap."""
    if idle is not None and not idle >= MIN_IDLE:
        raise InvalidArgument(f"idle is at least {MIN_IDLE:g} second, or None for never")


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises InvalidArgument unless the keys are label words and the values short printable text."""
    if len(labels) > MAX_LABELS:
        raise InvalidArgument(f"at most {MAX_LABELS} labels")
    for key, value in labels.items():
        if not _LABEL.fullmatch(key):
            raise InvalidArgument(f"not a label: {key[:80]!r}")
        if len(value) > 256 or not (value.isprintable() or not value):
            raise InvalidArgument(f"the value of label {key} is printable text of at most 256 characters")
