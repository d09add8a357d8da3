"""Snapshots, forks and rollbacks of the sandboxes of one machine: the verbs behind NodeApi."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path

from belljar.base.ids import is_id
from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet, in_thread
from belljar.base.telemetry import span
from belljar.model import lifecycle
from belljar.model.errors import Error, InvalidArgument, LimitExceeded, NotFound
from belljar.model.sandbox import Sandbox, SandboxSpec, Status
from belljar.model.snapshot import MAX_FORKS, PREFIX, PathChange, Snapshot, SnapshotKind
from belljar.node.drafts import Drafts
from belljar.node.guest.guest import Guest
from belljar.node.machine import Machine
from belljar.node.origin import Origin, fits
from belljar.node.origins import Origins
from belljar.node.record import Record, gone
from belljar.node.snapshot import directory
from belljar.node.snapshot.manifest import Manifest
from belljar.node.snapshot.memory import FastLane, keep_files
from belljar.node.supervisor import Supervisor

__all__ = ("Snapshots",)

_log = get_logger("node.snapshots")
_LAST_MOMENT = 2.0
Begin = Callable[[str, SandboxSpec, Origin, str], Supervisor]
"""Makes the supervisor of a new sandbox: its id, its spec, what it begins with, and whose fork it is."""


class Snapshots:
    """Takes supervisors, and knows none by name."""

    def __init__(self, machine: Machine, origins: Origins, fast: FastLane, begin: Begin) -> None:
        self._machine = machine
        self._origins = origins
        self._begin = begin
        self._fast = fast
        self._drafts = Drafts(machine)
        self._taking: dict[str, asyncio.Task[Snapshot]] = {}
        # What goes wrong is told to whoever asked; who left does not want to know.
        self._tasks = TaskSet(lambda name, error: _log.info("a snapshot was not taken", task=name, error=str(error)))

    async def open(self) -> None:
        """Removes what a killed server left half done."""
        await self._fast.open()

    async def take(
        self, supervisor: Supervisor, id: str, kind: SnapshotKind, *, path: str | None, template: bool
    ) -> Snapshot:
        """See NodeApi.snapshot."""
        if not is_id(id, PREFIX):
            raise InvalidArgument(f"not the id of a snapshot: {id[:40]!r}")
        try:
            return self._told(self._machine.snapshots.get(id))
        except NotFound:
            pass
        # Not the caller's own task: what was begun is finished or cleaned up, whoever leaves.
        if id not in self._taking:
            self._taking[id] = self._tasks.start(
                self._take(supervisor, id, kind, path, template), name=f"snapshot {id}"
            )
            self._taking[id].add_done_callback(lambda _: self._taking.pop(id, None))
        return await asyncio.shield(self._taking[id])

    async def close(self) -> None:
        """Those that are being taken have a moment to become whole; the rest is given up, and nothing of it stays."""
        if self._taking:
            await asyncio.wait(tuple(self._taking.values()), timeout=_LAST_MOMENT)
        await self._tasks.close()
        await self._fast.close()

    async def fork(self, parent: Supervisor, children: Mapping[str, SandboxSpec]) -> dict[str, Sandbox | Error]:
        """See NodeApi.fork."""
        if not 1 <= len(children) <= MAX_FORKS:
            raise LimitExceeded(f"one call makes 1 to {MAX_FORKS} forks, not {len(children)}")
        record = parent.record
        for spec in children.values():
            had = record.spec.limits
            if not fits(spec.limits, had, record.processors) or spec.limits.disk != had.disk:
                raise InvalidArgument(
                    "a fork sees as many processors and as much disk as its parent",
                    hint="cpu can be changed within the same whole number, memory freely",
                )
        machine = self._machine
        machine.reserve.check(machine.instance.home)
        async with self._fast.folder(await parent.usage()) as place:
            async with parent.undisturbed("being forked"):
                with span("node.checkpoint", {"belljar.sandbox": parent.id}):
                    await self._fast.checkpoint(parent, place)
                origin = self._origin_of(parent.record, place)
            made = [self._begin(id, spec, origin, parent.id) for id, spec in children.items()]
            try:
                return {child.id: await _outcome(child) for child in made}
            except BaseException:
                # Their caller left before they were made: nobody knows them, so nobody would end them.
                for child in made:
                    child.post(lifecycle.TerminateAsked(machine.clock.now(), "cancelled"))
                await asyncio.shield(asyncio.gather(*(child.ended() for child in made)))
                raise

    async def rollback(self, supervisor: Supervisor, snapshot: str) -> Sandbox:
        """See NodeApi.rollback."""
        spec = replace(supervisor.record.spec, snapshot=snapshot, pool=False)
        # It is this sandbox's own past, also where the snapshot is a template's.
        async with supervisor.undisturbed("being rolled back"), self._origins.open(spec, past=True) as origin:
            await supervisor.become(origin)
        return supervisor.sandbox

    async def all(self) -> list[Snapshot]:
        """Without those that sandboxes rest in."""
        return [self._told(found) for found in self._machine.snapshots.list() if not found.draft.rest]

    async def delete(self, id: str) -> None:
        await self._machine.snapshots.delete(id)
        await self._machine.filesystems.sweep()

    async def changes(self, id: str) -> AsyncGenerator[PathChange, None]:
        async with self._machine.snapshots.opened(id) as (manifest, folder):
            async for change in self._machine.filesystems.changes(manifest, folder):
                yield change

    def export(self, id: str) -> AsyncGenerator[bytes, None]:
        return self._machine.snapshots.export(id)

    async def import_(self, id: str, chunks: AsyncIterator[bytes]) -> Snapshot:
        if not is_id(id, PREFIX):
            raise InvalidArgument(f"not the id of a snapshot: {id[:40]!r}")
        return self._told(await self._machine.snapshots.import_(id, chunks))

    async def mount(self, guest: Guest, snapshot: str, path: str) -> None:
        """See NodeApi.mount."""
        async with self._machine.snapshots.opened(snapshot) as (manifest, folder):
            if manifest.draft.kind is not SnapshotKind.DIRECTORY:
                raise InvalidArgument(
                    f"{snapshot} is a {manifest.draft.kind} snapshot, and only a directory can be mounted"
                )
            await directory.mount(guest, snapshot, folder, path)

    async def _take(
        self, supervisor: Supervisor, id: str, kind: SnapshotKind, path: str | None, template: bool
    ) -> Snapshot:
        machine, store = self._machine, self._machine.snapshots
        machine.reserve.check(machine.instance.home)
        folder = await store.begin(id)
        try:
            match kind:
                case SnapshotKind.MEMORY:
                    paused = await self._take_memory(supervisor, folder)
                case SnapshotKind.FILESYSTEM:
                    async with supervisor.undisturbed("being snapshotted") as instance:
                        paused = await machine.filesystems.capture(instance, supervisor, folder)
                case SnapshotKind.DIRECTORY:
                    assert path is not None
                    await directory.capture(supervisor.guest, path, folder, reserve=machine.reserve.disk)
                    paused = 0.0
            draft = self._drafts.of(supervisor.record, id, kind, path=path, paused=paused, template=template)
            with span("node.commit", {"belljar.snapshot": id}):
                manifest = await store.commit(draft)
        except BaseException:
            await asyncio.shield(store.abandon(id))
            raise
        if kind is SnapshotKind.FILESYSTEM:
            machine.filesystems.request_ready(manifest)
        return self._told(manifest)

    async def _take_memory(self, supervisor: Supervisor, folder: Path) -> float:
        async with self._fast.folder(await supervisor.usage()) as place:
            async with supervisor.undisturbed("being snapshotted"):
                with span("node.checkpoint", {"belljar.sandbox": supervisor.id}):
                    paused = await self._fast.checkpoint(supervisor, place)
            with span("node.keep", {"belljar.sandbox": supervisor.id}):
                await in_thread(keep_files, place, folder)
        return paused

    def _origin_of(self, record: Record, checkpoint: Path) -> Origin:
        """What a fork of a sandbox that runs begins with."""
        machine, instance = self._machine, record.instance
        if instance is None:
            raise gone(record)
        return Origin(
            key=f"fork:{record.id}",
            image=machine.kept.image(record.image_key, record.spec.image),
            root=instance.spec.root,
            image_key=record.image_key,
            build=instance.spec.build,
            runtime=machine.kept.runtime(record.runtime),
            checkpoint=checkpoint,
            parent=record.parent,
            past=True,
            limits=record.spec.limits,
            processors=record.processors,
        )

    def _told(self, manifest: Manifest) -> Snapshot:
        draft = manifest.draft
        limits = draft.spec.limits
        return Snapshot(
            id=draft.id,
            kind=draft.kind,
            sandbox=draft.sandbox,
            image=draft.spec.image,
            created=draft.created,
            size=manifest.size,
            stored=self._machine.snapshots.stored(draft.id),
            cpus=limits.cpus,
            memory=limits.memory,
            disk=limits.disk,
            parent=draft.parent,
            path=draft.path,
            paused=draft.paused,
            template=draft.template,
        )


async def _outcome(child: Supervisor) -> Sandbox | Error:
    sandbox = await child.settled()
    if sandbox.status is Status.RUNNING:
        return sandbox
    return child.failure or gone(child.record)
