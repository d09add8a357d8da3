import base64
import os
from pathlib import Path

import pytest

from belljar.model.errors import InvalidArgument, SnapshotCorrupt
from belljar.node.snapshot.store import SnapshotStore
from belljar.node.storage.keys import Key, Keys, parse_keys, read_keys

from .conftest import draft_of, keep, read_all

MARK = b"the treasure lies below the old oak. "
FILES = {"pages.img": MARK * 40_000, "checkpoint.img": MARK}
OLD, NEW = Key.of(b"o" * 32), Key.of(b"n" * 32)


def words_on_disk(home: Path) -> list[str]:
    """Where something plain of a snapshot lies."""
    files = [path for path in home.rglob("*") if path.is_file()]
    assert files
    secret = (MARK[:16], b"swordfish")
    return [str(path) for path in files if any(word in path.read_bytes() for word in secret)]


async def test_with_a_key_nothing_plain_lies_on_the_disk(tmp_path: Path, memory: Path) -> None:
    async with SnapshotStore(tmp_path, memory, keys=Keys((OLD,))) as store:
        draft = draft_of()
        folder = await store.begin(draft.id)
        assert folder.is_relative_to(memory)
        for name, data in FILES.items():
            (folder / name).write_bytes(data)
        assert words_on_disk(tmp_path) == []
        await store.commit(draft)
        assert not folder.exists()
        assert words_on_disk(tmp_path) == []
        assert await read_all(store, draft.id) == FILES
        await store.cool(0)
        assert words_on_disk(tmp_path) == []
        async with store.opened(draft.id) as (manifest, plain):
            assert plain.is_relative_to(memory)
            assert manifest.draft.spec.env == {"TOKEN": "swordfish"}
            assert words_on_disk(tmp_path) == []
        assert not plain.exists()
    assert list(memory.iterdir()) == []


async def test_several_who_have_it_open_share_one_plain_copy(tmp_path: Path, memory: Path) -> None:
    async with SnapshotStore(tmp_path, memory, keys=Keys((OLD,))) as store:
        id = (await keep(store, FILES)).draft.id
        async with store.opened(id) as (_, one):
            async with store.opened(id) as (_, other):
                assert one == other
            assert (one / "checkpoint.img").read_bytes() == MARK
        assert not one.exists()


async def test_what_a_killed_server_left_plain_is_removed_by_the_next(tmp_path: Path, memory: Path) -> None:
    async with SnapshotStore(tmp_path, memory, keys=Keys((OLD,))) as store:
        id = (await keep(store, FILES)).draft.id
        async with store.opened(id) as (_, plain), SnapshotStore(tmp_path, memory, keys=Keys((OLD,))) as successor:
            assert not plain.exists()
            assert await read_all(successor, id) == FILES


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("keys", [Keys(), Keys((NEW,))], ids=["no key", "another key"])
async def test_without_its_key_a_snapshot_is_refused_with_that_reason(
    tmp_path: Path, memory: Path, keys: Keys, cold: bool
) -> None:
    async with SnapshotStore(tmp_path, memory, keys=Keys((OLD,))) as store:
        id = (await keep(store, FILES)).draft.id
        if cold:
            await store.cool(0)
    async with SnapshotStore(tmp_path, memory, keys=keys) as store:
        for attempt in (lambda: read_all(store, id), lambda: _get(store, id)):
            with pytest.raises(SnapshotCorrupt, match=f"encrypted with key {OLD.id}"):
                await attempt()
        found = await store.collect()
        assert (found.removed, found.blocked) == (0, None), "a collection needs no key"
    async with SnapshotStore(tmp_path, memory, keys=Keys((NEW, OLD))) as store:
        assert await read_all(store, id) == FILES


async def _get(store: SnapshotStore, id: str) -> None:
    store.get(id)


async def test_a_new_key_is_for_what_is_new_and_old_ones_still_read(tmp_path: Path, memory: Path) -> None:
    async with SnapshotStore(tmp_path, memory) as store:
        plain = (await keep(store, FILES)).draft.id
    async with SnapshotStore(tmp_path, memory, keys=Keys((OLD,))) as store:
        old = (await keep(store, FILES)).draft.id
        assert await read_all(store, plain) == FILES
        await store.cool(0)
    async with SnapshotStore(tmp_path, memory, keys=Keys((NEW, OLD))) as store:
        new = (await keep(store, FILES)).draft.id
        await store.cool(0)
        for id in (plain, old, new):
            assert await read_all(store, id) == FILES
    async with SnapshotStore(tmp_path, memory, keys=Keys((NEW,))) as store:
        assert await read_all(store, new) == FILES
        assert set(store.broken()) == {old}


async def test_names_of_chunks_do_not_tell_the_content_without_the_key(tmp_path: Path, memory: Path) -> None:
    names: list[set[str]] = []
    for number, keys in enumerate((Keys(), Keys((OLD,)), Keys((NEW,)))):
        home = tmp_path / str(number)
        async with SnapshotStore(home, memory, keys=keys) as store:
            await keep(store, FILES)
            await store.cool(0)
        names.append({path.name for path in (home / "content/chunks").rglob("*") if path.is_file()})
    assert all(names)
    assert not names[0] & names[1] | names[1] & names[2] | names[0] & names[2]


@pytest.mark.parametrize("harm", ["flip", "cut", "swap", "of another"])
async def test_an_encrypted_file_that_was_changed_is_refused(tmp_path: Path, memory: Path, harm: str) -> None:
    async with SnapshotStore(tmp_path, memory, keys=Keys((OLD,))) as store:
        data = os.urandom(3 << 20)
        id = (await keep(store, {"pages.img": data})).draft.id
        path = tmp_path / "snapshots" / id / "files/pages.img"
        sealed = bytearray(path.read_bytes())
        part, head = (1 << 20) + 16, 48
        match harm:
            case "flip":
                sealed[-1] ^= 1
            case "cut":
                del sealed[head + 2 * part :]
            case "swap":
                first, second = sealed[head : head + part], sealed[head + part : head + 2 * part]
                sealed[head : head + 2 * part] = second + first
            case _:
                other = (await keep(store, {"pages.img": data})).draft.id
                sealed[:] = (tmp_path / "snapshots" / other / "files/pages.img").read_bytes()
        path.write_bytes(sealed)
        with pytest.raises(SnapshotCorrupt, match=r"pages\.img"):
            await read_all(store, id)


def test_keys_are_read_in_base64_and_hex_the_first_for_what_is_new(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# new\n{base64.b64encode(b'n' * 32).decode()}\n\n{(b'o' * 32).hex()}  # old\n")
    keys = read_keys(file, None)
    assert keys == Keys((NEW, OLD))
    assert keys.current == NEW
    assert read_keys(None, (b"o" * 32).hex()) == Keys((OLD,))
    assert read_keys(None, None) == read_keys(None, "") == Keys()
    assert "nnnn" not in repr(keys)


@pytest.mark.parametrize("text", ["short", "A" * 43, "z" * 64, base64.b64encode(b"n" * 31).decode(), "é"])
def test_what_is_no_key_is_refused_without_being_quoted(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidArgument, match="line 1") as caught:
        parse_keys(text, "the file")
    assert text not in str(caught.value)
    with pytest.raises(InvalidArgument):
        parse_keys("\n".join([base64.b64encode(b"n" * 32).decode()] * 2), "twice")
    (tmp_path / "empty").write_text("# nothing\n")
    for file in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(InvalidArgument, match=file.name):
            read_keys(file, None)
