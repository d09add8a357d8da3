"""The ways in which a fake instance can be told to misbehave."""

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from belljar.model.errors import DeadlineExceeded, DiskFull, EngineFailed
from belljar.model.process import ProcessSpec
from belljar.model.sandbox import Limits
from belljar.node.engine.api import Instance, InstanceSpec, InstanceState
from belljar.node.engine.fake import FakeEngine, FakePlan
from belljar.node.guest.guest import Guest


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncGenerator[FakeEngine]:
    engine = FakeEngine(tmp_path / "run")
    yield engine
    engine.plan = lambda _: FakePlan()
    await engine.delete(Instance(spec(tmp_path)))
    assert await engine.residue() == []


def spec(folder: Path) -> InstanceSpec:
    nowhere = Path("/")
    return InstanceSpec(
        "sb1", folder / "run/sb1", "fake", nowhere, nowhere, folder / "overlay", (), {}, "fake", Limits(), "x/sb1"
    )


async def running(engine: FakeEngine, folder: Path, plan: FakePlan) -> Instance:
    engine.plan = lambda _: plan
    instance = await engine.create(await engine.prepare(spec(folder)))
    await engine.start(instance, None)
    return instance


async def hello(engine: FakeEngine, instance: Instance, *, timeout: float = 20.0) -> Guest:
    return await Guest.open(engine.open_channel(instance), on_lost=lambda *_: None, timeout=timeout)


async def test_making_can_be_slow(engine: FakeEngine, tmp_path: Path) -> None:
    engine.plan = lambda _: FakePlan(create_delay=0.1)
    instance = await engine.prepare(spec(tmp_path))
    begun = time.monotonic()
    await engine.create(instance)
    assert time.monotonic() - begun >= 0.1
    assert await engine.state(instance) == InstanceState.CREATED
    with pytest.raises(EngineFailed, match="longer"):
        await engine.create(instance, timeout=0.01)


async def test_making_can_fail_for_want_of_space(engine: FakeEngine, tmp_path: Path) -> None:
    engine.plan = lambda _: FakePlan(create_error=DiskFull("no space, as planned"))
    instance = await engine.prepare(spec(tmp_path))
    with pytest.raises(DiskFull):
        await engine.create(instance)
    assert await engine.state(instance) == InstanceState.ABSENT


async def test_starting_can_fail(engine: FakeEngine, tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="as planned"):
        await running(engine, tmp_path, FakePlan(start_error=EngineFailed("as planned")))


async def test_the_agent_can_crash_at_once_and_its_last_words_are_kept(engine: FakeEngine, tmp_path: Path) -> None:
    engine.plan = lambda _: FakePlan(crash_on_start=True)
    instance = await engine.create(await engine.prepare(spec(tmp_path)))
    waiting = asyncio.create_task(engine.wait(instance))
    await asyncio.sleep(0.05)
    await engine.start(instance, None)
    exit = await asyncio.wait_for(waiting, 10)
    assert exit.message == "crashed as planned"
    assert await engine.state(instance) == InstanceState.DEAD


async def test_the_agent_can_stay_silent(engine: FakeEngine, tmp_path: Path) -> None:
    instance = await running(engine, tmp_path, FakePlan(never_answers=True))
    assert await engine.state(instance) == InstanceState.RUNNING
    with pytest.raises(DeadlineExceeded):
        await hello(engine, instance, timeout=0.2)


async def test_the_agent_can_talk_nonsense(engine: FakeEngine, tmp_path: Path) -> None:
    instance = await running(engine, tmp_path, FakePlan(talks_nonsense=True))
    with pytest.raises((EngineFailed, DeadlineExceeded)):
        await hello(engine, instance, timeout=0.3)


async def test_a_guest_can_die_later(engine: FakeEngine, tmp_path: Path) -> None:
    instance = await running(engine, tmp_path, FakePlan(dies_after=1.0))
    guest = await hello(engine, instance)
    await guest.close()
    await asyncio.wait_for(engine.wait(instance), 10)
    assert await engine.state(instance) == InstanceState.DEAD


async def test_deleting_can_fail_until_the_plan_is_changed(engine: FakeEngine, tmp_path: Path) -> None:
    instance = await running(engine, tmp_path, FakePlan(never_answers=True, stays=True))
    with pytest.raises(EngineFailed, match="as planned"):
        await engine.delete(instance)
    assert await engine.state(instance) == InstanceState.RUNNING


async def test_a_checkpoint_has_the_files_and_says_that_it_has_no_processes(engine: FakeEngine, tmp_path: Path) -> None:
    capabilities = await engine.capabilities()
    assert not capabilities.checkpoint.available
    assert "no processes" in capabilities.checkpoint.reason
    instance = await running(engine, tmp_path, FakePlan())
    guest = await hello(engine, instance)
    await guest.make_directory("/kept")
    await guest.touch("/kept/one")
    await engine.checkpoint(instance, tmp_path / "target")
    await guest.touch("/kept/two")
    await guest.close()
    await engine.delete(instance)
    restored = await engine.create(await engine.prepare(spec(tmp_path)))
    await engine.restore(restored, tmp_path / "target", None)
    guest = await hello(engine, restored)
    entries, _ = await guest.list_directory("/kept")
    assert [entry.path.rpartition("/")[2] for entry in entries] == ["one"]
    assert await guest.processes() == []
    await guest.close()


async def test_everything_a_guest_started_ends_with_it(engine: FakeEngine, tmp_path: Path) -> None:
    instance = await running(engine, tmp_path, FakePlan())
    guest = await hello(engine, instance)
    await guest.start(ProcessSpec("a", ("/bin/sh", "-c", "setsid sh -c 'sleep 1000 & sleep 1000' & sleep 1000")))
    await asyncio.sleep(0.2)
    assert (await engine.usage(instance)).processes >= 5
    await guest.close()
    await engine.delete(instance)
    assert await engine.residue() == []


async def test_one_whose_program_begins_just_now_and_shows_no_mark_yet_is_ended(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = await running(engine, tmp_path, FakePlan(never_answers=True))
    monkeypatch.setattr("belljar.node.engine.fake.processes.marks_with", lambda _: iter(()))
    async with asyncio.timeout(10):
        await engine.delete(instance)
    assert await engine.state(instance) == InstanceState.ABSENT
