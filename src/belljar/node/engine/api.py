"""What an engine is: it turns a bundle and an id into a running guest, and knows nothing above that."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from belljar.model.sandbox import Limits

__all__ = (
    "Capabilities",
    "Capability",
    "Channel",
    "Engine",
    "GuestExit",
    "HostObject",
    "Instance",
    "InstanceSpec",
    "InstanceState",
    "NetworkAttachment",
    "Usage",
    "temporary",
)


@dataclass(frozen=True, slots=True)
class Capability:
    """`available`, or the `reason` why not, as a sentence for people."""

    available: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    isolation: Capability
    checkpoint: Capability
    pause: Capability
    network: Capability
    limits: Capability
    live_mounts: Capability


@dataclass(frozen=True, slots=True)
class NetworkAttachment:
    """What the guest's only interface is given. `socket` is an open packet socket; the caller closes it after the call.

    `link` is the name of the host's end, for messages.
    """

    address: str
    prefix: int
    gateway: str
    mac: bytes
    mtu: int
    link: str
    socket: int


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """Everything that is fixed when an instance is made.

    `folder` is the instance's own state folder, made by the caller (0700): the engine keeps everything of this instance
    below it, so that it can be found again. `root` is the image (an EROFS file), `runtime` the guest runtime's folder
    (read-only inside, at /.belljar/run), `overlay` its own folder on the big disk, where the guest's writes go. `argv` and `env`
    are the agent's own. `cgroup` is a relative name that no other instance has. `build` names the engine build to use. `upper`
    is what `save_files` wrote of a guest of the same image, or what `ready_files` made of that: the guest boots with it. It is
    needed until the guest has started.
    """

    id: str
    folder: Path
    build: str
    root: Path
    runtime: Path
    overlay: Path
    argv: tuple[str, ...]
    env: Mapping[str, str]
    hostname: str
    limits: Limits
    cgroup: str
    upper: Path | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """A handle that can be written down (as JSON) and used by a successor process. `details` belong to the driver."""

    spec: InstanceSpec
    details: Mapping[str, str] = field(default_factory=dict[str, str])


def temporary(limits: Limits) -> tuple[int, int]:
    """Bytes of /tmp and of /dev/shm: memory that belongs to no process. Together they leave a quarter of it to processes."""
    return limits.memory // 2 & ~4095, limits.memory // 4 & ~4095


class InstanceState:
    """The states an engine tells apart."""

    ABSENT = "absent"
    CREATED = "created"
    RUNNING = "running"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class GuestExit:
    """The guest's kernel ended. `out_of_memory`: the host's limit killed it. `message` is what the engine said, if it did."""

    out_of_memory: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class Channel:
    """The byte pipes to the agent: `write_fd` to its stdin, `read_fd` from its stdout. Both non-blocking; the caller closes."""

    read_fd: int
    write_fd: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What the host counts for the guest: bytes, and seconds of CPU since its start. `disk`: what its files take on the host."""

    memory: int
    cpu_seconds: float
    processes: int
    disk: int = 0


@dataclass(frozen=True, slots=True)
class HostObject:
    """Something on the host that this engine made: a `kind` (process, mount, cgroup, file) and its name.

    `owner` is the id of the instance it belongs to; empty for what serves them all.
    """

    kind: str
    name: str
    owner: str = ""


class Engine(Protocol):
    """A driver. Every call is safe to repeat; deadlines are seconds; all raise EngineFailed with the engine's own words.

    The order for one instance: prepare, create, then start or restore, …, delete. An instance outlives the process that made
    it: a successor that has the `Instance` goes on with every call. Calls for different instances run at the same time.
    """

    @property
    def name(self) -> str: ...

    @property
    def platform(self) -> str:
        """What a checkpoint depends on beside the build, such as ``systrap/x86_64``: it goes on where that is the same."""
        ...

    async def capabilities(self) -> Capabilities: ...

    async def prepare(self, spec: InstanceSpec) -> Instance:
        """Writes what the instance needs on disk (bundle, pipes, cgroup). Starts nothing."""
        ...

    async def create(self, instance: Instance, *, timeout: float = 30.0) -> Instance:
        """Makes the guest's kernel, not yet running, within all limits but the processor's. Raises DiskFull, NoCapacity,
        EngineFailed.
        """
        ...

    async def start(self, instance: Instance, network: NetworkAttachment | None, *, timeout: float = 30.0) -> None:
        """Starts the agent from the image. `network` None: loopback only.

        From here on the processor's limit holds; until then, also while it is restored, the guest takes what the machine has.
        """
        ...

    async def restore(
        self, instance: Instance, source: Path, network: NetworkAttachment | None, *, timeout: float = 60.0
    ) -> None:
        """Instead of `start`: goes on from a checkpoint in `source`. The spec has the source's argv, cwd and mounts."""
        ...

    async def checkpoint(self, instance: Instance, target: Path, *, timeout: float = 120.0) -> None:
        """Writes the guest's memory into `target`, a folder that is made if need be; the guest goes on afterwards."""
        ...

    async def save_files(
        self, instance: Instance, target: Path, *, limit: int = 1 << 60, timeout: float = 300.0
    ) -> float:
        """Writes all that changed on the image into `target`, a new tar (not yet on disk). The seconds for which the guest stood
        still: the files are those of one moment.

        What was deleted is a character device 0:0, a folder that hides the image's has the
        attribute ``trusted.overlay.opaque``, holes are bytes. `limit`: of the tar. Raises TooLarge, DiskFull, EngineFailed; then
        `target` is not there, and the guest goes on.
        """
        ...

    async def ready_files(self, source: Path, target: Path) -> None:
        """Makes `target` of a tar that `save_files` wrote (or somebody else, who may be hostile): big ones start sooner from it.

        A guest that was booted from it may keep what it lies on in use. Raises SnapshotCorrupt, DiskFull, EngineFailed,
        NotSupported; then `target` is not there.
        """
        ...

    async def pause(self, instance: Instance, *, timeout: float = 10.0) -> None: ...

    async def resume(self, instance: Instance, *, timeout: float = 10.0) -> None: ...

    async def state(self, instance: Instance, *, timeout: float = 5.0) -> str:
        """One of InstanceState; running only if the guest's kernel itself answers with this instance's id."""
        ...

    async def wait(self, instance: Instance) -> GuestExit:
        """Returns when the guest's kernel has ended (at once if it is dead). Cancel it to stop waiting."""
        ...

    def open_channel(self, instance: Instance) -> Channel:
        """Opens the pipes to the agent; only one process may read at a time (the caller holds the state folder's lock)."""
        ...

    async def usage(self, instance: Instance) -> Usage: ...

    async def cpu_time(self, instance: Instance) -> int | None:
        """Microseconds of CPU since its start: what `usage` says, alone and at once. None when the host does not say."""
        ...

    async def limit(self, instance: Instance, limits: Limits) -> None:
        """Changes the host's limits of a live instance; what the guest sees stays."""
        ...

    async def show(self, instance: Instance, limits: Limits) -> None:
        """Lets a live guest see another memory limit. The processors and the disk that it sees cannot be changed.

        Raises NotSupported for a guest whose build cannot.
        """
        ...

    async def delete(self, instance: Instance, *, timeout: float = 30.0) -> None:
        """Ends it by force and frees everything the driver made for it. One that is not there, or half made, is fine."""
        ...

    async def residue(self) -> list[HostObject]:
        """Everything on the host that carries this engine's names now, whoever made it; looks, and changes nothing."""
        ...

    async def close(self) -> None:
        """Frees what serves all instances, if no instance is left; else leaves it to a successor."""
        ...
