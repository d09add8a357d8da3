"""Content cut into chunks by itself, and a chunk's form in the store.

Borders depend on content (FastCDC), so that a page more at the start of a memory file moves one border and not all of them. The
first byte of a chunk's object says how the rest is packed; with a key the whole is sealed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import zstandard
from blake3 import blake3
from pyfastcdc import FastCDC

from belljar.model.errors import SnapshotCorrupt
from belljar.node.storage.keys import OVERHEAD, Key

__all__ = ("MAX_CHUNK", "ChunkRef", "Readable", "cut", "name_of", "packed", "unpacked")

_AVERAGE = 128 << 10
MAX_CHUNK = 4 * _AVERAGE
MAX_PACKED = MAX_CHUNK + 1 + OVERHEAD
_LEVEL = 3
_RAW, _ZSTD = b"\0", b"\1"


class Readable(Protocol):
    def read(self, size: int, /) -> bytes:
        """As many bytes, fewer only at the end."""
        ...


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """A chunk of a file. `name` stands for its content; `size` of the content and `stored` of its object, in bytes."""

    name: bytes
    size: int
    stored: int


def cut(file: Readable, key: Key | None) -> Iterator[bytes]:
    """The chunks of a file in their order; at most 512 KiB each."""
    chunker = FastCDC(_AVERAGE, seed=key.seed if key else 0)
    for chunk in chunker.cut_stream(_Stream(file)):
        yield bytes(chunk.data)


class _Stream:
    def __init__(self, file: Readable) -> None:
        self._file = file

    def read(self, n: int) -> bytes:
        return self._file.read(n)


def name_of(content: bytes, key: Key | None) -> bytes:
    return key.name(content) if key else blake3(content).digest()


def packed(content: bytes, name: bytes, key: Key | None) -> bytes:
    small = zstandard.ZstdCompressor(level=_LEVEL).compress(content)
    body = _ZSTD + small if len(small) < len(content) else _RAW + content
    return key.seal(body, name) if key else body


def unpacked(data: bytes, ref: ChunkRef, key: Key | None) -> bytes:
    """The content, which is what the name says. Raises SnapshotCorrupt."""
    body = key.unseal(data, ref.name) if key else data
    content = body[1:]
    if body[:1] == _ZSTD:
        try:
            # Asked before: the decompressor makes room for whatever size the data claims.
            if zstandard.frame_content_size(content) != ref.size:
                raise SnapshotCorrupt("a chunk is torn: its size is another one")
            content = zstandard.ZstdDecompressor().decompress(content, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise SnapshotCorrupt("a chunk is torn: it cannot be unpacked") from error
    if len(content) != ref.size or name_of(content, key) != ref.name:
        raise SnapshotCorrupt("a chunk has other content than its name says")
    return content
