"""The node over the fake engine: lives, ends, failures and successors, without root."""

import asyncio
import contextlib
import errno
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from belljar.base.clock import SystemClock
from belljar.base.ids import new_id
from belljar.base.tasks import wait_until
from belljar.model.errors import (
    DiskFull,
    EngineFailed,
    Error,
    ImageNotFound,
    Internal,
    NoCapacity,
    NotFound,
    SandboxGone,
)
from belljar.model.process import Exit, Output, ProcessInfo, ProcessSpec, Stream
from belljar.model.sandbox import Limits, Sandbox, SandboxSpec, Status
from belljar.node.engine.api import InstanceSpec
from belljar.node.engine.fake.driver import FakeEngine
from belljar.node.engine.fake.plan import FakePlan
from belljar.node.instance import Instance
from belljar.node.machine import Machine, Reserve
from belljar.node.provision import release
from belljar.node.record import Record, Records
from belljar.node.service import NodeService
from belljar.node.snapshot.filesystem import Filesystems
from belljar.node.snapshot.store import SnapshotStore
from belljar.server.machine import NO_RUNTIME, FakeImages, FakeKept

FREE = Reserve(0, 0)


class LateClock(SystemClock):
    """Runs ahead by `late` seconds."""

    late = 0.0

    def now(self) -> float:
        return super().now() + self.late


class Bench:
    """A state directory and what a server would make of it; `node()` is one server's time on it."""

    def __init__(self, folder: Path) -> None:
        self.instance = Instance(f"t{new_id('x')[-5:]}", folder / "home")
        self.run = folder / "run"
        self.plan = FakePlan()
        self.clock = LateClock()
        self.reserve = FREE

    @contextlib.asynccontextmanager
    async def node(self) -> AsyncGenerator[NodeService]:
        engine = FakeEngine(self.instance.run, self._plan)
        images = FakeImages()
        async with SnapshotStore(self.instance.home, self.instance.run) as snapshots:
            self.snapshots = snapshots
            machine = Machine(
                *(self.instance, engine, "fake", images, NO_RUNTIME, None, FakeKept(images), snapshots),
                Filesystems(engine, None, snapshots, self.instance.ready, 0),
                reserve=self.reserve,
                clock=self.clock,
            )
            async with NodeService(machine) as node:
                yield node

    def _plan(self, _: InstanceSpec) -> FakePlan:
        return self.plan

    async def residue(self) -> list[str]:
        engine = FakeEngine(self.instance.run)
        return [f"{thing.kind} {thing.name}" for thing in await engine.residue()]


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    monkeypatch.setattr("belljar.node.instance._RUN", made.run)
    made.instance.run.mkdir(parents=True)
    yield made
    made.plan = FakePlan()
    async with made.node() as node:
        for sandbox in await node.sandboxes():
            await node.terminate(sandbox.id)
    assert await made.residue() == []
    assert not list((made.instance.run / "sandboxes").glob("*")), "a sandbox left its folder behind"


async def run(node: NodeService, id: str, *argv: str) -> tuple[int, bytes]:
    out, code = b"", -1
    async for piece in node.guest(id).start_attached(ProcessSpec(new_id("px"), argv, stdin=False)):
        match piece:
            case Output(_, _, data):
                out += data
            case Exit(returncode):
                code = returncode
            case ProcessInfo():
                pass
    return code, out


async def ended(node: NodeService, id: str) -> Sandbox:
    async def has() -> bool:
        return (await node.get(id)).status.is_end

    assert await wait_until(has, timeout=10)
    return await node.get(id)


async def test_a_sandbox_runs_a_command_and_ends(bench: Bench) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        assert sandbox.status is Status.RUNNING and sandbox.started is not None
        assert await run(node, sandbox.id, "sh", "-c", "echo hello; exit 3") == (3, b"hello\n")
        ended = await node.terminate(sandbox.id)
        assert (ended.status, ended.ended and ended.ended.reason) == (Status.TERMINATED, "killed")
        assert await node.terminate(sandbox.id) == ended
        with pytest.raises(SandboxGone, match="killed"):
            node.guest(sandbox.id)


async def test_the_same_id_again_is_the_same_sandbox(bench: Bench) -> None:
    async with bench.node() as node:
        id = new_id("sb")
        one, two = await asyncio.gather(node.create(id, SandboxSpec()), node.create(id, SandboxSpec()))
        assert one == two and len(await node.sandboxes()) == 1


async def test_an_unknown_image_leaves_no_trace(bench: Bench) -> None:
    async with bench.node() as node:
        with pytest.raises(ImageNotFound):
            await node.create(new_id("sb"), SandboxSpec(image="nothere"))
        assert await node.sandboxes() == []
        with pytest.raises(NotFound):
            await node.get(new_id("sb"))


async def test_a_machine_without_room_says_so_and_keeps_nothing(bench: Bench) -> None:
    bench.reserve = Reserve(disk=1 << 60, memory=0)
    async with bench.node() as node:
        with pytest.raises(NoCapacity, match="disk"):
            await node.create(new_id("sb"), SandboxSpec())
        (sandbox,) = await node.sandboxes()
        assert sandbox.status is Status.FAILED


@pytest.mark.parametrize(
    "plan",
    [
        FakePlan(create_error=EngineFailed("no, said the engine")),
        FakePlan(start_error=EngineFailed("no, said the engine")),
        FakePlan(crash_on_start=True),
        FakePlan(talks_nonsense=True),
    ],
)
async def test_one_that_cannot_be_made_is_an_error_and_is_freed(
    bench: Bench, plan: FakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("belljar.node.holding._HELLO", 1.0)
    bench.plan = plan
    async with bench.node() as node:
        with pytest.raises(Error):
            await node.create(new_id("sb"), SandboxSpec())
        (sandbox,) = await node.sandboxes()
        assert sandbox.status is Status.FAILED and sandbox.ended is not None
    assert await bench.residue() == []


async def test_a_creator_that_leaves_leaves_no_sandbox(bench: Bench) -> None:
    bench.plan = FakePlan(create_delay=20.0)
    async with bench.node() as node:
        making = asyncio.create_task(node.create(new_id("sb"), SandboxSpec()))
        await asyncio.sleep(0.1)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        sandbox = await ended(node, (await node.sandboxes())[0].id)
        assert sandbox.ended is not None and sandbox.ended.reason == "cancelled"


async def test_a_lifetime_ends_a_sandbox_and_can_be_moved(bench: Bench) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec(lifetime=60))
        later = await node.set_lifetime(sandbox.id, 0.3)
        assert later.expires is not None and sandbox.expires is not None and later.expires < sandbox.expires
        sandbox = await ended(node, sandbox.id)
        assert sandbox.ended is not None and sandbox.ended.reason == "lifetime"


async def test_one_that_is_about_to_end_has_not_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = asyncio.Event()

    async def slow(machine: Machine, record: Record) -> None:
        await go_on.wait()
        await release(machine, record)

    monkeypatch.setattr("belljar.node.body.release", slow)
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        ending = asyncio.ensure_future(node.terminate(sandbox.id))

        async def begun() -> bool:
            return (await node.get(sandbox.id)).status is Status.TERMINATING

        assert await wait_until(begun, timeout=10)
        (seen,) = await node.sandboxes()
        assert (seen.status, seen.ended) == (Status.TERMINATING, None)
        go_on.set()
        assert (await ending).ended is not None


async def test_one_that_dies_by_itself_is_failed_and_freed(bench: Bench) -> None:
    bench.plan = FakePlan(dies_after=1.5)
    async with bench.node() as node:
        events = node.events()
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        assert (await first).status is Status.RUNNING
        last = await asyncio.wait_for(anext(events), 10)
        assert (last.sandbox, last.status) == (sandbox.id, Status.FAILED)
        assert last.ended is not None and last.ended.reason == "exited"
        await events.aclose()  # type: ignore[attr-defined]


async def test_a_successor_goes_on_with_the_processes_and_their_output(bench: Bench) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec(lifetime=None))
        info = await node.guest(sandbox.id).start(
            ProcessSpec("counter", ("sh", "-c", "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo $i; sleep 0.05; done"))
        )
    async with bench.node() as node:
        assert (await node.get(sandbox.id)).status is Status.RUNNING
        lines = b""
        async for piece in node.guest(sandbox.id).output(info.id, {Stream.STDOUT: 0}):
            if isinstance(piece, Output):
                assert piece.offset == len(lines)
                lines += piece.data
        assert lines.split() == [str(n).encode() for n in range(1, 41)]
        again = await node.guest(sandbox.id).start(ProcessSpec("counter", ("false",)))
        assert again.id == info.id and again.returncode == 0


async def test_a_successor_sets_the_limits_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec(limits=Limits(cpus=0.5)))
    limited: list[float] = []

    async def limit(self: FakeEngine, instance: object, limits: Limits) -> None:
        limited.append(limits.cpus)
        raise EngineFailed("its group is gone")

    monkeypatch.setattr(FakeEngine, "limit", limit)
    async with bench.node() as node:
        assert limited == [0.5]
        assert (await run(node, sandbox.id, "true"))[0] == 0


async def test_a_successor_frees_what_was_half_made_and_what_died(bench: Bench) -> None:
    bench.plan = FakePlan(start_delay=30.0)
    async with bench.node() as node:
        task = asyncio.create_task(node.create(new_id("sb"), SandboxSpec()))
        await asyncio.sleep(0.3)
    with contextlib.suppress(asyncio.CancelledError, Error):
        task.cancel()
        await task
    bench.plan = FakePlan()
    async with bench.node() as node:
        (sandbox,) = await node.sandboxes()
        assert sandbox.status is Status.FAILED
    assert await bench.residue() == []


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, DiskFull), (errno.EIO, Internal)])
async def test_one_that_cannot_be_written_down_is_refused_and_has_never_been(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Error]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "no")

    id = new_id("sb")
    async with bench.node() as node:
        with monkeypatch.context() as patch:
            patch.setattr(Records, "write", fail)
            async with asyncio.timeout(10):
                with pytest.raises(error):
                    await node.create(id, SandboxSpec())
        assert await node.sandboxes() == []
        assert (await node.create(id, SandboxSpec())).status is Status.RUNNING
        await node.terminate(id)
    assert await bench.residue() == []


async def test_a_record_that_was_half_written_is_cleared_away(bench: Bench) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
        gone = await node.create(new_id("sb"), SandboxSpec())
        await node.terminate(gone.id)
    for one in (sandbox, gone):  # as kill -9 leaves it
        (bench.instance.sandboxes / one.id / ".record.json.123.tmp").write_text("{")
    async with bench.node() as node:
        assert (await node.get(sandbox.id)).status is Status.RUNNING
        assert {path.name for path in bench.instance.sandboxes.glob("*/.*")} == set()
        await node.terminate(sandbox.id)
    assert await bench.residue() == []


async def test_another_boot_of_the_machine_makes_a_sandbox_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench.node() as node:
        sandbox = await node.create(new_id("sb"), SandboxSpec())
    monkeypatch.setattr("belljar.node.supervisor.boot_id", lambda: "another boot")
    async with bench.node() as node:
        after = await node.get(sandbox.id)
        assert after.status is Status.LOST
        assert after.ended is not None and after.ended.reason == "host_reboot"
