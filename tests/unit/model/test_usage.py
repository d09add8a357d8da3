"""The arithmetic of an account: nothing is lost to rounding, nothing is counted twice."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.model.errors import InvalidArgument
from belljar.model.usage import (
    AMOUNTS,
    HOUR_US,
    Amounts,
    Counters,
    Ledger,
    Reading,
    UsageEntry,
    advance,
    close,
    entry_json,
    entry_of,
    hour_of,
    opened,
    promise,
)

MIB = 1 << 20
STARTED = 1_800_000_000.25


def account(**more: object) -> Ledger:
    made = opened("sb1", "default", cpus=0.5, memory=256 * MIB, started=STARTED)
    return replace(made, **more)  # type: ignore[arg-type]


def reading(at: float, cpu: int = 0, received: int = 0, sent: int = 0, memory: int | None = 0) -> Reading:
    return Reading(at, Counters(cpu, received, sent), memory, 0)


def summed(hours: dict[int, Amounts]) -> Amounts:
    total = Amounts()
    for amounts in hours.values():
        total += amounts
    return total


def test_time_and_promises_follow_from_the_beginning_and_the_end_alone():
    ledger, hours = close(account(), round((STARTED + 90) * 1e6), None)
    assert ledger.total == Amounts(
        running_us=90_000_000, promised_cpu_us=45_000_000, promised_memory_mib_ms=256 * 90_000
    )
    assert summed(hours) == ledger.total
    assert close(ledger, round((STARTED + 999) * 1e6), reading(0, 5)) == (ledger, {})


def test_memory_changes_evenly_between_two_readings_and_stays_where_there_is_no_second():
    ledger, _ = advance(account(), account().begun + 10_000_000, reading(0, memory=100 * MIB))
    assert ledger.total.memory_mib_ms == 100 * 10_000
    ledger, _ = advance(ledger, ledger.until + 10_000_000, reading(0, memory=300 * MIB))
    assert ledger.total.memory_mib_ms == 100 * 10_000 + 200 * 10_000
    ledger, _ = close(ledger, ledger.until + 10_000_000, Reading(0.0, Counters()))
    assert ledger.total.memory_mib_ms == 300 * 10_000 + 300 * 10_000


def test_a_counter_that_went_backwards_is_another_kernels_and_adds():
    ledger, _ = advance(account(), account().begun + 1, reading(0, 1000, 10, 20))
    ledger, _ = advance(ledger, ledger.until + 1, reading(0, 300, 50, 60))
    assert (ledger.total.cpu_us, ledger.total.received_bytes, ledger.total.sent_bytes) == (1300, 60, 80)


def test_what_could_not_be_read_is_told_by_the_next_reading():
    ledger, _ = advance(account(), account().begun + 1, reading(0, 1000))
    ledger, _ = advance(ledger, ledger.until + 1, Reading(0.0))
    ledger, _ = advance(ledger, ledger.until + 1, reading(0, 1700))
    assert ledger.total.cpu_us == 1700


def test_a_clock_that_was_set_back_takes_nothing_away():
    ledger, _ = advance(account(), account().begun + 5_000_000, reading(0, 1000))
    again, hours = advance(ledger, account().begun, reading(0, 1500))
    assert (again.until, again.total.running_us, again.total.cpu_us) == (ledger.until, 5_000_000, 1500)
    assert summed(hours) == Amounts(cpu_us=500)


def test_an_interval_over_hours_is_divided_among_them():
    begun = 1_000 * HOUR_US - 1_000_000
    ledger, hours = advance(account(begun=begun, until=begun), begun + HOUR_US + 2_000_000, reading(0, 36_020))
    assert [(hour, amounts.running_us) for hour, amounts in hours.items()] == [
        (999, 1_000_000),
        (1000, HOUR_US),
        (1001, 1_000_000),
    ]
    assert [amounts.cpu_us for amounts in hours.values()] == [10, 36_000, 10]
    assert hour_of(ledger.until) == 1001


STEPS = st.lists(
    st.tuples(
        st.integers(-HOUR_US, 3 * HOUR_US),
        st.none() | st.builds(Counters, *[st.integers(0, 1 << 50)] * 3),
        st.none() | st.integers(0, 1 << 42),
        st.none() | st.integers(0, 1 << 44),
    ),
    max_size=20,
)


@given(STEPS, st.floats(0.05, 256), st.integers(64 * MIB, 1 << 42), st.none() | st.integers(0, HOUR_US))
def test_hours_add_up_to_the_total_and_pieces_to_the_whole(
    steps: list[tuple[int, Counters | None, int | None, int | None]], cpus: float, memory: int, rest: int | None
):
    ledger = opened("sb1", "default", cpus=cpus, memory=memory, started=STARTED)
    total, seen, cpu = Amounts(), Counters(), 0
    for time, counters, used, disk in steps:
        before = ledger
        ledger, hours = advance(ledger, ledger.until + time, Reading(0.0, counters, used, disk))
        assert ledger.until == max(before.until, before.until + time)
        assert set(hours) <= set(range(hour_of(before.until), hour_of(ledger.until) + 1))
        assert all(getattr(amounts, name) >= 0 for amounts in hours.values() for name in AMOUNTS)
        total += summed(hours)
        if counters is not None:
            cpu += counters.since(seen).cpu_us
            seen = counters
    ledger, hours = close(ledger, None if rest is None else ledger.until + rest, None)
    total += summed(hours)
    assert ledger.closed
    assert total == ledger.total
    assert total.running_us == ledger.until - ledger.begun
    assert total.cpu_us == cpu
    assert total.promised_cpu_us == round(cpus * 1000) * total.running_us // 1000
    assert total.promised_memory_mib_ms == memory * total.running_us // (MIB * 1000)


def test_a_line_goes_through_json():
    entry = UsageEntry(sandbox="sb1", workspace="default", cpu_us=1_500_000, memory_mib_ms=2_048_000)
    assert entry_of(entry_json(entry) | {"later": 1}) == entry
    assert (entry.cpu_seconds, entry.memory_gib_seconds) == (1.5, 2.0)
    for wrong in (None, 1.0, "1", True):
        with pytest.raises(InvalidArgument):
            entry_of(entry_json(entry) | {"cpu_us": wrong})


def test_another_promise_counts_from_its_moment_on_and_not_before():
    ledger = opened("sb1", "default", cpus=1.5, memory=1 << 30, started=STARTED)
    begun = ledger.begun
    ledger, _ = advance(ledger, begun + 1_000_000, Reading(0.0, Counters(500), 100 * MIB))
    ledger, hours = promise(ledger, begun + 3_000_000, cpus=0.25, memory=256 * MIB)
    assert (ledger.until, ledger.total.promised_cpu_us) == (begun + 3_000_000, 4_500_000)
    assert sum(amounts.promised_memory_mib_ms for amounts in hours.values()) == 2 * 1024 * 1000
    again, _ = promise(ledger, begun, cpus=0.25, memory=256 * MIB)
    assert again == ledger
    ledger, _ = close(ledger, begun + 7_000_000, None)
    assert ledger.total.promised_cpu_us == 4_500_000 + 1_000_000
    assert ledger.total.promised_memory_mib_ms == 3 * 1024 * 1000 + 4 * 256 * 1000
    assert promise(ledger, begun + 9_000_000, cpus=9, memory=1) == (ledger, {})
