"""Sandboxes at rest, over the fake engine: what each rest keeps, what wakes it, and what its successors find."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from tests.unit.node.test_service import Bench, bench, ended

from belljar.base.ids import new_id
from belljar.model.errors import Conflict, DiskFull, EngineFailed, Error, SandboxGone
from belljar.model.process import Output, ProcessSpec
from belljar.model.sandbox import OnTimer, Sandbox, SandboxSpec, Status
from belljar.node.api import GuestApi
from belljar.node.provision import Provisioner
from belljar.node.record import Record, Records
from belljar.node.rests import Rests
from belljar.node.service import NodeService

__all__ = ("bench",)
RESTS = (Status.PAUSED, Status.STANDBY, Status.STOPPED)


async def said(guest: GuestApi, *argv: str) -> str:
    events = guest.start_attached(ProcessSpec(new_id("p"), argv))
    return b"".join([event.data async for event in events if isinstance(event, Output)]).decode()


async def became(node: NodeService, id: str, status: Status) -> Sandbox:
    async def is_so() -> bool:
        return (await node.get(id)).status is status

    for _ in range(500):
        if await is_so():
            return await node.get(id)
        await asyncio.sleep(0.01)
    raise AssertionError(f"it is {(await node.get(id)).status}, not {status}")


def record_of(bench: Bench, id: str) -> Record:
    found, _ = Records(bench.instance.sandboxes).load()
    return next(record for record in found if record.id == id)


@pytest.mark.parametrize("status", RESTS)
async def test_one_rests_and_any_call_wakes_it(bench: Bench, status: Status) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        await said(node.guest(sandbox.id), "sh", "-c", "echo kept > note")
        rested = await node.rest(sandbox.id, status)
        assert (rested.status, rested.expires, rested.started) == (status, None, sandbox.started)
        assert await node.rest(sandbox.id, status) == rested, "again is fine"
        assert (record_of(bench, sandbox.id).instance is None) == status.on_disk
        assert await node.snapshots() == [], "nobody is told of what it rests in"
        assert await said(node.guest(sandbox.id), "cat", "note") == "kept\n"
        now = await node.get(sandbox.id)
        assert (now.status, now.spec.lifetime) == (Status.RUNNING, sandbox.spec.lifetime)
        assert record_of(bench, sandbox.id).rest is None
        assert await node.resume(sandbox.id) == now, "one that runs is fine"
        await node.terminate(sandbox.id)
    assert await bench.residue() == []


@pytest.mark.parametrize("status", RESTS)
async def test_a_thousand_calls_wake_it_once(bench: Bench, status: Status) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        await node.rest(sandbox.id, status)
        events = node.events()
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        guest = node.guest(sandbox.id)
        await asyncio.gather(*(guest.processes() for _ in range(1000)))
        await node.rest(sandbox.id, Status.PAUSED)
        assert [(await first).status, (await anext(events)).status] == [Status.RUNNING, Status.PAUSED]


@pytest.mark.parametrize("status", RESTS)
async def test_its_lifetime_stands_still(bench: Bench, status: Status) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec(lifetime=100.0))
        await node.rest(sandbox.id, status)
        bench.clock.late += 1000.0
        await asyncio.sleep(0.05)
        assert (await node.get(sandbox.id)).status is status
        woken = await node.resume(sandbox.id)
        assert woken.expires is not None
        assert 95.0 < woken.expires - bench.clock.now() <= 100.0


@pytest.mark.parametrize("action", [OnTimer.PAUSE, OnTimer.STANDBY, OnTimer.STOP])
async def test_timers_put_it_to_rest(bench: Bench, action: OnTimer) -> None:
    async with bench.node() as node:
        idle = await node.create(new_id("sb"), SandboxSpec(idle=1.0, on_idle=action))
        late = await node.create(new_id("sb"), SandboxSpec(lifetime=1.0, on_lifetime=action))
        await asyncio.gather(*(became(node, one.id, action.status) for one in (idle, late)))
        woken = await node.resume(late.id)
        assert woken.expires is not None and woken.expires > bench.clock.now() + 0.5, "it has its whole time again"
        await node.guest(idle.id).processes()
        assert (await node.get(idle.id)).status is Status.RUNNING


async def test_what_rests_can_rest_deeper_and_not_higher(bench: Bench) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        for status in RESTS:
            assert (await node.rest(sandbox.id, status)).status is status
        for status in RESTS[:2]:
            with pytest.raises(Conflict, match="stopped already"):
                await node.rest(sandbox.id, status)


@pytest.mark.parametrize("status", RESTS)
async def test_a_successor_finds_it_at_rest_and_wakes_it(bench: Bench, status: Status) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec(lifetime=100.0))
        await said(node.guest(sandbox.id), "sh", "-c", "echo kept > note")
        await node.rest(sandbox.id, status)
    async with bench.node() as node:
        assert (await node.get(sandbox.id)).status is status
        assert await said(node.guest(sandbox.id), "cat", "note") == "kept\n"
        await node.rest(sandbox.id, status)
        assert (await node.terminate(sandbox.id)).status is Status.TERMINATED
    assert await bench.residue() == []


@pytest.mark.parametrize("status", RESTS)
async def test_a_reboot_takes_only_what_rests_in_memory(
    bench: Bench, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        await said(node.guest(sandbox.id), "sh", "-c", "echo kept > note")
        await node.rest(sandbox.id, status)
    record = record_of(bench, sandbox.id)
    Records(bench.instance.sandboxes).write(replace(record, boot="another"))
    async with bench.node() as node:
        if status is Status.PAUSED:
            assert (await ended(node, sandbox.id)).status is Status.LOST
            return
        assert (await node.get(sandbox.id)).status is status
        assert await said(node.guest(sandbox.id), "cat", "note") == "kept\n"


@pytest.mark.parametrize("status", RESTS)
async def test_what_its_server_did_not_live_to_free_is_freed(bench: Bench, status: Status) -> None:
    """It was written down that it rests, and what it held is there still; or it is on its way, and that is not written down."""
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        before = record_of(bench, sandbox.id)
        await node.rest(sandbox.id, status)
        resting = record_of(bench, sandbox.id)
    Records(bench.instance.sandboxes).write(replace(resting, instance=before.instance, slot=before.slot))
    async with bench.node() as node:
        assert (await node.get(sandbox.id)).status is status
        assert (record_of(bench, sandbox.id).instance is None) == status.on_disk


@pytest.mark.parametrize("status", RESTS[1:])
async def test_what_a_server_died_over_on_its_way_is_not_kept(bench: Bench, status: Status) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        running = record_of(bench, sandbox.id)
        await node.rest(sandbox.id, status)
        resting = record_of(bench, sandbox.id)
        await node.resume(sandbox.id)
        await node.rest(sandbox.id, Status.PAUSED)
        assert [one.draft.id for one in bench.snapshots.list()] == []
        await node.rest(sandbox.id, status)
        assert len(bench.snapshots.list()) == 1
    Records(bench.instance.sandboxes).write(replace(running, life=replace(running.life, toward=status)))
    async with bench.node() as node:
        assert (await node.get(sandbox.id)).status is Status.FAILED, "its kernel is gone in truth"
        assert resting.rest is not None and bench.snapshots.list() == []


@pytest.mark.parametrize("status", RESTS[1:])
@pytest.mark.parametrize("error", [DiskFull("full"), EngineFailed("no")])
async def test_one_that_cannot_rest_runs_on(
    bench: Bench, status: Status, error: Error, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec(lifetime=1.0, on_lifetime=OnTimer(_verb(status))))
        real = Rests.keep

        async def fail(*_: object) -> str:
            raise error

        monkeypatch.setattr(Rests, "keep", fail)
        with pytest.raises(type(error)):
            await node.rest(sandbox.id, status)
        await node.guest(sandbox.id).processes()
        await asyncio.sleep(1.3)
        assert (await node.get(sandbox.id)).status is Status.RUNNING, "its timer fired, and it was not possible"
        await node.guest(sandbox.id).processes()
        monkeypatch.setattr(Rests, "keep", real)
        bench.clock.late += 61.0
        await node.set_idle(sandbox.id, None)  # has it look at its timers
        await became(node, sandbox.id, status)


def _verb(status: Status) -> str:
    return next(one.value for one in OnTimer if one.status is status)


@pytest.mark.parametrize("status", RESTS[1:])
async def test_one_that_cannot_wake_rests_on(bench: Bench, status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        await node.rest(sandbox.id, status)
        real = Provisioner.provision

        async def fail(*_: object, **__: object) -> object:
            raise EngineFailed("no")

        monkeypatch.setattr(Provisioner, "provision", fail)
        results = await asyncio.gather(*(node.guest(sandbox.id).processes() for _ in range(20)), return_exceptions=True)
        assert {type(result) for result in results} == {EngineFailed}
        assert (await node.get(sandbox.id)).status is status
        monkeypatch.setattr(Provisioner, "provision", real)
        await node.guest(sandbox.id).processes()


Verb = Callable[[NodeService, str], Awaitable[object]]


@pytest.mark.parametrize("status", RESTS)
async def test_one_can_be_ended_while_it_goes_to_rest_or_wakes(bench: Bench, status: Status) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        resting = asyncio.ensure_future(node.rest(sandbox.id, status))
        await asyncio.sleep(0)
        assert (await node.terminate(sandbox.id)).status is Status.TERMINATED
        with pytest.raises(SandboxGone):
            await resting
        other = await node.create(new_id("sb"), SandboxSpec())
        await node.rest(other.id, status)
        waking = asyncio.ensure_future(node.guest(other.id).processes())
        await asyncio.sleep(0.001)
        assert (await node.terminate(other.id)).status is Status.TERMINATED
        with pytest.raises((SandboxGone, Conflict)):
            await waking
            raise SandboxGone("it was faster")
        assert bench.snapshots.list() == []
    assert await bench.residue() == []


async def test_an_open_stream_stands_still_with_a_paused_one(bench: Bench) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        events = node.guest(sandbox.id).start_attached(
            ProcessSpec("s", ("sh", "-c", "while read x; do echo $x; done"), stdin=True), None
        )
        process = await anext(events)
        reading = asyncio.ensure_future(anext(events))
        await node.rest(sandbox.id, Status.PAUSED)
        await asyncio.sleep(0.2)
        assert not reading.done()
        await node.guest(sandbox.id).write_stdin(process.id, 0, b"hello\n")  # type: ignore[union-attr]
        assert b"hello" in (await reading).data  # type: ignore[union-attr]
        await events.aclose()  # type: ignore[attr-defined]


async def test_what_it_used_is_told_whether_it_rests_or_not(bench: Bench) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        await said(node.guest(sandbox.id), "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
        before = (await node.meter([sandbox.id]))[sandbox.id]
        assert before.counters is not None and before.counters.cpu_us > 0
        await node.rest(sandbox.id, Status.STANDBY)
        resting = (await node.meter([sandbox.id]))[sandbox.id]
        assert resting.counters is not None and resting.counters.cpu_us >= before.counters.cpu_us
        assert (resting.memory, (await node.usage(sandbox.id)).memory) == (0, 0)
        await node.resume(sandbox.id)
        after = (await node.meter([sandbox.id]))[sandbox.id]
        assert after.counters is not None and after.counters.cpu_us >= resting.counters.cpu_us


async def test_one_that_rests_is_woken_for_its_snapshot(bench: Bench) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        await node.rest(sandbox.id, Status.STANDBY)
        children = await node.fork(sandbox.id, {new_id("sb"): SandboxSpec()})
        assert all(isinstance(child, Sandbox) for child in children.values())
        assert (await node.get(sandbox.id)).status is Status.RUNNING
        assert record_of(bench, sandbox.id).rest is None
