# Made by scripts/make_sync.py from _async/attachment.py: do not edit.
"""What a process writes, across lost connections: each byte once, in order, and gaps counted."""

import contextlib
from collections import deque
from collections.abc import Mapping
from typing import Any

from belljar.model.errors import Cancelled, Internal
from belljar.model.framing import Decoder, Failure, Started
from belljar.model.process import Exit, Output, OutputEvent, ProcessInfo, Stream
from belljar.sdk._sync.link import Body, Link, Lost
from belljar.sdk.answers import error_of_object, process_of
from belljar.sdk.asking import url
from belljar.sdk.errors import ServerUnreachable
from belljar.sdk.patience import Patience

__all__ = ("Attachment",)
_START_SECONDS = 120.0


class Attachment:
    """One reader of some streams of one process. `start`: the body that starts the process with the first request.

    `offsets` are where each stream goes on; `dropped` counts bytes of each that were lost before they came here.
    """

    def __init__(
        self,
        link: Link,
        sandbox: str,
        *,
        start: Mapping[str, Any] | None = None,
        process: ProcessInfo | None = None,
        offsets: Mapping[Stream, int],
    ) -> None:
        self.process = process
        self.exit: Exit | None = None
        self.offsets = dict(offsets)
        self.dropped = dict.fromkeys(offsets, 0)
        self.reconnected = 0
        self._link = link
        self._sandbox = sandbox
        self._start = start
        self._body: Body | None = None
        self._decoder = Decoder()
        self._waiting: deque[OutputEvent] = deque()
        self._patience = Patience()
        self._closed = False

    def open(self) -> ProcessInfo:
        """Starts or attaches, and returns the process. Raises what the server says of the start."""
        while self.process is None and (not self._closed):
            self._fill()
        if self.process is None:
            raise Cancelled("the start was given up")
        if self._body is None and self.exit is None:
            self._connected()
        return self.process

    def next(self) -> OutputEvent | None:
        """The next piece, then Exit, then None. None at once after `abort` or `close`."""
        while not self._waiting:
            if self.exit is not None or self._closed:
                return None
            self._fill()
        return self._waiting.popleft()

    def abort(self) -> None:
        """Ends a `next` that waits, in another task or thread."""
        self._closed = True
        self._patience.end()
        if self._body is not None:
            self._body.abort()

    def close(self) -> None:
        """Detaches; the process goes on."""
        self._closed = True
        self._disconnect()

    def _fill(self) -> None:
        """Reads once; on a lost connection waits for the server, so that the next time goes on where this one ended."""
        try:
            body = self._connected()
            data = body.read()
            if not data:
                raise Lost("the output broke off")
            self._take(data)
            if self.exit is not None:
                self._finish(body)
        except Lost as lost:
            self._disconnect()
            try:
                self._link.recover(self._patience, lost)
                self.reconnected += 1
            except ServerUnreachable:
                if not self._closed:
                    raise

    def _finish(self, body: Body) -> None:
        """Reads the end of the body, so that its connection is used again: a new one costs a millisecond."""
        with contextlib.suppress(Lost):
            while body.read():
                pass
        self._disconnect()

    def _connected(self) -> Body:
        if self._body is None:
            self._decoder = Decoder()
            if self.process is None:
                self._body = self._link.open("POST", self._url("run"), json=self._start, timeout=_START_SECONDS)
            else:
                query = {stream.value: offset for stream, offset in self.offsets.items()}
                where = url("sandboxes", self._sandbox, "processes", self.process.id, "output", **query)
                self._body = self._link.open("GET", where)
        return self._body

    def _url(self, verb: str) -> str:
        return url("sandboxes", self._sandbox, verb)

    def _disconnect(self) -> None:
        body, self._body = (self._body, None)
        if body is not None:
            body.close()

    def _take(self, data: bytes) -> None:
        try:
            for piece in self._decoder.feed(data):
                match piece:
                    case Started(process):
                        self.process = process_of(process)
                    case Output(stream, offset, content):
                        self._take_output(stream, offset, content)
                    case Exit():
                        self.exit = piece
                        self._waiting.append(piece)
                    case Failure(error):
                        raise error_of_object(error)
        except (ValueError, KeyError) as error:
            raise Internal(f"the server's answer is no output of a process: {error}") from error

    def _take_output(self, stream: Stream, offset: int, content: bytes) -> None:
        at = self.offsets.get(stream)
        if at is None:
            return
        if offset < at:
            content = content[at - offset :]
            offset = at
        if not content:
            return
        self.dropped[stream] += offset - at
        self.offsets[stream] = offset + len(content)
        self._patience.reset()
        self._waiting.append(Output(stream, offset, content))
