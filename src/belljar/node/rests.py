"""What sandboxes rest in while they hold nothing of the machine but the disk: snapshots that each belong to one of them alone."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Collection
from dataclasses import replace
from pathlib import Path

from belljar.base.ids import new_id
from belljar.base.log import get_logger
from belljar.base.tasks import in_thread
from belljar.model.errors import Error
from belljar.model.sandbox import Status
from belljar.model.snapshot import PREFIX, SnapshotKind
from belljar.node.drafts import Drafts
from belljar.node.engine.api import Engine, Instance, Usage
from belljar.node.machine import Machine
from belljar.node.origin import Origin
from belljar.node.origins import Origins
from belljar.node.record import Record, gone
from belljar.node.snapshot.memory import FastLane, keep_files

__all__ = ("Rests",)

_log = get_logger("node.rests")


class Rests:
    """A rest is durable when `keep` returns; its sandbox's record names it from then on, or the next server takes it away."""

    def __init__(self, machine: Machine, origins: Origins, fast: FastLane) -> None:
        self._machine = machine
        self._origins = origins
        self._fast = fast
        self._drafts = Drafts(machine)

    async def keep(self, record: Record, status: Status) -> str:
        """Of a guest that stands still, and goes on standing still: a memory snapshot for `standby`, its files for `stopped`.

        Raises NoCapacity, DiskFull, EngineFailed; then nothing is left of it.
        """
        machine, store, instance = self._machine, self._machine.snapshots, record.instance
        if instance is None:
            raise gone(record)
        machine.reserve.check(machine.instance.home)
        id, kind = new_id(PREFIX), SnapshotKind.MEMORY if status is Status.STANDBY else SnapshotKind.FILESYSTEM
        folder = await store.begin(id)
        still = _Still(machine.engine, instance)
        try:
            if kind is SnapshotKind.MEMORY:
                async with self._fast.folder(await still.usage()) as place:
                    await self._fast.checkpoint(still, place)
                    await in_thread(keep_files, place, folder)
            else:
                await machine.filesystems.capture(instance, still, folder)
            await store.commit(self._drafts.of(record, id, kind, rest=True))
        except BaseException:
            await asyncio.shield(store.abandon(id))
            raise
        return id

    @contextlib.asynccontextmanager
    async def opened(self, record: Record) -> AsyncGenerator[Origin]:
        """What it goes on from. Raises NotFound, SnapshotCorrupt, SnapshotIncompatible."""
        spec = replace(record.spec, snapshot=record.rest, pool=False)
        async with self._origins.open(spec) as origin:
            # Of what it came from first, nothing has changed.
            yield replace(origin, same=True, parent=record.parent)

    def size(self, id: str) -> int:
        """Bytes on the disk."""
        return self._machine.snapshots.stored(id)

    async def drop(self, id: str) -> None:
        """One that is not there is fine. Where it cannot be removed now the next server does it."""
        try:
            await self._machine.snapshots.delete(id)
        except (Error, OSError) as error:
            _log.error("a rest could not be removed", snapshot=id, error=str(error))

    async def sweep(self, records: Collection[Record]) -> None:
        """Removes those that no sandbox's record names."""
        named = {record.rest for record in records}
        for manifest in self._machine.snapshots.list():
            if manifest.draft.rest and manifest.draft.id not in named:
                await self.drop(manifest.draft.id)


class _Still:
    """A guest that stands still already, for those who would stop it for a moment."""

    def __init__(self, engine: Engine, instance: Instance) -> None:
        self._engine = engine
        self._instance = instance

    async def checkpoint(self, target: Path) -> float:
        began = time.monotonic()
        await self._engine.checkpoint(self._instance, target)
        return time.monotonic() - began

    async def usage(self) -> Usage:
        return await self._engine.usage(self._instance)

    def stand_still(self, still: bool) -> None:
        pass
