"""The launcher: a child of the agent that starts the users' processes and reaps them.

It is not in the users' PID namespace, so nothing they do reaches it, and it waits for each start where the agent must not
(a starving machine can hold a new process up for long, and meanwhile somebody must look at the memory). Starts are vforks
(`posix_spawn`): 5 ms in gVisor where a fork takes 20. The user is switched in the launcher itself around the start,
keeping a saved uid of 0 to come back; exec forgets saved ids.
"""

from __future__ import annotations

import os
from errno import E2BIG, EACCES, EAGAIN, EINVAL, ENAMETOOLONG, ENOENT, ENOEXEC, ENOMEM, ENOTDIR
from marshal import dumps
from select import POLLIN, poll

from belljar_agent.channel import Receiver, send_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from _socket import socket
    from typing import Any

    from belljar_agent.forking import Outer
    from belljar_agent.namespace import Namespace
else:
    import _signal as signal

__all__ = ("Launcher",)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEFAULT = [1, 2, 3, 13, 15, 17, 20, 21, 22, 25]
"""Signals that Python, we, or whoever started us may ignore; exec resets those with a handler by itself."""


class _Failed(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Launcher:
    """Serves orders from the agent's socket until it closes. `outer` None: plain mode, an ordinary host process."""

    def __init__(self, link: socket, outer: Outer | None) -> None:
        self._link = link
        self._namespace: Namespace | None = None
        if outer is not None:
            from belljar_agent.namespace import Namespace

            self._namespace = Namespace(outer)
        self._children: set[int] = set()

    def run(self) -> None:
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        self._begin()
        receiver = Receiver(self._link)
        poller = poll()
        poller.register(wake, POLLIN)
        poller.register(self._link, POLLIN)
        while True:
            for fd, _ in poller.poll():
                if fd == wake:
                    _empty(wake)
                elif not receiver.receive():
                    self._end()
                    return
            self._reap()
            for order, fds in receiver.messages():
                self._order(order, fds)
                self._reap()

    def _begin(self) -> None:
        namespace = self._namespace
        if namespace is None:
            self._say(("ready", 0))
            return
        _set_limits()
        made = namespace.prepare()
        namespace.begin()
        namespace.lower()
        self._say(("ready", namespace.init), made)

    def _order(self, order: tuple[Any, ...], fds: list[int]) -> None:
        try:
            pid, inner = self._start(order, fds)
            self._say(("started", order[0], pid, inner))
        except _Failed as error:
            self._say(("failed", order[0], error.code, str(error)))
        finally:
            for fd in fds:
                os.close(fd)

    def _start(self, order: tuple[Any, ...], fds: list[int]) -> tuple[int, int]:
        _, argv, env, cwd, identity, terminal = order
        if self._namespace is not None and not self._namespace.alive:
            self._renew()
        switched = False
        try:
            # Before the user is switched: who runs the sandbox may start anybody anywhere, as `docker exec --workdir` does.
            try:
                os.chdir(cwd)
            except OSError as error:
                raise _directory_error(error, cwd) from None
            switched = self._become(identity)
            program = _find(argv[0], env.get(b"PATH"))
            if terminal:
                # Opened by the child after its setsid: that makes it the controlling terminal.
                actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0)]
                actions += [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
            else:
                actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(fds)]
            try:
                pid = os.posix_spawn(
                    program, argv, env, file_actions=actions, setsid=True, setsigmask=[], setsigdef=_DEFAULT
                )
            except OSError as error:
                raise _start_error(error, argv[0]) from None
        finally:
            if switched:
                os.setresuid(0, 0, 0)
                os.setresgid(0, 0, 0)
                os.setgroups([0])
            os.chdir("/")
        self._children.add(pid)
        return pid, self._namespace.inner_pid(pid) if self._namespace else pid

    def _become(self, identity: tuple[int, int, list[int]] | None) -> bool:
        if identity is None or identity == (0, 0, [0]):
            return False
        uid, gid, groups = identity
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, 0)
            os.setresuid(uid, uid, 0)
        except OSError as error:
            raise _Failed("not_supported", f"the user cannot be switched: {error.strerror}") from None
        return True

    def _reap(self) -> None:
        lost = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            if self._namespace is not None and pid == self._namespace.init:
                self._namespace.init = 0
                lost = True
            elif pid in self._children:
                self._children.discard(pid)
                self._say(("ended", pid, os.waitstatus_to_exitcode(status)))
        if lost:
            self._renew()

    def _renew(self) -> None:
        """The users' namespace is gone with all its processes: the kernel kills them, we wait for the last."""
        if self._namespace is None:
            return
        while self._children:
            pid, status = os.waitpid(-1, 0)
            if pid in self._children:
                self._children.discard(pid)
                self._say(("ended", pid, os.waitstatus_to_exitcode(status)))
        self._namespace.begin()
        self._say(("lost", self._namespace.init))

    def _end(self) -> None:
        """The agent is gone: so is everything it started."""
        for pid in self._children:
            try:
                os.killpg(pid, 9)
            except OSError:
                continue

    def _say(self, message: tuple[Any, ...], fds: list[int] | None = None) -> None:
        try:
            send_all(self._link, dumps(message), fds or [])
        except BrokenPipeError:
            return  # the agent is gone, which reading will tell


def _set_limits() -> None:
    """What the users' processes inherit."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1 << 20)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65_536, hard), hard))


def _find(name: bytes, path: bytes | None) -> bytes:
    """As execvp: a name with a slash is a path, others are looked for. Raises _Failed."""
    if b"/" in name:
        return name
    denied = False
    for folder in (path if path is not None else _PATH.encode()).split(b":"):
        candidate = os.path.join(folder or b".", name)
        try:
            if os.access(candidate, os.X_OK, effective_ids=True) and not os.path.isdir(candidate):
                return candidate
            denied = denied or os.path.isfile(candidate)
        except (OSError, ValueError):
            continue
    shown = name.decode("utf-8", "replace")
    if denied:
        raise _Failed("permission_denied", f"{shown}: not executable")
    raise _Failed("not_found", f"{shown}: no such program")


def _directory_error(error: OSError, cwd: bytes) -> _Failed:
    shown = cwd.decode("utf-8", "replace")
    if error.errno in (ENOENT, ENOTDIR):
        return _Failed("not_found", f"{shown}: no such directory to start in")
    return _Failed("permission_denied", f"{shown}: cannot start here: {error.strerror}")


def _start_error(error: OSError, name: bytes) -> _Failed:
    shown = name.decode("utf-8", "replace")
    number = error.errno
    if number in (ENOENT, ENOTDIR):
        if os.path.exists(name):
            return _Failed("not_found", f"{shown}: its interpreter or loader is not in the sandbox")
        return _Failed("not_found", f"{shown}: no such program")
    if number == EACCES:
        return _Failed("permission_denied", f"{shown}: not executable")
    if number in (EAGAIN, ENOMEM):
        return _Failed("limit_exceeded", f"{shown}: no more processes can be started ({error.strerror})")
    if number in (E2BIG, ENAMETOOLONG):  # gVisor says the second
        return _Failed("too_large", f"{shown}: its arguments and environment are too long for a program")
    if number in (ENOEXEC, EINVAL):
        return _Failed("invalid_argument", f"{shown}: not a program of this machine, and no script with a #! line")
    return _Failed("internal", f"{shown}: {error.strerror}")


def _empty(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        return


def _nothing(_number: int, _frame: object) -> None:
    """A handler, so that SIGCHLD wakes the poll."""
