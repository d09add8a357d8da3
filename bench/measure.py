"""Timing and memory, the same for every candidate."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ("Memory", "Series", "forget", "idle_memory", "rate")


@dataclass
class Series:
    """Seconds of one operation, as they came."""

    seconds: list[float] = field(default_factory=list)

    @contextmanager
    def time(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds.append(time.perf_counter() - started)

    def quantile(self, share: float) -> float:
        """Milliseconds. The nearest rank: of fewer than 100 values the 99th percentile is the largest."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3

    def as_json(self) -> dict[str, float]:
        """Milliseconds, and how many were measured."""
        return {
            "p50": round(statistics.median(self.seconds) * 1e3, 2),
            "p99": round(self.quantile(0.99), 2),
            "min": round(min(self.seconds) * 1e3, 2),
            "max": round(max(self.seconds) * 1e3, 2),
            "n": len(self.seconds),
        }


@dataclass(frozen=True)
class Memory:
    """MiB for each of `n` idle sandboxes. `dropped`: by how much the machine's available memory fell, page cache not
    counted. `unshared` and `pss`: private pages, and the proportional share, of the processes that came."""

    n: int
    dropped: float
    unshared: float
    pss: float
    processes: float

    def as_json(self) -> dict[str, float]:
        return {name: round(getattr(self, name), 1) for name in ("n", "dropped", "unshared", "pss", "processes")}


def forget(folder: Path, word: str = "") -> None:
    """Lets the host drop files below from its page cache, so that the next reader goes to the disk: all, or those with a word in
    their path.
    """
    for path in folder.rglob("*"):
        if path.is_file() and word in str(path):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rate(size: int, seconds: float) -> float:
    """MB/s (10^6 bytes)."""
    return round(size / seconds / 1e6, 1)


def idle_memory(
    start: Callable[[int], None], n: int, marker: str, *, server: int | None = None, settle: float = 2.0
) -> Memory:
    """Starts `n` sandboxes with ``start(index)`` and looks at what came.

    A sandbox's processes are those with `marker` (its state folder) on their command line, and their descendants. `server`: a
    process whose growth counts too.
    """
    before, available = _marked(marker), _available()
    server_before = _rollup(server) if server else {}
    for index in range(n):
        start(index)
    time.sleep(settle)
    pages = [found for pid in _marked(marker) - before if (found := _rollup(pid))]
    total = {key: sum(page.get(key, 0) for page in pages) for key in ("Pss", "Private_Clean", "Private_Dirty")}
    if server:
        after = _rollup(server)
        for key in total:
            total[key] += after.get(key, 0) - server_before.get(key, 0)
    unshared = total["Private_Clean"] + total["Private_Dirty"]
    return Memory(
        n, (available - _available()) / n / 1024, unshared / n / 1024, total["Pss"] / n / 1024, len(pages) / n
    )


def _marked(marker: str) -> set[int]:
    """Other processes with this word on their command line, and all below them."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError, IndexError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
    while below := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= below
    return found


def _available() -> int:
    """KiB that could be had without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def _rollup(pid: int) -> dict[str, int]:
    """KiB by name; empty for a process that has gone or has no memory of its own."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}
