"""KeyboardInterrupt in one cell and no other, and not while a line is half written.

The thread that hears of an interrupt names the cell and wakes the main thread by a signal of our own. Its handler runs on the
main thread and raises only while just that cell's code runs, so one that comes late ends nothing. SIGINT itself, which code may
catch or block, works as anywhere.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType, TracebackType

__all__ = ("Interrupts", "Process", "children", "interrupt_children", "interrupts")

_SIGNAL = signal.SIGRTMAX - 3
_AGAIN = 0.05
_TRIES = 100


class Interrupts:
    """One per process. `arm`, `disarm` and `with` are the main thread's; `ask` may be called by any."""

    def __init__(self) -> None:
        self._armed: str | None = None
        self._wanted: str | None = None
        self._shields = 0
        self._main = threading.main_thread().ident

    def install(self) -> None:
        signal.signal(_SIGNAL, self._on_ours)
        signal.signal(signal.SIGINT, self._on_sigint)

    def arm(self, key: str) -> None:
        """From here on code of this cell runs. Raises KeyboardInterrupt if it was asked for before."""
        self._armed = key
        self._raise_if_wanted()

    def disarm(self) -> None:
        self._armed = None

    def over(self) -> None:
        """The cell has ended: what was asked for and did not come is not wanted any more."""
        self._wanted = None

    def ask(self, key: str) -> None:
        self._wanted = key
        self._wake()
        threading.Thread(target=self._insist, args=(key,), name="belljar-interrupt", daemon=True).start()

    def _insist(self, key: str) -> None:
        """A signal that comes just before the code's system call is not seen by it: the call would sleep on."""
        for _ in range(_TRIES):
            time.sleep(_AGAIN)
            if self._wanted != key:
                return
            self._wake()

    def _wake(self) -> None:
        if self._main is not None:
            signal.pthread_kill(self._main, _SIGNAL)

    def __enter__(self) -> None:
        """Inside, on the main thread, nothing is raised; what was asked for meanwhile is raised at the end."""
        if threading.get_ident() == self._main:
            self._shields += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if threading.get_ident() == self._main:
            self._shields -= 1
            if not self._shields:
                self._raise_if_wanted()

    def _raise_if_wanted(self) -> None:
        if self._wanted is not None and self._wanted == self._armed:
            self._wanted = None
            raise KeyboardInterrupt

    def _on_ours(self, number: int, frame: FrameType | None) -> None:
        if not self._shields:
            self._raise_if_wanted()

    def _on_sigint(self, number: int, frame: FrameType | None) -> None:
        if self._armed is not None:
            self._wanted = self._armed
            self._on_ours(number, frame)


interrupts = Interrupts()


Process = tuple[int, int]
"""Id and beginning: an id alone may be another's by now."""


def children() -> frozenset[Process]:
    """The processes below this one. Where there is none that takes one call."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return frozenset()
    return frozenset(_descendants())


def interrupt_children(older: frozenset[Process]) -> None:
    """SIGINT to the processes below this one, but for the older ones."""
    for process in _descendants():
        if process not in older:
            with contextlib.suppress(OSError):
                os.kill(process[0], signal.SIGINT)


def _descendants() -> list[Process]:
    below: dict[int, list[Process]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            below.setdefault(int(fields[1]), []).append((int(name), int(fields[19])))
    found: list[Process] = []
    waiting = [os.getpid()]
    while waiting:
        for process in below.pop(waiting.pop(), ()):
            waiting.append(process[0])
            found.append(process)
    return found
