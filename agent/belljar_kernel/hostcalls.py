"""`belljar_host`: the code asks the host, and waits for the answer."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

from belljar_kernel.limits import MAX_CALL, MAX_NAME
from belljar_kernel.lines import TooBig

if TYPE_CHECKING:
    from belljar_kernel.backend import Cell

__all__ = ("HostCalls", "HostError", "install")

_TOO_BIG = f"a call's payload has at most {MAX_CALL >> 20} MiB; put data into a file of the sandbox"
_NO_CELL = "the host answers only while a cell runs"


class HostError(Exception):
    """What the host answered instead of a value. `name` is its kind there, `message` its words."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}" if message else name)
        self.name, self.message = name, message


class _Waiting:
    __slots__ = ("answered", "cell", "error", "value")

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.value = ""
        self.error: tuple[str, str] | None = ("Ended", "the cell ended before the host answered")
        self.answered = threading.Lock()
        self.answered.acquire()


class HostCalls:
    """The calls that wait. Any thread may call; each ends by an answer, by an interrupt, or with its cell."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[str, _Waiting] = {}
        self._cell: Cell | None = None
        os.register_at_fork(after_in_child=self._forget)

    def begin(self, cell: Cell) -> None:
        with self._lock:
            self._cell = cell

    def end(self) -> None:
        """The cell is over: nobody would answer any more."""
        self.interrupt()
        with self._lock:
            self._cell = None

    def interrupt(self) -> None:
        with self._lock:
            waiting = list(self._waiting.values())
            self._waiting.clear()
        for one in waiting:
            one.answered.release()

    def pending(self) -> list[str]:
        """The calls that wait for an answer."""
        with self._lock:
            return list(self._waiting)

    def reply(self, call: str, value: str, error: tuple[str, str] | None) -> None:
        with self._lock:
            found = self._waiting.pop(call, None)
        if found is not None:
            found.value, found.error = value, error
            found.answered.release()

    def call(self, name: str, payload: str = "") -> str:
        """Asks the host and waits for what it answers.

        Raises HostError for an error there, and when no cell runs; ValueError for a name or payload that cannot be sent.
        """
        if not isinstance(name, str) or not isinstance(payload, str):
            raise TypeError("name and payload are text")
        if not 0 < len(name) <= MAX_NAME:
            raise ValueError(f"a call's name has 1 to {MAX_NAME} characters")
        # Characters first, so that nothing huge is encoded only to be refused.
        if len(payload) > MAX_CALL or len(payload.encode("utf-8", "replace")) > MAX_CALL:
            raise ValueError(_TOO_BIG)
        with self._lock:
            cell = self._cell
            if cell is None:
                raise HostError("NoExecution", _NO_CELL)
            number = f"c{next(self._numbers)}"
            waiting = self._waiting[number] = _Waiting(cell)
        try:
            if not cell.call(number, name, payload):
                raise HostError("NoExecution", _NO_CELL)
            waiting.answered.acquire()
        except TooBig:
            raise ValueError(_TOO_BIG) from None
        finally:
            with self._lock:
                self._waiting.pop(number, None)
        if waiting.error is not None:
            raise HostError(*waiting.error)
        return waiting.value

    def _forget(self) -> None:
        """In a child that the code forked, where no answer would come."""
        self._lock, self._cell = threading.Lock(), None


def install(calls: HostCalls) -> None:
    """Makes `import belljar_host` find them."""
    module: Any = ModuleType("belljar_host", "Ask the program that runs this code: `call(name, payload) -> str`.")
    HostError.__module__ = "belljar_host"
    module.call, module.HostError = calls.call, HostError
    module.__all__ = ("call", "HostError")
    sys.modules["belljar_host"] = module
