"""A snapshot as one file, to be written and read in one pass. docs/storage.md describes it byte by byte.

``BJSNAP1\\n``, then zstd of: the manifest's length (4 bytes) and JSON, the content of each file in the order of their names, and
the BLAKE3 of all that. With a key the whole is sealed as `storage.sealed` does it.
"""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zstandard
from blake3 import blake3

from belljar.model.errors import DiskFull, SnapshotCorrupt
from belljar.node.snapshot.envelope import manifest_text, parse_manifest
from belljar.node.snapshot.manifest import Manifest
from belljar.node.snapshot.shelf import MAX_MANIFEST
from belljar.node.storage.keys import Key, Keys
from belljar.node.storage.sealed import MAGIC as SEALED
from belljar.node.storage.sealed import PART, Source, Unsealed, read_exactly, seal_parts

__all__ = ("MAGIC", "read_bundle", "write_bundle")

MAGIC = b"BJSNAP1\n"
_ABOUT = b"bundle"
_DIGEST = 32
_WINDOW = 8 << 20
"""Bytes that the decompressor may be made to keep: what the default level needs."""


def write_bundle(manifest: Manifest, folder: Path, key: Key | None) -> Generator[bytes, None, None]:
    """The pieces of the file; each call blocks. Raises SnapshotCorrupt for a file that became shorter, OSError."""
    plain = _framed(manifest, folder)
    yield from plain if key is None else seal_parts(plain, key, _ABOUT)


async def read_bundle(chunks: AsyncIterable[bytes], folder: Path, keys: Keys, room: int) -> Manifest:
    """Writes the files into an empty folder; at most `room` bytes. Raises SnapshotCorrupt, DiskFull, OSError.

    In a thread of its own, not one of those that all share: it waits for a sender who may be slow.
    """
    loop = asyncio.get_running_loop()
    source = _Pulled(aiter(chunks), loop)
    own = ThreadPoolExecutor(1, thread_name_prefix="import")
    reading = asyncio.ensure_future(loop.run_in_executor(own, _read, source, folder, keys, room))
    try:
        return await asyncio.shield(reading)
    finally:
        source.stop()
        while not reading.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([reading])
        if not reading.cancelled():
            reading.exception()
        own.shutdown(wait=False)


def _framed(manifest: Manifest, folder: Path) -> Iterator[bytes]:
    packer = zstandard.ZstdCompressor(level=3, write_checksum=False).compressobj()
    yield MAGIC
    for piece in _content(manifest, folder):
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def _content(manifest: Manifest, folder: Path) -> Iterator[bytes]:
    digest = blake3(max_threads=blake3.AUTO)
    text = manifest_text(manifest).encode()
    head = len(text).to_bytes(4) + text
    digest.update(head)
    yield head
    for name in sorted(manifest.files):
        left = manifest.files[name].size
        with open(folder / name, "rb", buffering=0) as file:
            while left:
                piece = file.read(min(left, PART))
                if not piece:
                    raise SnapshotCorrupt(f"its file {name} is shorter than its manifest says")
                left -= len(piece)
                digest.update(piece)
                yield piece
    yield digest.digest()


def _read(source: Source, folder: Path, keys: Keys, room: int) -> Manifest:
    magic = read_exactly(source.read, len(MAGIC))
    if magic == SEALED:
        source = Unsealed(source, keys, _ABOUT, magic_read=True)
        magic = read_exactly(source.read, len(MAGIC))
    if magic != MAGIC:
        raise SnapshotCorrupt("it is not an exported snapshot, or one of a later Belljar: it begins with other bytes")
    unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(source)  # pyright: ignore[reportArgumentType]
    try:
        manifest = _read_content(unpacker, folder, room)
    except zstandard.ZstdError as error:
        raise SnapshotCorrupt("it is torn: it cannot be unpacked") from error
    while source.read(PART):
        pass  # the sender is heard to the end; what is sealed is checked to its last part
    return manifest


def _read_content(source: Source, folder: Path, room: int) -> Manifest:
    digest = blake3(max_threads=blake3.AUTO)
    head = read_exactly(source.read, 4)
    size = int.from_bytes(head)
    if size > MAX_MANIFEST:
        raise SnapshotCorrupt("its manifest is too long")
    text = read_exactly(source.read, size)
    digest.update(head + text)
    manifest = parse_manifest(text)
    if manifest.size > room:
        raise DiskFull(f"it needs {manifest.size >> 20} MiB, and {room >> 20} MiB are free")
    for name in sorted(manifest.files):
        left = manifest.files[name].size
        with open(folder / name, "xb") as file:
            while left:
                piece = read_exactly(source.read, min(left, PART))
                left -= len(piece)
                digest.update(piece)
                file.write(piece)
    if read_exactly(source.read, _DIGEST) != digest.digest():
        raise SnapshotCorrupt("it was changed: the digest differs")
    if source.read(1):
        raise SnapshotCorrupt("something follows after its digest")
    return manifest


class _Pulled:
    """What comes from the event loop, read by a thread: the next piece is asked for when the last one is used up."""

    def __init__(self, pieces: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._pieces = pieces
        self._loop = loop
        self._left = memoryview(b"")
        self._ended = False
        self._stopped = False
        self._lock = threading.Lock()
        self._waiting: concurrent.futures.Future[bytes | None] | None = None

    def read(self, size: int, /) -> bytes:
        while not self._left and not self._ended:
            with self._lock:
                if self._stopped:
                    raise SnapshotCorrupt("it is cut off: the sender left")
                self._waiting = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            piece = self._waiting.result()
            self._ended = piece is None
            self._left = memoryview(piece or b"")
        taken = bytes(self._left[:size])
        self._left = self._left[len(taken) :]
        return taken

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._waiting is not None:
                self._waiting.cancel()

    async def _next(self) -> bytes | None:
        return await anext(self._pieces, None)
