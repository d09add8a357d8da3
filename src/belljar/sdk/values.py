"""What the SDK hands out: plain values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from belljar.model.events import Event
from belljar.model.sandbox import Ended, Status
from belljar.sdk.errors import ProcessFailed

__all__ = ("Command", "CompletedProcess", "Progress", "SandboxInfo", "SandboxLogs", "SandboxStats")

Command: TypeAlias = str | Sequence[str]
"""A string goes to ``/bin/sh -c``, a list is the words of the command."""

Progress: TypeAlias = Callable[[int, int | None], object]
"""Called with the bytes done so far and, where known, the bytes in all."""

Text = TypeVar("Text", str, bytes)


@dataclass(frozen=True, slots=True)
class CompletedProcess(Generic[Text]):
    """What `run` returns; the names are those of `subprocess.CompletedProcess`.

    `returncode` is negative for a signal. `duration` in seconds, as the caller saw it. `out_of_memory`: ended at the
    sandbox's memory limit. `dropped`: bytes of output lost while the server was away for long; 0 in ordinary life.
    """

    args: Command
    returncode: int
    stdout: Text
    stderr: Text
    duration: float
    out_of_memory: bool = False
    dropped: int = 0

    def check_returncode(self) -> None:
        """Raises ProcessFailed unless the command ended with status 0."""
        if self.returncode:
            raise ProcessFailed(self.args, self.returncode, self.stdout, self.stderr)


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """All that is known of a sandbox. Times in seconds since 1970, sizes in bytes, `lifetime` and `idle` in seconds (None:
    unlimited, never)."""

    id: str
    name: str | None
    image: str
    status: Status
    created: float
    started: float | None
    expires: float | None
    ended: Ended | None
    cpu: float
    memory: int
    disk: int
    pids: int
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    workdir: str | None = None
    user: str | None = None
    network: str = "open"
    lifetime: float | None = None
    idle: float | None = None
    on_lifetime: str = "terminate"
    on_idle: str = "terminate"
    snapshot: str | None = None
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class SandboxStats:
    """Use of resources as the host counts it: `memory`, `memory_limit` and `disk` (what its files take on the host) in bytes,
    `cpu_seconds` since the start.
    """

    memory: int
    memory_limit: int
    cpu_seconds: float
    cpus: float
    processes: int
    disk: int = 0


@dataclass(frozen=True, slots=True)
class SandboxLogs:
    """`events` of the sandbox, oldest first, and the last output of its newest `processes`, as the server tells them."""

    events: tuple[Event, ...]
    processes: tuple[Mapping[str, Any], ...]
