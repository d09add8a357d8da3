"""Time as the rest of the project sees it; tests pass their own."""

import time
from typing import Protocol

__all__ = ("Clock", "SystemClock", "boot_id")


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since 1970 (UTC): for records and for deadlines that outlive the process."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump: for waits within the process."""
        ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def boot_id() -> str:
    """The kernel's id of this boot of the machine: another one means that everything in memory is gone."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
