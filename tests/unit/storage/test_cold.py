import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zstandard

from belljar.model.errors import Conflict, InvalidArgument, NotFound, SnapshotCorrupt
from belljar.node.snapshot.store import SnapshotStore

from .conftest import FILES, draft_of, keep, read_all


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SnapshotStore]:
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        yield store


def chunks(home: Path) -> list[Path]:
    return sorted(path for path in (home / "content/chunks").rglob("*") if path.is_file())


async def test_a_cold_one_takes_less_and_is_read_back_whole(store: SnapshotStore, tmp_path: Path) -> None:
    manifest = await keep(store)
    id = manifest.draft.id
    hot = store.stored(id)
    assert await store.cool(0) == (id,)
    assert not store.is_hot(id)
    assert not (tmp_path / "snapshots" / id / "files").exists()
    assert store.stored(id) < hot / 2
    assert await read_all(store, id) == FILES
    assert store.is_hot(id)


async def test_the_next_store_thaws_what_this_one_cooled(store: SnapshotStore, tmp_path: Path) -> None:
    id = (await keep(store)).draft.id
    await store.cool(0)
    async with SnapshotStore(tmp_path, tmp_path / "run") as successor:
        assert not successor.is_hot(id)
        assert (await successor.collect()).removed == 0
        assert await read_all(successor, id) == FILES


async def test_only_what_nobody_opened_for_so_long_becomes_cold(store: SnapshotStore, tmp_path: Path) -> None:
    old, opened, template = [(await keep(store, draft=draft_of(template=yes))).draft.id for yes in (False, False, True)]
    for id in (old, opened, template):
        os.utime(tmp_path / "snapshots" / id / "manifest.json", (time.time() - 1000, time.time() - 1000))
    async with SnapshotStore(tmp_path, tmp_path / "run") as successor:
        await read_all(successor, opened)
        assert await successor.cool(500) == (old,)
        assert successor.is_hot(template)
    async with SnapshotStore(tmp_path, tmp_path / "run") as successor:
        assert await successor.cool(500) == (), "when it was opened is remembered"


async def test_one_that_is_open_stays_hot(store: SnapshotStore) -> None:
    id = (await keep(store)).draft.id
    async with store.opened(id):
        assert await store.cool(0) == ()
        assert store.is_hot(id)
    assert await store.cool(0) == (id,)


async def test_what_two_have_in_common_is_kept_once(store: SnapshotStore, tmp_path: Path) -> None:
    shared = os.urandom(3_000_000)
    one = await keep(store, {"pages.img": shared})
    await store.cool(0)
    first = {path: path.stat().st_size for path in chunks(tmp_path)}
    # A page more at the start moves everything: only the first chunks differ.
    other = await keep(store, {"pages.img": os.urandom(4096) + shared})
    await store.cool(0)
    added = sum(path.stat().st_size for path in chunks(tmp_path) if path not in first)
    assert added < 0.3 * sum(first.values())
    await store.delete(one.draft.id)
    assert 0 < (await store.collect()).freed < added * 2
    assert (await read_all(store, other.draft.id))["pages.img"][4096:] == shared
    await store.delete(other.draft.id)
    await store.collect()
    assert chunks(tmp_path) == []


@pytest.mark.parametrize("harm", ["torn", "other", "swapped", "empty", "gone", "bomb"])
async def test_a_chunk_that_is_not_what_was_written_is_refused(store: SnapshotStore, tmp_path: Path, harm: str) -> None:
    id = (await keep(store)).draft.id
    await store.cool(0)
    victims = chunks(tmp_path)
    whole = [path.read_bytes() for path in victims]
    for number, path in enumerate(victims):
        match harm:
            case "torn":
                path.write_bytes(whole[number][: len(whole[number]) // 2])
            case "other":
                path.write_bytes(whole[number][:-1] + bytes([whole[number][-1] ^ 1]))
            case "swapped":
                path.write_bytes(whole[number - 1])
            case "empty":
                path.write_bytes(b"")
            case "bomb":
                path.write_bytes(b"\1" + zstandard.ZstdCompressor().compress(bytes(1 << 28)))
            case _:
                path.unlink()
    with pytest.raises(SnapshotCorrupt, match=id):
        await read_all(store, id)
    assert sorted(path.name for path in (tmp_path / "snapshots" / id).iterdir()) == [
        "cooling",
        "manifest.json",
        "recipe",
    ]
    for path, data in zip(victims, whole, strict=True):
        path.write_bytes(data)
    assert await read_all(store, id) == FILES


async def test_a_damaged_chunk_is_not_shared_with_what_is_cooled_later(store: SnapshotStore, tmp_path: Path) -> None:
    await keep(store)
    await store.cool(0)
    for path in chunks(tmp_path):
        path.write_bytes(path.read_bytes()[:-1])
    async with SnapshotStore(tmp_path, tmp_path / "run") as successor:
        id = (await keep(successor)).draft.id
        await successor.cool(0)
        assert await read_all(successor, id) == FILES


async def test_hot_files_that_are_damaged_are_taken_from_the_chunks(store: SnapshotStore, tmp_path: Path) -> None:
    id = (await keep(store)).draft.id
    await store.cool(0)
    await read_all(store, id)
    (tmp_path / "snapshots" / id / "files/pages.img").write_bytes(b"harm")
    assert await read_all(store, id) == FILES


async def test_damaged_files_do_not_become_cold(store: SnapshotStore, tmp_path: Path) -> None:
    id = (await keep(store)).draft.id
    (tmp_path / "snapshots" / id / "files/pages.img").write_bytes(b"harm")
    assert await store.cool(0) == ()
    with pytest.raises(SnapshotCorrupt):
        await read_all(store, id)


@pytest.mark.parametrize("harm", [b"", b"x" * 100, None])
async def test_nothing_is_removed_while_nobody_knows_what_a_snapshot_needs(
    store: SnapshotStore, tmp_path: Path, harm: bytes | None
) -> None:
    id = (await keep(store)).draft.id
    await store.cool(0)
    recipe = tmp_path / "snapshots" / id / "recipe"
    whole = recipe.read_bytes()
    recipe.write_bytes(whole[:-1] if harm is None else harm)
    record = tmp_path / "content/snapshots" / id
    record.rename(tmp_path / "record")
    async with SnapshotStore(tmp_path, tmp_path / "run") as successor:
        with pytest.raises(SnapshotCorrupt, match="chunks"):
            await read_all(successor, id)
        found = await successor.collect()
        assert found.removed == 0
        assert id in (found.blocked or "")
    (tmp_path / "record").rename(record)
    async with SnapshotStore(tmp_path, tmp_path / "run") as successor:
        assert (await successor.collect()).blocked is None, "the content store has the list, too"
        assert await read_all(successor, id) == FILES
    assert recipe.read_bytes() == whole


async def test_one_with_a_torn_list_of_chunks_can_be_deleted_and_then_all_is_collected(
    store: SnapshotStore, tmp_path: Path
) -> None:
    id = (await keep(store)).draft.id
    await store.cool(0)
    (tmp_path / "snapshots" / id / "recipe").write_bytes(b"torn")
    async with SnapshotStore(tmp_path, tmp_path / "run") as successor:
        await successor.delete(id)
        assert (await successor.collect()).blocked is None
        assert chunks(tmp_path) == []


async def test_a_store_belongs_to_one_state_directory(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/shared"
    async with SnapshotStore(tmp_path / "a", tmp_path / "run", url=url) as one:
        await keep(one)
        await one.cool(0)
        async with SnapshotStore(tmp_path / "b", tmp_path / "run2", url=url) as other:
            id = (await keep(other)).draft.id
            with pytest.raises(Conflict, match="another state directory"):
                await other.collect()
            with pytest.raises(Conflict):
                await other.cool(0)
            assert await read_all(other, id) == FILES


async def test_the_content_store_brings_back_what_the_state_directory_lost(
    store: SnapshotStore, tmp_path: Path
) -> None:
    manifest = await keep(store)
    await store.cool(0)
    (tmp_path / "snapshots" / manifest.draft.id).rename(tmp_path / "lost")
    async with SnapshotStore(tmp_path, tmp_path / "run") as successor:
        assert successor.list() == []
        assert (await successor.collect()).removed == 0, "the record in the store refers to its chunks"
        assert await successor.recover() == (manifest.draft.id,)
        assert await successor.recover() == ()
        assert successor.list() == [manifest]
        assert await read_all(successor, manifest.draft.id) == FILES
        await successor.delete(manifest.draft.id)
        assert await successor.recover() == ()
        await successor.collect()
        assert chunks(tmp_path) == []


async def test_many_who_open_a_cold_one_at_once_get_the_same(store: SnapshotStore) -> None:
    id = (await keep(store)).draft.id
    await store.cool(0)
    assert await asyncio.gather(*(read_all(store, id) for _ in range(8))) == [FILES] * 8


async def test_one_who_leaves_while_it_thaws_leaves_it_cold_and_whole(store: SnapshotStore, tmp_path: Path) -> None:
    id = (await keep(store, {"pages.img": os.urandom(8 << 20)})).draft.id
    await store.cool(0)
    for delay in (0.0, 0.005, 0.01, 0.02):
        opening = asyncio.create_task(read_all(store, id))
        await asyncio.sleep(delay)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        names = {path.name for path in (tmp_path / "snapshots" / id).iterdir()}
        assert names <= {"cooling", "manifest.json", "recipe", "files"}
    assert len((await read_all(store, id))["pages.img"]) == 8 << 20


async def test_deleting_one_that_is_being_cooled_leaves_nothing(store: SnapshotStore, tmp_path: Path) -> None:
    for delay in (0.0, 0.01, 0.03):
        id = (await keep(store, {"pages.img": os.urandom(4 << 20)})).draft.id
        cooling = asyncio.create_task(store.cool(0))
        await asyncio.sleep(delay)
        await store.delete(id)
        await cooling
        with pytest.raises(NotFound):
            store.get(id)
    await store.collect()
    assert chunks(tmp_path) == []
    assert list((tmp_path / "snapshots").iterdir()) == []
    assert list((tmp_path / "content/snapshots").iterdir()) == []


async def test_what_snapshots_need_is_named(store: SnapshotStore, tmp_path: Path) -> None:
    one, other = [await keep(store, draft=draft_of(build=build * 32)) for build in "ab"]
    assert store.references() == {"a" * 32, "b" * 32, "1" * 32, "2" * 32}
    async with store.opened(one.draft.id):
        await store.delete(one.draft.id)
        assert "a" * 32 in store.references(), "somebody has it open"
    assert store.references() == {"b" * 32, "1" * 32, "2" * 32}
    (tmp_path / "snapshots" / other.draft.id / "manifest.json").write_bytes(b"{}")
    async with SnapshotStore(tmp_path, tmp_path / "run") as successor:
        with pytest.raises(SnapshotCorrupt):
            successor.references()


async def test_a_purge_empties_the_object_store(tmp_path: Path) -> None:
    async with SnapshotStore(tmp_path, tmp_path / "run", url=f"file://{tmp_path}/objects") as store:
        await store.purge()
        await keep(store)
        await store.cool(0)
        await store.purge()
        assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []


async def test_an_unknown_place_is_refused(tmp_path: Path) -> None:
    for url in ("ftp://x/y", "nonsense", "s3://"):
        with pytest.raises(InvalidArgument, match="BELLJAR_STORE_URL"):
            async with SnapshotStore(tmp_path, tmp_path / "run", url=url):
                pass
