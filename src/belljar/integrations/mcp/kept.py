"""Output without end as a bounded text: its head, its tail, and a file in the sandbox with the whole."""

import codecs
import secrets

import belljar
from belljar.integrations.mcp.policy import MAX_SPOOLED
from belljar.model.errors import Error

__all__ = ("KeptOutput", "clipped")

_PART = 2 << 20


class KeptOutput:
    """One stream of a command. What does not fit `limit` characters goes, from its first byte on, to a file in the sandbox."""

    def __init__(self, sandbox: belljar.AsyncSandbox, stream: str, limit: int) -> None:
        self.file: str | None = None
        self.complete = True
        """Whether the file holds all of it."""
        self.last_line = ""
        self._sandbox = sandbox
        self._stream = stream
        self._limit = limit
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._head = ""
        self._tail = ""
        self._length = 0
        self._pending = bytearray()
        self._spooled = 0
        self._broken = False

    @property
    def length(self) -> int:
        """Characters so far."""
        return self._length

    async def add(self, data: bytes, *, final: bool = False) -> None:
        text = self._decode(data, final)
        self._length += len(text)
        if room := self._limit - len(self._head):
            self._head += text[:room]
            text = text[room:]
        if text:
            self._tail = (self._tail + text)[-self._limit :]
        if data:
            self._remember_line(data)
            self._pending += data
        if self._length > self._limit and (len(self._pending) >= _PART or final):
            await self._spool()

    def text(self, limit: int) -> str:
        """At most `limit` characters, and a line that says what was left out."""
        if self._length <= self._limit:
            return clipped(self._head, limit)
        half = min(limit, self._limit) // 2
        return _joined(self._head[:half], self._tail[-half:], self._length - 2 * half)

    def _remember_line(self, data: bytes) -> None:
        if line := data[-2000:].decode(errors="replace").rstrip().rpartition("\n")[2].strip():
            self.last_line = line[-200:]

    async def _spool(self) -> None:
        """A file that cannot be written is only a file less."""
        part = bytes(self._pending[: max(0, MAX_SPOOLED - self._spooled)])
        self.complete = self.complete and len(part) == len(self._pending)
        self._pending.clear()
        if self._broken or not part:
            return
        path = self.file or f"/tmp/output-{secrets.token_hex(6)}.{self._stream}"
        try:
            await self._sandbox.path(path).write_bytes(part, append=self.file is not None)
        except Error:
            self._broken = True
            self.complete = False
            return
        self.file = path
        self._spooled += len(part)


def clipped(text: str, limit: int) -> str:
    """Head and tail of a text that is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return _joined(text[:half], text[-half:], len(text) - 2 * half)


def _joined(head: str, tail: str, left_out: int) -> str:
    return f"{head}\n[… {left_out:,} characters left out …]\n{tail}"
