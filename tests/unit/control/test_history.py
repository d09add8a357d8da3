"""The history of stats: looked at in turn, forgotten with the end, never in the way of a node that fails."""

import asyncio
from collections.abc import Collection
from itertools import pairwise

import pytest
from tests.unit.control.conftest import LateClock, Plant

from belljar.base.tasks import wait_until
from belljar.control import history as module
from belljar.control.history import History
from belljar.model.errors import EngineFailed
from belljar.model.sandbox import SandboxSpec
from belljar.model.usage import Counters, Reading

HOME = "default"


def reading(at: float, number: int = 1) -> Reading:
    return Reading(at, Counters(number * 1_000_000, number, 2 * number), 3 * number, 4 * number, 5)


async def test_points_are_near_for_ten_minutes_and_a_minute_apart_before(plant: Plant):
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec())
        history = History(plant.node, control.index, every=10.0, clock=plant.clock)
        history._turn()
        for number in range(3 * 360):  # three hours
            plant.node.readings[made.id] = reading(1000.0 + number * 10, number)
            await history.look([made.id])
        points = history.of(made.id)
        ats = [point.at for point in points]
        assert ats == sorted(set(ats))
        near = [at for at in ats if at >= ats[-1] - 600]
        assert len(near) == 61
        far = [at for at in ats if at < near[0]]
        assert len(far) == 170
        assert {round(later - sooner) for sooner, later in pairwise(far)} == {60}
        last = points[-1]
        assert (last.cpu_seconds, last.memory, last.disk, last.received_bytes, last.sent_bytes, last.processes) == (
            *(1079.0, 3 * 1079, 4 * 1079),
            *(1079, 2 * 1079, 5),
        )
        assert [point.at for point in history.of(made.id, since=ats[-3])] == ats[-3:]
        assert history.of("sb-unknown") == []


async def test_each_is_looked_at_in_its_turn_and_the_ended_are_forgotten(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    async def meter(ids: Collection[str]) -> dict[str, Reading]:
        asked.extend(ids)
        return {id: reading(plant.clock.now()) for id in ids}

    monkeypatch.setattr(plant.node, "meter", meter)
    async with plant.control() as control:
        made = [await control.sandboxes.create(HOME, SandboxSpec()) for _ in range(5)]
        async with History(plant.node, control.index, every=0.2, clock=plant.clock) as history:
            await asyncio.sleep(1.5)
            counts = {one.id: asked.count(one.id) for one in made}
            assert set(counts) == set(asked)
            assert all(3 <= count <= 8 for count in counts.values()), counts
            await control.sandboxes.terminate(HOME, made[0].id)

            async def forgotten() -> bool:
                return not history.of(made[0].id)

            assert await wait_until(forgotten, timeout=5)
            assert all(history.of(one.id) for one in made[1:])


async def test_a_node_that_fails_costs_a_point_and_no_more(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    failing = True

    async def meter(ids: Collection[str]) -> dict[str, Reading]:
        if failing:
            raise EngineFailed("no")
        return {id: reading(plant.clock.now()) for id in ids}

    monkeypatch.setattr(plant.node, "meter", meter)
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec())
        async with History(plant.node, control.index, every=0.05, clock=plant.clock) as history:
            await asyncio.sleep(0.3)
            assert history.of(made.id) == []
            failing = False

            async def there() -> bool:
                return bool(history.of(made.id))

            assert await wait_until(there, timeout=5)


async def test_what_could_not_be_read_is_no_point(plant: Plant):
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec())
        history = History(plant.node, control.index, clock=plant.clock)
        history._turn()
        for half in (
            Reading(1.0),
            Reading(2.0, Counters()),
            Reading(3.0, None, 1, 1, 1),
            Reading(4.0, Counters(), 1, 1),
        ):
            plant.node.readings[made.id] = half
            await history.look([made.id])
        assert history.of(made.id) == []


async def test_switched_off_nobody_is_asked(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    async def meter(ids: Collection[str]) -> dict[str, Reading]:
        raise AssertionError("nobody asks")

    monkeypatch.setattr(plant.node, "meter", meter)
    async with plant.control() as control:
        await control.sandboxes.create(HOME, SandboxSpec())
        async with History(plant.node, control.index, every=0.0, clock=plant.clock):
            await asyncio.sleep(0.05)


async def test_many_are_looked_at_in_parts(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_AT_ONCE", 3)
    clock = LateClock()
    async with plant.control() as control:
        made = {(await control.sandboxes.create(HOME, SandboxSpec())).id for _ in range(8)}
        history = History(plant.node, control.index, every=0.01, clock=clock)
        history._turn()
        await asyncio.sleep(0.05)
        parts = [history._turn() for _ in range(2)]
        assert [len(part) for part in parts] == [3, 3]
        assert set(parts[0]) <= made
