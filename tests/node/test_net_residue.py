"""What `doctor --leaks` sees on the host, and that nothing escapes it."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from belljar.base import proc
from belljar.model.sandbox import Network
from belljar.node.doctor import FAIL, examine
from belljar.node.instance import Instance, instance_of
from belljar.node.net.slots import SlotPool, purge
from belljar.node.residue import SERVER, HostObject, host_objects, leaks

pytestmark = pytest.mark.node

CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    instance = instance_of(tmp_path / "home")
    yield instance
    asyncio.run(purge(instance))
    shutil.rmtree(instance.run, ignore_errors=True)


def named(found: list[HostObject], kind: str) -> dict[str, str | None]:
    return {thing.name: thing.owner for thing in found if thing.kind == kind}


async def test_a_network_is_the_servers_and_each_leased_slot_its_sandboxs(instance: Instance) -> None:
    async with SlotPool(instance, spare=1) as pool:
        mine, gone = await pool.lease("sb1", Network.OPEN), await pool.lease("sb2", Network.NONE)
        found = await asyncio.to_thread(host_objects, instance, {"sb1"})
        links = named(found, "link")
        assert links[mine.link] == "sb1"
        assert links[gone.link] is None
        assert links[instance.link(0)[0]] == SERVER
        assert named(found, "table") == {f"inet {instance.table}": SERVER}
        assert named(found, "namespace") == {str(instance.namespace): SERVER}
        assert named(found, "block") == {str(pool.block): SERVER}
        rules = named(found, "rule")
        assert rules[f"inet {instance.table} open {mine.link}"] == "sb1"
        assert f"inet {instance.table} open {gone.link}" not in rules
        await pool.release(gone)
        assert await asyncio.to_thread(leaks, instance, {"sb1"}) == []
        await pool.release(mine)
        assert await asyncio.to_thread(leaks, instance, ()) == []


async def test_after_a_purge_nothing_is_left_and_what_were_left_would_be_seen(instance: Instance) -> None:
    async with SlotPool(instance, spare=2) as pool:
        await pool.lease("sb1", Network.OPEN)
        shutil.rmtree(instance.home)  # the state directory is erased with everything still there
        kinds = {thing.kind for thing in await asyncio.to_thread(leaks, instance)}
        assert kinds >= {"link", "namespace", "table", "rule", "file", "block"}
        await pool.purge()
    shutil.rmtree(instance.run)
    assert await asyncio.to_thread(host_objects, instance) == []


def test_processes_mounts_cgroups_and_files_without_an_owner_are_leaks(instance: Instance) -> None:
    top = next(Path(root) for root in CGROUPS if (Path(root) / "cgroup.procs").exists())
    folder = instance.run / "sandboxes" / "sb1"
    folder.mkdir(parents=True)
    (instance.overlays / "sb1").mkdir(parents=True)
    group = top / instance.cgroup / "sb1"
    group.mkdir(parents=True)
    process = subprocess.Popen(
        ["/bin/sh", "-c", "read line", f"--root={instance.run}/r/x", "sb1"], stdin=subprocess.PIPE
    )
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    try:
        found = host_objects(instance, {"sb1"})
        assert [thing for thing in found if thing.owner is None] == []
        assert named(found, "process") == {f"{process.pid} /bin/sh": "sb1"}
        lost = leaks(instance, ())
        assert {(thing.kind, thing.name) for thing in lost} == {
            ("process", f"{process.pid} /bin/sh"),
            ("mount", str(folder)),
            ("cgroup", str(group)),
            ("file", str(folder)),
            ("file", str(instance.overlays / "sb1")),
        }
    finally:
        subprocess.run(["umount", folder], check=True)
        process.kill()
        process.communicate()
        group.rmdir()
        group.parent.rmdir()


async def test_a_link_that_no_record_names_is_a_leak(instance: Instance) -> None:
    async with SlotPool(instance, spare=1):
        stray = instance.link(0xFFF)[0]
        await proc.run(["ip", "link", "add", stray, "type", "veth", "peer", "name", instance.link(0xFFF)[1]])
        assert HostObject("link", stray, None) in await asyncio.to_thread(leaks, instance, ())
    await purge(instance)
    assert stray not in [name for _, name in socket.if_nameindex()]


async def test_looking_at_a_state_directory_makes_nothing_in_it(tmp_path: Path) -> None:
    instance = instance_of(tmp_path / "home")
    assert await asyncio.to_thread(host_objects, instance) == []
    assert [path.name for path in instance.home.iterdir()] == ["instance"]
    assert not instance.run.exists()


async def test_a_bare_state_directory_is_told_what_it_lacks_and_the_command(tmp_path: Path) -> None:
    checks = {check.name: check for check in await examine(tmp_path / "home", cache=tmp_path / "cache")}
    for name in ("engine", "images", "runtime"):
        assert (checks[name].status, checks[name].mend) == (FAIL, "belljar setup")
    for name in ("kernel", "root", "nftables", "namespaces", "clock"):
        assert checks[name].status == "ok", checks[name]
    assert all(check.mend for check in checks.values() if check.status != "ok")
    assert not (tmp_path / "home").exists()
