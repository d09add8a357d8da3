"""One output stream of a process as a file that is read."""

from collections.abc import Awaitable, Callable
from typing import Self

from belljar.model.process import Exit, Output, Stream
from belljar.sdk._async.attachment import AsyncAttachment
from belljar.sdk.errors import OutputLost

__all__ = ("AsyncReader",)


class AsyncReader:
    """`stdout` or `stderr` of a process. Attaches with the first read; from then on the process waits for a slow reader.

    `dropped` counts the bytes that were lost because more than 16 MiB came while nobody was attached: the read that meets the
    gap raises OutputLost once, the next one goes on behind it. After
    `AsyncSandbox.process` the first read starts at the oldest byte kept, and only counts what is missing before it.
    """

    def __init__(
        self,
        attach: Callable[[Stream, int], Awaitable[AsyncAttachment]],
        ended: Callable[[Exit], None],
        stream: Stream,
        offset: int,
        *,
        from_oldest: bool,
    ) -> None:
        self.dropped: int = 0
        self.offset: int = offset
        """Bytes of the stream before the next one read here."""
        self._attach = attach
        self._ended = ended
        self._stream = stream
        self._output: AsyncAttachment | None = None
        self._buffer = bytearray()
        self._gap: int = 0
        self._after_gap = b""
        self._eof = False
        self._closed = False
        self._quiet = from_oldest

    async def read(self, n: int = -1) -> bytes:
        """Exactly `n` bytes, less only at the end of the stream; all to the end without `n`."""
        while n < 0 or len(self._buffer) < n:
            if not await self._more():
                break
        return self._cut(len(self._buffer) if n < 0 else n)

    async def read1(self, n: int = -1) -> bytes:
        """What is there, at most `n` bytes; waits for at least one. b"" at the end."""
        if n == 0:
            return b""
        if not self._buffer:
            await self._more()
        return self._cut(len(self._buffer) if n < 0 else n)

    async def readline(self) -> bytes:
        """One line with its newline; the last one may lack it. b"" at the end."""
        searched = 0
        while (found := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if not await self._more():
                return self._cut(len(self._buffer))
        return self._cut(found + 1)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def aclose(self) -> None:
        """Ends the reading; the process goes on and no longer waits for this reader."""
        self._closed = True
        output, self._output = self._output, None
        if output is not None:
            await output.aclose()

    def _cut(self, n: int) -> bytes:
        data = bytes(memoryview(self._buffer)[:n])
        del self._buffer[:n]
        self.offset += len(data)
        return data

    async def _more(self) -> bool:
        """Waits for a piece; False at the end. Raises OutputLost at a gap, once all before it has been read."""
        if self._closed:
            raise ValueError(f"read of closed {self._stream.value}")
        if self._gap and not self._buffer:
            self._pass_gap()
        if self._eof or self._gap:
            return False
        if self._output is None:
            self._output = await self._attach(self._stream, self.offset)
        before = self._output.dropped[self._stream]
        match await self._output.next():
            case Output(_, _, data):
                lost = self._output.dropped[self._stream] - before
                quiet, self._quiet = self._quiet, False
                if lost and quiet:  # the caller asked for what is still there
                    self.offset += lost
                    self.dropped += lost
                elif lost:
                    self._gap, self._after_gap = lost, data
                    return await self._more() if not self._buffer else False
                self._buffer += data
                return True
            case Exit() as event:
                self._ended(event)
            case None:
                pass
        self._eof = True
        await self._output.aclose()
        return False

    def _pass_gap(self) -> None:
        lost, self._gap = self._gap, 0
        self._buffer += self._after_gap
        self.offset += lost
        self.dropped += lost
        raise OutputLost(self._stream.value, lost)
