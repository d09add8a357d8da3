"""Forks, going back, mounts, and who came from whom, over a scripted node."""

import asyncio
from dataclasses import replace

import pytest
from tests.unit.control.conftest import Control, Plant

from belljar.base.ids import new_id
from belljar.control.branches import Fork
from belljar.control.lineage import Family
from belljar.control.origins import Wanted
from belljar.control.store.sandboxes import Filter, Record
from belljar.model.errors import (
    AlreadyExists,
    Conflict,
    Error,
    InvalidArgument,
    NoCapacity,
    NotFound,
    SandboxGone,
    SnapshotIncompatible,
)
from belljar.model.sandbox import Network, Sandbox, SandboxSpec, Status
from belljar.model.snapshot import SnapshotKind, SnapshotSpec
from belljar.model.workspace import Quota

HOME = "default"
MEMORY = SnapshotSpec(SnapshotKind.MEMORY)


def boxes(results: object) -> list[Sandbox]:
    assert isinstance(results, list)
    assert all(isinstance(one, Sandbox) for one in results)
    return results


async def test_children_have_their_parents_spec_with_what_is_given(plant: Plant):
    async with plant.control() as control:
        wanted = Wanted(image="base", name="web", env={"A": "1", "B": "1"}, labels={"a": "b"}, lifetime=77)
        parent = await control.sandboxes.create(HOME, wanted)
        fork = Fork(2, name="kid", env={"B": "2"}, network=Network.NONE, memory=2 << 30)
        first, second = boxes(await control.branches.fork(HOME, "web", fork))
        assert (first.spec.name, second.spec.name) == ("kid-1", "kid-2")
        for child in (first, second):
            assert (child.parent, child.status, child.spec.snapshot) == (parent.id, Status.RUNNING, None)
            assert (child.spec.image, child.spec.env, child.spec.labels) == ("base", {"A": "1", "B": "2"}, {"a": "b"})
            assert (child.spec.network, child.spec.limits.memory, child.spec.lifetime) == (Network.NONE, 2 << 30, 77)
        (third,) = boxes(await control.branches.fork(HOME, "kid-1", Fork(labels={}, lifetime=None)))
        assert (third.parent, third.spec.name, third.spec.labels, third.spec.lifetime) == (first.id, None, {}, None)
    async with plant.control() as control:
        assert (await control.sandboxes.get(HOME, second.id)).parent == parent.id


async def test_a_fork_asked_for_twice_with_the_same_ids_is_made_once(plant: Plant):
    async with plant.control() as control:
        parent = await control.sandboxes.create(HOME, SandboxSpec())
        ids = [new_id("sb") for _ in range(3)]
        plant.node.gate = asyncio.Event()
        calls = [asyncio.create_task(control.branches.fork(HOME, parent.id, Fork(ids=ids))) for _ in range(2)]
        await asyncio.sleep(0.02)
        plant.node.gate.set()
        first, second = await asyncio.gather(*calls)
        assert [one.id for one in boxes(first)] == ids
        assert first == second == await control.branches.fork(HOME, parent.id, Fork(ids=ids))
        assert len(control.index) == 4
        await control.sandboxes.terminate(HOME, ids[0])
        ended, *_ = await control.branches.fork(HOME, parent.id, Fork(ids=ids))
        assert isinstance(ended, SandboxGone)
        with pytest.raises(Conflict, match="something else"):
            await control.branches.fork(HOME, parent.id, Fork(ids=[ids[1], new_id("sb")]))
        with pytest.raises(Conflict, match="something else"):
            await control.branches.fork(HOME, ids[1], Fork(ids=[ids[2]]))


async def test_ids_of_another_workspace_are_not_touched(plant: Plant):
    async with plant.control() as control:
        await control.workspaces.make("other", Quota())
        foreign = await control.sandboxes.create("other", SandboxSpec(name="x"))
        parent = await control.sandboxes.create(HOME, SandboxSpec())
        with pytest.raises(AlreadyExists):
            await control.branches.fork(HOME, parent.id, Fork(ids=[foreign.id]))
        assert await control.sandboxes.get("other", "x") == foreign
        with pytest.raises(NotFound):
            await control.branches.fork("other", parent.id, Fork())


async def test_what_failed_of_several_stands_in_its_place_and_its_name_is_free(plant: Plant):
    async with plant.control() as control:
        parent = await control.sandboxes.create(HOME, SandboxSpec())
        plant.node.forked = {"kid-2": NoCapacity("no room for a second one")}
        first, second, third = await control.branches.fork(HOME, parent.id, Fork(3, name="kid"))
        assert isinstance(second, NoCapacity)
        assert isinstance(first, Sandbox) and isinstance(third, Sandbox)
        plant.node.forked = {}
        (again,) = boxes(await control.branches.fork(HOME, parent.id, Fork(name="kid-2")))
        assert again.spec.name == "kid-2"


async def test_a_fork_that_fails_as_a_whole_leaves_no_child(plant: Plant):
    async with plant.control() as control:
        parent = await control.sandboxes.create(HOME, SandboxSpec())
        plant.node.failure = NoCapacity("short of memory")
        with pytest.raises(NoCapacity):
            await control.branches.fork(HOME, parent.id, Fork(5))
        assert [entry.sandbox.id for entry in control.index.live()] == [parent.id]
        assert (await control.sandboxes.get(HOME, parent.id)).status is Status.RUNNING
        items, _ = await control.sandboxes.list(HOME, Filter(statuses=(Status.FAILED,)))
        assert len(items) == 5


@pytest.mark.parametrize(
    "fork",
    [
        Fork(0),
        Fork(101),
        Fork(10_000),
        Fork(ids=["sb1"]),
        Fork(2, ids=[new_id("sb")] * 3),
        Fork(ids=["sb0000000000000000000"] * 2),
        Fork(name="No"),
        Fork(2, name="a" * 63),
        Fork(env={"=": ""}),
        Fork(memory=1),
        Fork(lifetime=-1),
    ],
)
async def test_what_cannot_be_is_refused_before_anything_is_made(plant: Plant, fork: Fork):
    async with plant.control() as control:
        parent = await control.sandboxes.create(HOME, SandboxSpec())
        with pytest.raises(InvalidArgument):
            await control.branches.fork(HOME, parent.id, fork)
        assert plant.node.creates == 1


async def test_a_fork_of_a_terminated_one_is_refused_with_the_reason(plant: Plant):
    async with plant.control() as control:
        parent = await control.sandboxes.create(HOME, SandboxSpec())
        await control.sandboxes.terminate(HOME, parent.id)
        with pytest.raises(SandboxGone, match="killed"):
            await control.branches.fork(HOME, parent.id, Fork())


async def test_children_that_their_server_did_not_survive_have_failed(plant: Plant):
    async with plant.control() as control:
        parent = await control.sandboxes.create(HOME, SandboxSpec())
    ids = [new_id("sb"), new_id("sb")]
    spec, now = SandboxSpec(), plant.clock.now()
    halves = [Sandbox(id, spec, Status.CREATING, now, parent=parent.id) for id in ids]
    await plant.store.insert_all([Record(HOME, half, "boot-1") for half in halves])
    await plant.node.create(ids[1], spec)
    async with plant.control() as control:
        failed, there = await control.branches.fork(HOME, parent.id, Fork(ids=ids))
        assert isinstance(failed, Error)
        assert isinstance(there, Sandbox) and there.status is Status.RUNNING


async def test_going_back_keeps_what_it_is_and_refuses_what_it_cannot_be(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    async with plant.control() as control:
        box = await control.sandboxes.create(HOME, SandboxSpec(name="web", labels={"a": "b"}))
        kept = await control.snapshots.create(HOME, "web", SnapshotSpec(SnapshotKind.MEMORY, name="s"))
        after = await control.branches.rollback(HOME, "web", "s")
        assert (after.id, after.spec.name, after.spec.labels, after.status) == (
            box.id,
            "web",
            {"a": "b"},
            Status.RUNNING,
        )
        directory = await control.snapshots.create(HOME, "web", SnapshotSpec(SnapshotKind.DIRECTORY, "/srv"))
        with pytest.raises(InvalidArgument, match="directory"):
            await control.branches.rollback(HOME, "web", directory.id)
        with pytest.raises(NotFound):
            await control.branches.rollback(HOME, "web", "nothing")

        async def refuse(id: str, snapshot: str) -> Sandbox:
            raise SnapshotIncompatible("made on another kind of processor")

        monkeypatch.setattr(plant.node, "rollback", refuse)
        with pytest.raises(SnapshotIncompatible):
            await control.branches.rollback(HOME, "web", kept.id)
        assert (await control.sandboxes.get(HOME, "web")).status is Status.RUNNING


async def test_directories_are_mounted_listed_and_taken_away(plant: Plant):
    async with plant.control() as control:
        box = await control.sandboxes.create(HOME, SandboxSpec())
        data = await control.snapshots.create(
            HOME, box.id, SnapshotSpec(SnapshotKind.DIRECTORY, "/srv/data", name="data")
        )
        memory = await control.snapshots.create(HOME, box.id, MEMORY)
        await control.branches.mount(HOME, box.id, "data", "/mnt/./data/")
        assert await control.branches.mounts(HOME, box.id) == {"/mnt/data": data.id}
        for path in ("/", "/usr", "/proc/1", "relative", "/a/../etc", "/.belljar/x"):
            with pytest.raises(InvalidArgument):
                await control.branches.mount(HOME, box.id, "data", path)
        with pytest.raises(InvalidArgument, match="whole sandbox"):
            await control.branches.mount(HOME, box.id, memory.id, "/mnt/x")
        await control.branches.unmount(HOME, box.id, "/mnt/data")
        with pytest.raises(NotFound):
            await control.branches.unmount(HOME, box.id, "/mnt/data")


# lineage -------------------------------------------------------------------------------------------------------------


def drawn(family: Family, names: dict[str, str]) -> list[str]:
    """``child<parent`` by the names of the test."""
    return [f"{names[node.id]}<{names[node.parent] if node.parent else ''}" for node in family.nodes]


async def grown(control: Control, plant: Plant) -> dict[str, str]:
    """a → s1 → b → s3, a → s2 (after a rollback to s1), a → fork c; and z, which has nothing to do with them."""
    a = await control.sandboxes.create(HOME, SandboxSpec(name="a"))
    s1 = await control.snapshots.create(HOME, a.id, MEMORY)
    b = await control.sandboxes.create(HOME, Wanted(snapshot=s1.id))
    s3 = await control.snapshots.create(HOME, b.id, MEMORY)
    s2 = await control.snapshots.create(HOME, a.id, MEMORY)
    await plant.snapshots.ready(replace(s2.snapshot, parent=s1.id))
    (c,) = boxes(await control.branches.fork(HOME, a.id, Fork()))
    z = await control.sandboxes.create(HOME, SandboxSpec(name="z"))
    await control.snapshots.create(HOME, z.id, MEMORY)
    return {a.id: "a", b.id: "b", c.id: "c", s1.id: "s1", s2.id: "s2", s3.id: "s3"}


async def test_the_family_of_each_member_is_the_same_tree(plant: Plant):
    async with plant.control() as control:
        names = await grown(control, plant)
        whole = ["a<", "s1<a", "b<s1", "s3<b", "s2<s1", "c<a"]
        for id in names:
            family = await control.lineage.of(HOME, id)
            assert drawn(family, names) == whole
            assert family.whole
        assert drawn(await control.lineage.of(HOME, "a"), names) == whole


async def test_what_has_gone_stays_in_the_tree_of_what_came_from_it(plant: Plant):
    async with plant.control() as control:
        names = await grown(control, plant)
        ids = {name: id for id, name in names.items()}
        await control.snapshots.delete(HOME, ids["s1"])
        await control.sandboxes.terminate(HOME, ids["a"])
        everything = await control.lineage.of(HOME)
        mine = [node for node in everything.nodes if node.id in names]
        assert drawn(Family(mine, True), names) == ["a<", "s1<a", "b<s1", "s3<b", "s2<s1", "c<a"]
        assert len(everything.nodes) == len(names) + 2


async def test_a_family_that_is_too_big_says_so_and_one_that_is_not_is_not_found(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
):
    async with plant.control() as control:
        names = await grown(control, plant)
        monkeypatch.setattr("belljar.control.lineage.MAX_NODES", 3)
        family = await control.lineage.of(HOME, next(iter(names)))
        assert len(family.nodes) == 3
        assert not family.whole
        for unknown in ("nobody", new_id("sn"), new_id("sb")):
            with pytest.raises(NotFound):
                await control.lineage.of(HOME, unknown)
            with pytest.raises(NotFound):
                await control.lineage.of("other", next(iter(names)))


async def test_a_snapshot_whose_origin_is_made_up_draws_no_circle(plant: Plant):
    async with plant.control() as control:
        names = await grown(control, plant)
        ids = {name: id for id, name in names.items()}
        s1 = await plant.snapshots.get(ids["s1"])
        assert s1 is not None
        await plant.snapshots.ready(replace(s1.snapshot, parent=ids["s2"]))
        family = await control.lineage.of(HOME, "a")
        assert family.nodes[0].id == ids["a"]
