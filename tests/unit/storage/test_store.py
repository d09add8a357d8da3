import time
from pathlib import Path

import pytest

from belljar.base.ids import new_id
from belljar.model.errors import AlreadyExists, Conflict, InvalidArgument, NotFound, SnapshotCorrupt
from belljar.node.snapshot.shelf import Shelf
from belljar.node.snapshot.store import SnapshotStore

from .conftest import FILES, draft_of, keep, read_all


async def test_what_was_committed_is_read_back(tmp_path: Path) -> None:
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        manifest = await keep(store)
        assert manifest.size == sum(map(len, FILES.values()))
        assert await read_all(store, manifest.draft.id) == FILES
        assert store.get(manifest.draft.id) == manifest
        assert store.list() == [manifest]
        assert manifest.size < store.stored(manifest.draft.id) < manifest.size + 5000


async def test_the_next_store_finds_it(tmp_path: Path) -> None:
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        manifest = await keep(store)
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        assert store.list() == [manifest]
        assert await read_all(store, manifest.draft.id) == FILES


async def test_that_it_is_used_is_noted_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[str] = []
    monkeypatch.setattr(Shelf, "touch", lambda self, id: noted.append(id))
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        manifest = await keep(store)
        now = time.time()
        for later, notes in ((0, 0), (50, 0), (70, 1), (80, 1), (140, 2), (-10, 3)):
            monkeypatch.setattr(time, "time", lambda at=now + later: at)
            await read_all(store, manifest.draft.id)
            assert noted == [manifest.draft.id] * notes


async def test_what_was_not_committed_is_not_there(tmp_path: Path) -> None:
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        one, other = new_id("sn"), new_id("sn")
        (await store.begin(one) / "a").write_bytes(b"a")
        await store.begin(other)
        await store.abandon(other)
        await store.abandon(other)
        with pytest.raises(NotFound):
            store.get(one)
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        assert store.list() == []
        assert list((tmp_path / "snapshots").iterdir()) == []


async def test_an_id_is_made_once(tmp_path: Path) -> None:
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        id = (await keep(store)).draft.id
        with pytest.raises(AlreadyExists):
            await store.begin(id)
        other = new_id("sn")
        await store.begin(other)
        with pytest.raises(Conflict):
            await store.begin(other)
        with pytest.raises(Conflict):
            await store.delete(other)
        with pytest.raises(Conflict):
            await store.commit(draft_of())
        for wrong in ("", "..", "sn../../x", new_id("sb")):
            with pytest.raises(InvalidArgument):
                await store.begin(wrong)


async def test_links_folders_and_hidden_names_are_no_files_of_a_snapshot(tmp_path: Path) -> None:
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        for make in (
            lambda folder: (folder / "x").symlink_to("/etc/passwd"),
            lambda folder: (folder / "x").mkdir(),
            lambda folder: (folder / ".x").write_bytes(b""),
            lambda folder: None,
        ):
            draft = draft_of()
            make(await store.begin(draft.id))
            with pytest.raises(SnapshotCorrupt):
                await store.commit(draft)
        assert list((tmp_path / "snapshots").iterdir()) == []


async def test_deleting_waits_for_those_who_have_it_open(tmp_path: Path) -> None:
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        id = (await keep(store)).draft.id
        async with store.opened(id) as (_, folder):
            await store.delete(id)
            await store.delete(id)
            with pytest.raises(NotFound):
                store.get(id)
            assert store.list() == []
            assert (folder / "pages.img").read_bytes() == FILES["pages.img"]
        assert list((tmp_path / "snapshots").iterdir()) == []
        await store.delete(id)


async def test_one_that_was_deleted_while_open_stays_deleted_after_a_kill(tmp_path: Path) -> None:
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        id = (await keep(store)).draft.id
        async with store.opened(id):
            await store.delete(id)
            async with SnapshotStore(tmp_path, tmp_path / "run") as successor:
                assert successor.list() == []
                assert list((tmp_path / "snapshots").iterdir()) == []


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["gone", "longer", "other", "link"])
async def test_a_file_that_is_not_what_was_written_is_refused(tmp_path: Path, name: str, harm: str) -> None:
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        id = (await keep(store, {**FILES, "pages_meta.img": b"m"})).draft.id
        path = tmp_path / "snapshots" / id / "files" / name
        data = bytearray(path.read_bytes())
        path.unlink()
        if harm == "longer":
            path.write_bytes(data + b"\0")
        elif harm == "other":
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        elif harm == "link":
            path.symlink_to("/etc/passwd")
        with pytest.raises(SnapshotCorrupt, match=name.replace(".", r"\.")):
            await read_all(store, id)


@pytest.mark.parametrize("place", ["start", "inside", "end"])
async def test_a_manifest_that_was_changed_is_refused_with_the_reason(tmp_path: Path, place: str) -> None:
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        id = (await keep(store)).draft.id
    path = tmp_path / "snapshots" / id / "manifest.json"
    data = path.read_bytes()
    path.write_bytes({"start": data[5:], "inside": data.replace(b"swordfish", b"swordfisH"), "end": data[:-10]}[place])
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        assert store.list() == []
        with pytest.raises(SnapshotCorrupt, match="manifest"):
            store.get(id)
        await store.delete(id)
        assert list((tmp_path / "snapshots").iterdir()) == []
