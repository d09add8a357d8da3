"""Python's own text streams on the pipes of the output: a line comes at once, a thousand of them together.

A print in gVisor costs 20 microseconds where each line is a system call that wakes a reader, and one where they gather. What
gathered goes out within 4 ms, when it is much, when the cell ends, and before the code starts a process, whose output is to
come after it.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Flusher", "TextStream")

_PAUSE = 0.004
_BUFFER = 64 << 10
_BROKEN = 70
_STARTS = frozenset(("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.spawn"))


class Flusher:
    """A thread of its own: whoever empties the pipes must not wait for a writer whose pipe is full."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self.quiet_until = 0.0
        """Of the monotonic clock: a line that is written later goes out at once."""
        self.asked = False
        self._wanted = threading.Event()
        sys.addaudithook(self._before)
        threading.Thread(target=self._run, name="belljar-flush", daemon=True).start()

    def ask(self) -> None:
        self._wanted.set()
        self.asked = True

    def _run(self) -> None:
        try:
            while True:
                self._wanted.wait()
                time.sleep(_PAUSE)
                self._wanted.clear()
                self.asked = False
                self.quiet_until = time.monotonic() + _PAUSE
                self._flush()
        except BaseException:  # noqa: BLE001 - without this thread output would wait for the cell's end
            os._exit(_BROKEN)

    def _before(self, event: str, _: object) -> None:
        if event in _STARTS and self.asked:
            self._flush()


class TextStream(io.TextIOWrapper):
    def __init__(self, number: int, flusher: Flusher) -> None:
        raw = io.FileIO(number, "w", closefd=False)
        super().__init__(io.BufferedWriter(raw, _BUFFER), "utf-8", "backslashreplace")
        self._flusher = flusher

    def write(self, text: str, /) -> int:
        count = super().write(text)
        flusher = self._flusher
        if "\n" in text and (now := time.monotonic()) > flusher.quiet_until:
            flusher.quiet_until = now + _PAUSE
            self.flush()
        elif not flusher.asked:
            flusher.ask()
        return count
