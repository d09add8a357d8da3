"""With a key, nothing of a sandbox lies on the disk as it is; without the key, nothing can be read."""

import base64
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from belljar.base.files import remove_tree
from belljar.base.ids import new_id
from belljar.base.tasks import in_thread
from belljar.model.errors import SnapshotCorrupt
from belljar.model.process import Exit, Output, ProcessSpec
from belljar.model.sandbox import Limits, Network, SandboxSpec
from belljar.model.snapshot import SnapshotKind
from belljar.node.instance import Instance, instance_of
from belljar.node.purge import purge
from belljar.node.service import NodeService
from belljar.server.machine import open_machine
from belljar.server.settings import Settings

pytestmark = pytest.mark.node
SPEC = SandboxSpec("base", limits=Limits(memory=256 << 20, disk=1 << 30), network=Network.NONE)
MARK = "the-secret-of-" + "this-sandbox"


@pytest.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    made = instance_of(tmp_path / "home")
    yield made
    async with open_machine(Settings(pool=0), made) as machine:
        await purge(machine)
    await in_thread(remove_tree, made.home)


def _settings() -> Settings:
    return Settings(pool=0, store_key=SecretStr(base64.b64encode(os.urandom(32)).decode()))


async def _say(node: NodeService, id: str, script: str) -> str:
    out = b""
    async for piece in node.guest(id).start_attached(ProcessSpec(new_id("px"), ("/bin/sh", "-c", script), stdin=False)):
        if isinstance(piece, Output):
            out += piece.data
        elif isinstance(piece, Exit):
            assert piece.returncode == 0
    return out.decode()


def _found(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file() and "artifacts" not in path.parts]
    return [path for path in files if MARK.encode() in path.read_bytes()]


async def test_nothing_lies_on_the_disk_as_it_is_and_another_key_reads_nothing(instance: Instance) -> None:
    settings = _settings()
    taken: dict[SnapshotKind, str] = {kind: new_id("sn") for kind in SnapshotKind}
    async with open_machine(settings, instance) as machine, NodeService(machine) as node:
        sandbox = await node.create(new_id("sb"), SPEC)
        await _say(node, sandbox.id, f"mkdir /srv/kept; echo {MARK} | tee /srv/kept/file > /tmp/{MARK}")
        await _say(node, sandbox.id, "head -c 12000000 /dev/urandom > /srv/much")
        for kind, id in taken.items():
            await node.snapshot(sandbox.id, id, kind, path="/srv/kept" if kind is SnapshotKind.DIRECTORY else None)
        await node.terminate(sandbox.id)
        assert await in_thread(_found, instance.home) == []
        assert await machine.snapshots.cool(0.0)
        assert await in_thread(_found, instance.home) == []
        again = await node.create(new_id("sb"), replace(SPEC, snapshot=taken[SnapshotKind.MEMORY]))
        assert await _say(node, again.id, f"cat /srv/kept/file; ls /tmp/{MARK}") == f"{MARK}\n/tmp/{MARK}\n"
        await node.mount(again.id, taken[SnapshotKind.DIRECTORY], "/data")
        assert await _say(node, again.id, "cat /data/file") == f"{MARK}\n"
        await node.terminate(again.id)
        files = await node.create(new_id("sb"), replace(SPEC, snapshot=taken[SnapshotKind.FILESYSTEM]))
        assert await _say(node, files.id, "cat /srv/kept/file") == f"{MARK}\n"
        await node.terminate(files.id)
        assert await in_thread(_found, instance.home) == []
    async with open_machine(_settings(), instance) as machine, NodeService(machine) as node:
        with pytest.raises(SnapshotCorrupt, match="key"):
            await node.create(new_id("sb"), replace(SPEC, snapshot=taken[SnapshotKind.MEMORY]))
