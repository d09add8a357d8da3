"""The agent's side of its launcher: gives it orders, hears of ends, makes another if it should die."""

from __future__ import annotations

import _socket
import os
from marshal import dumps

from belljar_agent.channel import Receiver, frame, rights
from belljar_agent.forking import Outer, fork_launcher
from belljar_agent.loop import READ, WRITE, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from typing import Any, Protocol

    class Watcher(Protocol):
        """Who must know."""

        def ended(self, outer: int, returncode: int) -> None:
            """A process that was started has ended and was reaped."""
            ...

        def ready(self) -> None:
            """Processes can be started from now on."""
            ...

        def namespace_lost(self) -> None:
            """All processes ended with their namespace; a new one is there."""
            ...

    Started = Callable[[int, int], object]
    Failed = Callable[[str, str], object]
else:
    from _collections import deque

__all__ = ("Launching",)

_MOST_FAILURES = 5
"""Launchers in a row that ended before they were ready: then no other will do better."""


class Launching:
    """`outer` None: plain mode, no namespaces."""

    def __init__(self, loop: Loop, outer: Outer | None, watcher: Watcher) -> None:
        self._loop = loop
        self._outer = outer
        self._watcher = watcher
        self._link: _socket.socket | None = None
        self._receiver: Receiver | None = None
        self._queue: deque[tuple[memoryview, list[int]]] = deque()
        self._waiting: dict[int, tuple[Started, Failed]] = {}
        self._serial = 0
        self._failures = 0
        self.pid = 0
        self.init = 0
        """Outer pid of the users' init."""

    def adopt(self, pid: int, link: _socket.socket) -> None:
        """A launcher that was just forked."""
        self.pid = pid
        link.setblocking(False)
        self._link = link
        self._receiver = Receiver(link)
        self._loop.watch(link.fileno(), READ, self._ready)

    @property
    def busy(self) -> bool:
        """Starts are under way."""
        return bool(self._waiting)

    def start(
        self,
        argv: list[bytes],
        env: dict[bytes, bytes],
        cwd: bytes,
        identity: tuple[int, int, list[int]] | None,
        terminal: bytes | None,
        fds: list[int],
        started: Started,
        failed: Failed,
    ) -> None:
        """`fds` (stdin, stdout, stderr) are closed here. Exactly one of the callbacks is called, later."""
        self._serial += 1
        self._waiting[self._serial] = (started, failed)
        payload = dumps((self._serial, argv, env, cwd, identity, terminal))
        self._queue.append((memoryview(frame(payload, fds)), fds))
        self._flush()

    def _flush(self) -> None:
        link = self._link
        queue = self._queue
        while queue and link is not None:
            data, fds = queue[0]
            try:
                sent = link.sendmsg([data], rights(fds))
            except BlockingIOError:
                break
            except OSError:
                return  # its end is seen by the reading side
            for fd in fds:
                os.close(fd)
            if sent == len(data):
                queue.popleft()
            else:
                queue[0] = (data[sent:], [])
        if link is not None:
            self._loop.watch(link.fileno(), READ | WRITE if queue else READ, self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        receiver = self._receiver
        if not events & READ or receiver is None:
            return
        try:
            alive = receiver.receive()
        except BlockingIOError:
            return
        for message, fds in receiver.messages():
            self._told(message, fds)
        if not alive:
            self._died()

    def _told(self, message: tuple[Any, ...], fds: list[int]) -> None:
        what = message[0]
        if what == "started":
            self._waiting.pop(message[1])[0](message[2], message[3])
        elif what == "failed":
            self._waiting.pop(message[1])[1](message[2], message[3])
        elif what == "ended":
            self._watcher.ended(message[1], message[2])
        elif what == "lost":
            self.init = message[1]
            self._watcher.namespace_lost()
        else:
            self.init = message[1]
            self._failures = 0
            if self._outer is not None and fds:
                self._outer.boot_id = fds[0]
                self._outer.pids = fds[1] if len(fds) > 1 else None
            self._watcher.ready()

    def _died(self) -> None:
        """Cannot happen by anything users do; a fault of ours must not leave the sandbox without a launcher."""
        link, receiver = self._link, self._receiver
        self._link = self._receiver = None
        if link is not None and receiver is not None:
            self._loop.unwatch(link.fileno())
            receiver.close()
        for pid in (self.init, self.pid):
            if pid:
                _kill(pid)
        self.reap()
        for _, fds in self._queue:
            for fd in fds:
                os.close(fd)
        self._queue.clear()
        waiting = list(self._waiting.values())
        self._waiting.clear()
        for _, failed in waiting:
            failed("internal", "the launcher ended while it started this process")
        self._watcher.namespace_lost()
        self._failures += 1
        if self._failures > _MOST_FAILURES:
            raise SystemExit("the launcher does not start")
        self.adopt(*fork_launcher(self._outer))

    def reap(self) -> None:
        """Children of ours: the launcher, and in plain mode nothing else."""
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except OSError:
        return
