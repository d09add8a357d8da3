"""Points over time: as many as were promised, in their order, in little room."""

import pytest

from belljar.model.stats import Ring, StatsPoint


def point(at: float, number: int = 0) -> StatsPoint:
    return StatsPoint(at, number / 4, number, 1 << 45, number, (1 << 52) + 1, 3)


def test_a_point_comes_back_as_it_was() -> None:
    ring = Ring(every=10, seconds=600, early=1)
    said = StatsPoint(1_700_000_000.125, 1.5, 1 << 40, 7, 1 << 50, 0, 32768)
    ring.add(said)
    assert list(ring.points()) == [said]


@pytest.mark.parametrize("count", [0, 1, 59, 61, 62, 100, 5000])
def test_the_newest_are_kept_and_never_many_more(count: int) -> None:
    ring = Ring(every=10, seconds=600, early=1)
    for number in range(count):
        ring.add(point(number * 10.0, number))
        assert len(ring._numbers) <= 78 * 7  # pyright: ignore[reportPrivateUsage]
    found = list(ring.points())
    assert found == [point(number * 10.0, number) for number in range(max(0, count - 61), count)]


def test_what_is_too_close_or_behind_is_left_out() -> None:
    ring = Ring(every=60, seconds=600, early=2)
    for at in (0.0, 1.0, 30.0, 57.9, 59.0, 60.0, 20.0, 118.0, 119.0):
        ring.add(point(at))
    assert [found.at for found in ring.points()] == [0.0, 59.0, 118.0]
