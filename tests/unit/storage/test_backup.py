"""The content of snapshots in a backup: all of it is there whatever is deleted, cooled or collected meanwhile."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from belljar.base.ids import new_id
from belljar.model.backup import BackupFile, LeftOut
from belljar.model.errors import InvalidArgument, NotFound
from belljar.node.snapshot.backup import ContentBackup
from belljar.node.snapshot.store import SnapshotStore
from belljar.node.storage.keys import Key, Keys

from .conftest import FILES, draft_of, keep, read_all

KEYS = Keys((Key.of(b"k" * 32),))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SnapshotStore]:
    async with SnapshotStore(tmp_path / "home", tmp_path / "run") as store:
        yield store


async def copied(backup: ContentBackup, target: Path, *ids: str) -> dict[str, str]:
    """Writes it out as a restore does, and gives what was left out."""
    size = await backup.size(ids)
    left_out: dict[str, str] = {}
    files: dict[str, int] = {}
    async for piece in backup.pieces():
        if isinstance(piece, BackupFile):
            assert sum(files.values()) == sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
            assert piece.name not in files
            files[piece.name] = piece.size
            path = target / piece.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)
        elif isinstance(piece, LeftOut):
            left_out[piece.snapshot] = piece.reason
        else:
            assert len(piece) <= 1 << 20
            with (target / list(files)[-1]).open("ab") as file:
                file.write(piece)
    assert {name: (target / name).stat().st_size for name in files} == files
    assert len(files) <= size.files
    assert sum(files.values()) <= size.bytes
    return left_out


async def test_hot_and_cold_ones_are_read_from_the_copy(store: SnapshotStore, tmp_path: Path) -> None:
    cold = (await keep(store)).draft.id
    twin = (await keep(store)).draft.id
    await store.cool(0)
    hot = (await keep(store)).draft.id
    await read_all(store, twin)  # has files and chunks now
    async with store.backup(content=True) as backup:
        assert await copied(backup, tmp_path / "copy", cold, twin, hot) == {}
    chunks = [path for path in (tmp_path / "copy/content/chunks").rglob("*") if path.is_file()]
    assert len(chunks) == len([path for path in (tmp_path / "home/content/chunks").rglob("*") if path.is_file()])
    async with SnapshotStore(tmp_path / "copy", tmp_path / "run2") as restored:
        assert {id: restored.is_hot(id) for id in (cold, twin, hot)} == {cold: False, twin: False, hot: True}
        for id in (cold, twin, hot):
            assert await read_all(restored, id) == FILES
        assert (await restored.collect()).removed == 0
        await restored.delete(cold)
        await restored.cool(0)  # it writes to its content store as to its own
        assert await read_all(restored, twin) == FILES


async def test_a_sealed_one_stays_sealed(tmp_path: Path, memory: Path) -> None:
    async with SnapshotStore(tmp_path / "home", memory / "run", keys=KEYS) as store:
        cold = (await keep(store)).draft.id
        await store.cool(0)
        hot = (await keep(store)).draft.id
        async with store.backup(content=True) as backup:
            assert await copied(backup, tmp_path / "copy", cold, hot) == {}
    secrets = (b"swordfish", FILES["checkpoint.img"][:100])
    for path in (tmp_path / "copy").rglob("*"):
        assert not path.is_file() or not any(secret in path.read_bytes() for secret in secrets)
    async with SnapshotStore(tmp_path / "copy", memory / "run2", keys=KEYS) as restored:
        assert await read_all(restored, cold) == await read_all(restored, hot) == FILES
    async with SnapshotStore(tmp_path / "copy", memory / "run2") as locked:
        assert set(locked.broken()) == {cold, hot}


async def test_nothing_goes_while_a_backup_is_made(store: SnapshotStore, tmp_path: Path) -> None:
    cold = (await keep(store)).draft.id
    await store.cool(0)
    hot = (await keep(store)).draft.id
    async with store.backup(content=True) as first, store.backup(content=True) as second:
        late = (await keep(store, {"pages.img": os.urandom(50_000)})).draft.id
        for id in (cold, hot, late):
            await store.delete(id)
            await store.delete(id)
            with pytest.raises(NotFound):
                store.get(id)
        assert store.list() == []
        assert (await store.collect()).removed == 0
        kept = (await keep(store)).draft.id
        assert await store.cool(0) == ()
        assert await copied(first, tmp_path / "copy", cold, hot, late) == {}
        async with store.opened(kept):
            pass
        del second
    left = {path.name for path in (tmp_path / "home/snapshots").iterdir()}
    assert left == {kept}
    assert (await store.collect()).removed > 0
    assert await store.cool(0) == (kept,)
    async with SnapshotStore(tmp_path / "copy", tmp_path / "run2") as restored:
        assert await read_all(restored, cold) == await read_all(restored, hot) == FILES
        assert len(restored.list()) == 3


async def test_one_that_is_open_when_the_backup_ends_goes_when_it_is_closed(
    store: SnapshotStore, tmp_path: Path
) -> None:
    id = (await keep(store)).draft.id
    async with store.opened(id):
        async with store.backup(content=True):
            await store.delete(id)
        assert (tmp_path / "home/snapshots" / id).exists()
    assert not (tmp_path / "home/snapshots" / id).exists()


async def test_one_that_is_closed_during_the_backup_stays_for_it(store: SnapshotStore, tmp_path: Path) -> None:
    id = (await keep(store)).draft.id
    async with store.backup(content=True) as backup:
        async with store.opened(id):
            await store.delete(id)
        assert await copied(backup, tmp_path / "copy", id) == {}
    assert not (tmp_path / "home/snapshots" / id).exists()
    async with SnapshotStore(tmp_path / "copy", tmp_path / "run2") as restored:
        assert await read_all(restored, id) == FILES


async def test_a_server_that_is_killed_during_a_backup_leaves_no_hold(store: SnapshotStore, tmp_path: Path) -> None:
    id, other = (await keep(store)).draft.id, (await keep(store)).draft.id
    backup = store.backup(content=True)
    await backup.__aenter__()
    await store.delete(id)
    assert (tmp_path / "home/snapshots" / id).exists()
    async with SnapshotStore(tmp_path / "home", tmp_path / "run") as successor:
        assert [manifest.draft.id for manifest in successor.list()] == [other]
        assert not (tmp_path / "home/snapshots" / id).exists()
        assert await successor.cool(0) == (other,)
    await backup.__aexit__(None, None, None)


async def test_what_cannot_be_read_is_named_and_the_rest_is_there(store: SnapshotStore, tmp_path: Path) -> None:
    lost, torn, good = [(await keep(store, draft=draft_of())).draft.id for _ in range(3)]
    unique = (await keep(store, {"pages.img": os.urandom(300_000)})).draft.id
    await store.cool(0)
    before = {path for path in (tmp_path / "home/content/chunks").rglob("*") if path.is_file()}
    for id in (lost, torn, good):
        await read_all(store, id)
    (tmp_path / "home/snapshots" / lost / "recipe").unlink()
    (tmp_path / "home/snapshots" / lost / "files/pages.img").unlink()
    (tmp_path / "home/snapshots" / torn / "recipe").write_bytes(b"torn")
    recipe = store._disk.recipe(unique)
    assert recipe is not None
    for name in recipe.names():
        (path,) = (path for path in before if path.name == name.hex())
        path.unlink()
    never = new_id("sn")
    async with store.backup(content=True) as backup:
        left_out = await copied(backup, tmp_path / "copy", lost, torn, good, unique, never)
    assert set(left_out) == {lost, unique, never}
    assert "chunks" in left_out[unique]
    async with SnapshotStore(tmp_path / "copy", tmp_path / "run2") as restored:
        assert await read_all(restored, good) == await read_all(restored, torn) == FILES


async def test_a_file_that_became_shorter_has_zeros_and_is_named(store: SnapshotStore, tmp_path: Path) -> None:
    id = (await keep(store)).draft.id
    async with store.backup(content=True) as backup:
        await backup.size([id])
        os.truncate(tmp_path / "home/snapshots" / id / "files/pages.img", 1000)
        pieces = [piece async for piece in backup.pieces()]
    sizes = [piece.size for piece in pieces if isinstance(piece, BackupFile)]
    assert sum(sizes) == sum(len(piece) for piece in pieces if isinstance(piece, bytes))
    assert pieces[-1] == LeftOut(id, "its files/pages.img is shorter than it was")


async def test_content_is_left_out_only_where_an_object_store_has_it(store: SnapshotStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="nowhere else"):
        async with store.backup(content=False):
            pass
    url = f"file://{tmp_path}/bucket"
    async with SnapshotStore(tmp_path / "away", tmp_path / "run2", url=url) as away:
        cold = (await keep(away)).draft.id
        await away.cool(0)
        hot = (await keep(away)).draft.id
        async with away.backup(content=False) as backup:
            assert await copied(backup, tmp_path / "copy", cold, hot) == {}
    assert not (tmp_path / "copy/content").exists()
    async with SnapshotStore(tmp_path / "copy", tmp_path / "run3", url=url) as restored:
        # It reads there; that store is the other's until its owner says otherwise.
        assert await read_all(restored, cold) == await read_all(restored, hot) == FILES
