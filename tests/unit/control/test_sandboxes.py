"""Sandboxes as a product, and the store that follows the node, over a scripted node."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.api.scripted_node import ScriptedGuest
from tests.unit.control.conftest import Plant

from belljar.base.ids import new_id
from belljar.control.changes import Changes
from belljar.control.processes import Readers, tails
from belljar.control.store.sandboxes import Filter, Record, Repeat
from belljar.model.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    EngineFailed,
    InvalidArgument,
    NotFound,
    SandboxGone,
    Starting,
)
from belljar.model.events import EventFilter
from belljar.model.process import Exit, Output, ProcessInfo, Stream, StreamState
from belljar.model.sandbox import Ended, Limits, Sandbox, SandboxSpec, Status

HOME = "default"


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0.005)


async def test_what_was_made_is_there_after_a_restart(plant: Plant):
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec(name="a", labels={"x": "y"}))
    async with plant.control() as control:
        assert await control.sandboxes.get(HOME, "a") == made
        assert len(control.index) == 1


async def test_an_ended_one_is_found_by_its_id_after_a_restart_and_by_its_name_as_gone(plant: Plant):
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec(name="a"))
        await control.sandboxes.terminate(HOME, "a")
    plant.node.known.clear()
    async with plant.control() as control:
        assert (await control.sandboxes.get(HOME, made.id)).status is Status.TERMINATED
        with pytest.raises(SandboxGone, match="killed"):
            await control.sandboxes.get(HOME, "a")
        with pytest.raises(NotFound):
            await control.sandboxes.get(HOME, "b")
        with pytest.raises(NotFound):
            await control.sandboxes.get("other", made.id)


@pytest.mark.parametrize(("boot", "reason"), [("boot-1", "node_lost"), ("boot-2", "host_reboot")])
async def test_what_the_node_does_not_know_is_lost(plant: Plant, boot: str, reason: str):
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec(name="a"))
    plant.node.known.clear()
    async with plant.control(boot=boot) as control:
        known = await control.sandboxes.get(HOME, made.id)
        assert known.ended is not None
        assert (known.status, known.ended.reason) == (Status.LOST, reason)
        await control.sandboxes.create(HOME, SandboxSpec(name="a"))


async def test_a_create_that_its_server_did_not_survive_has_failed_and_its_key_is_free(plant: Plant):
    half = Sandbox(new_id("sb"), SandboxSpec(name="a"), Status.CREATING, plant.clock.now())
    await plant.store.insert(Record(HOME, half, "boot-1"), Repeat("k", "d"))
    async with plant.control() as control:
        assert (await control.sandboxes.get(HOME, half.id)).status is Status.FAILED
        made = await control.sandboxes.create(HOME, SandboxSpec(name="a"), Repeat("k", "d"))
        assert made.status is Status.RUNNING
        assert made.id != half.id


async def test_a_create_that_the_node_finished_is_what_its_key_gives(plant: Plant):
    half = Sandbox(new_id("sb"), SandboxSpec(name="a"), Status.CREATING, plant.clock.now())
    await plant.store.insert(Record(HOME, half, "boot-1"), Repeat("k", "d"))
    await plant.node.create(half.id, half.spec)
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec(name="a"), Repeat("k", "d"))
        assert (made.id, made.status) == (half.id, Status.RUNNING)


async def test_a_sandbox_that_only_the_node_knows_is_taken_in(plant: Plant):
    stray = await plant.node.create(new_id("sb"), SandboxSpec(name="a"))
    async with plant.control() as control:
        assert (await control.sandboxes.get(HOME, "a")).id == stray.id
        items, _ = await control.sandboxes.list(HOME, Filter())
        assert [item.id for item in items] == [stray.id]


async def test_a_sandbox_whose_end_was_acknowledged_is_ended_if_it_still_runs(plant: Plant):
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec())
        await control.sandboxes.terminate(HOME, made.id)
    plant.node.known[made.id] = made
    async with plant.control() as control:
        assert plant.node.known[made.id].status is Status.TERMINATED
        assert (await control.sandboxes.get(HOME, made.id)).status is Status.TERMINATED


async def test_an_end_that_the_node_tells_reaches_the_store(plant: Plant):
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec())
        plant.node.end(made.id, "out_of_memory")
        await settle()
        row = await plant.store.get(made.id)
        assert row is not None and row.sandbox.ended is not None
        assert row.sandbox.ended.reason == "out_of_memory"
        told, _ = await control.events.page(HOME, EventFilter(made.id))
        assert [event.kind for event in told] == ["sandbox.ended", "sandbox.started", "sandbox.created"]
        with pytest.raises(SandboxGone, match="out_of_memory"):
            await control.sandboxes.guest(HOME, made.id)


async def test_following_goes_on_after_a_failure(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("belljar.control.reconcile._AGAIN_SECONDS", 0.01)
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec())
        await settle()
        plant.node.known[made.id] = replace(made, status=Status.FAILED, ended=Ended("bad_agent", 1.0))
        for queue in plant.node._queues:  # a fault of the node's own
            queue.put_nowait(None)  # type: ignore[arg-type]
        await settle()
        assert (await control.sandboxes.get(HOME, made.id)).status is Status.FAILED


async def test_a_failed_create_leaves_a_failed_row_and_frees_the_name(plant: Plant):
    async with plant.control() as control:
        plant.node.failure = EngineFailed("no")
        with pytest.raises(EngineFailed):
            await control.sandboxes.create(HOME, SandboxSpec(name="a"), Repeat("k", "d"))
        items, _ = await control.sandboxes.list(HOME, Filter((Status.FAILED,)))
        assert [item.ended.reason for item in items if item.ended] == ["start_failed"]
        assert len(control.index) == 0
        await control.sandboxes.create(HOME, SandboxSpec(name="a"), Repeat("k", "d"))


async def test_a_create_under_way_holds_its_name_and_is_no_process_to_talk_to(plant: Plant):
    async with plant.control() as control:
        plant.node.gate = asyncio.Event()
        making = asyncio.create_task(control.sandboxes.create(HOME, SandboxSpec(name="a")))
        await settle()
        with pytest.raises(AlreadyExists):
            await control.sandboxes.create(HOME, SandboxSpec(name="a"))
        with pytest.raises(Conflict, match="creating"):
            await control.sandboxes.guest(HOME, "a")
        plant.node.gate.set()
        assert (await making).status is Status.RUNNING


async def test_a_server_that_ends_during_a_create_does_not_wait_for_it(plant: Plant):
    plant.node.gate = asyncio.Event()
    async with asyncio.timeout(5):
        async with plant.control() as control:
            making = asyncio.create_task(control.sandboxes.create(HOME, SandboxSpec()))
            await settle()
        with pytest.raises(asyncio.CancelledError):
            await making


async def test_all_are_ended_at_once_and_one_failure_holds_up_nobody(plant: Plant):
    async with plant.control() as control:
        ids = [(await control.sandboxes.create(HOME, SandboxSpec())).id for _ in range(3)]
        plant.node.known.pop(ids[1])
        await control.sandboxes.terminate_all()
        assert len(control.index) == 0
        assert (await control.sandboxes.get(HOME, ids[1])).status is Status.LOST


async def test_a_change_of_an_ended_one_is_refused(plant: Plant):
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec())
        await control.sandboxes.terminate(HOME, made.id)
        with pytest.raises(SandboxGone):
            await control.sandboxes.update(HOME, made.id, Changes(lifetime=5.0))
        with pytest.raises(SandboxGone):
            await control.sandboxes.update(HOME, made.id, Changes(labels={}))


async def test_limits_are_changed_at_the_node_in_the_index_and_in_the_store(plant: Plant):
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec())
        changed = await control.sandboxes.update(HOME, made.id, Changes(memory=2 << 30, cpus=1.5))
        wanted = Limits(cpus=1.5, memory=2 << 30)
        assert changed.spec.limits == wanted
        assert plant.node.known[made.id].spec.limits == wanted
        record = await plant.store.get(made.id)
        assert record is not None and record.sandbox.spec.limits == wanted
        again = await control.sandboxes.update(HOME, made.id, Changes(pids=99, labels={"a": "b"}))
        assert (again.spec.limits, again.spec.labels) == (replace(wanted, pids=99), {"a": "b"})


@pytest.mark.parametrize(
    "bad",
    [{"cpus": 0.01}, {"cpus": 1e9}, {"memory": 1}, {"memory": 1 << 60}, {"disk": 0}, {"pids": -1}, {"pids": 1 << 20}],
)
async def test_limits_that_no_sandbox_may_have_change_nothing(plant: Plant, bad: dict[str, Any]):
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec())
        with pytest.raises(InvalidArgument, match=next(iter(bad)).removesuffix("s")):
            await control.sandboxes.update(HOME, made.id, Changes(lifetime=5.0, labels={"a": "b"}, **bad))
        assert await control.sandboxes.get(HOME, made.id) == made


async def test_a_change_that_the_node_refuses_changes_nothing_else(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec())

        async def refuse(id: str, limits: Limits) -> Sandbox:
            raise Conflict("700 MiB of memory are in use")

        monkeypatch.setattr(plant.node, "set_limits", refuse)
        with pytest.raises(Conflict, match="in use"):
            await control.sandboxes.update(HOME, made.id, Changes(memory=64 << 20, lifetime=5.0, labels={"a": "b"}))
        assert await control.sandboxes.get(HOME, made.id) == made
        assert control.sandboxes.counts() == {(HOME, "running"): 1}


async def test_an_answer_of_the_node_that_is_lost_does_not_part_what_is_known(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
):
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec())
        set_limits = plant.node.set_limits

        async def lost(id: str, limits: Limits) -> Sandbox:
            await set_limits(id, limits)
            raise DeadlineExceeded("no answer")

        monkeypatch.setattr(plant.node, "set_limits", lost)
        with pytest.raises(DeadlineExceeded):
            await control.sandboxes.update(HOME, made.id, Changes(memory=2 << 30))
        record = await plant.store.get(made.id)
        assert record is not None and record.sandbox.spec.limits.memory == 2 << 30
        assert (await control.sandboxes.get(HOME, made.id)).spec.limits.memory == 2 << 30


async def test_two_changes_at_once_come_one_after_the_other(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    under_way = 0
    set_limits = plant.node.set_limits

    async def slow(id: str, limits: Limits) -> Sandbox:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        await asyncio.sleep(0.02)
        under_way -= 1
        return await set_limits(id, limits)

    monkeypatch.setattr(plant.node, "set_limits", slow)
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec())
        changes = (Changes(memory=2 << 30), Changes(cpus=3.0), Changes(pids=77))
        await asyncio.gather(*(control.sandboxes.update(HOME, made.id, each) for each in changes))
        assert (await control.sandboxes.get(HOME, made.id)).spec.limits == Limits(cpus=3.0, memory=2 << 30, pids=77)


async def test_a_change_goes_on_when_its_caller_leaves(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    set_limits, go_on = plant.node.set_limits, asyncio.Event()

    async def slow(id: str, limits: Limits) -> Sandbox:
        await go_on.wait()
        return await set_limits(id, limits)

    monkeypatch.setattr(plant.node, "set_limits", slow)
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec())
        asked = asyncio.ensure_future(control.sandboxes.update(HOME, made.id, Changes(memory=2 << 30)))
        await settle()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        go_on.set()
        await settle()
        assert (await control.sandboxes.get(HOME, made.id)).spec.limits.memory == 2 << 30


async def test_exec_asks_the_store_nothing(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec(name="a"))
        await settle()

        async def never(*_: object) -> None:
            raise AssertionError("asked the store")

        for name in ("get", "latest_named", "live", "page", "repeated"):
            monkeypatch.setattr(plant.store, name, never)
        for ref in (made.id, "a"):
            assert await control.sandboxes.guest(HOME, ref) is plant.node.inside


class Written(ScriptedGuest):
    """Two processes that wrote; the second says nothing more and never ends."""

    async def processes(self) -> list[ProcessInfo]:
        ended = ProcessInfo(1, 10, ("a",), "root", 1.0, returncode=0, stdout=StreamState(0, 4, 0, True))
        runs = ProcessInfo(2, 11, ("b",), "root", 2.0, stdout=StreamState(0, 6), stderr=StreamState(2, 3, 2))
        return [runs, ended]

    async def output(self, ref, offsets):  # type: ignore[no-untyped-def]
        text = {1: {Stream.STDOUT: b"done"}, 2: {Stream.STDOUT: b"so far", Stream.STDERR: b"xxe"}}[ref]
        try:
            for stream, offset in offsets.items():
                yield Output(stream, offset, text[stream][offset:])
            if ref == 1:
                yield Exit(0)
            await asyncio.sleep(60)
        finally:
            self.closed += 1


async def test_tails_show_what_was_written_and_leave_what_is_read():
    guest, readers = Written(), Readers()
    async with asyncio.timeout(1):
        first, second = await tails(guest, "sb", readers, limit=4)
    assert (first.process.id, first.stdout, first.stderr) == (1, b"done", b"")
    assert (second.process.id, second.stdout, second.stderr) == (2, b" far", b"e")
    assert guest.closed == 2
    with readers.reading("sb", 2), readers.reading("sb", 2):
        _, second = await tails(guest, "sb", readers, limit=4)
    assert (second.attached, second.stdout) == (True, b"")
    assert not readers.has("sb", 2)


async def test_one_that_is_being_made_is_ended_and_not_lost(plant: Plant):
    async with plant.control() as control:
        plant.node.gate = asyncio.Event()
        making = asyncio.create_task(control.sandboxes.create(HOME, SandboxSpec(name="a")))
        await settle()
        ending = asyncio.create_task(control.sandboxes.terminate(HOME, "a"))
        await settle()
        assert not ending.done()
        plant.node.gate.set()
        assert (await ending).status is Status.TERMINATED
        await making
        assert all(sandbox.status.is_end for sandbox in plant.node.known.values())


async def test_none_is_made_while_all_are_ended(plant: Plant):
    async with plant.control() as control:
        await control.sandboxes.create(HOME, SandboxSpec())
        await control.sandboxes.terminate_all()
        with pytest.raises(Starting):
            await control.sandboxes.create(HOME, SandboxSpec())


async def test_the_nodes_reason_for_a_failed_create_is_kept(plant: Plant):
    async with plant.control() as control:
        plant.node.failure = EngineFailed("no")
        plant.node.last_words = Ended("out_of_memory", 5.0, "it was killed")
        with pytest.raises(EngineFailed):
            await control.sandboxes.create(HOME, SandboxSpec())
        (item,), _ = await control.sandboxes.list(HOME, Filter((Status.FAILED,)))
        assert item.ended == Ended("out_of_memory", 5.0, "it was killed")
