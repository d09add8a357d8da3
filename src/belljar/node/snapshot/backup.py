"""The content of snapshots as files of a backup: as it lies on the disk, sealed where it is sealed.

A hot snapshot is its manifest and files. One that the content store has is its manifest, its recipe and the chunks that no
snapshot before it had, and lies there cold when it is restored.
"""

import os
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass, field
from pathlib import Path

from belljar.base.archive import is_name
from belljar.base.tasks import in_thread
from belljar.model.backup import BackupFile, BackupPiece, BackupSize, LeftOut
from belljar.model.errors import SnapshotCorrupt
from belljar.node.snapshot.disk import Disk, Found
from belljar.node.snapshot.kept import Kept
from belljar.node.snapshot.recipe import Recipe
from belljar.node.snapshot.shelf import COOLING, FILES, MANIFEST, MAX_MANIFEST, RECIPE, read_bounded
from belljar.node.storage.chunks import ChunkRef
from belljar.node.storage.content import ContentStore, chunk_place, record_place
from belljar.node.storage.durable import opened_file

__all__ = ("ContentBackup",)

_SNAPSHOTS = "snapshots"
_CONTENT = "content"
_PIECE = 1 << 20
_SLACK = 64 << 20
"""Bytes: a chunk that was put anew by another release may be longer than its recipe says."""


@dataclass(slots=True)
class _Plan:
    """What of one snapshot is copied: path in its folder → size. `cold`: its recipe and its chunks instead of its files."""

    id: str
    cold: bool
    files: dict[str, int] = field(default_factory=dict[str, int])


class ContentBackup:
    """Of a store in which nothing goes meanwhile: its owner sees to that. `chunks`: those of the content store too."""

    def __init__(self, disk: Disk, content: ContentStore, found: Found, *, chunks: bool) -> None:
        self._disk = disk
        self._content = content
        self._found = found
        self._chunks = chunks
        self._plans: list[_Plan] = []
        self._left_out: list[LeftOut] = []

    async def size(self, snapshots: Collection[str]) -> BackupSize:
        """Chooses these, and says how much that is. Once, before `pieces`."""
        seen: set[bytes] = set()
        files = total = 0
        for id in sorted(snapshots):
            try:
                plan, recipe = await self._plan(id)
            except (SnapshotCorrupt, OSError) as error:
                self._left_out.append(LeftOut(id, _said(error)))
                continue
            self._plans.append(plan)
            files, total = files + len(plan.files), total + sum(plan.files.values())
            if recipe is not None and self._chunks:
                fresh = await in_thread(_fresh, recipe, seen)
                files, total = files + len(fresh) + 1, total + sum(ref.stored for ref in fresh) + _record_size(plan)
        return BackupSize(files, total + (total >> 4) + _SLACK)

    async def pieces(self) -> AsyncGenerator[BackupPiece]:
        """All of what was chosen. What cannot be read is left out, or has zeros in its place, and is named at the end."""
        seen: set[bytes] = set()
        for plan in self._plans:
            for name, size in plan.files.items():
                async for piece in self._file(plan.id, name, size):
                    yield piece
            if plan.cold and self._chunks:
                async for piece in self._cold(plan, seen):
                    yield piece
        for left_out in self._left_out:
            yield left_out

    async def _plan(self, id: str) -> tuple[_Plan, Recipe | None]:
        kept = self._found.kept.get(id)
        if kept is None:
            raise SnapshotCorrupt(self._found.broken.get(id, "the node does not have it"))
        async with kept.lock:
            try:
                recipe = await in_thread(self._disk.recipe, id)
            except SnapshotCorrupt:
                if not kept.is_hot:
                    raise
                recipe = None
            if recipe is None and not kept.is_hot:
                raise SnapshotCorrupt("its list of chunks is gone")
            plan = _Plan(id, recipe is not None)
            for name in (MANIFEST, RECIPE) if recipe is not None else (MANIFEST, *_files_of(kept)):
                if not is_name(_place(id, name)):
                    raise SnapshotCorrupt(f"its {name} has a name that is too long for a backup")
                plan.files[name] = (await in_thread(os.stat, self._path(id, name))).st_size
            if recipe is not None:
                plan.files[COOLING] = 0
            return plan, recipe

    async def _file(self, id: str, name: str, size: int) -> AsyncGenerator[BackupPiece]:
        yield BackupFile(_place(id, name), size)
        left = size
        try:
            if left:
                async with opened_file(self._path(id, name), "rb") as file:
                    while left and (piece := await in_thread(file.read, min(left, _PIECE))):
                        left -= len(piece)
                        yield piece
                if left:
                    self._left_out.append(LeftOut(id, f"its {name} is shorter than it was"))
        except OSError as error:
            self._left_out.append(LeftOut(id, f"its {name}: {_said(error)}"))
        while left:
            yield bytes(min(left, _PIECE))
            left -= min(left, _PIECE)

    async def _cold(self, plan: _Plan, seen: set[bytes]) -> AsyncGenerator[BackupPiece]:
        try:
            recipe = await in_thread(self._disk.recipe, plan.id)
            if recipe is None:
                raise SnapshotCorrupt("its list of chunks is gone")
            record = await in_thread(self._record, plan)
        except (SnapshotCorrupt, OSError) as error:
            self._left_out.append(LeftOut(plan.id, _said(error)))
            return
        yield BackupFile(f"{_CONTENT}/{record_place(plan.id)}", len(record))
        yield record
        lost = 0
        async for ref, data in self._content.stored(await in_thread(_fresh, recipe, seen)):
            if data is None:
                lost += 1
                continue
            yield BackupFile(f"{_CONTENT}/{chunk_place(ref.name)}", len(data))
            yield data
        if lost:
            self._left_out.append(LeftOut(plan.id, f"the content store has lost {lost} of its chunks"))

    def _record(self, plan: _Plan) -> bytes:
        manifest = read_bounded(self._path(plan.id, MANIFEST), MAX_MANIFEST)
        return len(manifest).to_bytes(4) + manifest + self._path(plan.id, RECIPE).read_bytes()

    def _path(self, id: str, name: str) -> Path:
        return self._disk.shelf.place(id) / name


def _files_of(kept: Kept) -> list[str]:
    return [f"{FILES}/{name}" for name in sorted(kept.manifest.files)]


def _place(id: str, name: str) -> str:
    return f"{_SNAPSHOTS}/{id}/{name}"


def _record_size(plan: _Plan) -> int:
    return 4 + plan.files[MANIFEST] + plan.files[RECIPE]


def _fresh(recipe: Recipe, seen: set[bytes]) -> list[ChunkRef]:
    """Its chunks that were not seen yet, each once; they are from now on."""
    found: list[ChunkRef] = []
    for refs in recipe.files.values():
        for ref in refs:
            if ref.name not in seen:
                seen.add(ref.name)
                found.append(ref)
    return found


def _said(error: SnapshotCorrupt | OSError) -> str:
    return error.message if isinstance(error, SnapshotCorrupt) else f"it cannot be read: {error.strerror}"
