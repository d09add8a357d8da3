"""What a node says that a sandbox uses: its own alone, through rollbacks, restarts of the server, and to its end."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.node.test_service import Bench, bench, ended

from belljar.base.ids import new_id
from belljar.model.errors import EngineFailed
from belljar.model.sandbox import SandboxSpec
from belljar.model.snapshot import SnapshotKind
from belljar.model.usage import Counters, Reading
from belljar.node.engine.api import Instance, Usage
from belljar.node.engine.fake.driver import FakeEngine
from belljar.node.metering import Meter
from belljar.node.net import links
from belljar.node.service import NodeService

__all__ = ("bench",)


class Host:
    """What the host counts, by the number of the instance in the order in which they were first looked at."""

    def __init__(self) -> None:
        self.seconds = [5.0, 2.0]
        self.memory = 10 << 20
        self.failure: Exception | None = None
        self.order: list[str] = []
        self.looked: Callable[[], None] = lambda: None

    async def usage(self, instance: Instance) -> Usage:
        self.looked()
        if self.failure is not None:
            raise self.failure
        if instance.spec.id not in self.order:
            self.order.append(instance.spec.id)
        return Usage(self.memory, self.seconds[self.order.index(instance.spec.id)], 1, 7)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()

    async def usage(_: FakeEngine, instance: Instance) -> Usage:
        return await made.usage(instance)

    # Its cpu_time asks this one.
    monkeypatch.setattr(FakeEngine, "usage", usage)
    return made


async def cpu(node: NodeService, id: str) -> float | None:
    """Seconds; None: it could not be read."""
    counters = (await node.meter([id, "sb-none"]))[id].counters
    return None if counters is None else counters.cpu_us / 1e6


async def test_what_a_guest_used_before_it_was_this_sandbox_is_not_its_own(bench: Bench, host: Host):
    async with bench.node() as node:
        box = await node.create(new_id("sb"), SandboxSpec())
        assert await cpu(node, box.id) == 0.0
        host.seconds[0] = 8.5
        (reading,) = (await node.meter([box.id])).values()
        assert reading == Reading(reading.at, Counters(3_500_000), 10 << 20, 7, 1)
    host.seconds[0] = 9.0
    async with bench.node() as node:  # a successor
        assert await cpu(node, box.id) == 4.0
        await node.terminate(box.id)


async def test_a_rollback_takes_nothing_away_and_a_sandbox_ends_with_all_of_it(bench: Bench, host: Host):
    async with bench.node() as node:
        box = await node.create(new_id("sb"), SandboxSpec())
        kept = await node.snapshot(box.id, new_id("sn"), SnapshotKind.MEMORY)
        host.seconds[0] = 9.0
        await node.rollback(box.id, kept.id)
        assert len(host.order) == 2
        assert await cpu(node, box.id) == 4.0
        host.seconds[1] = 3.0
        assert await cpu(node, box.id) == 5.0
    async with bench.node() as node:
        assert await cpu(node, box.id) == 5.0
        host.seconds[1] = 3.5
        last = await node.terminate(box.id)
        assert last.final is not None
        assert last.final.counters == Counters(5_500_000)
        assert await node.meter([box.id]) == {}
    async with bench.node() as node:
        assert (await node.get(box.id)).final == last.final


async def test_nobody_is_told_less_than_before(bench: Bench, host: Host):
    async with bench.node() as node:
        box = await node.create(new_id("sb"), SandboxSpec())
        kept = await node.snapshot(box.id, new_id("sn"), SnapshotKind.MEMORY)
        host.seconds[0] = 9.0
        assert await cpu(node, box.id) == 4.0
        host.seconds[0] = 8.9  # an answer that was overtaken
        assert await cpu(node, box.id) == 4.0
        await node.rollback(box.id, kept.id)
        assert await cpu(node, box.id) == 4.0
        host.seconds[1] = 2.5
        assert await cpu(node, box.id) == 4.5


async def test_the_end_is_told_with_the_event(bench: Bench, host: Host):
    async with bench.node() as node:
        events = node.events()
        told = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        box = await node.create(new_id("sb"), SandboxSpec(lifetime=0.2))
        assert (await told).final is None
        host.seconds[0] = 6.0
        event = await anext(events)
        assert (event.sandbox, event.final and event.final.counters) == (box.id, Counters(1_000_000))
        assert event.final == (await ended(node, box.id)).final


async def test_what_cannot_be_read_is_not_zero(bench: Bench, host: Host):
    async with bench.node() as node:
        box = await node.create(new_id("sb"), SandboxSpec())
        host.failure = EngineFailed("broken")
        (reading,) = (await node.meter([box.id])).values()
        assert reading == Reading(reading.at)
        host.failure, host.memory, host.seconds[0] = None, 0, 0.0
        (reading,) = (await node.meter([box.id])).values()
        assert reading == Reading(reading.at)
        host.failure = OSError("broken")
        last = await node.terminate(box.id)
        assert last.final == Reading(last.final.at if last.final else 0)


async def test_one_whose_end_begins_while_it_is_looked_at_is_left_out(bench: Bench, host: Host):
    async with bench.node() as node:
        box = await node.create(new_id("sb"), SandboxSpec())
        ending: list[asyncio.Future[object]] = []

        def end() -> None:
            host.looked = lambda: None
            ending.append(asyncio.ensure_future(node.terminate(box.id)))

        host.looked = end
        first = await node.meter([box.id])
        await ending[0]
        last = (await node.get(box.id)).final
        assert last is not None
        assert all(reading.at <= last.at for reading in first.values())
        assert await node.meter([box.id]) == {}


def test_a_meter_adds_what_was_before():
    meter = Meter(Counters(10, 20, 30), Counters(1, 2, 3))
    assert meter.total(Counters(5, 6, 7)) == Counters(14, 24, 34)
    assert meter.of(Reading(1.0, None, 5)) == Reading(1.0, None, 5)


def test_a_links_bytes_are_named_from_the_guests_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert links.link_traffic("bj-none") is None
    folder = tmp_path / "veth" / "statistics"
    folder.mkdir(parents=True)
    (folder / "tx_bytes").write_text("100\n")
    (folder / "rx_bytes").write_text("7\n")
    monkeypatch.setattr(links, "_DEVICES", tmp_path)
    assert links.link_traffic("veth") == (100, 7)
