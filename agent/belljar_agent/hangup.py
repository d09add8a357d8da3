"""What happens to a terminal's processes when it goes away."""

from __future__ import annotations

import os

__all__ = ("hang_up", "session_members")

_HANG_UP, _CONTINUE = 1, 18


def hang_up(leader: int, proc: int | None) -> None:
    """SIGHUP, and SIGCONT for those that are stopped, to everything in the session of `leader`.

    A kernel tells the leader and the foreground, and a shell the rest when it ends; one that has just started a command may
    end without having told it. `proc`: a descriptor of the /proc to look into, None for this process's own.
    """
    members = session_members(leader, proc)
    for number in (_HANG_UP, _CONTINUE):
        for pid in members:
            try:
                os.kill(pid, number)
            except OSError:
                continue


def session_members(leader: int, proc: int | None) -> list[int]:
    """Pids of the session, the leader first if it is there."""
    folder = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if proc is None else os.dup(proc)
    try:
        pids = [int(name) for name in os.listdir(folder) if name.isdecimal()]
        return sorted((pid for pid in pids if _session(folder, pid) == leader), key=lambda pid: pid != leader)
    finally:
        os.close(folder)


def _session(folder: int, pid: int) -> int:
    try:
        fd = os.open(f"{pid}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return 0
    try:
        return int(os.read(fd, 1024).rpartition(b")")[2].split()[3])
    except (OSError, IndexError, ValueError):
        return 0
    finally:
        os.close(fd)
