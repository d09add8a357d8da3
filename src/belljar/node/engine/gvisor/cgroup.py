"""The host's limits around one instance: a cgroup of its own in every hierarchy that matters, version 1 or 2.

Memory has two marks. The guest sees the user's limit, and the agent inside ends the guilty process tree when it is reached.
What is written here lies higher by the engine's own need and by what a bomb allocates before the agent looks: it is the
backstop that ends the whole sandbox and keeps the host safe. The same for processes: the real limit is the guest's own.
"""

import asyncio
import contextlib
import errno
import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from belljar.base.tasks import in_thread
from belljar.model.errors import EngineFailed
from belljar.model.sandbox import Limits
from belljar.node.engine.api import Usage
from belljar.node.engine.gvisor.spec import CPU_PERIOD, cpu_quota

__all__ = ("Cgroups", "Hierarchies", "find_hierarchies", "memory_backstop")

ENGINE_MEMORY = 128 << 20
"""Of the kernel, its helpers and their page tables; 15 MiB at rest."""
TASK_MEMORY = 1 << 20
"""What one process inside costs the host beyond what the guest counts: 0.5 MiB among 100, 0.75 among 600 (measured). Files
in the overlay cost 5 KiB each, which have no bound of their own and so come out of the same room."""
_CONTROLLERS = ("memory", "cpu", "cpuacct", "pids")
_NEEDED = ("memory", "cpu", "pids")
_OCTAL = re.compile(r"\\([0-7]{3})")


def memory_backstop(limits: Limits) -> int:
    """Bytes at which the host ends the sandbox: the user's limit, the engine's need, and room for the agent to act in."""
    room = max(256 << 20, limits.memory // 4)
    return limits.memory + ENGINE_MEMORY + limits.pids * TASK_MEMORY + room


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Where cgroups are mounted: `v1` by controller, `v2` the unified one with the controllers that it offers."""

    v1: Mapping[str, Path] = field(default_factory=dict[str, Path])
    v2: Path | None = None
    v2_controllers: frozenset[str] = frozenset()

    def problem(self) -> str:
        """Why limits cannot be set here, or nothing."""
        missing = [c for c in _NEEDED if c not in self.v1 and c not in self.v2_controllers]
        return f"no cgroup controller here for {', '.join(missing)}" if missing else ""


def find_hierarchies(mountinfo: str) -> Hierarchies:
    """From the text of /proc/self/mountinfo; looks into the unified hierarchy's list of controllers."""
    v1: dict[str, Path] = {}
    v2: Path | None = None
    offered: frozenset[str] = frozenset()
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if len(fields) < 5 or len(kinds) < 3:
            continue
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        if kinds[0] == "cgroup":
            for controller in kinds[2].split(","):
                if controller in _CONTROLLERS:
                    v1.setdefault(controller, point)
        elif kinds[0] == "cgroup2" and v2 is None:
            v2 = point
            with contextlib.suppress(OSError):
                offered = frozenset((point / "cgroup.controllers").read_text().split())
    return Hierarchies(v1, v2, offered - v1.keys())


class Cgroups:
    """Names are relative, such as ``belljar-x/sb1``. What is not async blocks, for microseconds."""

    def __init__(self, hierarchies: Hierarchies) -> None:
        self._v1 = dict(hierarchies.v1)
        self._v2 = hierarchies.v2 if hierarchies.v2_controllers else None
        self._offered = hierarchies.v2_controllers
        self.problem = hierarchies.problem()

    def folders(self, name: str) -> tuple[Path, ...]:
        """One in each hierarchy; a process that enters them all is inside."""
        roots = dict.fromkeys(self._v1.values())
        if self._v2 is not None:
            roots[self._v2] = None
        return tuple(root / name for root in roots)

    def make(self, name: str) -> None:
        """Makes the groups, without limits. Repeating is fine. Raises OSError, and EngineFailed where version 2 has processes
        in the way.
        """
        if self._v2 is not None:
            try:
                self._enable_below(self._v2, name)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                raise EngineFailed(
                    f"limits cannot be set: processes sit directly in {self._v2}, so it hands no controller down",
                    hint="in a container: start it with --cgroupns=host, or move its processes into a child group first",
                ) from error
        for folder in self.folders(name):
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)

    def limit(self, name: str, limits: Limits, *, cpu: bool = True) -> None:
        """Writes the host's limits. `cpu` False leaves the processor alone (starting should not be throttled)."""
        pids = 4096 + 8 * limits.pids
        memory, quota = memory_backstop(limits), cpu_quota(limits)
        self._write_memory(name, memory)
        if (folder := self._of("pids", name)) is not None:
            _write(folder / "pids.max", pids)
        if cpu and (folder := self._of("cpu", name)) is not None:
            if "cpu" in self._v1:
                _write(folder / "cpu.cfs_period_us", CPU_PERIOD)
                _write(folder / "cpu.cfs_quota_us", quota)
            else:
                _write(folder / "cpu.max", f"{quota} {CPU_PERIOD}")

    def usage(self, name: str) -> Usage:
        """What is counted now; zeros for what cannot be read. Cached file data that can be dropped is not memory in use."""
        memory = 0
        if (folder := self._of("memory", name)) is not None:
            v1 = "memory" in self._v1
            total = _read(folder / ("memory.usage_in_bytes" if v1 else "memory.current"))
            memory = max(0, total - _key(folder / "memory.stat", "total_inactive_file" if v1 else "inactive_file"))
        cpu = (self.cpu_time(name) or 0) / 1e6
        folder = self._of("pids", name)
        return Usage(memory, cpu, 0 if folder is None else _read(folder / "pids.current"))

    def cpu_time(self, name: str) -> int | None:
        """Microseconds since the group was made; None for what cannot be read (a kernel that was started had some)."""
        micros = 0
        if "cpuacct" in self._v1:
            micros = _read(self._v1["cpuacct"] / name / "cpuacct.usage") // 1000
        elif self._v2 is not None:
            micros = _key(self._v2 / name / "cpu.stat", "usage_usec")
        return micros or None

    def was_out_of_memory(self, name: str) -> bool:
        """Whether the host ended something in the group at its memory limit."""
        if (folder := self._of("memory", name)) is None:
            return False
        return _key(folder / ("memory.oom_control" if "memory" in self._v1 else "memory.events"), "oom_kill") > 0

    def members(self, name: str) -> set[int]:
        """Process ids in any of the groups."""
        found: set[int] = set()
        for folder in self.folders(name):
            with contextlib.suppress(OSError):
                found.update(int(word) for word in (folder / "cgroup.procs").read_text().split())
        return found - {0}

    def children(self, name: str) -> set[str]:
        """Names of the groups directly below, in any hierarchy."""
        found: set[str] = set()
        for folder in self.folders(name):
            with contextlib.suppress(OSError):
                found.update(f"{name}/{entry.name}" for entry in folder.iterdir() if entry.is_dir())
        return found

    async def kill(self, name: str, *, timeout: float) -> set[int]:
        """SIGKILL to all in the groups until they are empty; gives their ids. Raises EngineFailed when they are not within
        `timeout` s.
        """
        killed: set[int] = set()
        deadline = asyncio.get_running_loop().time() + timeout
        pause = 0.001
        while members := await in_thread(self._kill_members, name):
            killed |= members
            if asyncio.get_running_loop().time() > deadline:
                raise EngineFailed(f"processes {sorted(members)[:8]} of {name} did not end within {timeout:g} s")
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)
        return killed

    async def remove(self, name: str, *, timeout: float = 5.0) -> None:
        """Removes the groups, which must be empty. Those that are not there are fine. Raises OSError."""
        deadline = asyncio.get_running_loop().time() + timeout
        for folder in self.folders(name):
            while True:
                try:
                    await in_thread(folder.rmdir)
                except FileNotFoundError:
                    break
                except OSError as error:
                    # A process that has just ended holds its group for a moment.
                    if error.errno != errno.EBUSY or asyncio.get_running_loop().time() > deadline:
                        raise
                    await asyncio.sleep(0.005)
                else:
                    break

    def _kill_members(self, name: str) -> set[int]:
        members = self.members(name)
        for pid in members:
            self._kill_member(name, pid)
        return members

    def _kill_member(self, name: str, pid: int) -> None:
        with contextlib.suppress(OSError):
            fd = os.pidfd_open(pid)
            try:
                # Still a member now that it is held: so it is the one that was listed, or another of the same group.
                if pid in self.members(name):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            finally:
                os.close(fd)

    def _of(self, controller: str, name: str) -> Path | None:
        if controller in self._v1:
            return self._v1[controller] / name
        return self._v2 / name if self._v2 is not None and controller in self._offered else None

    def _enable_below(self, root: Path, name: str) -> None:
        wanted = [c for c in _NEEDED if c in self._offered]
        folder = root
        for part in Path(name).parts:
            have = (folder / "cgroup.subtree_control").read_text().split()
            if missing := [c for c in wanted if c not in have]:
                _write(folder / "cgroup.subtree_control", " ".join(f"+{c}" for c in missing))
            folder /= part
            folder.mkdir(exist_ok=True, mode=0o755)

    def _write_memory(self, name: str, memory: int) -> None:
        folder = self._of("memory", name)
        if folder is None:
            return
        if "memory" not in self._v1:
            _write(folder / "memory.max", memory)
            # Without the second the kernel would pick one process; of a guest only all together make sense.
            for file, value in (("memory.swap.max", 0), ("memory.oom.group", 1)):
                with contextlib.suppress(FileNotFoundError):
                    _write(folder / file, value)
            return
        both = folder / "memory.memsw.limit_in_bytes"
        plain = folder / "memory.limit_in_bytes"
        # The limit with swap may never be below the one without, so the order depends on the direction.
        for file in (plain, both) if memory <= _read(plain) else (both, plain):
            with contextlib.suppress(FileNotFoundError):
                _write(file, memory)


def _write(file: Path, value: int | str) -> None:
    # Not write_text: that would create a missing file on a file system that allows it.
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)


def _read(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def _key(file: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
