"""Files in a real sandbox: what gVisor does otherwise than Linux must not show."""

import asyncio
import hashlib
import io
import os
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from belljar.model.errors import Conflict, DiskFull, NotFound
from belljar.model.file import ChangeKind, FileKind
from belljar.model.sandbox import Limits
from belljar.node.engine.conformance import Bed
from belljar.node.engine.conformance.bed import Box

pytestmark = pytest.mark.node


@pytest.fixture
async def box(bed: Bed) -> AsyncGenerator[Box]:
    async with bed.box(Limits(cpus=2, memory=512 << 20, disk=128 << 20, pids=256)) as made:
        yield made


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 65536):
        yield data[at : at + 65536]


async def whole(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def archive(*entries: tuple[str, bytes, str]) -> bytes:
    """Entries as (name, type, target of a link or content of a file)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as writer:
        for name, kind, what in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(what)
                writer.addfile(info, io.BytesIO(what.encode()))
            else:
                info.linkname = what
                writer.addfile(info)
    return out.getvalue()


async def test_what_goes_in_is_there_and_comes_out_again(box: Box) -> None:
    data = os.urandom(20_000_000)
    await box.guest.write("/srv/deep/file", pieces(data), upload="u", mode=0o750, user="user")
    seen = await box.sh("sha256sum < /srv/deep/file; stat -c '%a %U' /srv/deep/file /srv/deep; ls -A /srv/deep")
    assert seen.text.split() == [hashlib.sha256(data).hexdigest(), "-", "750", "user", "755", "user", "file"]
    assert await whole(box.guest.read("/srv/deep/file")) == data


async def test_a_full_disk_is_said_and_leaves_no_trace(box: Box) -> None:
    await box.guest.write("/before", pieces(b"still here"), upload="b")
    with pytest.raises(DiskFull):
        await box.guest.write("/big", pieces(bytes(200 << 20)), upload="u")
    with pytest.raises(NotFound):
        await box.guest.stat("/big")
    assert (await box.sh("ls -A / | grep -c belljar-")).text.strip() == "0"
    assert await whole(box.guest.read("/before")) == b"still here"
    await box.guest.write("/after", pieces(bytes(1 << 20)), upload="a")


async def test_no_archive_writes_through_a_link_that_leads_out(box: Box) -> None:
    await box.sh("mkdir -p /in /out; ln -s /out /in/l")
    with pytest.raises(Conflict):
        await box.guest.push("/in", pieces(archive(("l/evil", tarfile.REGTYPE, "x"))))
    links = archive(
        ("a/b/c", tarfile.SYMTYPE, "../.."), ("q", tarfile.SYMTYPE, "a/b/c/.."), ("q/evil", tarfile.REGTYPE, "x")
    )
    with pytest.raises(Conflict):
        await box.guest.push("/in", pieces(links))
    through = archive(("s", tarfile.SYMTYPE, "/out"), ("s/evil", tarfile.REGTYPE, "x"))
    with pytest.raises(Conflict):
        await box.guest.push("/in", pieces(through))
    assert (await box.sh("readlink /in/s")).text == "/out\n", "the link itself is only text"
    assert (await box.sh("ls -A /out /evil")).stdout == b"/out:\n"


async def test_a_tree_comes_out_as_it_is(box: Box) -> None:
    await box.sh(
        "mkdir -p /t/a; cd /t; echo x > a/f; ln a/f hard; ln -s a/f soft; mkfifo pipe; chmod 4711 a/f;"
        "truncate -s 3000000 hole; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'"
    )
    with tarfile.open(fileobj=io.BytesIO(await whole(box.guest.pull("/t")))) as reader:
        found = {entry.name: entry for entry in reader}
    assert sorted(found) == [".", "a", "a/f", "hard", "hole", "soft"]
    assert {found["a/f"].islnk(), found["hard"].islnk()} == {True, False}
    assert found["soft"].linkname == "a/f"
    assert found["hole"].size == 3_000_000


async def test_the_whole_root_can_be_pulled_without_the_kernels_own_files(box: Box) -> None:
    async with asyncio.timeout(100):
        count, size = 0, 0
        reader, writer = await asyncio.to_thread(os.pipe)
        names: set[str] = set()

        def read() -> None:
            with os.fdopen(reader, "rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
                names.update(entry.name for entry in tar)

        reading = asyncio.create_task(asyncio.to_thread(read))
        with os.fdopen(writer, "wb") as file:
            async for chunk in box.guest.pull("/"):
                size += len(chunk)
                await asyncio.to_thread(file.write, chunk)
        await reading
        count = len(names)
    assert count > 5000
    assert "usr/bin/env" in names
    assert not any(name.startswith(("proc/", "sys/", ".belljar/")) for name in names)


async def test_a_tree_moves_between_file_systems(box: Box) -> None:
    await box.sh("mkdir -p /t/in; echo x > /t/in/f; ln -s f /t/in/l")
    await box.guest.move("/t", "/dev/shm/t")
    assert (await box.guest.stat("/dev/shm/t/in/l", follow=False)).kind is FileKind.SYMLINK
    assert await whole(box.guest.read("/dev/shm/t/in/f")) == b"x\n"
    with pytest.raises(NotFound):
        await box.guest.stat("/t")


async def test_a_big_and_deep_tree_is_removed(box: Box) -> None:
    await box.sh("mkdir /t; cd /t; for i in $(seq 300); do mkdir d$i; touch d$i/a d$i/b; done; ln -s /etc /t/etc")
    await box.sh(
        "cd /t; for i in $(seq 60); do mkdir nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn$i; cd nnn*$i; done"
    )
    await box.guest.remove("/t", recursive=True)
    assert (await box.sh("ls -d /t /etc/passwd")).stdout == b"/etc/passwd\n"


async def test_changes_made_inside_are_seen(box: Box) -> None:
    await box.guest.make_directory("/w")
    changes = box.guest.watch("/w", recursive=True)
    first = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0.3)
    await box.sh("mkdir -p /w/a/b; echo x > /w/a/b/f; mv /w/a/b/f /w/g; rm /w/g")
    seen = [await first]
    async with asyncio.timeout(10):
        while (seen[-1].kind, seen[-1].path) != (ChangeKind.REMOVED, "/w/g"):
            seen.append(await anext(changes))
    await changes.aclose()
    told = {(change.kind, change.path) for change in seen}
    assert {(ChangeKind.CREATED, "/w/a"), (ChangeKind.CREATED, "/w/a/b"), (ChangeKind.MOVED, "/w/g")} <= told


async def test_reading_what_never_ends_or_never_comes_is_refused(box: Box) -> None:
    await box.sh("mkfifo /fifo")
    for path in ("/fifo", "/dev/zero", "/proc"):
        with pytest.raises(Conflict):
            await whole(box.guest.read(path))
    assert b"MemTotal" in await whole(box.guest.read("/proc/meminfo"))
