"""Other limits for what runs, over the fake engine: all of them or none, whoever dies or refuses meanwhile."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.node.test_service import Bench, bench

from belljar.base.ids import new_id
from belljar.model.errors import Conflict, EngineFailed, NoCapacity, NotSupported, SandboxGone
from belljar.model.sandbox import Limits, SandboxSpec, Status
from belljar.model.snapshot import SnapshotKind
from belljar.node.engine.api import Instance
from belljar.node.engine.fake.driver import FakeEngine
from belljar.node.engine.fake.plan import FakePlan
from belljar.node.guest.guest import Guest
from belljar.node.machine import Reserve
from belljar.node.service import NodeService

__all__ = ("bench",)

BEFORE = Limits()
AFTER = Limits(cpus=2.5, memory=2 << 30, pids=99)


class Watch:
    """What the host, the kernel and the guest were told last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: dict[str, Limits] = {}
        self.forced: list[bool] = []
        show, limit = FakeEngine.show, Guest.limit

        async def limited(_: FakeEngine, instance: Instance, limits: Limits) -> None:
            self.told["host"] = limits

        async def shown(engine: FakeEngine, instance: Instance, limits: Limits) -> None:
            await show(engine, instance, limits)
            self.told["kernel"] = limits

        async def inside(guest: Guest, limits: Limits, **more: Any) -> None:
            await limit(guest, limits, **more)
            self.told["guest"] = limits

        monkeypatch.setattr(FakeEngine, "limit", limited)
        monkeypatch.setattr(FakeEngine, "show", shown)
        monkeypatch.setattr(Guest, "limit", inside)

    @property
    def all(self) -> Mapping[str, Limits]:
        return self.told


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def everywhere(limits: Limits) -> Mapping[str, Limits]:
    return dict.fromkeys(("host", "kernel", "guest"), limits)


async def made(node: NodeService) -> str:
    return (await node.create(new_id("sb"), SandboxSpec())).id


async def test_they_hold_on_the_host_in_the_guest_and_in_what_is_told(bench: Bench, watch: Watch) -> None:
    async with bench.node() as node:
        id = await made(node)
        changed = await node.set_limits(id, AFTER)
        assert changed.spec.limits == (await node.get(id)).spec.limits == AFTER
        assert watch.all == everywhere(AFTER)
        usage = await node.usage(id)
        assert (usage.memory_limit, usage.cpus) == (AFTER.memory, AFTER.cpus)


async def test_a_successor_gives_what_was_written_down(bench: Bench, watch: Watch) -> None:
    async with bench.node() as node:
        id = await made(node)
        await node.set_limits(id, AFTER)
    watch.told.clear()
    async with bench.node() as node:
        assert (await node.get(id)).spec.limits == AFTER
        assert watch.all == everywhere(AFTER)


class Died(BaseException):
    """What no change can answer to, like a kill of its server."""


@pytest.mark.parametrize("moment", ["the guest was told", "it was written down", "the host holds it"])
async def test_a_server_that_dies_in_between_leaves_one_that_agrees_with_its_record(
    bench: Bench, watch: Watch, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def die(*_: object) -> None:
        raise Died

    async def stop(*_: object) -> None:
        raise Died

    place, does = {
        "the guest was told": ("belljar.node.supervisor.Supervisor._note_limits", die),
        "it was written down": ("belljar.node.engine.fake.driver.FakeEngine.limit", stop),
        "the host holds it": ("belljar.node.engine.fake.driver.FakeEngine.show", stop),
    }[moment]
    async with bench.node() as node:
        id = await made(node)
        with monkeypatch.context() as patch, pytest.raises(Died):
            patch.setattr(place, does)
            await node.set_limits(id, AFTER)
    watch.told.clear()
    async with bench.node() as node:
        known = (await node.get(id)).spec.limits
        assert known == (BEFORE if moment == "the guest was told" else AFTER)
        assert watch.all == everywhere(known)


async def test_what_the_engine_refuses_leaves_the_former_ones(bench: Bench, watch: Watch) -> None:
    async with bench.node() as node:
        id = await made(node)
        bench.plan = FakePlan(show_error=EngineFailed("not today"))
        with pytest.raises(EngineFailed, match="not today"):
            await node.set_limits(id, AFTER)
        assert (await node.get(id)).spec.limits == BEFORE
        assert (watch.told["host"], watch.told["guest"]) == (BEFORE, BEFORE)
        assert (await node.get(id)).status is Status.RUNNING
    bench.plan = FakePlan()
    async with bench.node() as node:
        assert (await node.get(id)).spec.limits == BEFORE


async def test_what_the_guest_refuses_is_written_nowhere(
    bench: Bench, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = Guest.limit

    async def refuse(guest: Guest, limits: Limits, *, force: bool = False, timeout: float = 10.0) -> None:
        if not force:
            raise Conflict("700 MiB of memory are in use")
        await limit(guest, limits, force=force, timeout=timeout)

    async with bench.node() as node:
        id = await made(node)
        monkeypatch.setattr(Guest, "limit", refuse)
        with pytest.raises(Conflict, match="700 MiB"):
            await node.set_limits(id, replace(BEFORE, memory=64 << 20))
        assert (await node.get(id)).spec.limits == BEFORE
        assert watch.told["host"] == BEFORE


async def test_the_disk_is_refused_with_what_to_do_instead(bench: Bench, watch: Watch) -> None:
    async with bench.node() as node:
        id = await made(node)
        with pytest.raises(NotSupported, match="disk") as refused:
            await node.set_limits(id, replace(AFTER, disk=1 << 30))
        assert "snapshot" in (refused.value.hint or "")
        assert (await node.get(id)).spec.limits == BEFORE


async def test_more_is_refused_on_a_machine_that_is_short_and_less_is_not(bench: Bench, watch: Watch) -> None:
    async with bench.node() as node:
        id = await made(node)
        await node.set_limits(id, AFTER)
    bench.reserve = Reserve(disk=0, memory=1 << 60)
    async with bench.node() as node:
        for more in (replace(AFTER, memory=3 << 30), replace(AFTER, cpus=3.0)):
            with pytest.raises(NoCapacity, match="memory"):
                await node.set_limits(id, more)
        assert (await node.get(id)).spec.limits == AFTER
        assert (await node.set_limits(id, BEFORE)).spec.limits == BEFORE


async def test_two_at_once_come_one_after_the_other_and_a_snapshot_waits(bench: Bench, watch: Watch) -> None:
    bench.plan = FakePlan(show_delay=0.1)
    async with bench.node() as node:
        id = await made(node)
        wanted = [replace(AFTER, pids=pids) for pids in (50, 60, 70)]
        first = asyncio.gather(*(node.set_limits(id, each) for each in wanted))
        await asyncio.sleep(0.02)
        taking = asyncio.ensure_future(node.snapshot(id, new_id("sn"), SnapshotKind.FILESYSTEM))
        answers = await first
        assert [answer.spec.limits for answer in answers] == wanted
        assert watch.all == everywhere(wanted[-1])
        assert (await taking).cpus == AFTER.cpus


async def test_one_that_is_being_snapshotted_or_has_ended_says_so(
    bench: Bench, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, begun = asyncio.Event(), asyncio.Event()
    save = FakeEngine.save_files

    async def slow(*args: Any, **more: Any) -> float:
        begun.set()
        await go_on.wait()
        return await save(*args, **more)

    monkeypatch.setattr(FakeEngine, "save_files", slow)
    async with bench.node() as node:
        id = await made(node)
        taking = asyncio.ensure_future(node.snapshot(id, new_id("sn"), SnapshotKind.FILESYSTEM))
        await begun.wait()
        with pytest.raises(Conflict, match="being snapshotted"):
            await node.set_limits(id, AFTER)
        go_on.set()
        await taking
        await node.terminate(id)
        with pytest.raises(SandboxGone):
            await node.set_limits(id, AFTER)


async def test_snapshots_carry_the_new_ones_and_a_rollback_keeps_them(bench: Bench, watch: Watch) -> None:
    async with bench.node() as node:
        id = await made(node)
        before = await node.snapshot(id, new_id("sn"), SnapshotKind.MEMORY)
        await node.set_limits(id, AFTER)
        after = await node.snapshot(id, new_id("sn"), SnapshotKind.MEMORY)
        assert (before.cpus, before.memory, after.cpus, after.memory) == (1.0, 1 << 30, AFTER.cpus, AFTER.memory)
        back = await node.rollback(id, before.id)
        assert back.spec.limits == AFTER
        child = new_id("sb")
        forks = await node.fork(id, {child: SandboxSpec(limits=AFTER)})
        assert not isinstance(forks[child], Exception)
        # Both what its guest sees and what it was given while it ran are fine to go on with.
        for cpus in (1.0, 2.5):
            limits = replace(AFTER, cpus=cpus)
            made_of = await node.create(new_id("sb"), SandboxSpec(snapshot=after.id, limits=limits))
            assert made_of.spec.limits == limits
