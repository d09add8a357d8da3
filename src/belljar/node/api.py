"""The only door of a node: what the control plane may ask of one machine. In process here, over the network on many."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from belljar.model.backup import BackupPiece, BackupSize
from belljar.model.errors import Error
from belljar.model.process import Tail
from belljar.model.sandbox import Ended, Limits, Sandbox, SandboxSpec, Status
from belljar.model.snapshot import PathChange, Snapshot, SnapshotKind
from belljar.model.usage import Reading
from belljar.node.guest.api import GuestApi
from belljar.node.guest.tails import tail_of

__all__ = ("API_VERSION", "GuestApi", "NodeApi", "NodeBackup", "NodeEvent", "NodeInfo", "SandboxUsage", "tail_of")

API_VERSION = 1


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """`capabilities`: name → empty when available, else the reason why not."""

    version: int
    engine: str
    engine_build: str
    images: tuple[str, ...]
    capabilities: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """A change of one sandbox's status, after it was written down. `number` grows by one. `final`: as in Sandbox."""

    number: int
    sandbox: str
    status: Status
    at: float
    started: float | None = None
    expires: float | None = None
    ended: Ended | None = None
    final: Reading | None = None


@dataclass(frozen=True, slots=True)
class SandboxUsage:
    """Bytes and seconds, as the host counts them. `disk`: what its files take on the host."""

    memory: int
    memory_limit: int
    cpu_seconds: float
    cpus: float
    processes: int
    disk: int = 0


class NodeBackup(Protocol):
    """The content of snapshots, none of which goes while this is held."""

    async def size(self, snapshots: Collection[str]) -> BackupSize:
        """Chooses these snapshots. Once, before `pieces`."""
        ...

    def pieces(self) -> AsyncGenerator[BackupPiece, None]:
        """Files, each followed by its bytes; at the end what could not be read. Raises Internal."""
        ...


class NodeApi(Protocol):
    """Sandboxes of one machine. Ids are chosen by the caller; each call may be repeated."""

    async def info(self) -> NodeInfo: ...

    async def create(self, id: str, spec: SandboxSpec) -> Sandbox:
        """Returns when the agent has answered (status running). The same id again gives the sandbox that is there.

        Raises ImageNotFound, NotFound (the snapshot), SnapshotIncompatible, SnapshotCorrupt, InvalidArgument (a directory
        snapshot), NoCapacity, DiskFull, EngineFailed; then nothing is left of it.
        """
        ...

    async def fork(self, id: str, children: Mapping[str, SandboxSpec]) -> dict[str, Sandbox | Error]:
        """Children of a running sandbox, by the ids that the caller chose: each goes on from the same moment, as `create` from a
        memory snapshot would. Each is running, or there is an Error in its place and nothing left of it.

        Specs differ from the parent's in name, env, labels, limits (not the CPUs and the disk that it is shown), network and
        lifetime. Raises NotFound, SandboxGone, Conflict (not running, or being snapshotted), NoCapacity, DiskFull.
        """
        ...

    async def rollback(self, id: str, snapshot: str) -> Sandbox:
        """The sandbox goes on from an earlier memory or filesystem snapshot, under its own id, name and lifetime. Whatever ran
        in it is gone. When it raises (as `create` does), the sandbox runs as it did before.
        """
        ...

    async def snapshot(
        self, id: str, snapshot: str, kind: SnapshotKind, *, path: str | None = None, template: bool = False
    ) -> Snapshot:
        """Returns when it is durable; the sandbox goes on. `snapshot` is the new one's id; one that is there is returned.

        Raises NotFound (`path`), SandboxGone, Conflict (being snapshotted), NoCapacity, DiskFull, NotSupported, EngineFailed.
        """
        ...

    async def snapshots(self) -> list[Snapshot]: ...

    async def delete_snapshot(self, snapshot: str) -> None:
        """One that is not there is fine. What was made from it goes on."""
        ...

    def changes(self, snapshot: str) -> AsyncGenerator[PathChange, None]:
        """Of a filesystem or directory snapshot, sorted by path. Raises NotFound, NotSupported (of memory), SnapshotCorrupt."""
        ...

    def export_snapshot(self, snapshot: str) -> AsyncGenerator[bytes, None]:
        """One file with all that another machine needs beside engine, runtime and image. Raises NotFound, SnapshotCorrupt."""
        ...

    async def import_snapshot(self, snapshot: str, chunks: AsyncIterator[bytes]) -> Snapshot:
        """The reverse, under a new id. Raises SnapshotCorrupt, SnapshotIncompatible, TooLarge, DiskFull; then nothing is kept."""
        ...

    def backup(self, *, content: bool) -> AbstractAsyncContextManager[NodeBackup]:
        """Whatever is deleted while it is held stays, to be copied. `content`: what an object store has as well.

        Raises InvalidArgument without `content` where there is no object store.
        """
        ...

    async def mount(self, id: str, snapshot: str, path: str) -> None:
        """A private copy of a directory snapshot, readable and writable, at `path` of a running sandbox.

        Raises InvalidArgument (another kind, or a path of the system's), Conflict (something of ours is mounted there), DiskFull.
        """
        ...

    async def unmount(self, id: str, path: str) -> None:
        """Takes away what `mount` put there, with all that was written to it. Raises NotFound, Conflict (in use)."""
        ...

    async def mounts(self, id: str) -> dict[str, str]:
        """Path → snapshot."""
        ...

    async def get(self, id: str) -> Sandbox:
        """Raises NotFound for one that this node does not know (ended ones are known for a while)."""
        ...

    async def sandboxes(self) -> list[Sandbox]:
        """Every sandbox whose record this node still has, the ended ones of this run among them."""
        ...

    async def terminate(self, id: str, *, reason: str = "killed") -> Sandbox:
        """Ends it and frees everything it held before returning. One that has ended is fine."""
        ...

    async def rest(self, id: str, status: Status) -> Sandbox:
        """Lets it rest: `paused` is frozen in memory, `standby` has its memory on the disk, `stopped` only its files. Its
        lifetime and its idle time stand still. Any call to its guest, a snapshot, fork, rollback or mount wakes it. One that
        rests so is fine.

        Raises NotFound, SandboxGone, Conflict (it rests deeper, or is being snapshotted), NoCapacity, DiskFull, EngineFailed;
        then it is what it was before.
        """
        ...

    async def resume(self, id: str) -> Sandbox:
        """Returns when it runs; one that runs is fine. Raises NotFound, SandboxGone, and as `create`; then it rests on."""
        ...

    async def set_lifetime(self, id: str, lifetime: float | None) -> Sandbox:
        """Seconds from now on (of one that rests: from its waking on), or None for unlimited."""
        ...

    async def set_idle(self, id: str, idle: float | None) -> Sandbox:
        """Ends when nobody has used it for so many seconds; None is never. A use is a call to its guest or a snapshot of it,
        a stream while it is open, and a process with `keep_alive` while it runs. Raises NotFound, SandboxGone."""
        ...

    async def set_limits(self, id: str, limits: Limits) -> Sandbox:
        """Of a running one, at once. What its programs see of them is the memory; processors and disk are seen as before.

        Raises NotFound, SandboxGone, Conflict (more memory is in use, or it is being snapshotted, forked or rolled back),
        NotSupported (another disk; made by an earlier release), NoCapacity (more, on a machine that is short), EngineFailed;
        then nothing is changed.
        """
        ...

    def guest(self, id: str) -> GuestApi:
        """Every call to it is a use. Raises NotFound, SandboxGone, Conflict (not running)."""
        ...

    async def last_output(self, id: str) -> list[Tail]:
        """The end of what the newest processes of a sandbox that has ended wrote, the oldest process first; as long as it is
        kept. Raises NotFound."""
        ...

    async def usage(self, id: str) -> SandboxUsage: ...

    async def meter(self, ids: Collection[str]) -> dict[str, Reading]:
        """What the running ones of these use, each since it was first running: its counters never go back while this node lives,
        whatever it is rolled back to. Those that do not run are left out: what they used is told with their end.
        """
        ...

    def events(self) -> AsyncIterator[NodeEvent]:
        """From now on; a slow reader is told by a jump of `number` and then asks `sandboxes`."""
        ...
