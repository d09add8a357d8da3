"""The history of stats: the readings of accounts, kept close together for an hour and a minute apart for a day."""

from itertools import pairwise

import pytest
from tests.unit.control.conftest import Plant
from tests.unit.control.test_usage import metered, running

from belljar.base.tasks import wait_until
from belljar.control.history import History
from belljar.model.usage import Counters, Reading


def reading(at: float, number: int = 1) -> Reading:
    return Reading(at, Counters(number * 1_000_000, number, 2 * number), 3 * number, 4 * number, 5)


@pytest.mark.parametrize(("every", "near", "far"), [(30.0, 121, 1380), (5.0, 721, 1380), (600.0, 7, 138)])
def test_points_are_near_for_an_hour_and_far_for_a_day(every: float, near: int, far: int) -> None:
    history = History(every=every)
    count = int(30 * 3600 / every)  # thirty hours
    for number in range(count):
        history.add({"sb1": reading(1000.0 + number * every, number)})
    points = history.of("sb1")
    ats = [point.at for point in points]
    assert ats == sorted(set(ats))
    last = points[-1]
    assert len([at for at in ats if at >= last.at - 3600]) == near
    old = [at for at in ats if at < last.at - 3600]
    assert abs(len(old) - far) <= 2
    assert {later - sooner for sooner, later in pairwise(old)} == {max(60.0, every)}
    number = count - 1
    assert (last.cpu_seconds, last.memory, last.disk) == (float(number), 3 * number, 4 * number)
    assert (last.received_bytes, last.sent_bytes, last.processes) == (number, 2 * number, 5)
    assert [point.at for point in history.of("sb1", since=ats[-3])] == ats[-3:]
    assert history.of("unknown") == []


def test_what_could_not_be_read_is_no_point() -> None:
    history = History(every=30.0)
    for half in (Reading(1.0), Reading(2.0, Counters()), Reading(3.0, None, 1, 1, 1), Reading(4.0, Counters(), 1, 1)):
        history.add({"sb1": half})
    assert history.of("sb1") == []


def test_what_does_not_run_any_more_is_forgotten() -> None:
    history = History(every=30.0)
    for id in ("sb1", "sb2"):
        history.add({id: reading(1.0)})
    history.keep_only({"sb2", "sb3"})
    assert (history.of("sb1"), len(history.of("sb2"))) == ([], 1)


async def test_the_readings_of_accounts_are_the_points(plant: Plant):
    made = await running(plant)
    plant.node.readings[made.id] = reading(plant.clock.now())
    async with metered(plant, every=0.2) as (usage, _):

        async def there() -> bool:
            return [point.memory for point in usage.history.of(made.id)] == [3]

        assert await wait_until(there, timeout=10)
