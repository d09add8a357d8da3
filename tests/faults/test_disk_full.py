"""The host's disk runs full: creates are refused, the fastest writer is stopped, nobody else and no file is harmed."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from belljar.base import proc
from belljar.base.ids import new_id
from belljar.base.tasks import wait_until
from belljar.model.errors import NoCapacity
from belljar.model.process import Exit, Output, ProcessSpec
from belljar.model.sandbox import Network, SandboxSpec, Status
from belljar.node.engine.gvisor.driver import GvisorEngine
from belljar.node.instance import Instance, instance_of
from belljar.node.machine import Machine, Reserve
from belljar.node.purge import purge
from belljar.node.service import NodeService
from belljar.node.setup import engine_named
from belljar.server.machine import open_machine
from belljar.server.settings import Settings

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]

RESERVE = 280 << 20
WRITE = "i=0; while :; do i=$((i+1)); head -c 8000000 /dev/zero > /root/f$i || exit 9; done"


@contextlib.asynccontextmanager
async def small_disk(folder: Path, size: int) -> AsyncGenerator[Path]:
    image, mounted = folder / "disk.img", folder / "disk"
    with image.open("wb") as file:
        file.truncate(size)
    await proc.run(["mkfs.ext4", "-q", "-F", "-m", "0", image])
    mounted.mkdir()
    await proc.run(["mount", "-o", "loop", image, mounted])
    try:
        yield mounted
    finally:
        await proc.run(["umount", "-l", mounted])


@pytest.fixture
async def machine(home: Path, tmp_path: Path) -> AsyncIterator[Machine]:
    """The state directory on a file system of 800 MiB; engine and images from the ordinary one."""
    folder = home.parent / new_id("x")[-6:]
    folder.mkdir()
    try:
        async with small_disk(folder, 800 << 20) as disk:
            instance = instance_of(disk / "home")
            async with open_machine(Settings(), instance_of(home)) as ordinary:
                made = replace(
                    ordinary, instance=instance, engine=_engine(instance, home), slots=None, reserve=Reserve(RESERVE, 0)
                )
                instance.make_run()
                yield made
                await purge(made)
    finally:
        (folder / "disk").rmdir()
        (folder / "disk.img").unlink()
        folder.rmdir()


def _engine(instance: Instance, home: Path) -> GvisorEngine:
    return GvisorEngine(instance.run, instance.cgroup, lambda key: engine_named(home, key))


async def _run(node: NodeService, id: str, script: str) -> tuple[int, bytes]:
    out, code = b"", -1
    spec = ProcessSpec(new_id("px"), ("sh", "-c", script), stdin=False)
    async for piece in node.guest(id).start_attached(spec):
        if isinstance(piece, Output):
            out += piece.data
        elif isinstance(piece, Exit):
            code = piece.returncode
    return code, out


async def _is_held(node: NodeService, id: str) -> bool:
    try:
        node.guest(id)
    except NoCapacity:
        return True
    return False


async def test_the_fastest_writer_is_stopped_and_goes_on_when_there_is_room(machine: Machine) -> None:
    spec = SandboxSpec(network=Network.NONE)
    ballast = machine.instance.home / "ballast"
    async with NodeService(machine) as node:
        quiet, greedy = [(await node.create(new_id("sb"), spec)).id for _ in range(2)]
        assert await _run(node, quiet, "echo kept > /root/file") == (0, b"")
        ballast.write_bytes(bytes(200 << 20))
        await node.guest(greedy).start(ProcessSpec("writer", ("sh", "-c", WRITE), stdin=False))

        assert await wait_until(lambda: _is_held(node, greedy), timeout=60), "nobody stopped the writer"
        with pytest.raises(NoCapacity, match="reserve"):
            await node.create(new_id("sb"), spec)
        started = time.monotonic()
        assert await _run(node, quiet, "cat /root/file") == (0, b"kept\n")
        assert time.monotonic() - started < 5
        await asyncio.sleep(12)  # longer than an agent may be silent
        assert (await node.get(greedy)).status is Status.RUNNING

    async with NodeService(machine) as successor:
        assert (await successor.get(greedy)).status is Status.RUNNING, "a stopped one is adopted like any other"
        ballast.unlink()

        async def is_free() -> bool:
            return not await _is_held(successor, greedy)

        assert await wait_until(is_free, timeout=30), "there is room, and the writer is still stopped"
        assert (await _run(successor, greedy, "test -s /root/f1"))[0] == 0
        for id in (quiet, greedy):
            ended = (await successor.terminate(id)).ended
            assert ended is not None and ended.reason == "killed"
