# Made by scripts/make_sync.py from _async/stdin.py: do not edit.
"""The input of a process."""

import contextlib

from belljar.model.errors import Conflict, DeadlineExceeded
from belljar.sdk._sync import flow
from belljar.sdk._sync.link import Link
from belljar.sdk.answers import process_of
from belljar.sdk.asking import url

__all__ = ("Writer",)
_PART = 4 << 20
_TAKE_SECONDS = 75.0


class Writer:
    """`stdin` of a process. A byte is given once, also across lost connections: each write says where it starts."""

    def __init__(self, link: Link, sandbox: str, process: int, offset: int | None) -> None:
        self._link = link
        self._sandbox = sandbox
        self._process = process
        self._offset = offset
        self._closed = False
        self._lock = flow.Lock()

    @property
    def closed(self) -> bool:
        return self._closed

    def write(self, data: bytes | bytearray | memoryview | str) -> int:
        """Gives all of `data` (text as UTF-8) and returns its length in bytes. Waits while the process does not read.

        Raises BrokenPipeError when the process has ended or closed its input, ValueError after `close`.
        """
        if self._closed:
            raise ValueError("write to closed stdin")
        content = memoryview(data.encode() if isinstance(data, str) else data).cast("B")
        with self._lock:
            start = self._where()
            self._give(content, start)
        return len(content)

    def write_from(self, whole: bytes) -> None:
        """Gives what of `whole`, the entire input, has not been taken yet."""
        with self._lock:
            self._give(memoryview(whole), 0)

    def flush(self) -> None:
        """Nothing to do: `write` returns when all was taken."""

    def close(self) -> None:
        """The process reads the end of its input. Idempotent; fine when it has ended."""
        if self._closed:
            return
        self._closed = True
        with self._lock:
            with contextlib.suppress(Conflict):
                self._post(b"", self._where(), eof=True)

    def _where(self) -> int:
        if self._offset is None:
            self._offset = self._taken()
        return self._offset

    def _give(self, content: memoryview, start: int) -> None:
        """`content` begins at offset `start` of the stream."""
        end = start + len(content)
        at = max(start, self._where())
        while at < end:
            try:
                at = self._post(content[at - start : at - start + _PART].tobytes(), at)
            except DeadlineExceeded:
                at = self._taken()
            except Conflict as error:
                raise BrokenPipeError(error.message) from error
            self._offset = at

    def _post(self, data: bytes, offset: int, *, eof: bool = False) -> int:
        query = {"offset": offset} | ({"eof": True} if eof else {})
        where = url("sandboxes", self._sandbox, "processes", self._process, "stdin", **query)
        answer = self._link.call("POST", where, content=data, timeout=_TAKE_SECONDS)
        return int(answer["offset"])

    def _taken(self) -> int:
        where = url("sandboxes", self._sandbox, "processes", self._process)
        return process_of(self._link.call("GET", where)).stdin
