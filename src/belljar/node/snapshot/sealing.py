"""The files of a hot snapshot while a key is set: encrypted on the disk, plain in memory only. All calls block."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from blake3 import blake3

from belljar.model.errors import SnapshotCorrupt
from belljar.node.snapshot.manifest import FileEntry
from belljar.node.storage.durable import sync_file
from belljar.node.storage.keys import Key, Keys
from belljar.node.storage.sealed import PART, Source, Unsealed, seal_parts

__all__ = ("open_sealed", "pieces", "seal_file", "unseal_file")


def seal_file(source: Path, target: Path, key: Key, id: str) -> FileEntry:
    """Writes the encrypted form: on the disk when this returns. What the plain file is."""
    digest, size = blake3(max_threads=blake3.AUTO), 0

    def plain() -> Iterator[bytes]:
        nonlocal size
        with open(source, "rb", buffering=0) as file:
            for piece in pieces(file):
                digest.update(piece)
                size += len(piece)
                yield piece

    _write(target, seal_parts(plain(), key, _about(id, source.name)))
    return FileEntry(size, digest.hexdigest())


def unseal_file(source: Path, target: Path, entry: FileEntry, keys: Keys, id: str) -> None:
    """Writes the plain form. Raises SnapshotCorrupt unless it is what the manifest says."""
    digest, size = blake3(max_threads=blake3.AUTO), 0
    with open(source, "rb", buffering=0) as sealed, open(target, "xb", buffering=0) as file:
        for piece in pieces(open_sealed(sealed, source.name, keys, id)):
            size += len(piece)
            if size > entry.size:
                raise SnapshotCorrupt("it is longer than its manifest says")
            digest.update(piece)
            _write_all(file.fileno(), piece)
    if size != entry.size or digest.hexdigest() != entry.digest:
        raise SnapshotCorrupt("it was changed: its digest differs")


def open_sealed(file: Source, name: str, keys: Keys, id: str) -> Unsealed:
    return Unsealed(file, keys, _about(id, name))


def pieces(source: Source) -> Iterator[bytes]:
    while piece := source.read(PART):
        yield piece


def _about(id: str, name: str) -> bytes:
    return f"{id}/{name}".encode()


def _write(target: Path, data: Iterable[bytes]) -> None:
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for piece in data:
            _write_all(fd, piece)
        sync_file(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
