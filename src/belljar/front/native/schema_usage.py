"""What goes out of the usage."""

from belljar.front.native.schema import Out

__all__ = ("UsageEntryOut", "UsagePage")


class UsageEntryOut(Out):
    """Whole numbers, whose sums are exact. `…_us`: microseconds (of one core for `cpu_us`); `…_mib_ms`: MiB times milliseconds.
    `promised_…`: the sandbox's limits times the time that it ran. `sandbox`, `workspace`: null where an item tells of several.
    `hour`: its first second since 1970.
    """

    sandbox: str | None
    workspace: str | None
    hour: int | None
    running_us: int
    cpu_us: int
    memory_mib_ms: int
    disk_mib_ms: int
    received_bytes: int
    sent_bytes: int
    promised_cpu_us: int
    promised_memory_mib_ms: int


class UsagePage(Out):
    items: list[UsageEntryOut]
    next: str | None
