import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3

from belljar.base.ids import new_id
from belljar.model.errors import AlreadyExists, DiskFull, SnapshotCorrupt
from belljar.node.snapshot.bundle import MAGIC
from belljar.node.snapshot.envelope import manifest_text
from belljar.node.snapshot.manifest import FileEntry, Manifest
from belljar.node.snapshot.store import SnapshotStore
from belljar.node.storage.keys import Key, Keys

from .conftest import FILES, draft_of, keep, read_all

KEY = Key.of(b"e" * 32)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SnapshotStore]:
    async with SnapshotStore(tmp_path, tmp_path / "run") as store:
        yield store
        assert not [path for path in (tmp_path / "snapshots").iterdir() if path.name.startswith(".")], "half-made"


async def exported(store: SnapshotStore, id: str, key: Key | None = None) -> bytes:
    return b"".join([piece async for piece in store.export(id, key=key)])


async def sent(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def forged(manifest: str | bytes, content: bytes, digest: bytes | None = None) -> bytes:
    """A file as Belljar writes it, but with anything in it."""
    text = manifest.encode() if isinstance(manifest, str) else manifest
    body = len(text).to_bytes(4) + text + content
    return MAGIC + zstandard.ZstdCompressor().compress(body + (blake3(body).digest() if digest is None else digest))


def manifest_of(files: Mapping[str, bytes]) -> Manifest:
    return Manifest(draft_of(), {name: FileEntry(len(data), blake3(data).hexdigest()) for name, data in files.items()})


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
async def test_what_was_exported_is_imported_under_a_new_id(store: SnapshotStore, size: int) -> None:
    first = await keep(store, {**FILES, "pages.img": os.urandom(5000) + bytes(100_000)})
    data = await exported(store, first.draft.id)
    id = new_id("sn")
    second = await store.import_(id, sent(data, size))
    assert second.files == first.files
    assert second.draft == replace(first.draft, id=id)
    assert await read_all(store, id) == await read_all(store, first.draft.id)
    with pytest.raises(AlreadyExists):
        await store.import_(id, sent(data))


async def test_a_cold_one_is_exported_as_a_hot_one_is(store: SnapshotStore) -> None:
    id = (await keep(store)).draft.id
    hot = await exported(store, id)
    await store.cool(0)
    assert await exported(store, id) == hot


async def test_an_encrypted_export_needs_its_key(store: SnapshotStore) -> None:
    id = (await keep(store, {"pages.img": b"treasure" * 400_000})).draft.id
    data = await exported(store, id, KEY)
    assert b"treasure" not in data
    assert b"swordfish" not in data
    with pytest.raises(SnapshotCorrupt, match=f"encrypted with key {KEY.id}"):
        await store.import_(new_id("sn"), sent(data))
    with pytest.raises(SnapshotCorrupt):
        await store.import_(new_id("sn"), sent(data[:-1]), keys=Keys((KEY,)))
    with pytest.raises(SnapshotCorrupt):
        await store.import_(new_id("sn"), sent(data[:-40] + bytes(40)), keys=Keys((KEY,)))
    other = await store.import_(new_id("sn"), sent(data), keys=Keys((KEY,)))
    assert await read_all(store, other.draft.id) == await read_all(store, id)


async def test_a_torn_export_is_refused_wherever_it_ends(store: SnapshotStore) -> None:
    data = await exported(store, (await keep(store)).draft.id)
    for length in {*range(40), *range(40, len(data), len(data) // 25), len(data) - 1, len(data) - 33}:
        with pytest.raises(SnapshotCorrupt):
            await store.import_(new_id("sn"), sent(data[:length]))
    assert len(store.list()) == 1


async def test_a_changed_export_is_refused_wherever_it_changed(store: SnapshotStore) -> None:
    files = {"pages.img": bytes(range(256)) * 100}
    manifest = await keep(store, files)
    data, refused = await exported(store, manifest.draft.id), 0
    for place in range(0, len(data), max(1, len(data) // 120)):
        changed = bytearray(data)
        changed[place] ^= 0x10
        try:
            came = await store.import_(new_id("sn"), sent(bytes(changed)))
        except SnapshotCorrupt:
            refused += 1
        else:
            # A hint for the unpacker, such as its window: what comes out is the same.
            assert replace(came.draft, id=manifest.draft.id) == manifest.draft
            assert await read_all(store, came.draft.id) == files
    assert refused > 100


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", ".hidden", "", "a\0b", "x" * 200, "manifest\n"])
async def test_names_that_lead_elsewhere_are_refused(store: SnapshotStore, name: str) -> None:
    with pytest.raises(SnapshotCorrupt):
        await store.import_(new_id("sn"), sent(forged(manifest_text(manifest_of({name: b"x"})), b"x")))


async def test_a_manifest_that_no_belljar_writes_is_refused(store: SnapshotStore) -> None:
    whole = manifest_of({"pages.img": b"x"})
    text = manifest_text(whole)
    assert (await store.import_(new_id("sn"), sent(forged(text, b"x")))).size == 1
    bad = [
        manifest_text(replace(whole, files={})),
        manifest_text(replace(whole, files={f"f{n}": FileEntry(0, "0" * 64) for n in range(65)})),
        manifest_text(replace(whole, files={"pages.img": FileEntry(-1, "0" * 64)})),
        manifest_text(replace(whole, files={"pages.img": FileEntry(1 << 62, "0" * 64)})),
        manifest_text(replace(whole, files={"pages.img": FileEntry(1, "../../x")})),
        manifest_text(replace(whole, version=2)),
        *(
            manifest_text(replace(whole, draft=replace(whole.draft, **{field: "../../../etc"})))
            for field in ("id", "image_key", "build", "runtime", "engine", "sandbox", "parent", "path")
        ),
        manifest_text(replace(whole, draft=replace(whole.draft, mounts=("../x",)))),
        manifest_text(replace(whole, draft=replace(whole.draft, created=float("1e308"), paused=-1.0))),
        text.replace('"image":"base"', '"image":7'),
        text.replace('"memory":1073741824', '"memory":1'),
        text[:-2],
        "[]",
        "[" * 100_000,
        b"\xff\xfe",
    ]
    for one in bad:
        with pytest.raises(SnapshotCorrupt):
            await store.import_(new_id("sn"), sent(forged(one, b"x")))
    assert len(store.list()) == 1


async def test_content_that_is_not_what_the_manifest_says_is_refused(store: SnapshotStore) -> None:
    text = manifest_text(manifest_of({"pages.img": b"xyz"}))
    for data in (forged(text, b"abc"), forged(text, b"xy"), forged(text, b"xyzz"), forged(text, b"xyz", bytes(32))):
        with pytest.raises(SnapshotCorrupt):
            await store.import_(new_id("sn"), sent(data))
    with pytest.raises(SnapshotCorrupt):
        await store.import_(new_id("sn"), sent(MAGIC + zstandard.ZstdCompressor().compress(b"\xff" * 40)))


async def test_what_is_no_export_is_refused(store: SnapshotStore) -> None:
    for data in (
        b"",
        b"PK\x03\x04" + bytes(100),
        b"BJSNAP2\n" + bytes(100),
        os.urandom(1000),
        MAGIC,
        MAGIC + bytes(50),
    ):
        with pytest.raises(SnapshotCorrupt):
            await store.import_(new_id("sn"), sent(data))


async def test_one_that_does_not_fit_is_refused_before_it_is_written(store: SnapshotStore) -> None:
    whole = manifest_of({"pages.img": b"x"})
    huge = replace(whole, files={"pages.img": FileEntry(1 << 44, "0" * 64)})
    with pytest.raises(DiskFull, match="MiB are free"):
        await store.import_(new_id("sn"), sent(forged(manifest_text(huge), b"x")))


async def test_a_bomb_takes_no_more_room_than_its_manifest_says(store: SnapshotStore) -> None:
    text = manifest_text(manifest_of({"pages.img": b"x"})).encode()
    body = len(text).to_bytes(4) + text + bytes(1 << 28)
    with pytest.raises(SnapshotCorrupt):
        await store.import_(new_id("sn"), sent(MAGIC + zstandard.ZstdCompressor().compress(body)))
    wide = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=27))
    packed = wide.compressobj().compress(os.urandom(100)) + wide.compress(body)
    with pytest.raises(SnapshotCorrupt):
        await store.import_(new_id("sn"), sent(MAGIC + packed))


async def test_a_sender_who_stops_or_fails_leaves_nothing(store: SnapshotStore) -> None:
    data = await exported(store, (await keep(store)).draft.id)

    async def failing() -> AsyncIterator[bytes]:
        yield data[: len(data) // 2]
        raise ConnectionResetError

    with pytest.raises(Exception, match=r"snapshot|^$") as caught:
        await store.import_(new_id("sn"), failing())
    assert caught.type is not AssertionError

    async def stuck() -> AsyncIterator[bytes]:
        yield data[: len(data) // 2]
        await asyncio.sleep(3600)

    # As many as there are threads that all share: others go on meanwhile.
    imports = [asyncio.create_task(store.import_(new_id("sn"), stuck())) for _ in range(12)]
    await asyncio.sleep(0.2)
    assert len(await exported(store, store.list()[0].draft.id)) == len(data)
    for one in imports:
        one.cancel()
    assert {type(one) for one in await asyncio.gather(*imports, return_exceptions=True)} == {asyncio.CancelledError}
    assert len(store.list()) == 1


async def test_a_reader_who_leaves_ends_the_export(store: SnapshotStore) -> None:
    id = (await keep(store, {"pages.img": os.urandom(4 << 20)})).draft.id
    pieces = store.export(id)
    await anext(pieces)
    await pieces.aclose()
    await store.delete(id)
    assert store.list() == []


async def test_an_import_into_an_encrypted_store_is_encrypted(
    tmp_path: Path, memory: Path, store: SnapshotStore
) -> None:
    data = await exported(store, (await keep(store, {"pages.img": b"treasure" * 1000})).draft.id)
    async with SnapshotStore(tmp_path / "sealed", memory, keys=Keys((KEY,))) as sealed:
        id = (await sealed.import_(new_id("sn"), sent(data))).draft.id
        assert await read_all(sealed, id) == {"pages.img": b"treasure" * 1000}
        assert b"treasure" not in (tmp_path / "sealed/snapshots" / id / "files/pages.img").read_bytes()
