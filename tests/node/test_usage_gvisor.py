"""What the host counts of real sandboxes: processor, memory, disk and link, from the sandbox's first moment on."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from belljar.base.files import remove_tree
from belljar.base.ids import new_id
from belljar.base.tasks import in_thread
from belljar.model.process import Exit, Output, ProcessSpec
from belljar.model.sandbox import Limits, SandboxSpec
from belljar.model.snapshot import SnapshotKind
from belljar.model.usage import Counters, Reading
from belljar.node.instance import instance_of
from belljar.node.purge import purge
from belljar.node.residue import host_objects
from belljar.node.service import NodeService
from belljar.server.machine import open_machine
from belljar.server.settings import Settings

pytestmark = [pytest.mark.node, pytest.mark.asyncio(loop_scope="module")]
SPEC = SandboxSpec("base", limits=Limits(memory=256 << 20, disk=1 << 30))
BURN = "import time; end = time.process_time() + 1\nwhile time.process_time() < end: pass"
SEND = """
import socket, struct, time
gate = next(line.split()[2] for line in open("/proc/net/route") if line.split()[1] == "00000000")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    for number in range(1000):
        if number % 10 == 0:
            time.sleep(0.005)  # a busy machine drops what comes faster, before anybody counts it
        out.sendto(bytes(1000), (socket.inet_ntoa(struct.pack("<I", int(gate, 16))), 9))
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NodeService]:
    instance = instance_of(tmp_path_factory.mktemp("usage") / "home")
    instance.make_run()
    async with open_machine(Settings(pool=1), instance) as machine:
        async with NodeService(machine) as service:
            yield service
            for sandbox in await service.sandboxes():
                await service.terminate(sandbox.id)
        await purge(machine)
    await in_thread(remove_tree, instance.home)
    assert await in_thread(host_objects, instance) == []


async def python(node: NodeService, id: str, code: str) -> None:
    out = b""
    spec = ProcessSpec(new_id("px"), ("python3", "-c", code), {}, stdin=False)
    async for piece in node.guest(id).start_attached(spec):
        if isinstance(piece, Output):
            out += piece.data
        elif isinstance(piece, Exit):
            assert piece.returncode == 0, out


async def look(node: NodeService, id: str) -> tuple[Reading, Counters]:
    (reading,) = (await node.meter([id])).values()
    assert reading.counters is not None
    return reading, reading.counters


async def test_a_sandbox_is_told_what_it_used_itself_and_all_of_it(node: NodeService):
    box = (await node.create(new_id("sb"), SPEC)).id
    reading, counters = await look(node, box)
    assert counters.cpu_us < 1_000_000
    assert counters.sent_bytes < 10_000
    assert reading.memory is not None and 1 << 20 < reading.memory < 256 << 20
    await python(node, box, BURN)
    await python(node, box, SEND)
    _, counters = await look(node, box)
    # On a busy host the guest counts some of the time for which it only waited.
    assert 200_000 < counters.cpu_us < 4_000_000
    assert 1_000_000 < counters.sent_bytes < 1_200_000
    kept = await node.snapshot(box, new_id("sn"), SnapshotKind.MEMORY)
    await node.rollback(box, kept.id)
    _, later = await look(node, box)
    assert later.cpu_us >= counters.cpu_us
    assert counters.sent_bytes <= later.sent_bytes < counters.sent_bytes + 100_000
    final = (await node.terminate(box)).final
    assert final is not None and final.counters is not None
    assert final.counters.cpu_us >= later.cpu_us
    assert final.counters.sent_bytes >= later.sent_bytes
    next_one = (await node.create(new_id("sb"), SPEC)).id  # maybe on the same link
    _, counters = await look(node, next_one)
    assert counters.sent_bytes < 10_000
