"""Files through the real agent, as an ordinary process on this machine."""

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator
from typing import Any

import pytest

from belljar.model.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from belljar.model.file import Change, ChangeKind, FileKind
from belljar.node.guest.guest import Guest

from .conftest import Real


async def pieces(data: bytes, size: int = 1 << 20) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def whole(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def test_a_file_goes_in_and_comes_out(inside: Guest) -> None:
    data = os.urandom(10_000_000)
    assert await inside.write("/d/f", pieces(data), upload="u", mode=0o640) == len(data)
    assert await whole(inside.read("/d/f")) == data
    assert await whole(inside.read("/d/f", offset=5, length=100_000)) == data[5:100_005]
    info = await inside.stat("/d/f")
    assert (info.kind, info.size, info.mode, info.path) == (FileKind.FILE, len(data), 0o640, "/d/f")


async def test_chunks_are_bounded(inside: Guest) -> None:
    await inside.write("/f", pieces(bytes(1_000_000)), upload="u")
    assert max([len(chunk) async for chunk in inside.read("/f")]) <= 65536


async def test_an_upload_goes_on_in_parts_and_takes_nothing_twice(inside: Guest) -> None:
    data = os.urandom(3_000_000)
    assert await inside.write("/f", pieces(data[:2_000_000]), upload="u", last=False) == 2_000_000
    assert await inside.uploaded("u") == 2_000_000
    with pytest.raises(NotFound):
        await inside.stat("/f")
    assert await inside.write("/f", pieces(data[1_000_000:]), upload="u", offset=1_000_000) == 3_000_000
    assert await whole(inside.read("/f")) == data
    assert await inside.write("/f", pieces(data[1_000_000:]), upload="u", offset=1_000_000) == 3_000_000


async def test_an_upload_survives_the_server_and_its_client(real: Real) -> None:
    data = os.urandom(4_000_000)
    first = await real.guest()

    async def breaks() -> AsyncIterator[bytes]:
        yield data[:3_000_000]
        await asyncio.sleep(0.1)
        raise RuntimeError("the client left")

    with pytest.raises(RuntimeError):
        await first.write("/f", breaks(), upload="u")
    await first.close()
    second = await real.guest()
    taken = await second.uploaded("u")
    assert 0 < taken <= 3_000_000
    await second.write("/f", pieces(data[taken:]), upload="u", offset=taken)
    assert await whole(second.read("/f")) == data
    await second.close()


async def test_a_gap_and_a_folder_in_the_way_are_conflicts(inside: Guest) -> None:
    with pytest.raises(Conflict):
        await inside.write("/f", pieces(b"x"), upload="u", offset=5)
    await inside.make_directory("/d")
    with pytest.raises(Conflict):
        await inside.write("/d", pieces(b"x"), upload="v")
    with pytest.raises(Conflict):
        await whole(inside.read("/d"))


async def test_what_is_missing_is_not_found(inside: Guest) -> None:
    for call in (inside.stat("/no"), whole(inside.read("/no")), whole(inside.pull("/no")), inside.remove("/no")):
        with pytest.raises(NotFound):
            await call


async def test_a_bad_path_never_reaches_the_agent(inside: Guest) -> None:
    for path in ("", "a\0b", "x" * 5000, "\ud800"):
        with pytest.raises(InvalidArgument):
            await inside.stat(path)


async def test_folders_are_made_listed_moved_and_removed(inside: Guest) -> None:
    await inside.make_directory("/a/b", parents=True)
    with pytest.raises(AlreadyExists):
        await inside.make_directory("/a/b")
    for number in range(5):
        await inside.touch(f"/a/b/{number}")
    page, cursor = await inside.list_directory("/a/b", limit=3)
    assert [entry.name for entry in page] == ["0", "1", "2"]
    page, cursor = await inside.list_directory("/a/b", cursor=cursor, limit=3)
    assert ([entry.name for entry in page], cursor) == (["3", "4"], None)
    found, _ = await inside.glob("/", "**/[12]")
    assert [entry.path for entry in found] == ["/a/b/1", "/a/b/2"]
    await inside.move("/a", "/z")
    with pytest.raises(Conflict):
        await inside.remove("/z")
    await inside.remove("/z", recursive=True)
    assert (await inside.list_directory("/"))[0] == []


async def test_links_modes_and_owners(inside: Guest) -> None:
    await inside.write("/f", pieces(b"x"), upload="u")
    await inside.symlink("/s", "f")
    await inside.hardlink("/h", "/f")
    await inside.chmod("/f", 0o600)
    await inside.chown("/f", str(os.getuid()))
    link = await inside.stat("/s", follow=False)
    assert (link.kind, link.target) == (FileKind.SYMLINK, "f")
    assert (await inside.stat("/h")).mode == 0o600


async def test_names_that_are_no_utf8_come_through(inside: Guest) -> None:
    name = os.fsdecode(b"/raw\xff\n\x1b")
    await inside.write(name, pieces(b"x"), upload="u")
    (entry,), _ = await inside.list_directory("/")
    assert entry.path == name
    assert await whole(inside.read(entry.path)) == b"x"


async def test_a_tree_goes_out_and_in_again(inside: Guest) -> None:
    await inside.write("/t/a/f", pieces(bytes(3_000_000)), upload="u")
    await inside.symlink("/t/l", "a/f")
    archive = await whole(inside.pull("/t"))
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        assert sorted(reader.getnames()) == [".", "a", "a/f", "l"]
    assert await inside.push("/copy", pieces(archive)) == 4
    assert (await inside.stat("/copy/l")).size == 3_000_000


async def test_an_archive_that_would_leave_is_refused_while_it_is_still_sent(inside: Guest) -> None:
    evil = tarfile.TarInfo("../evil")
    async with asyncio.timeout(5):
        with pytest.raises(InvalidArgument):
            await inside.push("/t", pieces(evil.tobuf() + bytes(20_000_000)))


async def test_changes_are_seen_until_the_watcher_leaves(inside: Guest) -> None:
    await inside.make_directory("/d")
    changes = inside.watch("/d", recursive=True)
    first = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0.1)
    await inside.write("/d/f", pieces(b"x"), upload="u")
    seen = [await first]
    while seen[-1].path != "/d/f":
        seen.append(await anext(changes))
    assert seen[-1] == Change(ChangeKind.MOVED, "/d/f", seen[0].path)
    await changes.aclose()
    with pytest.raises(NotFound):
        await anext(inside.watch("/no"))


async def test_a_reader_that_leaves_early_frees_its_stream(inside: Guest) -> None:
    await inside.write("/f", pieces(bytes(5_000_000)), upload="u")
    for _ in range(20):
        chunks: Any = inside.read("/f")
        await anext(chunks)
        await chunks.aclose()
    assert len(await whole(inside.read("/f"))) == 5_000_000
