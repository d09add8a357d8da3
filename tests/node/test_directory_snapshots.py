"""A directory of one sandbox, and private copies of it in others."""

import asyncio
import contextlib
import io
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from belljar.model.errors import Conflict, DiskFull, Error, InvalidArgument, NotFound
from belljar.model.sandbox import Limits
from belljar.node.engine.conformance import Bed
from belljar.node.engine.conformance.bed import Box
from belljar.node.snapshot.directory import FILE, capture, mount, mounts, unmount

pytestmark = pytest.mark.node

LIMITS = Limits(cpus=2, memory=256 << 20, disk=128 << 20, pids=256)


@pytest.fixture
async def box(bed: Bed) -> AsyncGenerator[Box]:
    async with bed.box(LIMITS) as made:
        yield made


async def kept(box: Box, folder: Path, script: str) -> Path:
    """The snapshot of /data after the script."""
    folder.mkdir()
    done = await box.sh(f"mkdir -p /data && cd /data && {script}")
    assert done.returncode == 0, done.stderr
    await capture(box.guest, "/data", folder, reserve=0)
    return folder


async def left(box: Box) -> str:
    return (await box.sh("ls -A /.belljar/mounts 2>/dev/null")).text


async def test_a_copy_is_private_and_like_its_original(bed: Bed, box: Box, tmp_path: Path) -> None:
    script = "head -c 5000000 /dev/urandom > big; mkdir -m 2750 sub; cp /bin/true sub/tool; chmod 4755 sub/tool; "
    script += "chown -R 1000:1001 sub; chmod 4755 sub/tool; ln -s big link; ln big other; chmod 711 ."
    snapshot = await kept(box, tmp_path / "sn1", script)
    look = "cd {}; sha256sum big; stat -c '%A %u %g %h %n' . big sub sub/tool link other; readlink link"
    original = (await box.sh(look.format("/data"))).text
    async with bed.box(LIMITS) as other:
        await mount(other.guest, "sn1", snapshot, "/work/copy")
        assert (await other.sh(look.format("/work/copy"))).text == original
        assert await mounts(other.guest) == {"/work/copy": "sn1"}
        await other.sh("echo changed > /work/copy/big; rm /work/copy/link")
        assert (await other.run("ls", "/work/copy/sub/tool", user="nobody")).returncode == 2
    assert (await box.sh(look.format("/data"))).text == original


async def test_unmounting_takes_away_all_that_was_written(box: Box, tmp_path: Path) -> None:
    snapshot = await kept(box, tmp_path / "sn1", "echo 1 > a")
    await box.sh("mkdir /point; echo below > /point/below")
    for _ in range(2):
        await mount(box.guest, "sn1", snapshot, "/point")
        assert (await box.sh("cat /point/a; ls -A /point; head -c 50000000 /dev/zero > /point/more")).text == "1\na\n"
        await unmount(box.guest, "/point/")
        assert (
            await box.sh("cat /point/below; ls -A /point; df -k / | awk 'NR == 2 && $3 > 20000'")
        ).text == "below\nbelow\n"
        assert await left(box) == ""
    with pytest.raises(NotFound):
        await unmount(box.guest, "/point")


async def test_one_in_use_stays(box: Box, tmp_path: Path) -> None:
    snapshot = await kept(box, tmp_path / "sn1", "echo 1 > a")
    await mount(box.guest, "sn1", snapshot, "/point")
    reader = await box.start("sh", "-c", "exec 3</point/a; echo open; sleep 99")
    await box.seen(reader.id, b"open")
    with pytest.raises(Conflict, match="in use"):
        await unmount(box.guest, "/point")
    assert (await box.sh("cat /point/a")).text == "1\n"
    await box.guest.signal(reader.id, 9, group=True)
    await box.guest.wait(reader.id, timeout=5)
    await unmount(box.guest, "/point")
    assert await mounts(box.guest) == {}


async def test_mounts_live_on_in_clones_each_with_its_own(bed: Bed, box: Box, tmp_path: Path) -> None:
    snapshot, checkpoint = await kept(box, tmp_path / "sn1", "echo 1 > a"), tmp_path / "checkpoint"
    await mount(box.guest, "sn1", snapshot, "/point")
    await box.sh("echo parent >> /point/a")
    await box.guest.quiesce()
    await bed.engine.checkpoint(box.instance, checkpoint)
    await box.sh("echo later >> /point/a")
    async with bed.made(LIMITS) as twin:
        await bed.engine.restore(twin, checkpoint, None)
        async with bed.session(bed.engine, twin) as clone:
            assert await mounts(clone.guest) == {"/point": "sn1"}
            assert (await clone.sh("echo clone >> /point/a; cat /point/a")).text == "1\nparent\nclone\n"
            await unmount(clone.guest, "/point")
            assert (await clone.sh("ls -A /point")).text == ""
    assert (await box.sh("cat /point/a")).text == "1\nparent\nlater\n"


async def test_a_mount_is_no_part_of_a_filesystem_snapshot(bed: Bed, box: Box, tmp_path: Path) -> None:
    snapshot = await kept(box, tmp_path / "sn1", "echo 1 > a")
    await mount(box.guest, "sn1", snapshot, "/point")
    await bed.engine.save_files(box.instance, tmp_path / "upper.tar")
    with tarfile.open(tmp_path / "upper.tar") as archive:
        names = archive.getnames()
    assert "./point" in names and "./data/a" in names
    assert [name for name in names if "belljar" in name or name.startswith("./point/")] == []


@pytest.mark.parametrize("path", ["/", "/etc", "/usr/", "/proc/self", "/.belljar/run", "/tmp", "/a/../etc"])
async def test_nothing_is_mounted_over_what_the_system_needs(path: str, box: Box, tmp_path: Path) -> None:
    snapshot = await kept(box, tmp_path / "sn1", "echo 1 > a")
    with pytest.raises(InvalidArgument):
        await mount(box.guest, "sn1", snapshot, path)
    assert await left(box) == ""


@pytest.mark.parametrize("target", ["/etc", "/", "/.belljar/run", "/.belljar/vol", "/proc/1", "/usr/../dev"])
async def test_a_link_to_what_the_system_needs_is_seen_through(target: str, box: Box, tmp_path: Path) -> None:
    snapshot = await kept(box, tmp_path / "sn1", "echo 1 > a")
    await box.sh(f"ln -s {target} /point; ln -s / /up")
    for path in ("/point", f"/up/{target.strip('/')}"):
        with pytest.raises(InvalidArgument):
            await mount(box.guest, "sn1", snapshot, path)
    assert await left(box) == ""
    assert (await box.sh("cat /etc/hostname; true")).returncode == 0


async def test_a_mount_point_that_changes_all_the_time_harms_nobody_but_itself(box: Box, tmp_path: Path) -> None:
    snapshot = await kept(box, tmp_path / "sn1", "echo 1 > a")
    await box.sh("mkdir -p /real/point")
    await box.start(
        "sh", "-c", "while :; do ln -sfn /etc /way; ln -sfn /real /way; rm -rf /real/point; mkdir -p /real/point; done"
    )
    for _ in range(15):
        with contextlib.suppress(Error):
            await mount(box.guest, "sn1", snapshot, "/way/point")
        for path in await mounts(box.guest):
            with contextlib.suppress(Conflict, NotFound):
                await unmount(box.guest, path)
    assert (await box.sh("test -s /etc/passwd && python3 -c 'print(1)'")).text == "1\n"


async def test_two_at_once_and_one_over_another_are_refused(box: Box, tmp_path: Path) -> None:
    snapshot = await kept(box, tmp_path / "sn1", "head -c 20000000 /dev/urandom > a")
    done = await asyncio.gather(*(mount(box.guest, "sn1", snapshot, "/p") for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in done].count(Conflict) == 2
    for path in ("/p", "/p/inside"):
        with pytest.raises(Conflict):
            await mount(box.guest, "sn1", snapshot, path)
    assert await mounts(box.guest) == {"/p": "sn1"}


async def test_a_full_disk_leaves_nothing(box: Box, tmp_path: Path) -> None:
    snapshot = await kept(box, tmp_path / "sn1", "head -c 60000000 /dev/urandom > a")
    await box.sh("head -c 20000000 /dev/urandom > /other")
    with pytest.raises(DiskFull):
        await mount(box.guest, "sn1", snapshot, "/point")
    assert await left(box) == ""
    assert await mounts(box.guest) == {}
    await box.sh("rm /other")
    await mount(box.guest, "sn1", snapshot, "/point")


async def test_a_hostile_tree_lands_in_its_own_folder_only(box: Box, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, link in (("way", b"2", "/etc"), ("way/evil", b"0", ""), ("null", b"3", "")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            archive.addfile(info)
    (tmp_path / FILE).write_bytes(out.getvalue())
    with pytest.raises(Error):
        await mount(box.guest, "sn1", tmp_path, "/point")
    assert (await box.sh("ls /etc/evil")).returncode == 2
    assert await left(box) == ""


async def test_what_is_no_directory_or_not_there_is_no_snapshot(box: Box, tmp_path: Path) -> None:
    for path, error in (("/etc/passwd", Conflict), ("/nowhere", NotFound)):
        with pytest.raises(error):
            await capture(box.guest, path, tmp_path, reserve=0)
    await box.sh("mkdir /big; head -c 50000000 /dev/zero > /big/file")
    with pytest.raises(DiskFull):
        await capture(box.guest, "/big", tmp_path, reserve=1 << 60)
    assert list(tmp_path.iterdir()) == []


async def test_an_agent_that_sends_a_torn_archive_is_no_snapshot(box: Box, tmp_path: Path) -> None:
    class Torn:
        def __getattr__(self, name: str) -> object:
            return getattr(box.guest, name)

        async def pull(self, path: str) -> AsyncIterator[bytes]:
            async for chunk in box.guest.pull(path):
                yield chunk[:100]

    with pytest.raises(Conflict, match="no whole archive"):
        await capture(Torn(), "/home", tmp_path, reserve=0)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
