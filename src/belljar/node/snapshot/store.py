"""The snapshots of one state directory. A snapshot that this store has acknowledged is whole, whatever happens after."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterator, Mapping, MutableSequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from belljar.base.log import get_logger
from belljar.base.tasks import in_thread, to_the_end
from belljar.model.errors import (
    AlreadyExists,
    Conflict,
    DiskFull,
    Error,
    Internal,
    InvalidArgument,
    NotFound,
    SnapshotCorrupt,
)
from belljar.node.snapshot.backup import ContentBackup
from belljar.node.snapshot.bundle import read_bundle, write_bundle
from belljar.node.snapshot.cold import pack, recall, record_of, unpack
from belljar.node.snapshot.disk import Disk, Found
from belljar.node.snapshot.envelope import NO_KEYS
from belljar.node.snapshot.kept import Kept
from belljar.node.snapshot.manifest import Draft, FileEntry, Manifest
from belljar.node.snapshot.plain import PlainRoom
from belljar.node.snapshot.recipe import Recipe
from belljar.node.snapshot.shelf import Shelf
from belljar.node.storage.blobs import open_blobs
from belljar.node.storage.content import Collected, ContentStore
from belljar.node.storage.durable import storage_errors
from belljar.node.storage.keys import Key, Keys

__all__ = ("SnapshotStore",)

_log = get_logger("node.snapshot")


class SnapshotStore:
    """An async context manager: entering sweeps what a killed server left. One per state directory, under its lock.

    `url`: of the object store for cold ones, None is a folder in the state directory. `keys`: the first encrypts what is new.
    Whatever raises leaves nothing half-made behind.
    """

    def __init__(self, home: Path, run: Path, *, keys: Keys = NO_KEYS, url: str | None = None) -> None:
        self._home = home
        self._url = url
        self._keys = keys
        self._shelf = Shelf(home / "snapshots")
        self._disk = Disk(self._shelf, PlainRoom(run), keys)
        self._found = Found()
        self._making: set[str] = set()
        self._healing = asyncio.Lock()
        self._backups = 0
        """Under way: what is deleted meanwhile stays on the disk until the last of them has ended, or this server."""

    async def __aenter__(self) -> Self:
        owner = await to_the_end(in_thread(self._disk.prepare))
        self._content = ContentStore(await in_thread(open_blobs, self._url, self._home / "content"), owner)
        self._found = await to_the_end(in_thread(self._disk.load))
        for recipe in self._found.recipes:
            await self._content.references.add(await in_thread(recipe.names))
        self._found.recipes.clear()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await to_the_end(in_thread(self._disk.close))

    @property
    def keys(self) -> Keys:
        """For whoever else keeps something of sandboxes on the disk."""
        return self._keys

    @property
    def encrypts(self) -> bool:
        """Whether what is new may lie nowhere on the disk as it is."""
        return self._keys.current is not None

    # What is there.

    def get(self, id: str) -> Manifest:
        """Raises NotFound, and SnapshotCorrupt for one that cannot be read."""
        return self._find(id).manifest

    def list(self) -> list[Manifest]:
        """Those that can be read, oldest first."""
        found = [kept.manifest for kept in self._found.kept.values() if not kept.doomed]
        return sorted(found, key=lambda manifest: (manifest.draft.created, manifest.draft.id))

    def broken(self) -> Mapping[str, str]:
        """Of those that cannot be read the reason, by id."""
        return dict(self._found.broken)

    def stored(self, id: str) -> int:
        """Bytes that it takes, on the disk and in the object store; chunks that it shares count in full. Raises as `get` does."""
        return self._find(id).stored

    def is_hot(self, id: str) -> bool:
        """Whether its files are on the disk as they are. Raises as `get` does."""
        return self._find(id).is_hot

    def references(self) -> set[str]:
        """Keys of the engine builds, runtimes and images that snapshots need. Raises SnapshotCorrupt while one cannot be read:
        then nobody knows what it needs.
        """
        for id, why in self._found.broken.items():
            raise SnapshotCorrupt(f"snapshot {id}: {why}", hint="delete it, or give the key that it needs")
        drafts = [kept.manifest.draft for kept in self._found.kept.values()]
        return {key for draft in drafts for key in (draft.build, draft.runtime, draft.image_key)}

    # One that is made.

    async def begin(self, id: str) -> Path:
        """An empty folder to write the files into (flat names), in memory while a key is set. `commit` or `abandon` ends it.

        Raises AlreadyExists, Conflict when it was begun already, InvalidArgument, DiskFull.
        """
        if id in self._found.kept or id in self._found.broken:
            raise AlreadyExists(f"snapshot {id} is there already")
        if id in self._making or id in self._found.leaving:
            raise Conflict(f"snapshot {id} is being {'made' if id in self._making else 'deleted'} already")
        self._making.add(id)
        try:
            with storage_errors(f"making room for {id}"):
                return await to_the_end(in_thread(self._disk.make, id))
        except BaseException:
            await self.abandon(id)
            raise

    async def commit(self, draft: Draft) -> Manifest:
        """Durable when it returns: contents, names and manifest are on the disk. When it raises, all of it is gone.

        Raises Conflict when it was not begun, SnapshotCorrupt for files that no snapshot can have, DiskFull.
        """
        return await self._commit(draft, None)

    async def abandon(self, id: str) -> None:
        """What was begun is gone. One that was not begun, or is committed, stays as it is."""
        if id in self._making:
            with storage_errors(f"giving up snapshot {id}"):
                await to_the_end(in_thread(self._disk.unmake, id))
            self._making.discard(id)

    # One that is read.

    @contextlib.asynccontextmanager
    async def opened(self, id: str) -> AsyncGenerator[tuple[Manifest, Path]]:
        """The files of a snapshot, whole, plain and only to be read, in a folder that stays meanwhile.

        Raises NotFound, SnapshotCorrupt (torn, changed, or encrypted with a key that is not here: with the reason), DiskFull, and
        Internal when the object store does not answer.
        """
        kept = self._find(id)
        async with self._pinned(kept):
            with _about(id):
                async with kept.lock:
                    folder = await self._ready(kept)
                if kept.use(time.time()):
                    await in_thread(self._shelf.touch, id)
            yield kept.manifest, folder

    async def delete(self, id: str) -> None:
        """Nobody finds it any more, also after a power cut. Its files stay until those who have it open, and backups, are done.

        One that is not there is fine. Raises Conflict while it is being made.
        """
        if id in self._making:
            raise Conflict(f"snapshot {id} is being made")
        kept = self._found.kept.get(id)
        if kept is not None and (kept.pins or self._backups):
            if not kept.doomed:
                kept.doomed = True
                with storage_errors(f"deleting snapshot {id}"):
                    await to_the_end(in_thread(self._shelf.doom, id))
        elif kept is not None or id in self._found.broken:
            await to_the_end(self._free(id))

    # On its way from here and to here.

    async def export(self, id: str, *, key: Key | None = None) -> AsyncGenerator[bytes]:
        """All of it as one file, in pieces of at most about 1 MiB. Plain, unless a key is given. Raises as `opened` does."""
        async with self.opened(id) as (manifest, folder):
            pieces = write_bundle(manifest, folder, key)
            try:
                while piece := await to_the_end(in_thread(_next, pieces)):
                    yield piece
            finally:
                await in_thread(pieces.close)

    async def import_(self, id: str, chunks: AsyncIterable[bytes], *, keys: Keys | None = None) -> Manifest:
        """One that was exported, under a new id. `keys`: to decrypt it with, None the store's own. Nothing in it is believed.

        Raises AlreadyExists, SnapshotCorrupt, DiskFull; then nothing is left of it.
        """
        folder = await self.begin(id)
        try:
            with _about(id):
                manifest = await read_bundle(chunks, folder, keys or self._keys, await in_thread(_room_of, folder))
        except BaseException:
            await self.abandon(id)
            raise
        return await self._commit(replace(manifest.draft, id=id), dict(manifest.files))

    @contextlib.asynccontextmanager
    async def backup(self, *, content: bool) -> AsyncGenerator[ContentBackup]:
        """While it lasts no content goes, neither of what is there nor of what is made meanwhile. A kill of the server ends it.

        `content`: the chunks of cold ones too. Raises InvalidArgument where those are nowhere but in the state directory.
        """
        if not content and self._url is None:
            raise InvalidArgument(
                "the content of snapshots lies in this state directory and nowhere else: it is not left out",
                hint="with BELLJAR_STORE_URL it lies in an object store",
            )
        self._backups += 1
        try:
            yield ContentBackup(self._disk, self._content, self._found, chunks=content)
        finally:
            self._backups -= 1
            await to_the_end(self._free_doomed())

    # Cold and gone.

    async def cool(self, older_than: float) -> tuple[str, ...]:
        """Moves those that nobody opened for so many seconds into the content store: the ids. Templates stay as they are.

        One that fails stays hot and is logged; raises Conflict, Internal or DiskFull when the content store takes nothing.
        """
        if self._backups:
            return ()
        latest = time.time() - older_than
        cooled: set[str] = set()
        for kept in sorted(self._found.kept.values(), key=lambda kept: kept.used):
            if kept.is_hot and not kept.manifest.draft.template and not kept.pins and kept.used <= latest:
                try:
                    if await self._cool(kept):
                        cooled.add(kept.id)
                except (Conflict, DiskFull, Internal):
                    raise
                except Error as error:
                    _log.error("a snapshot cannot be cooled", snapshot=kept.id, reason=error.message)
        return tuple(sorted(cooled))

    async def collect(self) -> Collected:
        """Removes chunks that no snapshot refers to. May be killed at any point, and run beside everything else.

        Removes nothing while it is unknown what a snapshot refers to (`blocked` says why). Raises Internal.
        """
        for id in tuple(self._found.leaving):
            await to_the_end(self._forget(id))
        for id in tuple(self._found.blocked):
            try:
                await self._heal(id)
            except SnapshotCorrupt as error:
                return Collected(blocked=f"snapshot {id}: {error.message}")
        strays: list[Recipe] = []
        try:
            for id in await self._content.records():
                kept = self._found.kept.get(id)
                if kept is None or kept.cold is None:
                    try:
                        found = await recall(self._content, id)
                    except SnapshotCorrupt as error:
                        return Collected(blocked=f"the store's record of {id[:40]}: {error.message}")
                    if found is not None:
                        await to_the_end(self._take_in(found[1], strays))
            return await self._content.collect()
        finally:
            for recipe in strays:
                await self._content.references.discard(await in_thread(recipe.names))

    async def recover(self) -> tuple[str, ...]:
        """Brings back the cold ones that the content store has and the state directory has lost: their ids. Raises Internal."""
        back: set[str] = set()
        known = self._found.kept.keys() | self._found.broken.keys() | self._found.leaving | self._making
        for id in await self._content.records():
            if id not in known and (found := await recall(self._content, id)) is not None:
                names = await in_thread(found[1].names)
                await self._content.references.add(names)
                try:
                    with _about(id):
                        self._found.kept[id] = await to_the_end(in_thread(self._disk.recover, id, *found))
                except BaseException:
                    await self._content.references.discard(names)
                    raise
                back.add(id)
        return tuple(sorted(back))

    async def purge(self) -> None:
        """Takes everything of this state directory out of the object store, if there is one; the directory is the caller's to
        remove. Raises Internal when it does not answer.
        """
        if self._url is not None:
            await self._content.purge()

    # Inside.

    async def _commit(self, draft: Draft, expected: dict[str, FileEntry] | None) -> Manifest:
        if draft.id not in self._making:
            raise Conflict(f"snapshot {draft.id} was not begun")
        kept: Kept | None = None

        def seal() -> Kept:
            nonlocal kept
            kept = self._disk.seal(draft, expected)
            return kept

        try:
            with _about(draft.id):
                self._found.kept[draft.id] = await to_the_end(in_thread(seal))
        except BaseException:
            if kept is not None:
                # The caller left between the last step and the answer: to them it was never there.
                await to_the_end(in_thread(self._shelf.take_away, draft.id))
                await to_the_end(in_thread(self._shelf.clear, draft.id))
            await self.abandon(draft.id)
            raise
        self._making.discard(draft.id)
        return self._found.kept[draft.id].manifest

    async def _ready(self, kept: Kept) -> Path:
        """The folder of its plain files. Only one caller at a time."""
        if kept.key is not None:
            if not kept.plain:
                await self._decrypt(kept)
            return self._disk.plain(kept.id)
        if kept.is_hot:
            try:
                kept.seen = await to_the_end(in_thread(self._disk.verified, kept))
            except SnapshotCorrupt:
                if kept.cold is None:
                    raise
                _log.warning("the files of a snapshot are damaged: taken from its chunks", snapshot=kept.id)
                await self._drop_hot(kept)
        if not kept.is_hot:
            await self._thaw(kept)
        return self._shelf.files(kept.id)

    async def _decrypt(self, kept: Kept) -> None:
        try:
            if kept.is_hot:
                try:
                    await to_the_end(in_thread(self._disk.unsealed, kept))
                except SnapshotCorrupt:
                    if kept.cold is None:
                        raise
                    await self._drop_hot(kept)
            if not kept.is_hot:
                target = await to_the_end(in_thread(self._disk.make_plain, kept.id))
                await unpack(self._content, kept.manifest, await self._recipe(kept), self._keys, target)
        except BaseException:
            await to_the_end(in_thread(self._disk.drop_plain, kept.id))
            raise
        kept.plain = True

    async def _thaw(self, kept: Kept) -> None:
        try:
            target = await to_the_end(in_thread(self._shelf.begin_thaw, kept.id))
            await unpack(self._content, kept.manifest, await self._recipe(kept), self._keys, target)
            kept.seen = await to_the_end(in_thread(self._disk.thawed, kept.id))
        finally:
            await to_the_end(in_thread(self._shelf.drop_thaw, kept.id))
            kept.is_hot = await in_thread(self._shelf.is_hot, kept.id)
        kept.hot = await in_thread(self._disk.size, kept.id)

    async def _recipe(self, kept: Kept) -> Recipe:
        if kept.id in self._found.blocked:
            await self._heal(kept.id)
        recipe = await in_thread(self._disk.recipe, kept.id)
        if recipe is None:
            raise SnapshotCorrupt("its list of chunks is gone")
        return recipe

    async def _heal(self, id: str) -> None:
        """Fetches a list of chunks that was damaged here. Raises SnapshotCorrupt where the content store has none either."""
        async with self._healing:
            if (why := self._found.blocked.get(id)) is None:
                return
            try:
                found = await recall(self._content, id)
            except SnapshotCorrupt as error:
                raise SnapshotCorrupt(f"{why}; in the content store {error.message}") from error
            if found is None:
                raise SnapshotCorrupt(f"{why}; the content store has no other")
            await to_the_end(self._mend(id, found[1]))

    async def _mend(self, id: str, recipe: Recipe) -> None:
        await in_thread(self._disk.write_recipe, recipe)
        await self._content.references.add(await in_thread(recipe.names))
        # Only now: until then a collection removes nothing.
        self._found.blocked.pop(id, None)
        if (kept := self._found.kept.get(id)) is not None:
            kept.cold = recipe.stored

    async def _cool(self, kept: Kept) -> bool:
        """Whether its files are gone: they stay when somebody opened it meanwhile."""
        async with self._pinned(kept):
            with _about(kept.id):
                if kept.cold is None:
                    await self._pack(kept)
                async with kept.lock:
                    if kept.pins == 1 and not kept.doomed and not self._backups:
                        await self._drop_hot(kept)
            return not kept.is_hot

    async def _pack(self, kept: Kept) -> None:
        if kept.key is None:
            async with kept.lock:
                kept.seen = await to_the_end(in_thread(self._disk.verified, kept))
        await to_the_end(in_thread(self._shelf.begin_cooling, kept.id))
        async with self._content.references.holding() as hold:
            folder = self._shelf.files(kept.id)
            recipe = await pack(self._content, kept.manifest, folder, self._keys, kept.key, hold)
            manifest = await in_thread(self._shelf.manifest, kept.id)
            await self._content.put_record(kept.id, await in_thread(record_of, manifest, recipe))
            await to_the_end(self._refer(kept, recipe))

    async def _refer(self, kept: Kept, recipe: Recipe) -> None:
        await in_thread(self._disk.write_recipe, recipe)
        await self._content.references.add(await in_thread(recipe.names))
        self._found.blocked.pop(kept.id, None)
        kept.cold = recipe.stored

    async def _take_in(self, recipe: Recipe, strays: MutableSequence[Recipe]) -> None:
        await self._content.references.add(await in_thread(recipe.names))
        strays.append(recipe)

    async def _drop_hot(self, kept: Kept) -> None:
        await to_the_end(in_thread(self._shelf.cool, kept.id))
        kept.is_hot = False
        kept.hot = await in_thread(self._disk.size, kept.id)

    @contextlib.asynccontextmanager
    async def _pinned(self, kept: Kept) -> AsyncGenerator[None]:
        kept.pins += 1
        try:
            yield
        finally:
            await to_the_end(self._unpin(kept))

    async def _unpin(self, kept: Kept) -> None:
        async with kept.lock:
            if kept.pins == 1 and kept.plain:
                kept.plain = False
                await in_thread(self._disk.drop_plain, kept.id)
            kept.pins -= 1
            if kept.doomed and not kept.pins and not self._backups:
                await self._free(kept.id)

    async def _free_doomed(self) -> None:
        """What was deleted during a backup."""
        for kept in tuple(self._found.kept.values()):
            async with kept.lock:
                if kept.doomed and not kept.pins and not self._backups and kept.id in self._found.kept:
                    try:
                        await self._free(kept.id)
                    except Error as error:  # nobody finds it; the next server removes it
                        _log.error("a deleted snapshot still takes room", snapshot=kept.id, reason=error.message)

    async def _free(self, id: str) -> None:
        with storage_errors(f"deleting snapshot {id}"):
            recipe = None
            with contextlib.suppress(SnapshotCorrupt):
                recipe = await in_thread(self._disk.recipe, id)
            was_cold = await in_thread(self._disk.take_away, id)
        self._found.kept.pop(id, None)
        self._found.broken.pop(id, None)
        if self._found.blocked.pop(id, None) is None and recipe is not None:
            await self._content.references.discard(await in_thread(recipe.names))
        if was_cold:
            self._found.leaving.add(id)
            with contextlib.suppress(Internal):
                await self._forget(id)
        else:
            with storage_errors(f"deleting snapshot {id}"):
                await in_thread(self._shelf.clear, id)

    async def _forget(self, id: str) -> None:
        """The content store's record of one that is deleted, then the last of it here. Raises Internal: asked again later."""
        await self._content.forget_record(id)
        with storage_errors(f"deleting snapshot {id}"):
            await in_thread(self._shelf.clear, id)
        self._found.leaving.discard(id)

    def _find(self, id: str) -> Kept:
        kept = self._found.kept.get(id)
        if kept is not None and not kept.doomed:
            return kept
        if (why := self._found.broken.get(id)) is not None:
            raise SnapshotCorrupt(f"snapshot {id}: {why}")
        raise NotFound(f"there is no snapshot {id[:80]}")


@contextlib.contextmanager
def _about(id: str) -> Generator[None]:
    """Says of which snapshot it is."""
    try:
        with storage_errors(f"snapshot {id}"):
            yield
    except SnapshotCorrupt as error:
        raise SnapshotCorrupt(f"snapshot {id}: {error.message}", hint=error.hint) from error


def _next(pieces: Iterator[bytes]) -> bytes:
    return next(pieces, b"")


def _room_of(folder: Path) -> int:
    """Bytes that are free where it is."""
    return shutil.disk_usage(folder).free
