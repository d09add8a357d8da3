"""The content store: chunks of files, each kept once, packed, and gone when nobody refers to it any more."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from belljar.base.tasks import in_thread, to_the_end
from belljar.model.errors import AlreadyExists, Conflict, NotFound, SnapshotCorrupt
from belljar.node.storage.blobs import Blobs
from belljar.node.storage.chunks import MAX_PACKED, ChunkRef, Readable, cut, name_of, packed, unpacked
from belljar.node.storage.durable import all_of, opened_file, sync_file
from belljar.node.storage.keys import Key
from belljar.node.storage.references import Hold, References

__all__ = ("Collected", "ContentStore", "chunk_place", "record_place")

_CHUNKS = "chunks"
_RECORDS = "snapshots"
_OWNER = "owner"
_BATCH = 32
"""Chunks that are in memory at a time: at most 16 MiB, twice while one batch is written and the next is fetched."""
_AT_ONCE = 8
_MAX_RECORD = 256 << 20


@dataclass(frozen=True, slots=True)
class Collected:
    """Of one collection: chunks seen, removed, and the bytes of those. `blocked`: why nothing could be removed."""

    seen: int = 0
    removed: int = 0
    freed: int = 0
    blocked: str | None = None


class ContentStore:
    """`owner`: stands for the state directory. A store has one: another one's collection would remove what this one needs."""

    def __init__(self, blobs: Blobs, owner: str) -> None:
        self.references = References()
        self._blobs = blobs
        self._owner = owner
        self._claimed = False
        self._proved: dict[bytes, int] = {}
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    async def put(self, file: Readable, key: Key | None, hold: Hold) -> tuple[ChunkRef, ...]:
        """The chunks of a file, durable when this returns, and held until the caller lets go. Raises DiskFull, Internal."""
        await self._claim()
        refs: list[ChunkRef] = []
        written: dict[bytes, int] = {}
        chunks = cut(file, key)
        while batch := await in_thread(_named, chunks, key):
            known: dict[bytes, ChunkRef] = {}
            missing = await hold.take(name for name, _ in batch) - written.keys() - self._proved.keys()
            known |= {name: ChunkRef(name, len(content), written[name]) for name, content in batch if name in written}
            missing |= await self._damaged(batch, missing, key, known)
            fresh = {name: content for name, content in batch if name in missing}
            bodies = await in_thread(_packed, fresh, key)
            await all_of(self._put(name, body) for name, body in bodies.items())
            known |= {name: ChunkRef(name, len(fresh[name]), len(body)) for name, body in bodies.items()}
            written |= {name: len(body) for name, body in bodies.items()}
            refs += (known[name] for name, _ in batch)
        await self._blobs.sync([chunk_place(name) for name in written])
        self._proved |= written
        return tuple(refs)

    async def get(self, refs: Sequence[ChunkRef], key: Key | None, target: Path) -> None:
        """Writes a file anew; it is on the disk when this returns. Raises SnapshotCorrupt, DiskFull, Internal, OSError."""
        async with opened_file(target, "xb") as file:
            async for batch in self._fetched(refs):
                await to_the_end(in_thread(_write, file.fileno(), batch, key))
            await to_the_end(in_thread(sync_file, file.fileno()))

    async def stored(self, refs: Sequence[ChunkRef]) -> AsyncGenerator[tuple[ChunkRef, bytes | None]]:
        """Each as it lies there, packed and unchecked; None for one that is lost. At most 16 MiB in memory. Raises Internal."""
        for start in range(0, len(refs), _BATCH):
            batch = refs[start : start + _BATCH]
            for ref, data in zip(batch, await all_of(self._there(ref) for ref in batch), strict=True):
                yield ref, data

    async def put_record(self, id: str, data: bytes) -> None:
        """What says how a snapshot is made of chunks: durable when this returns."""
        await self._claim()
        await self._blobs.put(record_place(id), data)
        await self._blobs.sync([record_place(id)])

    async def record(self, id: str) -> bytes:
        return await self._blobs.get(record_place(id), _MAX_RECORD)

    async def records(self) -> list[str]:
        return [name.rpartition("/")[2] async for page in self._blobs.list(_RECORDS) for name, _ in page]

    async def forget_record(self, id: str) -> None:
        if await self._is_ours():
            await to_the_end(self._blobs.delete([record_place(id)]))

    async def collect(self) -> Collected:
        """Removes the chunks that nobody refers to or holds. May be killed at any point, and run beside everything else."""
        if not await self._is_ours():
            return Collected()
        await self._blobs.sweep()
        seen = removed = freed = 0
        async for page in self._blobs.list(_CHUNKS):
            sizes = {name: size for place, size in page if (name := _name(place)) is not None}
            seen += len(sizes)
            with self.references.going(sizes) as going:
                for name in going:
                    self._proved.pop(name, None)
                # Also when this is cancelled: one that is removed late could be one that was just put again.
                await to_the_end(self._blobs.delete([chunk_place(name) for name in going]))
                removed += len(going)
                freed += sum(sizes[name] for name in going)
        return Collected(seen, removed, freed)

    async def purge(self) -> None:
        """Everything of this store is gone, also what is referred to."""
        if not await self._is_ours():
            return
        for prefix in (_RECORDS, _CHUNKS):
            async for page in self._blobs.list(prefix):
                await self._blobs.delete([name for name, _ in page])
        await self._blobs.delete([_OWNER])
        self._claimed = False

    async def _claim(self) -> None:
        """Before anything is written: the store is ours from now on. Raises Conflict when it is somebody else's."""
        if await self._is_ours():
            return
        with contextlib.suppress(AlreadyExists):
            await self._blobs.put(_OWNER, self._owner.encode(), new=True)
            await self._blobs.sync([_OWNER])
        await self._is_ours()

    async def _is_ours(self) -> bool:
        """False for a store that nobody has written to. Raises Conflict when it is somebody else's."""
        if not self._claimed:
            try:
                owner = (await self._blobs.get(_OWNER, 1000)).decode(errors="replace")
            except NotFound:
                return False
            if not owner:
                # A power cut came between its name and its content.
                await self._blobs.put(_OWNER, self._owner.encode())
                await self._blobs.sync([_OWNER])
            elif owner != self._owner:
                raise Conflict(
                    "the store at BELLJAR_STORE_URL belongs to another state directory",
                    hint="give each its own prefix; if that one is gone for good, remove the store's object `owner`",
                )
            self._claimed = True
        return True

    async def _damaged(
        self, batch: Iterable[tuple[bytes, bytes]], missing: set[bytes], key: Key | None, known: dict[bytes, ChunkRef]
    ) -> set[bytes]:
        """Of what the store has already, what it has no more. Once read and right, a chunk is believed by this process: who
        lets go of a file may do so only when each of its chunks was seen to be whole.
        """
        sizes = {name: len(content) for name, content in batch if name not in missing and name not in known}
        found = await all_of(self._stored(name, size, key) for name, size in sizes.items())
        known |= {ref.name: ref for ref in found if ref is not None}
        return sizes.keys() - known.keys()

    async def _stored(self, name: bytes, size: int, key: Key | None) -> ChunkRef | None:
        if name in self._proved:
            return ChunkRef(name, size, self._proved[name])
        async with self._at_once:
            try:
                data = await self._blobs.get(chunk_place(name), MAX_PACKED)
                ref = ChunkRef(name, size, len(data))
                await in_thread(unpacked, data, ref, key)
                self._proved[name] = len(data)
            except (NotFound, SnapshotCorrupt):
                return None
        return ref

    async def _put(self, name: bytes, body: bytes) -> None:
        async with self._at_once:
            await self._blobs.put(chunk_place(name), body)

    async def _fetched(self, refs: Sequence[ChunkRef]) -> AsyncGenerator[list[tuple[ChunkRef, bytes]]]:
        """Batches of packed chunks; the next one comes while the caller works on one."""
        rest = iter(refs)
        ahead = asyncio.ensure_future(self._batch(list(islice(rest, _BATCH))))
        try:
            while batch := await ahead:
                ahead = asyncio.ensure_future(self._batch(list(islice(rest, _BATCH))))
                yield batch
        finally:
            ahead.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await ahead

    async def _batch(self, refs: Sequence[ChunkRef]) -> list[tuple[ChunkRef, bytes]]:
        return list(zip(refs, await all_of(self._get(ref) for ref in refs), strict=True))

    async def _there(self, ref: ChunkRef) -> bytes | None:
        try:
            return await self._get(ref)
        except SnapshotCorrupt:
            return None

    async def _get(self, ref: ChunkRef) -> bytes:
        async with self._at_once:
            try:
                return await self._blobs.get(chunk_place(ref.name), MAX_PACKED)
            except NotFound as error:
                raise SnapshotCorrupt(f"the store has lost chunk {ref.name.hex()[:16]}…") from error


def chunk_place(name: bytes) -> str:
    """The name of its object."""
    return f"{_CHUNKS}/{name.hex()[:2]}/{name.hex()}"


def record_place(id: str) -> str:
    """The name of the object that says how a snapshot is made of chunks."""
    return f"{_RECORDS}/{id}"


def _name(place: str) -> bytes | None:
    """None for what this store has not put there."""
    last = place.rpartition("/")[2]
    with contextlib.suppress(ValueError):
        name = bytes.fromhex(last)
        return name if len(name) == 32 and chunk_place(name) == place else None
    return None


def _named(chunks: Iterator[bytes], key: Key | None) -> list[tuple[bytes, bytes]]:
    return [(name_of(content, key), content) for content in islice(chunks, _BATCH)]


def _packed(fresh: dict[bytes, bytes], key: Key | None) -> dict[bytes, bytes]:
    return {name: packed(content, name, key) for name, content in fresh.items()}


def _write(fd: int, batch: Sequence[tuple[ChunkRef, bytes]], key: Key | None) -> None:
    for ref, data in batch:
        content = memoryview(unpacked(data, ref, key))
        while content:
            content = content[os.write(fd, content) :]
