"""The kernel: takes cells in the order of arrival, runs them one at a time, answers the host meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, cast

from belljar_kernel.backend import ERROR, INTERRUPTED, Backend, Cell, Outcome
from belljar_kernel.limits import ENDED_KEYS, MAX_NAME, VERSION
from belljar_kernel.lines import Writer, encode, read_lines
from belljar_kernel.renewal import Environment, Renewal, Unfit, read_at_start, stir

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from belljar_kernel.hostcalls import HostCalls

__all__ = ("Kernel",)

_BROKEN = 70
_LAST_WORDS = 2.0
"""Seconds that the code's own exit handlers have when the host hangs up."""


class Kernel:
    """`run` is the main thread's, and returns when the host has closed its end."""

    def __init__(self, backend: Backend, reading: int, writer: Writer, calls: HostCalls) -> None:
        self._backend, self._reading, self._writer, self._calls = backend, reading, writer, calls
        self._lock = threading.Lock()
        self._arrived: SimpleQueue[Cell | Callable[[], None] | None] = SimpleQueue()
        self._queued: OrderedDict[str, Cell] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._running: Cell | None = None
        self._began = 0.0
        self._count = 0
        self._environment = Environment()
        self._warm = False
        """Started before anybody asked for it, and nobody has since. The main thread's."""

    def run(self) -> None:
        pid = os.getpid()
        threading.Thread(target=self._read, name="belljar-reader", daemon=True).start()
        while (item := self._arrived.get()) is not None:
            if isinstance(item, Cell):
                self._warm = False
                self._run(item, pid)
            else:
                item()
        self._backend.close()

    def _run(self, cell: Cell, pid: int) -> None:
        with self._lock:
            if self._queued.pop(cell.key, None) is None:
                return  # interrupted before its turn
            self._running, self._began = cell, time.monotonic()
        self._calls.begin(cell)
        try:
            outcome = self._backend.execute(cell)
        except BaseException as error:  # noqa: BLE001 - whatever it was, the host has to hear of it
            cell.error("InternalError", f"the kernel failed: {type(error).__name__}: {error!s}", "")
            outcome = Outcome(ERROR, self._count)
        if os.getpid() != pid:
            os._exit(0)  # a child that the code forked came to the end of the cell
        self._calls.end()
        with self._lock:
            # Told under the lock, so that no `state` says that it is over before `done` does.
            self._count = outcome.number
            cell.done(outcome)
            self._end(cell.key)
            self._running = None

    def _renew(self, renewal: Renewal) -> None:
        """Between two cells: what runs goes on undisturbed."""
        warm = self._warm
        self._warm = warm and not renewal.taken
        if warm and (variable := read_at_start(renewal.env)):
            raise Unfit(f"{variable} counts when an interpreter starts")
        self._backend.renew(self._environment.changes(renewal))

    def _warm_up(self, modules: list[str]) -> None:
        self._backend.warm(modules)
        self._warm = not self._count and not self._ended

    def _answered(self, kind: str, name: str, work: Callable[[], None]) -> None:
        said = {"kind": kind, "name": name}
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the code may have changed anything it meets
            said["error"] = f"{type(error).__name__}: {error!s}"[:1000]
        self._writer.send(encode(said))

    def _read(self) -> None:
        try:
            for line in read_lines(self._reading):
                self._take(line)
            self._hang_up()
        except BaseException:  # noqa: BLE001 - without this thread nobody can reach the kernel
            os._exit(_BROKEN)

    def _take(self, line: Mapping[str, Any]) -> None:
        op = line.get("op")
        if op == "execute":
            self._execute(line)
        elif op == "interrupt":
            self._interrupt(line)
        elif op == "reply":
            error = _object(line.get("error"))
            told = None if error is None else (str(error.get("name")), str(error.get("message", "")))
            self._calls.reply(str(line.get("call")), str(line.get("value", "")), told)
        elif op == "hello":
            self._hello(line)
        elif op == "renew":
            renewal = Renewal.of(line)
            if renewal.reseed and self._running is not None:
                # A cell that runs for hours must not share its secrets with other clones. Not by this thread: the code may
                # have put something of its own there.
                threading.Thread(target=stir, name="belljar-stir", daemon=True).start()
            self._later("renewed", line, lambda: self._renew(renewal))
        elif op == "warm":
            modules = line.get("modules")
            names = [str(module) for module in cast("list[Any]", modules)] if isinstance(modules, list) else []
            self._later("warmed", line, lambda: self._warm_up(names))

    def _later(self, kind: str, line: Mapping[str, Any], work: Callable[[], None]) -> None:
        self._arrived.put(partial(self._answered, kind, str(line.get("name"))[:MAX_NAME], work))

    def _execute(self, line: Mapping[str, Any]) -> None:
        key, code = line.get("key"), line.get("code")
        if not isinstance(key, str) or not isinstance(code, str):
            return
        env = {name: str(value) for name, value in (_object(line.get("env")) or {}).items()}
        with self._lock:
            if key in self._queued or key in self._ended or (self._running is not None and self._running.key == key):
                return
            cell = Cell(self._writer, key, code, env=env, silent=bool(line.get("silent")))
            self._queued[key] = cell
        self._arrived.put(cell)

    def _interrupt(self, line: Mapping[str, Any]) -> None:
        key = line.get("key")
        with self._lock:
            if isinstance(key, str) and (waiting := self._queued.pop(key, None)) is not None:
                waiting.done(Outcome(INTERRUPTED, self._count))
                self._end(key)
            elif self._running is not None and self._running.key == key:
                if line.get("reason") == "timeout":
                    self._running.timed_out = str(line.get("message") or "the cell ran longer than it may")
                self._stop(self._running)

    def _stop(self, cell: Cell) -> None:
        cell.interrupted = True
        self._calls.interrupt()
        self._backend.interrupt(cell)

    def _hello(self, line: Mapping[str, Any]) -> None:
        if isinstance(names := line.get("own"), list):
            self._environment.own(str(name) for name in cast("list[Any]", names))
        with self._lock:
            running = self._running
            state = {
                "kind": "state",
                "session": line.get("session"),
                "version": VERSION,
                "language": self._backend.language,
                "language_version": self._backend.language_version,
                "running": None if running is None else running.key,
                "elapsed": 0.0 if running is None else round(time.monotonic() - self._began, 3),
                "queued": list(self._queued),
                "ended": list(self._ended),
                "calls": self._calls.pending(),
                "warm": self._warm and running is None and not self._queued,
            }
            self._writer.send(encode(state))

    def _end(self, key: str) -> None:
        self._ended[key] = None
        if len(self._ended) > ENDED_KEYS:
            self._ended.popitem(last=False)

    def _hang_up(self) -> None:
        """The host has closed its end for good: no cell is of use to anybody."""
        watch = threading.Timer(_LAST_WORDS, os._exit, (0,))
        watch.daemon = True
        watch.start()
        with self._lock:
            self._queued.clear()
            if self._running is not None:
                self._stop(self._running)
        self._arrived.put(None)


def _object(value: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None
