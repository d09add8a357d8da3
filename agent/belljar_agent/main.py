"""Where the agent starts."""

from __future__ import annotations

import os
import sys

from belljar_agent.forking import Outer, fork_launcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from belljar_agent.service import Service

__all__ = ("main",)


def main() -> int:
    """``--plain --root DIR``: an ordinary host process, for tests and the fake engine. Otherwise PID 1 of a sandbox."""
    words = sys.argv[1:]
    os.umask(0o022)
    if "--plain" in words:
        root = os.path.abspath(words[words.index("--root") + 1]) if "--root" in words else os.getcwd()
        _serve(root, None, fork_launcher(None))
    else:
        outer = Outer()
        _serve("/", outer, fork_launcher(outer))
    return 0


def _serve(root: str, outer: Outer | None, launcher: tuple[int, socket]) -> None:
    from belljar_agent.service import Service  # after the fork: the launcher needs none of it

    service = Service(root, outer)
    service.launching.adopt(*launcher)
    if outer is not None:
        service.loop.after(_GUARD_DELAY, lambda: _watch_memory(service, outer))
    service.run()


_GUARD_DELAY = 0.05
"""Seconds: nothing of the users' runs yet, and the first answer is waited for."""


def _watch_memory(service: Service, outer: Outer) -> None:
    from belljar_agent.guard import Guard

    launching = service.launching

    def spared() -> set[int]:
        return {os.getpid(), launching.pid, launching.init}

    def tick() -> None:
        """An init that users have stopped would not reap their orphans."""
        if launching.init:
            try:
                os.kill(launching.init, 18)
            except OSError:
                return

    def idle() -> bool:
        return not service.running and outer.pids is not None and _count(outer.pids) <= _OURS

    guard = Guard(service.loop, outer.proc, spared, lambda: service.settings.memory, service.out_of_memory, tick, idle)
    service.on_start = guard.wake
    service.on_limit = guard.hurry
    guard.begin()


_OURS = 2
"""Members of the users' cgroup that are ours: the launcher and the init."""


def _count(pids: int) -> int:
    fd = os.open("pids.current", os.O_RDONLY | os.O_CLOEXEC, dir_fd=pids)
    try:
        return int(os.read(fd, 32))
    finally:
        os.close(fd)
