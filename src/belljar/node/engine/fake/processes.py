"""The processes of a fake instance: those that carry its mark in their environment, and everything that descends from them."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from belljar.model.errors import EngineFailed
from belljar.node.engine.process import HostProcess, open_process, process_of

__all__ = ("Marked", "marks_with")


class Marked:
    """`mark` is a whole ``NAME=value``. `first`: one that is known to carry it; a process whose program begins just now shows
    no environment for a moment.
    """

    def __init__(self, mark: str, first: HostProcess | None = None) -> None:
        self._mark = mark
        self._first = first

    def processes(self) -> set[HostProcess]:
        found = {process for process, value in marks_with(self._mark) if not value}
        if self._first is not None and process_of(self._first.pid) == self._first:
            found.add(self._first)
        parents = _parents()
        while True:
            ids = {process.pid for process in found}
            more = {child for child, parent in parents.items() if parent in ids} - found
            if not more:
                return found
            found |= more

    def signal(self, number: signal.Signals) -> None:
        for process in self.processes():
            _signal(process, number)

    def kill(self, timeout: float) -> None:
        """Ends them all. Raises EngineFailed when some are left after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        known: set[HostProcess] = set()
        # Stopped first, and looked for until there is none that was not: so none makes a child unseen while others end.
        while new := self.processes() - known:
            for process in new:
                _signal(process, signal.SIGSTOP)
            known |= new
        for process in known:
            _signal(process, signal.SIGKILL)
        while left := [process for process in known if process_of(process.pid) == process]:
            if time.monotonic() > deadline:
                raise EngineFailed(f"{len(left)} processes of {self._mark} did not end within {timeout:g} s")
            time.sleep(0.001)


def _signal(process: HostProcess, number: signal.Signals) -> None:
    fd = open_process(process)
    if fd is not None:
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)


def marks_with(prefix: str) -> Iterator[tuple[HostProcess, str]]:
    """Every process whose environment has an entry that starts with `prefix`, and the rest of that entry."""
    wanted = prefix.encode()
    for folder in _folders():
        with contextlib.suppress(OSError):
            for entry in (folder / "environ").read_bytes().split(b"\0"):
                if entry.startswith(wanted) and (process := process_of(int(folder.name))) is not None:
                    yield process, entry[len(wanted) :].decode(errors="replace")
                    break


def _parents() -> dict[HostProcess, int]:
    found: dict[HostProcess, int] = {}
    for folder in _folders():
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            if fields[0] not in (b"Z", b"X"):
                found[HostProcess(int(folder.name), int(fields[19]))] = int(fields[1])
    return found


def _folders() -> Iterator[Path]:
    return (folder for folder in Path("/proc").iterdir() if folder.name.isdigit())
