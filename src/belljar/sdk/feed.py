"""A stream of chunks as a file, for code of the standard library that wants one."""

import io
from collections.abc import Callable

__all__ = ("ChunkFile",)


class ChunkFile(io.RawIOBase):
    """Read-only and forward-only. `pull` gives the next chunk, b"" at the end."""

    def __init__(self, pull: Callable[[], bytes]) -> None:
        super().__init__()
        self._pull = pull
        self._rest = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object, /) -> int:
        room = memoryview(buffer)  # pyright: ignore[reportArgumentType] - as io.RawIOBase declares it
        if not self._rest and not self._ended:
            self._rest = memoryview(self._pull())
            self._ended = not self._rest
        taken = min(len(room), len(self._rest))
        room[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken
