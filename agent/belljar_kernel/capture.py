"""What is written to descriptors 1 and 2, by Python or below it, becomes output of the cell that runs.

Two pipes, and a thread that empties them. At the end of a cell the main thread empties them itself, so that all that was written
comes before `done`. What comes between two cells is kept for the next one, the newest of it.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import select
import sys
import termios
import threading
import time
from array import array
from collections import deque
from typing import TYPE_CHECKING

from belljar_kernel.interrupts import interrupts
from belljar_kernel.limits import LATE_CHARACTERS
from belljar_kernel.streams import Flusher, TextStream

if TYPE_CHECKING:
    from belljar_kernel.backend import Cell

__all__ = ("Capture",)

_READ = 128 << 10
_PIPE = 1 << 20
_PAUSE = 0.004
"""Seconds that small writes gather: a loop of prints becomes 250 events a second, not 100,000."""
_BUSY = 32 << 10
_BROKEN = 70


class Capture:
    """`begin` and `end` are the main thread's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cell: Cell | None = None
        self._late: deque[tuple[str, str]] = deque()
        self._late_size = self._late_lost = 0
        self._child = False
        self._flusher = Flusher(self.flush)
        self._sources = (_Source("stdout", 1, self._flusher), _Source("stderr", 2, self._flusher))
        sys.stdout, sys.stderr = [source.file for source in self._sources]
        os.register_at_fork(before=self.flush, after_in_child=self._leave)
        threading.Thread(target=self._pump, name="belljar-output", daemon=True).start()

    def begin(self, cell: Cell) -> None:
        for source in self._sources:
            source.restore()
        self._restore_streams()
        with interrupts, self._lock:
            self._read_all()  # as late output
            self._cell = cell
            if self._late_lost:
                cell.write("stderr", f"[{self._late_lost} characters written between the cells are left out]\n")
            for stream, text in self._late:
                cell.write(stream, text)
            self._late.clear()
            self._late_size = self._late_lost = 0

    def end(self) -> None:
        self.flush()
        _flush_c()
        if self._child:
            return
        with interrupts, self._lock:
            self._read_all()
            for source in self._sources:
                self._deliver(source.name, source.decoder.decode(b"", True))
            self._cell = None

    def flush(self) -> None:
        for source in self._sources:
            with contextlib.suppress(ValueError, OSError):
                source.file.flush()

    def _leave(self) -> None:
        """In a child that the code forked: what it prints goes to its parent's pipes, which only the parent reads."""
        self._child = True
        for source in self._sources:
            source.file.reconfigure(line_buffering=True)

    def _restore_streams(self) -> None:
        sys.__stdout__, sys.__stderr__ = (source.file for source in self._sources)  # pyright: ignore[reportConstantRedefinition]
        for source in self._sources:
            if not _is_open(getattr(sys, source.name, None)):
                setattr(sys, source.name, source.file)

    def _pump(self) -> None:
        try:
            poll = select.poll()
            for source in self._sources:
                poll.register(source.reading, select.POLLIN)
            while True:
                poll.poll()
                with self._lock:
                    taken = max(self._read(source) for source in self._sources)
                if taken < _BUSY:
                    time.sleep(_PAUSE)
        except BaseException:  # noqa: BLE001 - without this thread the code would wait for ever
            os._exit(_BROKEN)

    def _read_all(self) -> None:
        """What is in the pipes now, and not what a busy writer adds meanwhile."""
        for source in self._sources:
            left = source.waiting()
            while left > 0:
                taken = self._read(source)
                left = left - taken if taken else 0

    def _read(self, source: _Source) -> int:
        data = source.read()
        if data:
            self._deliver(source.name, source.decoder.decode(data))
        return len(data)

    def _deliver(self, stream: str, text: str) -> None:
        if not text or (self._cell is not None and self._cell.write(stream, text)):
            return
        text = text[-LATE_CHARACTERS:]
        self._late.append((stream, text))
        self._late_size += len(text)
        while self._late_size > LATE_CHARACTERS:
            stream, oldest = self._late.popleft()
            cut = min(self._late_size - LATE_CHARACTERS, len(oldest))
            self._late_size -= cut
            self._late_lost += cut
            if cut < len(oldest):
                self._late.appendleft((stream, oldest[cut:]))


class _Source:
    def __init__(self, name: str, number: int, flusher: Flusher) -> None:
        self.name, self._number, self._flusher = name, number, flusher
        self.reading, self._writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.reading, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._writing, 1031, _PIPE)  # F_SETPIPE_SZ, which Python 3.9 does not name
        self._id = _identity(self._writing)
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        os.dup2(self._writing, number)
        self.file = TextStream(number, flusher)

    def restore(self) -> None:
        """Code that closed or moved the descriptor did it for its own cell."""
        try:
            moved = _identity(self._number) != self._id
        except OSError:
            moved = True
        if moved:
            os.dup2(self._writing, self._number)
        if self.file.closed:
            self.file = TextStream(self._number, self._flusher)

    def waiting(self) -> int:
        count = array("i", [0])
        fcntl.ioctl(self.reading, termios.FIONREAD, count)
        return count[0]

    def read(self) -> bytes:
        try:
            return os.read(self.reading, _READ)
        except BlockingIOError:
            return b""


def _identity(number: int) -> tuple[int, int]:
    now = os.fstat(number)
    return now.st_dev, now.st_ino


def _is_open(stream: object) -> bool:
    try:
        return stream is not None and not getattr(stream, "closed", False)
    except Exception:  # noqa: BLE001 - the code may have put anything there
        return False


def _flush_c() -> None:
    """C libraries keep what they print in a buffer; whoever has one loaded usually has ctypes too."""
    if "ctypes" in sys.modules:
        with contextlib.suppress(Exception):
            ctypes = sys.modules["ctypes"]
            ctypes.CDLL(None).fflush(None)
