"""Snapshots as a product over a scripted node: rows, names, expiry, crashes at every point."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.unit.control.conftest import Control, Plant

from belljar.base.ids import new_id
from belljar.control.changes import Changes
from belljar.control.origins import Wanted
from belljar.control.snapshots import SnapshotChanges
from belljar.control.store.snapshots import SnapshotFilter, SnapshotRecord, State
from belljar.model.errors import (
    AlreadyExists,
    Conflict,
    DiskFull,
    EngineFailed,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    NotSupported,
    SandboxGone,
    SnapshotCorrupt,
)
from belljar.model.sandbox import Sandbox, SandboxSpec, Status
from belljar.model.snapshot import SnapshotKind, SnapshotSpec

HOME = "default"
MEMORY = SnapshotSpec(SnapshotKind.MEMORY)
FILES = SnapshotSpec(SnapshotKind.FILESYSTEM)


async def made(control: Control, **fields: object) -> Sandbox:
    return await control.sandboxes.create(HOME, SandboxSpec(**fields))  # type: ignore[arg-type]


async def bytes_of(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def until(condition: object) -> None:
    for _ in range(200):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to that")


async def test_a_snapshot_is_found_by_id_and_name_and_after_a_restart(plant: Plant):
    async with plant.control() as control:
        box = await made(control, name="web")
        kept = await control.snapshots.create(
            HOME, "web", SnapshotSpec(SnapshotKind.MEMORY, name="before", labels={"a": "b"}, ttl=60)
        )
        assert (kept.snapshot.sandbox, kept.snapshot.image, kept.snapshot.size) == (box.id, "code", 100)
        assert kept.expires is not None
    async with plant.control() as control:
        found = await control.snapshots.get(HOME, "before")
        assert found == await control.snapshots.get(HOME, kept.id) == kept
        with pytest.raises(NotFound):
            await control.snapshots.get("other", kept.id)
        with pytest.raises(NotFound):
            await control.snapshots.get("other", "before")


async def test_the_same_id_again_gives_the_same_snapshot_and_asks_the_node_once(plant: Plant):
    async with plant.control() as control:
        box = await made(control)
        id = new_id("sn")
        plant.node.gate = asyncio.Event()
        calls = [asyncio.create_task(control.snapshots.create(HOME, box.id, MEMORY, id=id)) for _ in range(3)]
        await until(lambda: id in control.snapshots._making)
        with pytest.raises(Conflict, match="another snapshot"):
            await control.snapshots.create(HOME, box.id, FILES, id=id)
        plant.node.gate.set()
        first, *others = await asyncio.gather(*calls)
        assert all(other == first for other in others)
        assert await control.snapshots.create(HOME, box.id, MEMORY, id=id) == first
        with pytest.raises(Conflict, match="another snapshot"):
            await control.snapshots.create(HOME, box.id, FILES, id=id)
        with pytest.raises(InvalidArgument, match="starts with sn"):
            await control.snapshots.create(HOME, box.id, MEMORY, id="../../etc")
        assert len(plant.node.kept) == 1


async def test_a_foreign_workspace_gets_neither_the_snapshot_nor_its_id(plant: Plant):
    async with plant.control() as control:
        box = await made(control)
        kept = await control.snapshots.create(HOME, box.id, MEMORY)
        with pytest.raises(AlreadyExists, match="taken"):
            await control.snapshots.import_("other", bytes_of(b"belljar:base"), id=kept.id)
        for call in (
            control.snapshots.delete("other", kept.id),
            control.snapshots.update("other", kept.id, SnapshotChanges(name="mine")),
            control.snapshots.changes("other", kept.id),
            control.snapshots.export("other", kept.id),
            control.sandboxes.create("other", Wanted(snapshot=kept.id)),
            control.lineage.of("other", kept.id),
        ):
            with pytest.raises(NotFound):
                await call


async def test_one_that_fails_leaves_neither_row_nor_snapshot_and_frees_its_name(plant: Plant):
    async with plant.control() as control:
        box = await made(control)
        id = new_id("sn")
        plant.node.snapshot_failure = DiskFull("the disk is full")
        named = SnapshotSpec(SnapshotKind.MEMORY, name="a")
        with pytest.raises(DiskFull):
            await control.snapshots.create(HOME, box.id, named, id=id)
        assert plant.node.kept == {}
        with pytest.raises(NotFound):
            await control.snapshots.get(HOME, id)
        plant.node.snapshot_failure = None
        assert (await control.snapshots.create(HOME, box.id, named, id=id)).id == id
        assert (await control.sandboxes.get(HOME, box.id)).status is Status.RUNNING


async def test_a_name_is_taken_once_and_free_again_when_its_holder_has_expired(plant: Plant):
    async with plant.control() as control:
        box = await made(control)
        first = await control.snapshots.create(HOME, box.id, SnapshotSpec(SnapshotKind.MEMORY, name="a", ttl=100))
        with pytest.raises(AlreadyExists, match=first.id):
            await control.snapshots.create(HOME, box.id, SnapshotSpec(SnapshotKind.MEMORY, name="a"))
        for word in ("import", new_id("sn"), "Not A Name"):
            with pytest.raises(InvalidArgument):
                await control.snapshots.create(HOME, box.id, SnapshotSpec(SnapshotKind.MEMORY, name=word))
        plant.clock.late = 101
        for verb in (
            control.snapshots.get(HOME, "a"),
            control.snapshots.get(HOME, first.id),
            control.sandboxes.create(HOME, Wanted(snapshot="a")),
            control.branches.rollback(HOME, box.id, "a"),
        ):
            with pytest.raises(NotFound, match="expired"):
                await verb
        assert (await control.snapshots.list(HOME, SnapshotFilter()))[0] == []
        second = await control.snapshots.create(HOME, box.id, SnapshotSpec(SnapshotKind.MEMORY, name="a"))
        assert (await control.snapshots.get(HOME, "a")).id == second.id
        assert list(plant.node.kept) == [second.id]


async def test_what_has_expired_is_deleted_by_itself_and_its_name_says_why(plant: Plant):
    async with plant.control() as control:
        box = await made(control)
        await control.snapshots.create(HOME, box.id, SnapshotSpec(SnapshotKind.MEMORY, name="a", ttl=0.05))
        await until(lambda: not plant.node.kept)
        with pytest.raises(NotFound, match="expired at"):
            await control.snapshots.get(HOME, "a")


async def test_what_the_node_cannot_delete_now_it_is_asked_for_again(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("belljar.control.snapshots._LOOK_SECONDS", 0.02)
    async with plant.control() as control:
        box = await made(control)
        kept = await control.snapshots.create(HOME, box.id, MEMORY)
        plant.node.delete_failure = EngineFailed("busy")
        await control.snapshots.delete(HOME, kept.id)
        with pytest.raises(NotFound, match="deleted"):
            await control.snapshots.get(HOME, kept.id)
        plant.node.delete_failure = None
        await until(lambda: not plant.node.kept)
        await control.snapshots.delete(HOME, kept.id)  # by its id once more


@pytest.mark.parametrize("there", [True, False])
async def test_a_create_that_its_server_did_not_survive_is_finished_or_forgotten(plant: Plant, there: bool):
    async with plant.control() as control:
        box = await made(control)
        kept = await control.snapshots.create(HOME, box.id, SnapshotSpec(SnapshotKind.MEMORY, name="a"))
    id = new_id("sn")
    half = SnapshotRecord(HOME, replace(kept.snapshot, id=id), "b", state=State.MAKING)
    await plant.snapshots.insert(half)
    if there:
        plant.node.kept[id] = replace(kept.snapshot, id=id)
    async with plant.control() as control:
        if there:
            assert (await control.snapshots.get(HOME, "b")).id == id
        else:
            with pytest.raises(NotFound):
                await control.snapshots.get(HOME, id)
            made_anew = await control.snapshots.create(HOME, box.id, SnapshotSpec(SnapshotKind.MEMORY, name="b"), id=id)
            assert made_anew.id == id


async def test_at_a_start_rows_and_snapshots_come_to_agree(plant: Plant):
    async with plant.control() as control:
        box = await made(control)
        lost, deleted = [await control.snapshots.create(HOME, box.id, MEMORY) for _ in range(2)]
        await control.snapshots.delete(HOME, deleted.id)
    del plant.node.kept[lost.id]
    plant.node.kept[deleted.id] = deleted.snapshot  # the server was killed before the node deleted it
    stray = replace(lost.snapshot, id=new_id("sn"))
    plant.node.kept[stray.id] = stray
    half_template = replace(lost.snapshot, id=new_id("sn"), template=True)
    plant.node.kept[half_template.id] = half_template
    await plant.snapshots.insert(SnapshotRecord(HOME, half_template, state=State.MAKING))
    async with plant.control() as control:
        with pytest.raises(NotFound, match="lost"):
            await control.snapshots.get(HOME, lost.id)
        assert list(plant.node.kept) == [stray.id]
        assert (await control.snapshots.get(HOME, stray.id)).snapshot == stray


async def test_a_caller_who_leaves_does_not_stop_it(plant: Plant):
    async with plant.control() as control:
        box = await made(control)
        plant.node.gate = asyncio.Event()
        id = new_id("sn")
        call = asyncio.create_task(control.snapshots.create(HOME, box.id, MEMORY, id=id))
        await until(lambda: id in control.snapshots._making)
        call.cancel()
        deleting = asyncio.create_task(control.snapshots.delete(HOME, id))
        await asyncio.sleep(0.02)
        assert not deleting.done()
        plant.node.gate.set()
        await deleting
        assert plant.node.kept == {}


async def test_there_are_at_most_so_many_for_each_workspace(plant: Plant):
    plant.limit = 2
    async with plant.control() as control:
        box = await made(control)
        first = await control.snapshots.create(HOME, box.id, MEMORY)
        await control.snapshots.create(HOME, box.id, MEMORY)
        with pytest.raises(LimitExceeded, match="2 snapshots"):
            await control.snapshots.create(HOME, box.id, MEMORY)
        await control.snapshots.delete(HOME, first.id)
        await control.snapshots.create(HOME, box.id, MEMORY)


async def test_lists_come_in_pages_and_are_filtered(plant: Plant):
    async with plant.control() as control:
        one, two = await made(control), await made(control, image="base")
        kept = [
            await control.snapshots.create(HOME, one.id, SnapshotSpec(SnapshotKind.MEMORY, labels={"n": "1"})),
            await control.snapshots.create(HOME, one.id, FILES),
            await control.snapshots.create(HOME, two.id, SnapshotSpec(SnapshotKind.DIRECTORY, "/srv")),
        ]

        async def found(**wanted: object) -> list[int]:
            items, _ = await control.snapshots.list(HOME, SnapshotFilter(**wanted))  # type: ignore[arg-type]
            return sorted(kept.index(item) for item in items)

        assert await found() == [0, 1, 2]
        assert await found(kind=SnapshotKind.MEMORY) == [0]
        assert await found(sandbox=one.id) == [0, 1]
        assert await found(image="base") == [2]
        assert await found(labels={"n": "1"}) == [0]
        assert await found(labels={"n": "2"}) == []
        seen: list[str] = []
        cursor: str | None = None
        while True:
            items, cursor = await control.snapshots.list(HOME, SnapshotFilter(), cursor=cursor, limit=2)
            seen += [item.id for item in items]
            if cursor is None:
                break
        assert seen == sorted((one.id for one in kept), reverse=True)
        for bad in ({"limit": 0}, {"limit": 1001}, {"cursor": "x"}):
            with pytest.raises(InvalidArgument):
                await control.snapshots.list(HOME, SnapshotFilter(), **bad)  # type: ignore[arg-type]


async def test_name_labels_and_time_can_be_changed(plant: Plant):
    async with plant.control() as control:
        box = await made(control)
        kept = await control.snapshots.create(HOME, box.id, SnapshotSpec(SnapshotKind.MEMORY, name="a", ttl=60))
        other = await control.snapshots.create(HOME, box.id, SnapshotSpec(SnapshotKind.MEMORY, name="b"))
        changed = await control.snapshots.update(HOME, "a", SnapshotChanges(name="c", labels={"x": "y"}, ttl=None))
        assert (changed.id, changed.name, changed.labels, changed.expires) == (kept.id, "c", {"x": "y"}, None)
        with pytest.raises(AlreadyExists):
            await control.snapshots.update(HOME, "c", SnapshotChanges(name="b"))
        for bad in (SnapshotChanges(name="No"), SnapshotChanges(ttl=0), SnapshotChanges(labels={"": ""})):
            with pytest.raises(InvalidArgument):
                await control.snapshots.update(HOME, "c", bad)
        unnamed = await control.snapshots.update(HOME, other.id, SnapshotChanges(name=None, ttl=30))
        assert unnamed.name is None and unnamed.expires is not None


async def test_changes_come_in_pages_and_memory_has_none(plant: Plant):
    async with plant.control() as control:
        box = await made(control)
        kept = await control.snapshots.create(HOME, box.id, FILES)
        paths: list[str] = []
        cursor: str | None = None
        while True:
            items, cursor = await control.snapshots.changes(HOME, kept.id, cursor=cursor, limit=2)
            paths += [item.path for item in items]
            if cursor is None:
                break
        assert paths == [f"/f{number}" for number in range(5)]
        with pytest.raises(InvalidArgument):
            await control.snapshots.changes(HOME, kept.id, cursor="-1")
        memory = await control.snapshots.create(HOME, box.id, MEMORY)
        with pytest.raises(NotSupported, match="filesystem"):
            await control.snapshots.changes(HOME, memory.id)


async def test_what_was_carried_away_can_be_brought_in(plant: Plant):
    async with plant.control() as control:
        box = await made(control)
        kept = await control.snapshots.create(HOME, box.id, FILES)
        _, pieces = await control.snapshots.export(HOME, kept.id)
        data = b"".join([piece async for piece in pieces])
        id = new_id("sn")
        brought = await control.snapshots.import_(HOME, bytes_of(data), id=id, name="again", ttl=60)
        assert (brought.id, brought.name, brought.snapshot.image) == (id, "again", "code")
        assert await control.snapshots.import_(HOME, bytes_of(b"other"), id=id) == brought
        with pytest.raises(SnapshotCorrupt):
            await control.snapshots.import_(HOME, bytes_of(b"garbage"), name="bad")
        with pytest.raises(NotFound):
            await control.snapshots.get(HOME, "bad")
        with pytest.raises(AlreadyExists):
            await control.snapshots.import_(HOME, bytes_of(data), name="again")


async def test_a_sandbox_from_a_snapshot_has_what_its_source_had_unless_told_otherwise(plant: Plant):
    async with plant.control() as control:
        source = await control.sandboxes.create(
            HOME, Wanted(image="base", cpus=2.0, memory=256 << 20, env={"A": "1", "B": "1"}, workdir="/srv", pids=99)
        )
        kept = await control.snapshots.create(HOME, source.id, SnapshotSpec(SnapshotKind.MEMORY, name="s"))
        twin = await control.sandboxes.create(HOME, Wanted(snapshot="s", env={"B": "2"}, memory=512 << 20))
        spec = twin.spec
        assert (spec.snapshot, spec.image, spec.workdir) == (kept.id, "base", "/srv")
        assert (spec.limits.cpus, spec.limits.memory, spec.limits.pids) == (2.0, 512 << 20, 99)
        assert spec.env == {"A": "1", "B": "2"}
        directory = await control.snapshots.create(HOME, source.id, SnapshotSpec(SnapshotKind.DIRECTORY, "/srv"))
        with pytest.raises(InvalidArgument, match="mount"):
            await control.sandboxes.create(HOME, Wanted(snapshot=directory.id))
    async with plant.control() as control:
        assert (await control.sandboxes.get(HOME, twin.id)).spec.snapshot == kept.id


async def test_a_gone_or_busy_sandbox_is_not_snapshotted(plant: Plant):
    async with plant.control() as control:
        box = await made(control)
        await control.sandboxes.update(HOME, box.id, Changes(labels={}))
        await control.sandboxes.terminate(HOME, box.id)
        with pytest.raises(SandboxGone):
            await control.snapshots.create(HOME, box.id, MEMORY)
        with pytest.raises(NotFound):
            await control.snapshots.create(HOME, "nobody", MEMORY)
