"""The users' PID namespace: its init, its /proc, and the agent's own way to see processes from outside.

The agent and the users share one mount namespace. The agent keeps a descriptor of the outer /proc and of the pids cgroup and
detaches both, so that nothing is left below the users' /proc that taking mounts away could uncover, and no path (also
none that the agent itself is asked to open) leads to the agent's own descriptors.
"""

from __future__ import annotations

import os

from belljar_agent import system
from belljar_agent.forking import Outer
from belljar_agent.identity import bind_boot_id, make_boot_id
from belljar_agent.init import be_init

__all__ = ("CAPABILITIES", "Namespace")

CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31})
"""Docker's default set: chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot
mknod audit_write setfcap."""
_HIDDEN = "/.belljar/cgroup"
_GROUP = "belljar"
_MEMBERS = "users"


class Namespace:
    """Lives in the launcher. `init` is the outer pid of the namespace's init, 0 while there is none."""

    def __init__(self, outer: Outer) -> None:
        self._outer = outer
        self._again = outer.boot_id is not None
        """A launcher before this one, or this one, has made a namespace."""
        self.init = 0

    def prepare(self) -> list[int]:
        """Joins the cgroup; the first launcher also makes what is for once. The descriptors of `pids` and `boot_id`."""
        made: list[int] = []
        outer = self._outer
        if outer.boot_id is None:
            outer.pids = _pids_group()
            outer.boot_id = make_boot_id()
            made = [outer.boot_id] if outer.pids is None else [outer.boot_id, outer.pids]
        if outer.pids is not None:
            _write_at(outer.pids, f"{_MEMBERS}/cgroup.procs", "0")
            # A cgroup mount of the users' own (in a user namespace) begins below the group that has the limit.
            system.unshare(system.CLONE_NEWCGROUP)
        return made

    def begin(self) -> None:
        """Makes the namespace (anew). Its members are born as children of the launcher from now on. Raises OSError."""
        system.unmount("/proc", system.MNT_DETACH)
        self._unshare()
        ready, told = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if not pid:
            be_init(told, _furnish)
        os.close(told)
        try:
            answer = os.read(ready, 256)
        finally:
            os.close(ready)
        if answer != b"ok":
            raise OSError(5, answer.decode("utf-8", "replace") or "the init of the users' namespace did not start")
        self.init = pid
        self._again = True

    def lower(self) -> None:
        """No program started from here on gets more than the users may have. The launcher itself keeps what it needs."""
        system.drop_bounding(CAPABILITIES)

    @property
    def alive(self) -> bool:
        return self.init != 0

    def inner_pid(self, pid: int) -> int:
        """The number that the users know a child by; 0 if it is gone already."""
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return 0
        try:
            info = os.open(f"self/fdinfo/{handle}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._outer.proc)
            try:
                text = os.read(info, 4096)
            finally:
                os.close(info)
        except OSError:
            return 0
        finally:
            os.close(handle)
        for line in text.split(b"\n"):
            if line.startswith(b"NSpid:"):
                return int(line.split()[-1])
        return 0

    def _unshare(self) -> None:
        if self._again:
            # Linux makes another one only from the own namespace; gVisor takes either way.
            fd = os.open("self/ns/pid", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._outer.proc)
            try:
                system.enter(fd, system.CLONE_NEWPID)
            finally:
                os.close(fd)
        system.unshare(system.CLONE_NEWPID)


def _furnish() -> None:
    """In the new init: its own view of processes, and no right that the users do not have."""
    system.mount("proc", "/proc", "proc", system.MS_NOSUID | system.MS_NODEV | system.MS_NOEXEC)
    bind_boot_id()
    system.drop_bounding(CAPABILITIES)


def _pids_group() -> int | None:
    """A descriptor of the cgroup that limits the users, which no path leads to; None where there is no such thing.

    Version 2 only: with version 1, gVisor charges one of a task's seven groups, whichever comes first (2026-09), so that a
    pids limit holds now and then.
    """
    try:
        os.makedirs(_HIDDEN, 0o700, exist_ok=True)
        system.mount("none", _HIDDEN, "cgroup2")
    except OSError:
        return None
    try:
        group = f"{_HIDDEN}/{_GROUP}"
        os.makedirs(f"{group}/{_MEMBERS}", 0o700, exist_ok=True)
        return os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        system.unmount(_HIDDEN, system.MNT_DETACH)
        os.rmdir(_HIDDEN)


def _write_at(folder: int, name: str, text: str) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
