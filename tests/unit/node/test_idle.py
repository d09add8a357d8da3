"""Idle timers, over the fake engine: what counts as a use, and what a successor knows of it."""

import asyncio
import contextlib
import time
from dataclasses import replace

import pytest
from tests.unit.node.test_service import Bench, bench, ended

from belljar.base.ids import new_id
from belljar.base.tasks import wait_until
from belljar.model.errors import InvalidArgument, SandboxGone
from belljar.model.process import ProcessInfo, ProcessSpec
from belljar.model.sandbox import SandboxSpec, Status
from belljar.node.service import NodeService

__all__ = ("bench",)


async def idle_end(node: NodeService, id: str) -> float:
    """Seconds since 1970."""
    sandbox = await ended(node, id)
    assert sandbox.ended is not None and sandbox.ended.reason == "idle"
    return sandbox.ended.at


async def test_one_that_nobody_uses_ends(bench: Bench) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec(idle=1.0))
        assert (sandbox.status, sandbox.spec.idle, sandbox.started) == (Status.RUNNING, 1.0, sandbox.started)
        assert sandbox.started is not None
        assert 1.0 <= await idle_end(node, sandbox.id) - sandbox.started < 3.0
        with pytest.raises(SandboxGone):
            node.guest(sandbox.id)


async def test_calls_put_its_end_off_and_looking_at_it_does_not(bench: Bench) -> None:
    async with bench.node() as node:
        used = await node.create(new_id("sb"), SandboxSpec(idle=1.0))
        watched = await node.create(new_id("sb"), SandboxSpec(idle=1.0))
        for _ in range(5):
            await asyncio.sleep(0.4)
            await node.guest(used.id).processes()
            with contextlib.suppress(SandboxGone):
                await node.usage(watched.id)
        last = time.time()
        assert watched.started is not None
        assert await idle_end(node, watched.id) - watched.started < 1.9
        assert await idle_end(node, used.id) - last >= 0.99


async def test_an_open_stream_is_a_use_until_it_is_closed(bench: Bench) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec(idle=1.0))
        events = node.guest(sandbox.id).start_attached(ProcessSpec("s", ("sleep", "60")))
        assert isinstance(await anext(events), ProcessInfo)
        reading = asyncio.ensure_future(anext(events))
        await asyncio.sleep(1.8)
        assert (await node.get(sandbox.id)).status is Status.RUNNING
        reading.cancel()
        await asyncio.wait([reading])
        await events.aclose()  # type: ignore[attr-defined]
        closed = time.time()
        # What it started runs on, and is no reason to stay.
        assert 0.99 <= await idle_end(node, sandbox.id) - closed < 3.0


async def test_a_process_that_is_to_keep_it_alive_does_so_to_its_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("belljar.node.activity._WAIT", 0.1)  # it may run longer than one wait
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec(idle=1.0))
        await node.guest(sandbox.id).start(ProcessSpec("k", ("sleep", "2"), keep_alive=True))
        started = time.time()
        assert await idle_end(node, sandbox.id) - started >= 2.9


async def test_a_successor_knows_of_the_last_use(bench: Bench) -> None:
    async with bench.node() as node:
        left = await node.create(new_id("sb"), SandboxSpec(idle=2.0))
        kept = await node.create(new_id("sb"), SandboxSpec(idle=1.0))
        await node.guest(left.id).processes()
        last = time.time()
        await node.guest(kept.id).start(ProcessSpec("k", ("sleep", "4"), keep_alive=True))
        started = time.time()
    await asyncio.sleep(1.2)
    async with bench.node() as node:
        assert 1.9 <= await idle_end(node, left.id) - last < 3.1, "the time without a server counts"
        assert await idle_end(node, kept.id) - started >= 4.9


async def test_one_that_was_used_when_its_server_died_counts_from_its_successor(bench: Bench) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec(idle=1.0))
        note = bench.instance.sandboxes / sandbox.id / "active"
        events = node.guest(sandbox.id).start_attached(ProcessSpec("s", ("sleep", "60")))
        await anext(events)
        in_use = note.read_text()
        assert in_use == ""
        await events.aclose()  # type: ignore[attr-defined]
        assert note.read_text() != ""
        last = time.time()
    note.write_text(in_use)
    await asyncio.sleep(0.8)
    async with bench.node() as node:
        assert await idle_end(node, sandbox.id) - last >= 1.75
        assert not note.exists(), "an ended one leaves nothing but its record"


async def test_the_timer_can_be_set_moved_and_taken_away(bench: Bench) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        await node.guest(sandbox.id).start(ProcessSpec("k", ("sleep", "2"), keep_alive=True))
        started = time.time()
        assert (await node.set_idle(sandbox.id, 1.0)).spec.idle == 1.0
        other = await node.create(new_id("sb"), SandboxSpec(idle=1.0))
        assert (await node.set_idle(other.id, None)).spec.idle is None
        assert await idle_end(node, sandbox.id) - started >= 2.9, "also for what was started before"
        assert (await node.get(other.id)).status is Status.RUNNING

        async def forgotten() -> bool:
            return not (bench.instance.sandboxes / other.id / "active").exists()

        assert await wait_until(forgotten, timeout=1)


async def test_a_timer_that_comes_too_late_leaves_nothing(bench: Bench) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        supervisor = node._live[sandbox.id]
        await node.terminate(sandbox.id)
        await supervisor._follow_use()
        supervisor._body.record = replace(supervisor.record, life=replace(supervisor.life, idle=5.0))
        await supervisor._follow_use()
        assert not (bench.instance.sandboxes / sandbox.id / "active").exists()


@pytest.mark.parametrize("idle", [0, 0.5, -1, float("nan")])
def test_a_timer_too_short_for_any_client_is_refused(idle: float) -> None:
    with pytest.raises(InvalidArgument, match="at least 1 second"):
        SandboxSpec(idle=idle)
