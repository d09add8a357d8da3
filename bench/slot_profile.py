"""What a network slot costs: one that waits, one that is made, and the same link made by Debian's `ip` and `nft`.

`python bench/slot_profile.py [ROUNDS]` as root. The three take turns, in an instance of their own that is purged at the end.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from belljar.model.sandbox import Network
from belljar.node.instance import instance_of
from belljar.node.net.slots import SlotPool

__all__ = ("main",)

_TABLE = "bench_slot"
_MAKE = f"""\
ip netns add {_TABLE} && ip link add {_TABLE}0 type veth peer name {_TABLE}1 netns {_TABLE} &&
ip addr add 198.18.0.1/30 dev {_TABLE}0 && ip link set {_TABLE}0 up && ip -n {_TABLE} link set {_TABLE}1 up &&
nft 'add table ip {_TABLE}; add set ip {_TABLE} open {{ type ipv4_addr; }}; add element ip {_TABLE} open {{ 198.18.0.2 }}'
"""
_REMOVE = f"ip link del {_TABLE}0; ip netns del {_TABLE}; nft delete table ip {_TABLE}"


def by_tools() -> float:
    began = time.perf_counter()
    try:
        subprocess.run(_MAKE, shell=True, check=True)
        return time.perf_counter() - began
    finally:
        subprocess.run(_REMOVE, shell=True, check=False, stderr=subprocess.DEVNULL)


async def by_pool(pool: SlotPool, name: str) -> float:
    began = time.perf_counter()
    await pool.lease(name, Network.OPEN)
    return time.perf_counter() - began


async def measure(rounds: int) -> dict[str, list[float]]:
    spent: dict[str, list[float]] = {"waits": [], "is made": [], "ip and nft": []}
    with tempfile.TemporaryDirectory(prefix="bj-slots-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        async with SlotPool(instance_of(home), spare=2) as ready:
            await ready.adopt([])
            for number in range(rounds):
                await asyncio.sleep(0.1)  # until another one waits
                spent["waits"].append(await by_pool(ready, f"waits{number}"))
                await ready.release_of(f"waits{number}")
                spent["ip and nft"].append(await asyncio.to_thread(by_tools))
            await ready.purge()
        async with SlotPool(instance_of(home), spare=0) as bare:
            await bare.adopt([])
            for number in range(rounds):
                spent["is made"].append(await by_pool(bare, f"made{number}"))
                spent["ip and nft"].append(await asyncio.to_thread(by_tools))
            await bare.purge()
    return spent


def main() -> None:
    spent = asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
    tools = statistics.median(spent["ip and nft"])
    for name, times in spent.items():
        middle = statistics.median(times)
        print(
            f"{name:12} p50 {middle * 1e3:7.2f} ms   max {max(times) * 1e3:7.2f} ms   {middle / tools:5.2f} of ip and nft"
        )


if __name__ == "__main__":
    main()
