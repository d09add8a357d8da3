"""A whole node on real gVisor: filesystem and directory snapshots, what starts from them, what they changed, what is mounted."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from belljar.base.files import remove_tree
from belljar.base.ids import new_id
from belljar.base.tasks import in_thread, wait_until
from belljar.model.errors import Conflict, InvalidArgument, NotFound, NotSupported
from belljar.model.process import Exit, Output, ProcessSpec
from belljar.model.sandbox import Limits, SandboxSpec, Status
from belljar.model.snapshot import SnapshotKind
from belljar.node.instance import Instance, instance_of
from belljar.node.machine import Machine
from belljar.node.purge import purge
from belljar.node.residue import host_objects, leaks
from belljar.node.service import NodeService
from belljar.server.machine import open_machine
from belljar.server.settings import Settings

pytestmark = [pytest.mark.node, pytest.mark.asyncio(loop_scope="module")]
SPEC = SandboxSpec("base", limits=Limits(memory=256 << 20, disk=1 << 30), pool=False)


class Place:
    def __init__(self, instance: Instance, machine: Machine, node: NodeService) -> None:
        self.instance = instance
        self.machine = machine
        self.node = node

    async def create(self, snapshot: str | None = None) -> str:
        return (await self.node.create(new_id("sb"), replace(SPEC, snapshot=snapshot))).id

    async def sh(self, id: str, script: str) -> str:
        out = b""
        spec = ProcessSpec(new_id("px"), ("/bin/sh", "-c", script), {}, stdin=False)
        async for piece in self.node.guest(id).start_attached(spec):
            if isinstance(piece, Output):
                out += piece.data
            elif isinstance(piece, Exit):
                assert piece.returncode == 0, out
        return out.decode()

    async def files(self, id: str) -> str:
        return (await self.node.snapshot(id, new_id("sn"), SnapshotKind.FILESYSTEM)).id

    def ready(self) -> list[str]:
        return sorted(entry.name for entry in self.instance.ready.iterdir())

    async def changes(self, snapshot: str) -> dict[str, str]:
        return {change.path: change.change async for change in self.node.changes(snapshot)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    instance = instance_of(tmp_path_factory.mktemp("files") / "home")
    async with open_machine(Settings(pool=0), instance) as machine:
        async with NodeService(machine) as node:
            yield Place(instance, machine, node)
            for sandbox in await node.sandboxes():
                await node.terminate(sandbox.id)
            assert await in_thread(leaks, instance) == []
        await purge(machine)
    await in_thread(remove_tree, instance.home)
    assert await in_thread(host_objects, instance) == []


async def test_a_sandbox_starts_from_the_files_of_another_and_so_do_its_own(place: Place) -> None:
    source = await place.create()
    await place.sh(source, "echo one > /one; rm /usr/bin/nano; echo secret > /tmp/not-kept")
    first = await place.files(source)
    assert await place.sh(source, "cat /one") == "one\n"
    await place.node.terminate(source)
    child = await place.create(first)
    assert await place.sh(child, "cat /one; ls /usr/bin/nano /tmp 2>/dev/null || true") == "one\n/tmp:\n"
    assert (await place.sh(child, "cat /etc/hostname")).strip() == child
    await place.sh(child, "echo two > /two")
    second = await place.files(child)
    grandchild = await place.create(second)
    assert await place.sh(grandchild, "cat /one /two") == "one\ntwo\n"
    changed = await place.changes(second)
    assert changed["/one"] == changed["/two"] == "added"
    assert changed["/usr/bin/nano"] == "deleted"
    assert not [path for path in changed if path.startswith(("/etc", "/.belljar", "/tmp"))]
    snapshots = {found.id: found for found in await place.node.snapshots()}
    assert snapshots[second].parent == first
    assert snapshots[second].kind is SnapshotKind.FILESYSTEM
    assert place.ready() == []


async def test_big_ones_are_made_ready_once_and_go_with_their_snapshot(place: Place) -> None:
    source = await place.create()
    await place.sh(source, "head -c 30000000 /dev/urandom > /data; sha256sum /data > /sum")
    big = await place.files(source)
    children = await asyncio.gather(*(place.create(big) for _ in range(3)))
    assert [await place.sh(child, "sha256sum -c /sum") for child in children] == ["/data: OK\n"] * 3
    assert len(place.ready()) == 1
    await place.node.delete_snapshot(big)
    place.machine.filesystems._used.clear()  # as if a while had passed
    await place.machine.filesystems.sweep()
    assert place.ready() == []
    memory = (await place.node.snapshot(children[0], new_id("sn"), SnapshotKind.MEMORY)).id
    later = await place.create(memory)
    assert await place.sh(later, "sha256sum -c /sum; sha256sum /data | cut -c 1-4 | wc -c") == "/data: OK\n5\n"


async def test_a_rollback_to_files_of_before(place: Place) -> None:
    id = await place.create()
    await place.sh(id, "echo before > /state")
    snapshot = await place.files(id)
    await place.sh(id, "echo after > /state; rm -r /home/user")
    assert (await place.node.rollback(id, snapshot)).status is Status.RUNNING
    assert await place.sh(id, "cat /state; ls -d /home/user") == "before\n/home/user\n"


async def test_an_exported_one_starts_under_another_name(place: Place) -> None:
    source = await place.create()
    await place.sh(source, "echo here > /there")
    snapshot, again = await place.files(source), new_id("sn")
    await place.node.import_snapshot(again, place.node.export_snapshot(snapshot))
    await place.node.delete_snapshot(snapshot)
    assert await place.sh(await place.create(again), "cat /there") == "here\n"
    assert (await place.changes(again))["/there"] == "added"


async def test_a_directory_comes_into_another_sandbox(place: Place) -> None:
    source, other = await place.create(), await place.create()
    await place.sh(source, "mkdir -p /data/deep; echo 1 > /data/deep/a")
    snapshot = (await place.node.snapshot(source, new_id("sn"), SnapshotKind.DIRECTORY, path="/data")).id
    assert await place.changes(snapshot) == {"deep": "added", "deep/a": "added"}
    await place.node.mount(other, snapshot, "/work")
    await place.sh(other, "cat /work/deep/a; echo mine > /work/deep/a")
    assert await place.node.mounts(other) == {"/work": snapshot}
    with pytest.raises(Conflict):
        await place.node.mount(other, snapshot, "/work")
    fork = (await place.node.fork(other, {new_id("sb"): replace(SPEC, snapshot=None)})).popitem()[1]
    assert not isinstance(fork, Exception)
    assert await place.node.mounts(fork.id) == {"/work": snapshot}
    await place.node.unmount(other, "/work")
    assert await place.node.mounts(other) == {}
    assert await place.sh(fork.id, "cat /work/deep/a") == "mine\n"
    assert await place.sh(source, "cat /data/deep/a") == "1\n"


async def test_what_does_not_go_together_is_refused(place: Place) -> None:
    source = await place.create()
    files, memory = await place.files(source), new_id("sn")
    await place.node.snapshot(source, memory, SnapshotKind.MEMORY)
    tree = (await place.node.snapshot(source, new_id("sn"), SnapshotKind.DIRECTORY, path="/home")).id
    with pytest.raises(InvalidArgument):
        await place.node.mount(source, files, "/work")
    with pytest.raises(InvalidArgument):
        await place.create(tree)
    with pytest.raises(NotSupported):
        await place.changes(memory)
    with pytest.raises(NotFound):
        await place.node.snapshot(source, new_id("sn"), SnapshotKind.DIRECTORY, path="/nowhere")
    with pytest.raises(NotFound):
        await place.node.unmount(source, "/work")
    before = {found.id for found in await place.node.snapshots()}
    assert {files, memory, tree} <= before


def _saved(place: Place) -> int:
    return len([*(place.instance.home / "snapshots").rglob("upper.tar")])


async def test_one_at_a_time(place: Place) -> None:
    source = await place.create()
    await place.sh(source, "head -c 100000000 /dev/urandom > /data")
    there = _saved(place)
    first = asyncio.create_task(place.files(source))
    assert await wait_until(lambda: in_thread(lambda: _saved(place) > there), timeout=5)
    with pytest.raises(Conflict):
        await place.files(source)
    assert await place.sh(await place.create(await first), "wc -c < /data") == "100000000\n"
