"""What processes wrote stays readable after the end of their sandbox, however that came, over the fake engine."""

import asyncio
import time

import pytest
from tests.unit.node.test_service import Bench, bench, ended, run

from belljar.base.ids import new_id
from belljar.base.tasks import wait_until
from belljar.model.errors import NotFound
from belljar.model.process import ProcessInfo, ProcessSpec
from belljar.model.sandbox import SandboxSpec, Status
from belljar.node.engine.fake.plan import FakePlan
from belljar.node.guest.tails import TAIL
from belljar.node.service import NodeService

__all__ = ("bench",)


async def sandbox_in(node: NodeService) -> str:
    return (await node.create(new_id("sb"), SandboxSpec())).id


async def start(node: NodeService, id: str, script: str) -> ProcessInfo:
    """One that nobody reads."""
    return await node.guest(id).start(ProcessSpec(new_id("px"), ("sh", "-c", script), stdin=False))


async def words(node: NodeService, id: str) -> list[tuple[bytes, bytes, int | None]]:
    return [(tail.stdout, tail.stderr, tail.process.returncode) for tail in await node.last_output(id)]


async def test_read_and_unread_output_stay_after_an_end_that_was_asked_for(bench: Bench) -> None:
    async with bench.node() as node:
        id = await sandbox_in(node)
        await run(node, id, "sh", "-c", "echo read; echo problem >&2; exit 3")
        unread = await start(node, id, "echo unread; exec sleep 60")
        ready = await node.guest(id).wait(unread.id, timeout=0.5)
        assert ready.returncode is None
        with pytest.raises(NotFound):
            await node.last_output(id)
        await node.terminate(id)
        assert await words(node, id) == [(b"read\n", b"problem\n", 3), (b"unread\n", b"", None)]


async def test_they_stay_over_a_restart_and_also_what_an_earlier_server_had_read(bench: Bench) -> None:
    async with bench.node() as node:
        id = await sandbox_in(node)
        await run(node, id, "echo", "before")
    async with bench.node() as node:
        await run(node, id, "echo", "after")
        await node.terminate(id)
    async with bench.node() as node:
        assert [one[0] for one in await words(node, id)] == [b"before\n", b"after\n"]


async def test_of_one_that_died_what_was_read_is_left(bench: Bench) -> None:
    bench.plan = FakePlan(dies_after=1.5)
    async with bench.node() as node:
        id = await sandbox_in(node)
        await run(node, id, "sh", "-c", "echo its last words; exit 0")
        assert (await ended(node, id)).status is Status.FAILED
        assert (b"its last words\n", b"", 0) in await words(node, id)


async def test_the_end_of_much_output_is_kept(bench: Bench) -> None:
    async with bench.node() as node:
        id = await sandbox_in(node)
        await run(node, id, "sh", "-c", "yes | head -c 3000000; echo end")
        await node.terminate(id)
        ((out, _, _),) = await words(node, id)
        assert (len(out), out[-6:]) == (TAIL, b"y\nend\n")


async def test_a_reader_is_not_pushed_away_by_the_end(bench: Bench) -> None:
    """It hears that the sandbox is gone, not that somebody took its output over."""
    async with bench.node() as node:
        id = await sandbox_in(node)
        reading = asyncio.create_task(run(node, id, "sh", "-c", "echo begun; exec sleep 60"))
        await asyncio.sleep(0.5)
        await node.terminate(id)
        with pytest.raises(NotFound, match=r"gone|ended"):
            await reading
        assert [one[0] for one in await words(node, id)] == [b"begun\n"]


async def test_a_silent_agent_delays_the_end_by_a_moment_alone(bench: Bench) -> None:
    async with bench.node() as node:
        id = await sandbox_in(node)
        instance = node._live[id].record.instance
        assert instance is not None
        await run(node, id, "echo", "said")
        await node._machine.engine.pause(instance)
        began = time.monotonic()
        await node.terminate(id)
        assert time.monotonic() - began < 5
        assert await words(node, id) == [(b"said\n", b"", 0)]


async def test_one_that_never_ran_leaves_nothing(bench: Bench) -> None:
    bench.plan = FakePlan(crash_on_start=True)
    async with bench.node() as node:
        id = new_id("sb")
        with pytest.raises(Exception, match=r".+"):
            await node.create(id, SandboxSpec())

        async def over() -> bool:
            return (await node.get(id)).status.is_end

        assert await wait_until(over, timeout=10)
        with pytest.raises(NotFound, match="not kept"):
            await node.last_output(id)
