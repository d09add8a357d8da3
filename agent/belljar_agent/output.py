"""One output stream of a process: read from its pipe, kept in a ring, sent to at most one reader."""

from __future__ import annotations

import fcntl
import os
from time import monotonic

from belljar_agent.loop import READ, Loop
from belljar_agent.ring import HISTORY, KEEP, Ring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from belljar.wire.outbox import OutStream

__all__ = ("Output",)

_UNSENT = 1 << 20
"""Bytes that may wait for an attached reader before the process has to."""
_PIECE = 262_144
_HOT = 131_072
"""Bytes in quick succession that make a stream hot: it is then read every `_REST` seconds from a bigger pipe, because a
writer of small pieces would otherwise wake us for each one (8 KiB pieces: 60 MB/s, so 400)."""
_REST = 0.002
_SUCCESSION = 0.004
_HUNG = 0.05
_BIG_PIPE = 1 << 20
_F_SETPIPE_SZ = 1031


class Output:
    """Reader attached: back-pressure, nothing lost. No reader: the process never waits, the oldest bytes go.

    `held` is the time between: the reader's server vanished and its successor may come; the process waits.
    """

    def __init__(self, loop: Loop, fd: int | None, *, terminal: bool = False) -> None:
        self._loop = loop
        self._fd = fd
        self._terminal = terminal
        self._watched = False
        self._resting = False
        self._recent = 0
        self._last = 0.0
        self._big = False
        self._ended = False
        self.ring = Ring()
        self.keep = KEEP
        self.history = HISTORY
        self.closed = fd is None
        """No more bytes can come."""
        self.settled = fd is None
        """The process ended and its pipe had time: a reader that has all is at the end."""
        self._reader: OutStream | None = None
        self._gone: Callable[[], object] | None = None
        self._at = 0
        """Offset of the next byte for the reader (or, while held, for the one that may come)."""
        self._held = False
        self._listen()

    @property
    def fd(self) -> int | None:
        """None once nothing more can come."""
        return self._fd

    def state(self) -> dict[str, Any]:
        ring = self.ring
        return {"start": ring.start, "end": ring.end, "dropped": ring.dropped, "closed": self.closed or self.settled}

    # readers ---------------------------------------------------------------------------------------------------------

    def start_of(self, offset: int) -> int:
        """Where a reader that asks for `offset` would start."""
        return max(offset, self.ring.start)

    def attach(self, stream: OutStream, gone: Callable[[], object]) -> None:
        """`stream` starts at its own offset, from `start_of`. The reader before it is ended. `gone` is called at its end."""
        self._end_reader("another reader took over")
        self._held = False
        self._reader = stream
        self._gone = gone
        self._at = stream.offset
        stream.wake()
        self._listen()

    def pull(self, limit: int) -> bytes | None:
        """For the stream: its next bytes; None at the end."""
        data = self.ring.read(self._at, limit)
        if not data and limit > 0 and self.settled and self._read():
            # It had to wait for this reader with the last of it.
            data = self.ring.read(self._at, limit)
        if data:
            self._at += len(data)
            self.ring.sent = max(self.ring.sent, self._at)
            self.ring.trim(self.history, self._at)
            self._listen()
            return data
        if self._at >= self.ring.end and (self.closed or self.settled):
            self._drop_reader()
            self._listen()
            return None
        return b""

    def detach(self, why: str = "detached") -> None:
        """Nobody reads, nobody will: the process is free."""
        self._end_reader(why)
        self._release()

    def cancelled(self) -> None:
        """The reader's stream was ended by the server."""
        self._drop_reader()
        self._release()

    def hold(self) -> None:
        """The server vanished: the process waits for a while for the next one."""
        if self._reader is not None:
            self._drop_reader()
            self._held = True

    def release(self) -> None:
        """The while is over."""
        if self._held:
            self._release()

    # the pipe --------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """The process ended: takes what its pipe still holds, as far as bounds allow."""
        self._ended = True
        while not self._full and self._read():
            pass

    def settle(self) -> None:
        """The pipe had its time after the end of the process."""
        self.settled = True
        self._wake()

    def close(self) -> None:
        """Gives the pipe up; what was kept stays readable."""
        self._hang_up()
        self.settled = True
        self._wake()

    @property
    def _full(self) -> bool:
        return (self._reader is not None or self._held) and self.ring.end - self._at >= _UNSENT

    def _listen(self) -> None:
        want = self._fd is not None and not self._full and not self._resting
        if want != self._watched and self._fd is not None:
            self._watched = want
            if want:
                self._loop.watch(self._fd, READ, self._ready)
            else:
                self._loop.unwatch(self._fd)

    def _ready(self, _events: int) -> None:
        size = self._read()
        if size and not self._terminal:
            now = monotonic()
            self._recent = size + (self._recent if now - self._last < _SUCCESSION else 0)
            self._last = now
            if self._recent >= _HOT:
                self._rest()

    def _rest(self) -> None:
        fd = self._fd
        if fd is not None and not self._big:
            self._big = True
            try:
                fcntl.fcntl(fd, _F_SETPIPE_SZ, _BIG_PIPE)
            except OSError:
                self._recent = 0  # no bigger pipe to be had: then resting would only slow the process down
                return
        self._resting = True
        self._listen()
        self._loop.after(_REST, self._rested)

    def _rested(self) -> None:
        self._resting = False
        got = 0
        while not self._full and got < _BIG_PIPE and (size := self._read()):
            got += size
        if got >= _HOT >> 1 and self._fd is not None:
            self._rest()
        else:
            self._recent = 0
            self._listen()

    def _read(self) -> int:
        """One piece from the pipe: its bytes; 0 when there is none now."""
        fd = self._fd
        if fd is None:
            return 0
        try:
            data = os.read(fd, _PIECE)
        except BlockingIOError:
            return 0
        except OSError:  # EIO: nobody has the terminal's other end open
            data = b""
            if not self._ended:
                # Closing ours would be a hang-up (SIGHUP) for a program that is just about to end, or opens /dev/tty again.
                self._resting = True
                self._listen()
                self._loop.after(_HUNG, self._rested)
                return 0
        if not data:
            self._hang_up()
            self._wake()
            return 0
        self.ring.append(data)
        if self._reader is None and not self._held:
            self.ring.trim(self.keep)
        else:
            self._wake()
            self._listen()
        return len(data)

    def _wake(self) -> None:
        if self._reader is not None:
            self._reader.wake()

    def _hang_up(self) -> None:
        fd = self._fd
        if fd is not None:
            if self._watched:
                self._loop.unwatch(fd)
                self._watched = False
            self._fd = None
            self.closed = True
            os.close(fd)

    def _end_reader(self, why: str) -> None:
        reader = self._reader
        if reader is not None:
            self._drop_reader()
            reader.end({"error": {"code": "conflict", "message": why}})

    def _drop_reader(self) -> None:
        gone = self._gone
        self._reader = self._gone = None
        if gone is not None:
            gone()

    def _release(self) -> None:
        self._held = False
        self.ring.trim(self.keep)
        self._listen()
