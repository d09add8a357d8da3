"""Files that were saved of a real sandbox, and sandboxes that start from them."""

import asyncio
import contextlib
import os
import shutil
import tarfile
from collections.abc import AsyncGenerator, Generator
from dataclasses import replace
from pathlib import Path

import pytest

from belljar.base.mounts import MS_NODEV, mount, unmount_below
from belljar.base.tasks import in_thread, wait_until
from belljar.model.errors import DiskFull, EngineFailed, Error, SnapshotCorrupt, TooLarge
from belljar.model.sandbox import Limits
from belljar.model.snapshot import ChangeKind, PathChange
from belljar.node.engine.api import Instance
from belljar.node.engine.conformance import Bed
from belljar.node.engine.conformance.bed import Box
from belljar.node.image.paths import PATHS
from belljar.node.setup import Installation
from belljar.node.snapshot.diff import difference

pytestmark = pytest.mark.node

LIMITS = Limits(cpus=2, memory=256 << 20, disk=1 << 30, pids=256)
CHANGES = """
set -e
echo changed >> /etc/passwd
rm -r /usr/share/perl5
rm -r /home/user && mkdir /home/user && echo new > /home/user/only
mkdir -p /srv/a/b && chown 1000:1001 /srv/a && chmod 2750 /srv/a
head -c 3000000 /dev/urandom > /srv/a/big
ln /srv/a/big /srv/a/other
ln -s nowhere /srv/a/link
mkfifo /srv/a/pipe
cp /bin/true /srv/a/tool && chmod 4755 /srv/a/tool
truncate -s 40M /srv/a/holes && echo end >> /srv/a/holes
python3 -c 'import os; os.setxattr("/srv/a/big", "user.mark", b"kept"); open(b"/srv/a/\\xff\\xfe", "w").write("x")'
python3 -c 'open("/srv/" + "n" * 200, "w").write("long")'
rm /bin/nano
touch /usr/share
"""
LOOK = """
tail -1 /etc/passwd; ls -d /usr/share/perl5 /bin/nano 2>/dev/null; ls -A /home/user
cd /srv/a; stat -c '%A %u %g %n' . b; stat -c '%A %u %g %h %s %n' big other link pipe tool holes
cat big holes other | sha256sum; readlink link
python3 -c 'import os; print(os.getxattr("/srv/a/big", "user.mark"), open(b"/srv/a/\\xff\\xfe").read())'
ls -b .
cat /srv/nnn*; stat -c %i big other | uniq | wc -l
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount("tmpfs", folder, MS_NODEV, kind="tmpfs", options="size=8m")
    yield folder
    unmount_below(folder)
    folder.rmdir()


@contextlib.asynccontextmanager
async def begun(bed: Bed, upper: Path, limits: Limits = LIMITS) -> AsyncGenerator[Box]:
    spec = replace(bed.new_spec(limits), upper=upper)
    instance = Instance(spec)
    try:
        instance = await bed.engine.create(await bed.engine.prepare(spec))
        await bed.engine.start(instance, None)
        async with bed.session(bed.engine, instance) as box:
            yield box
    finally:
        await bed.engine.delete(instance)
        shutil.rmtree(spec.folder)
        assert not spec.overlay.exists()


def changes(upper: Path, installation: Installation) -> dict[str, PathChange]:
    image = installation.images.get("base").path.with_name(PATHS)
    return {change.path: change for change in difference(upper, image)}


async def test_two_generations_have_all_that_changed_and_nothing_else(bed: Bed, installation: Installation) -> None:
    first, second, ready = bed.scratch / "first.tar", bed.scratch / "second.tar", bed.scratch / "ready"
    async with bed.box(LIMITS) as box:
        done = await box.sh(CHANGES)
        assert done.returncode == 0, done.stderr
        seen = (await box.sh(LOOK)).text
        paused = await bed.engine.save_files(box.instance, first)
        assert 0 < paused < 2
    async with begun(bed, first) as box:
        assert (await box.sh(LOOK)).text == seen
        await box.sh("echo more > /srv/more; rm /srv/a/tool")
        await bed.engine.save_files(box.instance, second)
    await bed.engine.ready_files(second, ready)
    async with begun(bed, ready) as box:
        kept = "".join(line for line in seen.splitlines(keepends=True) if "tool" not in line)
        assert (await box.sh(LOOK)).text == kept
        assert (await box.sh("cat /srv/more; echo again > /srv/more; cat /srv/more")).text == "more\nagain\n"
    found = await asyncio.to_thread(changes, second, installation)
    assert found["/etc/passwd"].change is ChangeKind.MODIFIED
    assert found["/usr/share/perl5/Debconf"].change is ChangeKind.DELETED
    assert found["/home/user/only"].change is ChangeKind.ADDED
    assert found["/home/user/.profile"].change is ChangeKind.DELETED
    assert found["/srv/a/holes"].size == (40 << 20) + 4
    assert found["/srv/a/other"].size == 3_000_000
    assert {"/srv/a/\udcff\udcfe", "/srv/more", "/bin/nano"} & found.keys() == {"/srv/a/\udcff\udcfe", "/srv/more"}
    assert found["/usr/bin/nano"].change is ChangeKind.DELETED
    unchanged = {
        "/usr/share",
        "/etc",
        "/etc/hostname",
        "/etc/machine-id",
        "/srv/a/tool",
        "/.belljar/boot-id",
        "/.belljar",
    }
    assert not unchanged & found.keys()


async def test_what_writes_meanwhile_goes_on_and_is_saved_as_of_one_moment(bed: Bed) -> None:
    target = bed.scratch / "upper.tar"
    async with bed.box(LIMITS) as box:
        # Two files that are never told apart by more than one line, unless they are copied at two moments.
        writer = await box.start("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i >> /one; echo $i >> /two; done")
        await box.sh("head -c 200000000 /dev/urandom > /between")
        await bed.engine.save_files(box.instance, target)
        before = (await box.sh("wc -l < /one")).text
        await asyncio.sleep(0.1)
        assert int((await box.sh("wc -l < /one")).text) > int(before)
        assert (await box.guest.process(writer.id)).returncode is None
    with tarfile.open(target) as archive:
        one, two = (len(archive.extractfile(f"./{name}").read().split()) for name in ("one", "two"))  # type: ignore[union-attr]
    assert one - 1 <= two <= one


async def test_more_on_the_disk_than_memory_is_saved_and_nobody_is_ended_for_it(bed: Bed) -> None:
    small = replace(LIMITS, memory=96 << 20)
    target = bed.scratch / "upper.tar"
    async with bed.box(small) as box:
        await box.guest.configure(memory=small.memory)
        await box.sh("head -c 150000000 /dev/zero | tr '\\0' x > /one")
        process = await box.start(
            "python3", "-c", "x = b'x' * (30 << 20); import time; print('ready', flush=True); time.sleep(99)"
        )
        await box.seen(process.id, b"ready")
        await bed.engine.save_files(box.instance, target)
        await asyncio.sleep(1.2)  # the guard has looked
        assert (await box.guest.process(process.id)).returncode is None
        bomb = await box.run("python3", "-c", "x = b'x' * (200 << 20); import time; time.sleep(5)")
        assert bomb.out_of_memory
    async with begun(bed, target, small) as box:
        await box.guest.configure(memory=small.memory)
        assert (
            await box.sh("tr -d x < /one | wc -c; wc -c < /one; sleep 1.2; echo alive")
        ).text == "0\n150000000\nalive\n"


async def test_a_file_of_holes_is_refused_and_harms_nobody(bed: Bed) -> None:
    target = bed.scratch / "upper.tar"
    async with bed.box(LIMITS) as box:
        await box.sh("truncate -s 1T /holes")
        with pytest.raises(TooLarge, match="/holes has 1099511627776 bytes"):
            await bed.engine.save_files(box.instance, target, limit=1 << 30)
        assert list(bed.scratch.iterdir()) == []
        assert (await box.sh("rm /holes; echo alive")).text == "alive\n"
        await bed.engine.save_files(box.instance, target)


async def test_a_full_disk_leaves_nothing(bed: Bed, small_disk: Path) -> None:
    target = small_disk / "upper.tar"
    async with bed.box(LIMITS) as box:
        await box.sh("head -c 30000000 /dev/urandom > /data")
        with pytest.raises(DiskFull):
            await bed.engine.save_files(box.instance, target)
        assert list(small_disk.iterdir()) == []
        assert (await box.sh("echo alive")).text == "alive\n"


def grows(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


async def test_a_caller_that_leaves_lets_the_guest_go_on(bed: Bed) -> None:
    target = bed.scratch / "upper.tar"
    async with bed.box(LIMITS) as box:
        await box.sh("head -c 300000000 /dev/urandom > /data")
        saving = asyncio.create_task(bed.engine.save_files(box.instance, target))
        assert await wait_until(lambda: in_thread(grows, target), timeout=10, every=0.005)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert list(bed.scratch.iterdir()) == []
        assert (await box.sh("echo alive")).text == "alive\n"


async def test_a_guest_whose_server_died_while_it_saved_goes_on_under_the_next(bed: Bed) -> None:
    async with bed.box(LIMITS) as box:
        await bed.engine.pause(box.instance)
        (box.instance.spec.folder / "saving").touch()
        successor = bed.successor()
        assert await successor.state(box.instance) == "running"
        assert (await box.sh("echo alive")).text == "alive\n"
        assert not (box.instance.spec.folder / "saving").exists()


async def test_a_checkpoint_of_what_started_from_saved_files_has_them(bed: Bed) -> None:
    upper, ready, checkpoint = (bed.scratch / name for name in ("upper.tar", "ready", "checkpoint"))
    async with bed.box(LIMITS) as box:
        await box.sh("head -c 20000000 /dev/urandom > /data; sha256sum /data > /sum")
        await bed.engine.save_files(box.instance, upper)
    await bed.engine.ready_files(upper, ready)
    async with begun(bed, ready) as box:
        shutil.rmtree(ready)
        await bed.engine.checkpoint(box.instance, checkpoint)
        assert (await box.sh("sha256sum -c /sum")).text == "/data: OK\n"
    async with bed.made(LIMITS) as twin:
        await bed.engine.restore(twin, checkpoint, None)
        async with bed.session(bed.engine, twin) as box:
            assert (await box.sh("sha256sum -c /sum")).text == "/data: OK\n"


def forged(*members: tuple[str, bytes, int, str], cut: int = 0) -> bytes:
    """Entries as (name, kind, size, link); contents are what comes next."""
    data = b""
    for name, kind, size, link in members:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.linkname, info.mode = kind, size, link, 0o4777
        info.devmajor, info.devminor = (10, 229) if kind in (b"3", b"4") and link != DELETED else (0, 0)
        data += info.tobuf(tarfile.PAX_FORMAT)
    return (data + bytes(1024))[: -cut or None]


TOP, DELETED = ("./", b"5", 0, ""), "deleted"
HOSTILE: dict[str, tuple[bytes, type[Error]]] = {
    "an absolute name": (forged(TOP, ("/etc/cron.d/evil", b"2", 0, "x")), EngineFailed),
    "a name that climbs": (forged(TOP, ("./../../evil", b"2", 0, "x")), EngineFailed),
    "a folder of nobody": (forged(TOP, ("./a/b/", b"5", 0, "")), EngineFailed),
    "a link to nothing": (forged(TOP, ("./a", b"1", 0, "/etc/shadow")), EngineFailed),
    "a huge size": (forged(TOP, ("./a", b"0", 1 << 40, "")), SnapshotCorrupt),
    "the largest size": (forged(TOP, ("./a", b"0", (1 << 88) - 1, "")), SnapshotCorrupt),
    "a folder with contents": (forged(TOP, ("./a", b"5", 512, "")), SnapshotCorrupt),
    "a sparse file": (forged(TOP, ("./a", b"S", 0, "")), SnapshotCorrupt),
    "an unknown kind": (forged(TOP, ("./a", b"Z", 0, "")), SnapshotCorrupt),
    "a torn end": (forged(TOP, ("./a", b"2", 0, "x"), cut=1000), SnapshotCorrupt),
    "no tar": (os.urandom(5000), SnapshotCorrupt),
    "nothing": (b"", SnapshotCorrupt),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_tar_starts_nothing(name: str, bed: Bed) -> None:
    upper = bed.scratch / "upper.tar"
    upper.write_bytes(HOSTILE[name][0])
    with pytest.raises(HOSTILE[name][1]):
        async with begun(bed, upper):
            pass
    assert [entry.name for entry in bed.scratch.iterdir()] == ["upper.tar"]


async def test_devices_of_a_tar_are_the_guests_own(bed: Bed) -> None:
    upper = bed.scratch / "upper.tar"
    upper.write_bytes(
        forged(TOP, ("./fuse", b"3", 0, ""), ("./disk", b"4", 0, ""), ("./up", b"2", 0, "../../../../../etc"))
    )
    async with begun(bed, upper) as box:
        pid = int(box.instance.details["pid"])
        await box.sh("cat /fuse; cat /disk; ls /up")
        opened = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    assert not {name for name in opened if name.startswith(("/dev/fuse", "/dev/loop", "/etc"))}


BURIED: dict[str, tuple[str, bytes, str]] = {
    "a link to everywhere": ("./.belljar", b"2", "/"),
    "a link": ("./.belljar", b"2", "etc"),
    "nothing": ("./.belljar", b"3", DELETED),
    "a pipe in place of the runtime": ("./.belljar/run", b"6", ""),
}


@pytest.mark.parametrize("name", BURIED)
async def test_what_lies_in_the_place_of_our_own_folders_harms_only_itself(name: str, bed: Bed) -> None:
    upper = bed.scratch / "upper.tar"
    path, kind, link = BURIED[name]
    above = [("./.belljar/", b"5", 0, "")] if path.count("/") > 1 else []
    upper.write_bytes(forged(TOP, *above, (path, kind, 0, link)))
    with contextlib.suppress(Error):
        async with begun(bed, upper) as box:
            assert (await box.sh("echo alive")).text == "alive\n"
    assert [entry.name for entry in bed.scratch.iterdir()] == ["upper.tar"]
