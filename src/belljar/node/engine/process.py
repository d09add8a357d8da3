"""Host processes: named by process id and start time, held by a descriptor while touched, so never mistaken for another."""

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from belljar.base.files import close_descriptors
from belljar.base.tasks import opened_in_thread

__all__ = (
    "HostProcess",
    "become_subreaper",
    "dead_children",
    "process_of",
    "kill_process",
    "open_process",
    "reap",
    "reap_ending",
    "wait_end",
    "written_by",
)

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class HostProcess:
    """`started` in clock ticks since boot: together with the id it names one process for ever."""

    pid: int
    started: int


def process_of(pid: int) -> HostProcess | None:
    """None when no such process is alive (a zombie is not)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        if fields[0] in (b"Z", b"X"):
            return None
        return HostProcess(pid, int(fields[19]))
    except (OSError, IndexError, ValueError):
        return None


def open_process(process: HostProcess) -> int | None:
    """A process descriptor of exactly this process, for the caller to close; None when it is gone."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return None
    # Opened first, compared second: if it is the same now, the descriptor cannot mean another one.
    if process_of(process.pid) == process:
        return fd
    os.close(fd)
    return None


def kill_process(process: HostProcess) -> bool:
    """SIGKILL; whether it was there."""
    fd = open_process(process)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


async def wait_end(process: HostProcess) -> None:
    """Returns when the process has ended, whoever its parent is."""
    fd = await opened_in_thread(close_descriptors, open_process, process)
    if fd is None:
        return
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_reader(fd, lambda: ended.done() or ended.set_result(None))
    try:
        await ended
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def reap(*pids: int) -> None:
    """Takes the exit status of those that are dead children of this process, so that no zombie stays."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            if pid > 0:
                os.waitpid(pid, os.WNOHANG)


async def reap_ending(*pids: int, timeout: float = 1.0) -> None:
    """As `reap`, for those that were killed just now: one that has left its group may still be on its way to the end."""
    until = time.monotonic() + timeout
    left = {pid for pid in pids if pid > 0}
    while left := {pid for pid in left if not _reaped(pid)}:
        if time.monotonic() > until:
            return
        await asyncio.sleep(0.002)


def _reaped(pid: int) -> bool:
    """Also true for one that is no child of this process, or no more."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def dead_children(cgroup: str = "") -> set[int]:
    """Children of this process that have ended and whose exit status nobody has taken yet; with `cgroup` those that were in it.

    The dead keep their group in hierarchies of version 2 alone.
    """
    found: set[int] = set()
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(int(word) for word in file.read_text().split())
    return {pid for pid in found if _is_dead(pid) and (not cgroup or _was_in(pid, cgroup))}


def _is_dead(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    return False


def _was_in(pid: int, cgroup: str) -> bool:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return line.removesuffix(" (deleted)").endswith(f"/{cgroup}")
    return False


def become_subreaper() -> None:
    """From now on the orphans of commands that this process starts become its children: kernels and gofers among them.

    So they are reaped at once, also where process 1 of a container reaps nobody.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def written_by(process: HostProcess, folder: Path) -> int:
    """Bytes on disk of the files below `folder` that the process has open, the unlinked ones among them; 0 when it is gone."""
    # The process may have left the mount it opened them through: then the link begins at that mount's root.
    total, mark = 0, f"/{folder.parent.name}/{folder.name}/"
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if mark in str(entry.readlink()):
                    total += entry.stat().st_blocks * 512
    return total
