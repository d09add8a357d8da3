"""The standard input of a process: bytes are taken once, by offset, and written as the process reads."""

from __future__ import annotations

import os

from belljar_agent.loop import WRITE, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from belljar.wire.inflow import InStream
else:
    from _collections import deque

__all__ = ("WINDOW", "Input")

WINDOW = 256 << 10
"""Bytes that may wait here for the process to read."""
_PIECE = 65_536


class Input:
    """`fd` is the writing end, never blocking, owned by this; with `terminal` it is another descriptor of the master."""

    def __init__(self, loop: Loop, fd: int | None, *, terminal: bool = False) -> None:
        self._loop = loop
        self._fd = fd
        self._terminal = terminal
        self._waiting: deque[memoryview] = deque()
        self._last = b"\n"
        self._watched = False
        self._ending = False
        self._writer: InStream | None = None
        self._done: Callable[[tuple[str, str] | None], object] | None = None
        self.taken = 0
        self.waiting = 0

    @property
    def open(self) -> bool:
        return self._fd is not None and not self._ending

    def attach(self, stream: InStream, done: Callable[[tuple[str, str] | None], object]) -> None:
        """A new writer; `done` is told once when its stream must be answered: None for well done, or an error."""
        self._finish(("conflict", "another writer took over"))
        self._writer = stream
        self._done = done

    def take(self, data: bytes) -> None:
        """Bytes of the current writer."""
        self.taken += len(data)
        if self._fd is None:
            return
        self._waiting.append(memoryview(data))
        self.waiting += len(data)
        self._write()

    def end(self) -> None:
        """The writer has said all: closes the input when what waits is written."""
        self._ending = True
        if self._fd is None:
            self._finish(None)
        elif not self._waiting:
            self._close_pipe(None)

    def forget(self) -> None:
        """The writer's stream is gone; what was taken is still written."""
        self._writer = None
        self._done = None

    def close(self) -> None:
        """The process ended."""
        self._close_pipe(("conflict", "the process has ended"))

    def _ready(self, _events: int) -> None:
        if not self._write():
            # Some terminals say that they are ready and take nothing: look again in a moment, without spinning.
            self._watch(False)
            self._loop.after(0.005, self._again)

    def _again(self) -> None:
        self._write()

    def _write(self) -> bool:
        """False when the pipe took nothing."""
        before = self.waiting
        fd = self._fd
        waiting = self._waiting
        while waiting and fd is not None:
            first = waiting[0]
            try:
                count = os.write(fd, first[:_PIECE])
            except BlockingIOError:
                break
            except OSError:  # EPIPE: nobody will ever read it; EIO: the terminal is gone
                self._close_pipe(("conflict", "the process has closed its input"))
                return True
            self._last = bytes(first[count - 1 : count]) or self._last
            if count == len(first):
                waiting.popleft()
            else:
                waiting[0] = first[count:]
            self.waiting -= count
            if self._writer is not None:
                self._writer.consumed(count)
        if not waiting and self._ending:
            self._close_pipe(None)
            return True
        self._watch(bool(waiting))
        return self.waiting < before

    def _watch(self, want: bool) -> None:
        fd = self._fd
        if fd is None or want == self._watched:
            return
        self._watched = want
        if want:
            self._loop.watch(fd, WRITE, self._ready)
        else:
            self._loop.unwatch(fd)

    def _close_pipe(self, error: tuple[str, str] | None) -> None:
        fd = self._fd
        if fd is not None:
            self._watch(False)
            self._fd = None
            if self._terminal and error is None:
                self._say_end(fd)
            os.close(fd)
        self._ending = True
        self._waiting.clear()
        self.waiting = 0
        self._finish(error)

    def _say_end(self, fd: int) -> None:
        """A terminal's end of input is a character, and counts only at the start of a line."""
        import termios  # a library of its own to load, and only terminals need it

        try:
            modes = termios.tcgetattr(fd)
            if modes[3] & termios.ICANON:
                end: bytes = modes[6][termios.VEOF]
                os.write(fd, end if self._last == b"\n" else end * 2)
        except (OSError, termios.error):
            return

    def _finish(self, error: tuple[str, str] | None) -> None:
        done = self._done
        self._done = self._writer = None
        if done is not None:
            done(error)
