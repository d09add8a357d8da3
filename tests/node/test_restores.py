"""A whole node on real gVisor: pool, memory snapshots, forks, rollback, and what a successor finds."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from belljar.base.files import remove_tree
from belljar.base.ids import new_id
from belljar.base.tasks import in_thread, wait_until
from belljar.model.code import CodeSpec, ContextSpec, Printed
from belljar.model.errors import (
    Conflict,
    DiskFull,
    Error,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    SandboxGone,
    SnapshotIncompatible,
)
from belljar.model.process import Exit, Output, ProcessSpec, PtySize, Stream
from belljar.model.sandbox import Limits, Network, Sandbox, SandboxSpec, Status
from belljar.model.snapshot import SnapshotKind
from belljar.node.artifacts import state_store
from belljar.node.holding import owned
from belljar.node.housekeeping import keep_house
from belljar.node.instance import Instance, instance_of
from belljar.node.logs import Logs
from belljar.node.machine import Machine
from belljar.node.purge import purge
from belljar.node.residue import host_objects, leaks
from belljar.node.service import NodeService
from belljar.server.machine import open_machine
from belljar.server.settings import Settings

pytestmark = [pytest.mark.node, pytest.mark.asyncio(loop_scope="module")]
SPEC = SandboxSpec("base", limits=Limits(memory=256 << 20, disk=1 << 30))
_COUNT = "i=0; while :; do i=$((i+1)); echo n$i; sleep 0.05; done"


@dataclass
class Place:
    """A state directory; `node` is the server's of now."""

    instance: Instance
    machine: Machine
    node: NodeService

    async def sh(self, id: str, script: str, *, env: Mapping[str, str] | None = None) -> str:
        out, code = b"", None
        spec = ProcessSpec(new_id("px"), ("/bin/sh", "-c", script), dict(env or {}), stdin=False)
        async for piece in self.node.guest(id).start_attached(spec):
            if isinstance(piece, Output):
                out += piece.data
            elif isinstance(piece, Exit):
                code = piece.returncode
        assert code == 0, out
        return out.decode()

    async def code(self, id: str, source: str) -> str:
        spec, said = CodeSpec(new_id("ck"), source), ""
        async for event in self.node.guest(id).execute("python", spec, create=ContextSpec("python", "python")):
            said += event.text if isinstance(event, Printed) else ""
        return said

    @contextlib.asynccontextmanager
    async def sandbox(self, spec: SandboxSpec = SPEC) -> AsyncGenerator[str]:
        made = await self.node.create(new_id("sb"), spec)
        try:
            yield made.id
        finally:
            await self.node.terminate(made.id)

    async def seen(self, id: str, process: int, text: bytes, *, offset: int = 0) -> None:
        gathered = b""
        async for event in self.node.guest(id).output(process, {Stream.STDOUT: offset}):
            if isinstance(event, Output):
                gathered += event.data
                if text in gathered:
                    return
        raise AssertionError(f"{text!r} did not come: {gathered[-300:]!r}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    instance = instance_of(tmp_path_factory.mktemp("restores") / "home")
    async with open_machine(Settings(pool=3), instance) as machine:
        place = Place(instance, machine, await NodeService(machine).__aenter__())
        yield place
        for sandbox in await place.node.sandboxes():
            await place.node.terminate(sandbox.id)
        assert await in_thread(leaks, instance) == []
        await place.node.__aexit__(None, None, None)
        assert [thing for thing in await in_thread(host_objects, instance) if thing.kind == "process"] == []
        await purge(machine)
    await in_thread(remove_tree, instance.home)
    assert await in_thread(host_objects, instance) == []


async def test_what_waits_is_new_and_becomes_the_sandbox_that_was_asked_for(place: Place) -> None:
    async with place.sandbox() as first:
        await place.sh(first, "echo mark > /tmp/mark; echo mark > /root/mark; echo mark > /etc/mark")

        async def waits() -> bool:
            return place.node.waiting()[0] > 0

        assert await wait_until(waits, timeout=60)
        ids = [first]
        for number in range(3):
            assert await wait_until(waits, timeout=60)
            spec = replace(SPEC, name=f"twin{number}", env={"MINE": str(number)}, user="user", network=Network.NONE)
            ids.append((await place.node.create(new_id("sb"), spec)).id)
            assert await place.node.guest(ids[-1]).processes() == [], "what warmed it up is not known"
            said = await place.sh(
                ids[-1], "hostname; cat /etc/hostname; uname -n; echo $MINE; id -un; pwd; cat /etc/resolv.conf"
            )
            name = f"twin{number}"
            assert said.splitlines() == [name, name, name, str(number), "user", "/home/user", "# no network"]
            assert await place.sh(ids[-1], "ls -A /tmp /root/mark /etc/mark 2>/dev/null || true") == "/tmp:\n"
        facts = [
            await place.sh(
                id, "cat /etc/machine-id /proc/sys/kernel/random/boot_id; head -c 16 /dev/urandom | od -An -tx1"
            )
            for id in ids
        ]
        for line in range(3):
            assert len({fact.splitlines()[line] for fact in facts}) == len(ids), facts
        for number, id in enumerate(ids[1:]):
            await place.node.terminate(id)
            first, *_ = await place.node.last_output(id)
            assert first.process.id == 1 and first.stdout.startswith(f"twin{number}\n".encode()), "nor what it wrote"


async def test_a_claim_has_the_limits_that_were_asked_for(place: Place) -> None:
    look = "free -m | sed -n 2p | awk '{print $2}'; nproc; df -m / /tmp /dev/shm | awk 'NR>1 {print $2}'"
    for memory, cpus in ((256, 0.7), (512, 1.0), (192, 1.0)):
        spec = replace(SPEC, limits=Limits(cpus=cpus, memory=memory << 20, disk=1 << 30))
        async with place.sandbox(spec) as id:
            assert (await place.sh(id, look)).split() == [
                *(str(memory), "1", "1024"),
                *(str(memory // 2), str(memory // 4)),
            ]


async def test_a_memory_snapshot_is_the_past_of_many_and_its_source_goes_on(place: Place) -> None:
    async with place.sandbox() as source:
        guest = place.node.guest(source)
        counter = await guest.start(ProcessSpec(new_id("px"), ("/bin/sh", "-c", _COUNT)))
        shell = await guest.start(ProcessSpec(new_id("px"), ("/bin/bash",), pty=PtySize(90, 20)))
        written = await guest.write_stdin(shell.id, 0, b"word=forty; cd /usr; echo re''ady\n")
        await place.seen(source, shell.id, b"ready\r\n")
        assert await place.code(source, "x = [41]; import random; print(random.seed(7))") == "None\n"
        taken = await place.node.snapshot(source, new_id("sn"), SnapshotKind.MEMORY)
        assert taken.kind is SnapshotKind.MEMORY and 0 < taken.paused < 5 and taken.size > 1 << 20
        assert [known.id for known in await place.node.snapshots()] == [taken.id]
        async with (
            place.sandbox(replace(SPEC, snapshot=taken.id, name="one")) as one,
            place.sandbox(replace(SPEC, snapshot=taken.id, env={"OWN": "two"})) as two,
        ):
            for id in (source, one, two):
                info = await place.node.guest(id).process(counter.id)
                assert info.returncode is None
                await place.seen(id, counter.id, b"\n", offset=info.stdout.end)
                await place.node.guest(id).write_stdin(shell.id, written, b"echo $word-$(pwd)-$(stty size)\n")
                await place.seen(id, shell.id, b"forty-/usr-20 90\r\n")
                assert await place.code(id, "x.append(1); print(x)") == "[41, 1]\n"
            draws = {await place.code(id, "print(random.random())") for id in (source, one, two)}
            assert len(draws) == 3
            async with place.sandbox(replace(SPEC, snapshot=taken.id, reseed=False)) as same:
                assert await place.code(same, "print(random.random() in (random.Random(7).random(),))") == "True\n"
            assert (await place.sh(one, "hostname; cat /etc/machine-id")).split()[0] == "one"
            assert await place.sh(two, "echo $OWN") == "two\n"
            boots = {await place.sh(id, "cat /proc/sys/kernel/random/boot_id") for id in (source, one, two)}
            assert len(boots) == 1, "one kernel's past has one boot"
            machines = {await place.sh(id, "cat /etc/machine-id") for id in (source, one, two)}
            assert len(machines) == 3
        await place.node.delete_snapshot(taken.id)
        with pytest.raises(NotFound):
            await place.node.create(new_id("sb"), replace(SPEC, snapshot=taken.id))


async def test_forks_go_on_from_one_moment_and_differ_where_they_were_told_to(place: Place) -> None:
    async with place.sandbox(replace(SPEC, labels={"team": "a"})) as parent:
        await place.sh(parent, "echo before > /root/file; echo before > /tmp/file")
        await place.code(parent, "tree = {'depth': 1}")
        specs = {
            new_id("sb"): replace(SPEC, env={"BRANCH": str(number)}, limits=replace(SPEC.limits, memory=memory << 20))
            for number, memory in enumerate((256, 384, 256))
        }
        made = await place.node.fork(parent, specs)
        assert [type(child) for child in made.values()] == [Sandbox] * 3
        for number, (id, child) in enumerate(made.items()):
            assert isinstance(child, Sandbox) and child.parent == parent and child.status is Status.RUNNING
            assert await place.sh(id, "cat /root/file /tmp/file; echo $BRANCH") == f"before\nbefore\n{number}\n"
            await place.sh(id, f"echo {number} > /root/file")
            assert await place.code(id, "tree['depth'] += 1; print(tree)") == "{'depth': 2}\n"
        assert await place.sh(parent, "cat /root/file") == "before\n"
        assert await place.code(parent, "print(tree)") == "{'depth': 1}\n"
        grandchild = new_id("sb")
        first = next(iter(specs))
        assert isinstance((await place.node.fork(first, {grandchild: SPEC}))[grandchild], Sandbox)
        assert await place.sh(grandchild, "cat /root/file") == "0\n"
        for id in (*specs, grandchild):
            await place.node.terminate(id)


async def test_who_forks_again_takes_kernels_that_were_made_ahead(place: Place) -> None:
    async with place.sandbox() as parent:
        await place.sh(parent, "echo before > /root/file")
        children = {new_id("sb"): SPEC, new_id("sb"): SPEC}
        await place.node.fork(parent, children)

        async def waits() -> bool:
            return place.node.waiting()[1] > 0

        assert await wait_until(waits, timeout=60)
        ahead = owned(place.instance.run)
        again = new_id("sb")
        limits = replace(SPEC.limits, cpus=0.5)
        await place.node.fork(parent, {again: replace(SPEC, network=Network.NONE, limits=limits)})
        taken = ahead - owned(place.instance.run)
        assert [id for id in taken if (place.instance.run / "sandboxes" / id).is_dir()]
        assert await place.sh(again, "cat /root/file /etc/resolv.conf") == "before\n# no network\n"
        for id in (*children, again):
            await place.node.terminate(id)


async def test_forks_that_cannot_be_are_refused_and_leave_the_source_alone(place: Place) -> None:
    async with place.sandbox() as parent:
        counter = await place.node.guest(parent).start(ProcessSpec(new_id("px"), ("/bin/sh", "-c", _COUNT)))
        with pytest.raises(LimitExceeded):
            await place.node.fork(parent, {new_id("sb"): SPEC for _ in range(10_000)})
        with pytest.raises(InvalidArgument, match="processors"):
            await place.node.fork(parent, {new_id("sb"): replace(SPEC, limits=replace(SPEC.limits, cpus=2.0))})
        fine, broken = new_id("sb"), new_id("sb")
        await place.node.terminate((await place.node.create(broken, SPEC)).id)
        with pytest.raises(Error, match="has ended"):
            await place.node.fork(parent, {new_id("sb"): SPEC, broken: SPEC})
        assert [sandbox.id for sandbox in await place.node.sandboxes() if sandbox.parent == parent] == []
        taken = new_id("sn")
        answers = await asyncio.gather(
            place.node.snapshot(parent, taken, SnapshotKind.MEMORY),
            place.node.fork(parent, {fine: SPEC}),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers if isinstance(answer, Exception)] == [Conflict], answers
        assert (await place.node.guest(parent).process(counter.id)).returncode is None
        for id in {sandbox.id for sandbox in await place.node.sandboxes()} - {parent}:
            await place.node.terminate(id)
        await place.node.delete_snapshot(taken)
    with pytest.raises(SandboxGone):
        await place.node.fork(parent, {new_id("sb"): SPEC})


async def test_a_rollback_takes_everything_back_and_keeps_the_sandbox(place: Place) -> None:
    async with place.sandbox(replace(SPEC, name="rolled", env={"KEPT": "yes"})) as id:
        await place.code(id, "step = 1")
        await place.sh(id, "echo one > /root/step")
        taken = await place.node.snapshot(id, new_id("sn"), SnapshotKind.MEMORY)
        await place.code(id, "step = 2")
        await place.sh(id, "echo two > /root/step; rm -rf /usr/bin/env")
        late = await place.node.guest(id).start(ProcessSpec(new_id("px"), ("/bin/sleep", "1000")))
        sandbox = await place.node.rollback(id, taken.id)
        assert sandbox.id == id and sandbox.status is Status.RUNNING
        assert await place.code(id, "print(step)") == "1\n"
        assert await place.sh(id, "cat /root/step; test -e /usr/bin/env; hostname; echo $KEPT") == "one\nrolled\nyes\n"
        with pytest.raises(NotFound):
            await place.node.guest(id).process(late.id)
        with pytest.raises(NotFound):
            await place.node.rollback(id, new_id("sn"))
        assert await place.code(id, "print(step)") == "1\n", "one that failed changes nothing"
        next_one = await place.node.snapshot(id, new_id("sn"), SnapshotKind.MEMORY)
        assert next_one.parent == taken.id
        for snapshot in (taken.id, next_one.id):
            await place.node.delete_snapshot(snapshot)


async def test_forks_whose_caller_leaves_are_ended(place: Place) -> None:
    async with place.sandbox() as parent:
        ids = [new_id("sb") for _ in range(3)]
        call = asyncio.create_task(place.node.fork(parent, dict.fromkeys(ids, SPEC)))

        async def begun() -> bool:
            return any(sandbox.parent == parent for sandbox in await place.node.sandboxes())

        assert await wait_until(begun, timeout=20, every=0.002)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert {(await place.node.get(id)).status for id in ids} == {Status.TERMINATED}
        assert await place.sh(parent, "echo here") == "here\n"
    assert await in_thread(leaks, place.instance) == []


async def test_what_has_no_room_in_memory_goes_over_the_disk_and_without_that_nothing_is_left(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.sandbox() as source:
        await place.code(source, "kept = 'yes'")
        monkeypatch.setattr("belljar.node.snapshot.memory.available_memory", lambda: 0)
        taken = await place.node.snapshot(source, new_id("sn"), SnapshotKind.MEMORY)
        async with place.sandbox(replace(SPEC, snapshot=taken.id)) as twin:
            assert await place.code(twin, "print(kept)") == "yes\n"
        monkeypatch.setattr("belljar.node.snapshot.memory._SLACK", 1 << 50)
        with pytest.raises(DiskFull):
            await place.node.snapshot(source, new_id("sn"), SnapshotKind.MEMORY)
        with pytest.raises(DiskFull):
            await place.node.fork(source, {new_id("sb"): SPEC})
        assert await place.code(source, "print(kept)") == "yes\n"
    assert [known.id for known in await place.node.snapshots()] == [taken.id]
    assert not list((place.instance.home / "work").iterdir())
    await place.node.delete_snapshot(taken.id)


async def test_housekeeping_cools_what_nobody_opens_and_keeps_what_a_snapshot_needs(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("belljar.node.housekeeping._EVERY", 0.05)
    monkeypatch.setattr("belljar.node.housekeeping._COLLECT_EVERY", 1)
    store, own = place.machine.snapshots, state_store(place.instance.home)
    async with place.sandbox() as source:
        await place.code(source, "kept = 'yes'")
        taken = await place.node.snapshot(source, new_id("sn"), SnapshotKind.MEMORY)
    needless, needed = [await own.make("engine", {"from": text}, _old_engine) for text in ("one", "another")]
    other = replace(store.get(taken.id).draft, id=new_id("sn"), build=needed.key)
    folder = await store.begin(other.id)
    async with store.opened(taken.id) as (_, files):
        await in_thread(_copy, files, folder)
    await store.commit(other)
    logs = Logs(place.instance.home / "logs", days=1, size=1 << 20)
    house = asyncio.create_task(keep_house(replace(place.machine, cool_after=0.0), logs, list))
    try:

        async def kept() -> bool:
            return not store.is_hot(taken.id) and own.get("engine", needless.key) is None

        async def gone() -> bool:
            return own.get("engine", needed.key) is None

        assert await wait_until(kept, timeout=30)
        assert not await gone(), "a snapshot needs it"
        await place.node.delete_snapshot(other.id)
        assert await wait_until(gone, timeout=30)
        assert own.get("engine", place.machine.build) is not None
    finally:
        house.cancel()
        await asyncio.wait([house])
    async with place.sandbox(replace(SPEC, snapshot=taken.id)) as again:
        assert await place.code(again, "print(kept)") == "yes\n"
    await place.node.delete_snapshot(taken.id)


async def _old_engine(folder: Path) -> None:
    (folder / "runsc").write_text("of an earlier release")


async def test_what_cannot_go_on_here_is_refused_with_the_reason(place: Place) -> None:
    async with place.sandbox() as id:
        taken = await place.node.snapshot(id, new_id("sn"), SnapshotKind.MEMORY)
    store = place.machine.snapshots
    manifest = store.get(taken.id)
    for change, words in (
        ({"cpu": (*manifest.draft.cpu, "quantum")}, "quantum"),
        ({"platform": "kvm/s390x"}, "kvm/s390x"),
        ({"build": "0" * 32}, "engine"),
        ({"runtime": "0" * 32}, "runtime"),
        ({"image_key": "0" * 32}, "image"),
    ):
        other = new_id("sn")
        folder = await store.begin(other)
        async with store.opened(taken.id) as (_, files):
            await in_thread(_copy, files, folder)
        await store.commit(replace(manifest.draft, id=other, **change))
        with pytest.raises(SnapshotIncompatible, match=words):
            await place.node.create(new_id("sb"), replace(SPEC, snapshot=other))
        await place.node.delete_snapshot(other)
    await place.node.delete_snapshot(taken.id)


def _copy(source: Path, target: Path) -> None:
    for file in source.iterdir():
        if file.name.endswith(".img"):
            (target / file.name).write_bytes(file.read_bytes())


async def test_a_successor_goes_on_with_forks_and_frees_what_waited(place: Place) -> None:
    async with place.sandbox() as parent:
        child = new_id("sb")
        await place.node.fork(parent, {child: SPEC})
        await place.code(child, "kept = 'yes'")
        taken = await place.node.snapshot(child, new_id("sn"), SnapshotKind.MEMORY)
        await place.node.__aexit__(None, None, None)
        place.node = await NodeService(place.machine).__aenter__()
        assert {(await place.node.get(id)).status for id in (parent, child)} == {Status.RUNNING}
        assert (await place.node.get(child)).parent == parent
        assert await place.code(child, "print(kept)") == "yes\n"
        again = await place.node.create(new_id("sb"), replace(SPEC, snapshot=taken.id))
        assert await place.code(again.id, "print(kept)") == "yes\n"
        for id in (child, again.id):
            await place.node.terminate(id)
        await place.node.delete_snapshot(taken.id)
