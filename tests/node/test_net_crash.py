"""A server killed at any moment of its work with the network: the next one goes on, and a purge leaves nothing."""

import asyncio
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from belljar.base import proc
from belljar.base.tasks import in_thread
from belljar.model.sandbox import Network
from belljar.node.instance import Instance, instance_of
from belljar.node.net.slots import SlotPool, purge, read_leases
from belljar.node.residue import host_objects, leaks

pytestmark = pytest.mark.node

_CHURN = """
import asyncio, random, sys
from pathlib import Path
from belljar.model.sandbox import Network
from belljar.node.instance import Instance, instance_of
from belljar.node.net.slots import SlotPool

async def churn(pool, name):
    while True:
        slot = await pool.lease(name, random.choice(list(Network)))
        await asyncio.sleep(random.random() / 50)
        await pool.release(slot)

async def main():
    async with SlotPool(instance_of(Path(sys.argv[1])), spare=3) as pool:
        await pool.adopt([])
        print("open", flush=True)
        await asyncio.gather(*(churn(pool, f"sb{number}") for number in range(6)))

asyncio.run(main())
"""
KILLS = 9


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    instance = instance_of(tmp_path / "home")
    yield instance
    asyncio.run(purge(instance))
    shutil.rmtree(instance.run, ignore_errors=True)


async def test_killed_at_any_moment_the_network_is_taken_over_and_taken_away(instance: Instance) -> None:
    chance = random.Random(20)
    took_over = 0.0
    for number in range(KILLS):
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _CHURN, instance.home, stdout=asyncio.subprocess.PIPE
        )
        assert server.stdout is not None
        try:
            if number % 3:  # else it dies somewhere on its way up
                await asyncio.wait_for(server.stdout.readuntil(b"open\n"), 30)
            await asyncio.sleep(chance.random() * 0.6)
        finally:
            server.kill()
            await server.wait()
    for _ in range(2):
        began = time.monotonic()
        async with SlotPool(instance, spare=2) as pool:
            await pool.adopt([])
            took_over = time.monotonic() - began
            assert not [lease for lease in read_leases(instance) if lease.sandbox]
            assert await in_thread(leaks, instance, ()) == []
            slots = [await pool.lease(f"sb{number}", Network.OPEN) for number in range(8)]
            assert len({slot.address for slot in slots}) == 8
            up = await proc.run(["ip", "-brief", "link", "show", "up"])
            assert all(f"{slot.link}@" in up.stdout.decode() for slot in slots)
    print(f"taken over in {took_over * 1e3:.0f} ms")
    await purge(instance)
    await purge(instance)
    shutil.rmtree(instance.run)
    shutil.rmtree(instance.home)
    assert await in_thread(host_objects, instance) == []
