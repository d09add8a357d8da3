"""The memory guard: ends the guilty process tree before the sandbox reaches its limit, so that the sandbox itself lives.

It looks again sooner the less is free: a program can take 2 GB/s. What it finds guilty is the heaviest tree, and in it the
process below which no single child stands out: a bomb of a thousand small children ends with their parent, while the shell
that started it stays.
"""

from __future__ import annotations

import os
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from belljar_agent.loop import Loop, Timer

    Killed = Callable[[int, list[int], str], object]

__all__ = ("Guard", "Task", "guilty", "heavy_part", "reserve", "shown_memory")

_RATE = 2 << 30
"""Bytes per second that a bomb takes at most."""
_SHORTEST = 0.01
_LONGEST = 1.0
_PAGE = 4096
_MARGIN = 128 << 20
"""Half of what the host allows above the limit at least: memory that may be overdrawn for the moment between two looks. Each
look wakes the kernel, 0.5 ms of CPU, and a hundred idle sandboxes should cost nothing to speak of."""
_RECLAIM = 0.5
"""Seconds that the kernel gets to take back what was freed. Nobody else is ended meanwhile, unless still more is taken."""
_MORE = 16 << 20


class Task:
    """A process as the guard sees it; `weight` is its resident memory in bytes."""

    __slots__ = ("children", "name", "parent", "pid", "total", "weight")

    def __init__(self, pid: int, parent: int, weight: int, name: str) -> None:
        self.pid = pid
        self.parent = parent
        self.weight = weight
        self.name = name
        self.total = weight
        self.children: list[Task] = []


class Guard:
    """`proc` is a descriptor of the outer /proc; `spared` gives pids that are ours; `limit` bytes, or None: what is shown.
    `memory` gives bytes in all and those that are free.

    `killed(pid, tree, name)` is told after the fact; `tick` is called at each look. While `idle` says that nothing of the users
    is there, nobody looks, until `wake`.
    """

    def __init__(
        self,
        loop: Loop,
        proc: int,
        spared: Callable[[], set[int]],
        limit: Callable[[], int | None],
        killed: Killed,
        tick: Callable[[], object],
        idle: Callable[[], bool],
        memory: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        self._loop = loop
        self._proc = proc
        self._spared = spared
        self._limit = limit
        self._killed = killed
        self._tick = tick
        self._idle = idle
        self._memory = memory or shown_memory
        self._waiting: Timer | None = None
        """For the next look."""
        self._ended_at = float("-inf")
        self._least = 0
        """Bytes that were free at the last end, or fewer since."""
        self._total = 0

    def begin(self) -> None:
        self._total = self._memory()[0]
        self._look()

    def wake(self) -> None:
        """Something is about to be started."""
        if self._waiting is None and self._total:
            self._waiting = self._loop.after(_SHORTEST, self._look)

    def hurry(self) -> None:
        """The limit is another one: what is free has to be looked at now."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        self.wake()

    def _look(self) -> None:
        self._tick()
        free, limit = self.free()
        left = free - reserve(limit)
        if left < 0:
            self._act(free, limit)
        elif self._idle():
            self._waiting = None
            return
        wait = (left + _MARGIN if left > _MARGIN else left) / _RATE
        self._waiting = self._loop.after(max(_SHORTEST, min(_LONGEST, wait)), self._look)

    def _act(self, free: int, limit: int) -> None:
        now = monotonic()
        if now - self._ended_at < _RECLAIM and free > self._least - _MORE:
            return
        if self._end_heaviest(limit):
            self._ended_at = now
            self._least = free

    def free(self) -> tuple[int, int]:
        """Bytes that may still be used, and the limit. The kernel shows a higher total once more than all is used."""
        total, free = self._memory()
        limit = min(self._limit() or self._total, total)
        return limit - (total - free), limit

    def _end_heaviest(self, limit: int) -> bool:
        tasks = self._tasks()
        top = guilty(tasks, self._spared())
        if top is None or top.total < limit >> 6:
            return False
        tree = list(_below(top))
        for task in tree:
            try:
                os.kill(task.pid, 9)
            except OSError:
                continue
        self._killed(top.pid, [task.pid for task in tree], top.name)
        return True

    def _tasks(self) -> list[Task]:
        tasks: list[Task] = []
        for name in os.listdir(self._proc):
            if name.isdecimal():
                task = self._task(name)
                if task is not None:
                    tasks.append(task)
        return tasks

    def _task(self, pid: str) -> Task | None:
        try:
            fd = os.open(f"{pid}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        except OSError:
            return None
        try:
            text = os.read(fd, 1024).decode("utf-8", "replace")
        except OSError:
            return None
        finally:
            os.close(fd)
        head, _, rest = text.rpartition(")")
        fields = rest.split()
        if len(fields) < 22 or fields[0] in "ZX":
            return None
        return Task(int(pid), int(fields[1]), int(fields[21]) * _PAGE, head.partition("(")[2][:64])


def shown_memory() -> tuple[int, int]:
    """Bytes in all, and those that are free.

    What the host has given, by sysinfo(2). For /proc/meminfo gVisor (2026-09) asks after each page, and not again for eight
    times as long as that took: on a loaded host what it shows is seconds old. After a checkpoint it also counts files on the
    disk there.
    """
    return os.sysconf("SC_PHYS_PAGES") * _PAGE, os.sysconf("SC_AVPHYS_PAGES") * _PAGE


def reserve(limit: int) -> int:
    """What is kept free: the room in which a bomb is caught."""
    return min(max(limit >> 5, 8 << 20), 64 << 20)


def guilty(tasks: list[Task], spared: set[int]) -> Task | None:
    """The root of the tree to end; None when there is nobody."""
    by_pid = {task.pid: task for task in tasks}
    tops: list[Task] = []
    for task in tasks:
        if task.pid in spared:
            continue
        parent = by_pid.get(task.parent)
        if parent is None or parent.pid in spared:
            tops.append(task)
        else:
            parent.children.append(task)
    for task in tops:
        order = list(_below(task))
        for each in reversed(order):
            each.total = each.weight + sum(child.total for child in each.children)
    return max((heavy_part(task) for task in tops), key=lambda task: task.total, default=None)


def heavy_part(task: Task) -> Task:
    """From the top of a tree down, while one child holds more than half of all that is there."""
    while task.children:
        heaviest = max(task.children, key=lambda child: child.total)
        if heaviest.total * 2 <= task.total:
            break
        task = heaviest
    return task


def _below(task: Task) -> list[Task]:
    """The tree, parents first. A loop of parents cannot be in a process table, but nothing here would hang on it."""
    found = [task]
    for each in found:
        found.extend(each.children)
    return found
