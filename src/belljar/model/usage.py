"""What a sandbox used: whole numbers that are only ever added, so that every sum of them is exact.

A `Ledger` is one sandbox's account. `advance`, `promise` and `close` are the only ways to the next state of it: they have no
clock and do no I/O, and say what is to be added to which hour.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from belljar.model.errors import InvalidArgument

__all__ = (
    "AMOUNTS",
    "BY",
    "HOUR_US",
    "Amounts",
    "Counters",
    "Ledger",
    "Reading",
    "UsageEntry",
    "advance",
    "close",
    "entry_json",
    "entry_of",
    "hour_of",
    "micros",
    "millicores",
    "opened",
    "promise",
)

BY = ("sandbox", "hour", "workspace")
"""By what a report may be told."""
HOUR_US = 3_600_000_000
_MIB_MS = (1 << 20) * 1000
"""Bytes times microseconds in a MiB-millisecond: the finest unit whose sums over years fit into 64 bits."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What the host counted since the sandbox was first running: microseconds of processor time, and bytes of its link."""

    cpu_us: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(
            self.cpu_us + other.cpu_us,
            self.received_bytes + other.received_bytes,
            self.sent_bytes + other.sent_bytes,
        )

    def at_least(self, other: "Counters") -> "Counters":
        """The greater of each: two looks at the same counters may be answered in another order."""
        return Counters(
            max(self.cpu_us, other.cpu_us),
            max(self.received_bytes, other.received_bytes),
            max(self.sent_bytes, other.sent_bytes),
        )

    def since(self, before: "Counters") -> "Counters":
        """What came since `before`. One that went backwards belongs to another kernel: then all of them began at 0."""
        less = Counters(
            self.cpu_us - before.cpu_us,
            self.received_bytes - before.received_bytes,
            self.sent_bytes - before.sent_bytes,
        )
        return self if min(less.cpu_us, less.received_bytes, less.sent_bytes) < 0 else less


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a sandbox. `at`: seconds since 1970. `memory` and `disk`: bytes in use. `processes`: how many there are. None:
    it could not be read."""

    at: float
    counters: Counters | None = None
    memory: int | None = None
    disk: int | None = None
    processes: int | None = None


@dataclass(frozen=True, slots=True)
class Amounts:
    """`running_us`: microseconds. `cpu_us`: microseconds of one core. `memory_mib_ms`, `disk_mib_ms`: MiB in use times
    milliseconds. `received_bytes`, `sent_bytes`: by the sandbox. `promised_…`: its limits times the time that it ran.
    """

    running_us: int = 0
    cpu_us: int = 0
    memory_mib_ms: int = 0
    disk_mib_ms: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    promised_cpu_us: int = 0
    promised_memory_mib_ms: int = 0

    def __add__(self, other: "Amounts") -> "Amounts":
        return Amounts(*(getattr(self, name) + getattr(other, name) for name in AMOUNTS))


AMOUNTS = tuple(field.name for field in fields(Amounts))


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageEntry(Amounts):
    """A line of a report. `sandbox`, `workspace`: None where it tells of several. `hour`: its first second since 1970."""

    sandbox: str | None = None
    workspace: str | None = None
    hour: int | None = None

    @property
    def cpu_seconds(self) -> float:
        return self.cpu_us / 1e6

    @property
    def running_seconds(self) -> float:
        return self.running_us / 1e6

    @property
    def memory_gib_seconds(self) -> float:
        return self.memory_mib_ms / 1024e3

    @property
    def disk_gib_seconds(self) -> float:
        return self.disk_mib_ms / 1024e3


_ENTRY = ("sandbox", "workspace", "hour", *AMOUNTS)


def entry_json(entry: UsageEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in _ENTRY}


def entry_of(value: Mapping[str, Any]) -> UsageEntry:
    """Of its JSON; fields of a newer release are left out. Raises InvalidArgument for amounts that are no whole numbers."""
    if any(type(value.get(name)) is not int for name in AMOUNTS):
        raise InvalidArgument("an amount of the usage is no whole number")
    said: dict[str, Any] = {name: value.get(name) for name in _ENTRY}
    return UsageEntry(**said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """All that is counted of one sandbox up to the moment `until`; `begun` and `until` are microseconds since 1970.

    `millicores` and `memory` (bytes) are promised from `until` on; no millicores: it rests, and its time is none of running.
    `seen`, `memory_seen` and `disk_seen`: of the last reading. A `closed` one never changes again.
    """

    sandbox: str
    workspace: str
    millicores: int
    memory: int
    begun: int
    until: int
    closed: bool = False
    seen: Counters = Counters()
    memory_seen: int | None = None
    disk_seen: int | None = None
    total: Amounts = Amounts()


def micros(seconds: float) -> int:
    return round(seconds * 1e6)


def millicores(cpus: float) -> int:
    return round(cpus * 1000)


def hour_of(at_us: int) -> int:
    """Hours since 1970."""
    return at_us // HOUR_US


def opened(sandbox: str, workspace: str, *, cpus: float, memory: int, started: float) -> Ledger:
    """Of one that is running since `started` (seconds since 1970); `memory` in bytes."""
    begun = micros(started)
    return Ledger(
        sandbox=sandbox,
        workspace=workspace,
        millicores=millicores(cpus),
        memory=memory,
        begun=begun,
        until=begun,
    )


def advance(ledger: Ledger, until: int, reading: Reading | None) -> tuple[Ledger, dict[int, Amounts]]:
    """The account up to `until` (microseconds since 1970), and what came to each hour: together it is what came to the total.

    A moment that lies before what is counted adds no time; counters that moved are added all the same. Memory and disk change
    evenly between two readings; where there is no second one they stay as they were.
    """
    if ledger.closed:
        return ledger, {}
    begin, end = ledger.until, max(ledger.until, until)
    counters = ledger.seen if reading is None or reading.counters is None else reading.counters
    came = counters.since(ledger.seen)
    memory, disk = (reading.memory, reading.disk) if reading is not None else (None, None)
    memory = ledger.memory_seen if memory is None else memory
    disk = ledger.disk_seen if disk is None else disk
    spread = Amounts(
        cpu_us=came.cpu_us,
        memory_mib_ms=_area(ledger.memory_seen, memory, end - begin),
        disk_mib_ms=_area(ledger.disk_seen, disk, end - begin),
        received_bytes=came.received_bytes,
        sent_bytes=came.sent_bytes,
    )
    hours = {hour: _part(ledger, spread, begin, end, left, right) for hour, left, right in _pieces(begin, end)}
    total = ledger.total
    for amounts in hours.values():
        total += amounts
    after = replace(ledger, until=end, seen=counters, memory_seen=memory, disk_seen=disk, total=total)
    return after, {hour: amounts for hour, amounts in hours.items() if amounts != Amounts()}


def promise(ledger: Ledger, at: int, *, cpus: float, memory: int) -> tuple[Ledger, dict[int, Amounts]]:
    """The same up to `at` (microseconds since 1970), from where on other limits hold. `memory` in bytes. No `cpus`: it rests."""
    if ledger.closed:
        return ledger, {}
    after, hours = advance(ledger, at, None)
    return replace(after, millicores=millicores(cpus), memory=memory), hours


def close(ledger: Ledger, ended: int | None, final: Reading | None) -> tuple[Ledger, dict[int, Amounts]]:
    """The same up to the end, and nothing after it. `ended` None: nobody knows when; it ran as long as it was seen."""
    after, hours = advance(ledger, ledger.until if ended is None else ended, final)
    return replace(after, closed=True), hours


def _part(ledger: Ledger, spread: Amounts, begin: int, end: int, left: int, right: int) -> Amounts:
    """What belongs to the piece from `left` to `right`: each a difference of two sums from the beginning, rounded down, so that
    pieces add up to the whole.
    """

    def share(amount: int) -> int:
        if end == begin:
            return amount
        return amount * (right - begin) // (end - begin) - amount * (left - begin) // (end - begin)

    def promised(rate: int, unit: int) -> int:
        return rate * (right - ledger.begun) // unit - rate * (left - ledger.begun) // unit

    return Amounts(
        running_us=right - left if ledger.millicores else 0,
        cpu_us=share(spread.cpu_us),
        memory_mib_ms=share(spread.memory_mib_ms),
        disk_mib_ms=share(spread.disk_mib_ms),
        received_bytes=share(spread.received_bytes),
        sent_bytes=share(spread.sent_bytes),
        promised_cpu_us=promised(ledger.millicores, 1000),
        promised_memory_mib_ms=promised(ledger.memory, _MIB_MS),
    )


def _pieces(begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The hours that the time touches, each with its part of it. No time at all belongs to the hour that it is in."""
    left = begin
    while True:
        hour = hour_of(left)
        right = min(end, (hour + 1) * HOUR_US)
        yield hour, left, right
        if right >= end:
            return
        left = right


def _area(before: int | None, now: int | None, micros: int) -> int:
    if now is None:
        return 0
    return (now + (now if before is None else before)) * micros // (2 * _MIB_MS)
