"""What a sandbox starts from: an image, a snapshot or a template, by the word that the caller used for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from belljar.base.clock import Clock, SystemClock
from belljar.base.ids import is_id
from belljar.control.store.snapshots import SnapshotRecord, SnapshotStore, State
from belljar.control.store.templates import TemplateRecord
from belljar.model.errors import Conflict, InvalidArgument, NotFound
from belljar.model.sandbox import DEFAULT_IMAGE, DEFAULT_LIFETIME, Limits, Network, OnTimer, SandboxSpec
from belljar.model.snapshot import PREFIX, SnapshotKind

__all__ = ("Origins", "Wanted")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A sandbox as it is asked for. `image`: of an image or of a template. `snapshot`: an id or a name.

    What is None is as in the snapshot's source, or where there is none the default; `env` is added to the source's.
    """

    image: str = DEFAULT_IMAGE
    snapshot: str | None = None
    name: str | None = None
    cpus: float | None = None
    memory: int | None = None
    disk: int | None = None
    pids: int | None = None
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    workdir: str | None = None
    user: str | None = None
    network: Network = Network.OPEN
    lifetime: float | None = DEFAULT_LIFETIME
    idle: float | None = None
    on_lifetime: OnTimer = OnTimer.TERMINATE
    on_idle: OnTimer = OnTimer.PAUSE
    pool: bool = True
    reseed: bool = True

    def spec(self) -> SandboxSpec:
        """Of a new one from an image."""
        return SandboxSpec(
            image=self.image,
            name=self.name,
            limits=Limits().changed(cpus=self.cpus, memory=self.memory, disk=self.disk, pids=self.pids),
            env=self.env,
            labels=self.labels,
            workdir=self.workdir,
            user=self.user,
            network=self.network,
            lifetime=self.lifetime,
            idle=self.idle,
            on_lifetime=self.on_lifetime,
            on_idle=self.on_idle,
            pool=self.pool,
            reseed=self.reseed,
        )


class Origins:
    """Templates are known from memory: a create from an image asks the store nothing."""

    def __init__(self, store: SnapshotStore, *, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._templates: dict[tuple[str, str], TemplateRecord] = {}
        self._snapshots: dict[str, TemplateRecord] = {}

    async def resolve(self, workspace: str, wanted: Wanted) -> SandboxSpec:
        """Raises NotFound (also for one that has expired), Conflict (it is being made), InvalidArgument (a directory)."""
        ref = wanted.snapshot
        if ref is None:
            template = self.template(workspace, wanted.image)
            if template is None:
                return wanted.spec()
            ref = template.snapshot
            assert ref is not None
        return _started_from(await self.snapshot(workspace, ref), wanted)

    async def snapshot(self, workspace: str, ref: str) -> SnapshotRecord:
        """By id or name. Raises NotFound, with the reason for one that is gone; Conflict for one that is being made."""
        record = await (self._store.get(ref) if is_id(ref, PREFIX) else self._store.named(workspace, ref))
        if record is None or record.workspace != workspace:
            raise NotFound(f"no snapshot {ref[:80]!r}", hint="belljar snapshot ls")
        if record.gone is not None and record.gone.reason != "failed":
            raise NotFound(f"snapshot {ref[:80]} is gone: {record.gone.reason} at {_when(record.gone.at)}")
        if record.gone is not None:
            raise NotFound(f"no snapshot {ref[:80]!r}: making it failed")
        if record.state is State.MAKING:
            raise Conflict(f"snapshot {ref[:80]} is still being made")
        if record.expires is not None and record.expires <= self._clock.now():
            raise NotFound(f"snapshot {ref[:80]} is gone: expired at {_when(record.expires)}")
        return record

    # templates -------------------------------------------------------------------------------------------------------

    def template(self, workspace: str, name: str) -> TemplateRecord | None:
        return self._templates.get((workspace, name))

    def templates(self, workspace: str) -> list[TemplateRecord]:
        """In the order of their names."""
        return [record for (owner, _), record in sorted(self._templates.items()) if owner == workspace]

    def template_of(self, snapshot: str) -> TemplateRecord | None:
        """The one that is made of this snapshot."""
        return self._snapshots.get(snapshot)

    def put(self, record: TemplateRecord) -> None:
        """In the place of an earlier one with its name."""
        self.drop(record.workspace, record.spec.name)
        self._templates[record.workspace, record.spec.name] = record
        assert record.snapshot is not None
        self._snapshots[record.snapshot] = record

    def drop(self, workspace: str, name: str) -> None:
        record = self._templates.pop((workspace, name), None)
        if record is not None and record.snapshot is not None:
            self._snapshots.pop(record.snapshot, None)


def _started_from(record: SnapshotRecord, wanted: Wanted) -> SandboxSpec:
    snapshot, source = record.snapshot, record.source
    if snapshot.kind is SnapshotKind.DIRECTORY:
        raise InvalidArgument(
            f"snapshot {snapshot.id} holds a directory, no sandbox", hint="mount it into a sandbox that runs"
        )
    whole = replace(
        wanted,
        image=snapshot.image,
        cpus=snapshot.cpus if wanted.cpus is None else wanted.cpus,
        memory=snapshot.memory if wanted.memory is None else wanted.memory,
        disk=snapshot.disk if wanted.disk is None else wanted.disk,
        pids=source.pids if wanted.pids is None else wanted.pids,
        env=dict(source.env) | dict(wanted.env),
        workdir=source.workdir if wanted.workdir is None else wanted.workdir,
        user=source.user if wanted.user is None else wanted.user,
    )
    return replace(whole.spec(), snapshot=snapshot.id)


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
