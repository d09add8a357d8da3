"""The output of a process that is kept: the newest bytes of a stream, with their offsets."""

from __future__ import annotations

from _bisect import bisect_right

__all__ = ("HISTORY", "KEEP", "Ring")

KEEP = 16 << 20
"""Bytes kept while nobody is attached."""
HISTORY = 4 << 20
"""Bytes that a reader got and could ask for again, because the server that took them may die."""
_BLOCK = 65_536


class Ring:
    """Bytes from offset `start` to `end`. Small writes are put together, so that memory follows what is kept."""

    __slots__ = ("_blocks", "_offsets", "dropped", "end", "sent", "start")

    def __init__(self) -> None:
        self.start = 0
        self.end = 0
        self.sent = 0
        """Up to here some reader got it."""
        self.dropped = 0
        """Bytes that went before any reader got them."""
        self._blocks: list[bytearray] = []
        self._offsets: list[int] = []

    def append(self, data: bytes) -> None:
        blocks = self._blocks
        if blocks and len(blocks[-1]) + len(data) <= _BLOCK:
            blocks[-1] += data
        else:
            blocks.append(bytearray(data))
            self._offsets.append(self.end)
        self.end += len(data)

    def read(self, offset: int, limit: int) -> bytes:
        """Bytes from `offset` on (between `start` and `end`), at most `limit`, maybe fewer; b"" at the end."""
        if offset >= self.end or limit <= 0:
            return b""
        index = bisect_right(self._offsets, offset) - 1
        block = self._blocks[index]
        begin = offset - self._offsets[index]
        with memoryview(block) as view:
            data = bytes(view[begin : begin + limit])
        while len(data) < limit and index + 1 < len(self._blocks) and len(self._blocks[index + 1]) <= limit - len(data):
            index += 1
            data += self._blocks[index]
        return data

    def trim(self, keep: int, reader: int | None = None) -> None:
        """Keeps the newest `keep` bytes, and all that a reader at offset `reader` has still to get."""
        limit = self.end - keep
        if reader is not None and reader < limit:
            limit = reader
        if limit <= self.start:
            return
        blocks, offsets = self._blocks, self._offsets
        count = 0
        while count < len(blocks) and offsets[count] + len(blocks[count]) <= limit:
            count += 1
        if not count:
            return
        del blocks[:count], offsets[:count]
        start = offsets[0] if offsets else self.end
        if start > self.sent:
            self.dropped += start - max(self.start, self.sent)
        self.start = start

    @property
    def size(self) -> int:
        return self.end - self.start
