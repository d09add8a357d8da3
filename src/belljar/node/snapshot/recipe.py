"""How the files of a cold snapshot are made of chunks. Holds no content: names of chunks and sizes, so it is never encrypted, and
a collection needs no key to know what it may not remove."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import zstandard
from blake3 import blake3

from belljar.model.errors import SnapshotCorrupt
from belljar.node.snapshot.shelf import MAX_FILES, check_file_name
from belljar.node.storage.chunks import MAX_CHUNK, MAX_PACKED, ChunkRef

__all__ = ("MAX_RECIPE", "Recipe", "read_recipe", "recipe_bytes")

MAX_RECIPE = 256 << 20
_VERSION = 1
_REF = 32 + 4 + 4


@dataclass(frozen=True, slots=True)
class Recipe:
    """`key`: the id of the key that the chunks are sealed with, None for none."""

    id: str
    key: str | None
    files: Mapping[str, tuple[ChunkRef, ...]]

    def names(self) -> frozenset[bytes]:
        """Of its chunks. Takes a while for a long one."""
        return frozenset(ref.name for refs in self.files.values() for ref in refs)

    @property
    def stored(self) -> int:
        """Bytes of its chunks, each once. Other snapshots may share them."""
        return sum({ref.name: ref.stored for refs in self.files.values() for ref in refs}.values())


def recipe_bytes(recipe: Recipe) -> bytes:
    """BLAKE3 of the rest, then zstd of a line of JSON and of each file's chunks: name (32 bytes) and two sizes (4 each)."""
    head = {
        "version": _VERSION,
        "id": recipe.id,
        "key": recipe.key,
        "files": {name: len(refs) for name, refs in recipe.files.items()},
    }
    body = bytearray(json.dumps(head).encode() + b"\n")
    for refs in recipe.files.values():
        for ref in refs:
            body += ref.name + ref.size.to_bytes(4) + ref.stored.to_bytes(4)
    packed = zstandard.ZstdCompressor().compress(bytes(body))
    return blake3(packed).digest() + packed


def read_recipe(data: bytes, id: str) -> Recipe:
    """Raises SnapshotCorrupt for one that is torn, changed, of another snapshot or not legal."""
    if data[:32] != blake3(data[32:]).digest():
        raise SnapshotCorrupt("its list of chunks is torn or was changed")
    try:
        if not 0 < zstandard.frame_content_size(data[32:]) <= MAX_RECIPE:
            raise SnapshotCorrupt("its list of chunks is too long")
        text, _, body = zstandard.ZstdDecompressor().decompress(data[32:]).partition(b"\n")
        head: dict[str, Any] = json.loads(text)
        counts = {check_file_name(str(name)): int(count) for name, count in head["files"].items()}
        key = None if head["key"] is None else str(head["key"])
        if (head["version"], head["id"]) != (_VERSION, id):
            raise SnapshotCorrupt("its list of chunks is that of another snapshot or version")
    except (zstandard.ZstdError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SnapshotCorrupt("its list of chunks cannot be read") from error
    if len(counts) > MAX_FILES or min(counts.values(), default=0) < 0 or sum(counts.values()) * _REF != len(body):
        raise SnapshotCorrupt("its list of chunks is cut off")
    refs = iter([_ref(body[start : start + _REF]) for start in range(0, len(body), _REF)])
    return Recipe(id, key, {name: tuple(next(refs) for _ in range(count)) for name, count in counts.items()})


def _ref(data: bytes) -> ChunkRef:
    ref = ChunkRef(data[:32], int.from_bytes(data[32:36]), int.from_bytes(data[36:40]))
    if not 0 < ref.size <= MAX_CHUNK or not 0 < ref.stored <= MAX_PACKED:
        raise SnapshotCorrupt("its list of chunks has one of a size that no chunk has")
    return ref
