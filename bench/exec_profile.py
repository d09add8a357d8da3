"""Where an exec's time goes: the same `true` through more and more of the way, from inside the sandbox to the SDK.

`python bench/exec_profile.py [ROUNDS]` as root. Each row includes the one before it; the differences are what a layer costs.
"""

import asyncio
import contextlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx2

import belljar
from belljar.base.ids import new_id
from belljar.front.native.app import native_app
from belljar.model.process import ProcessSpec
from belljar.node.api import NodeApi
from belljar.node.instance import Instance, instance_of
from belljar.node.purge import purge
from belljar.node.service import NodeService
from belljar.server.listen import serving, unix_socket
from belljar.server.machine import open_machine
from belljar.server.settings import Settings, read_settings
from belljar.server.wiring import wired

__all__ = ("main",)

INSIDE = """
import os, sys, time, statistics
times = []
for _ in range(int(sys.argv[1])):
    started = time.perf_counter()
    pid = os.posix_spawn("/usr/bin/true", ["true"], os.environ)
    os.waitpid(pid, 0)
    times.append(time.perf_counter() - started)
print(statistics.median(times) * 1e3, min(times) * 1e3)
"""


async def timed(name: str, rounds: int, call: Callable[[], Awaitable[object]]) -> None:
    await call()
    times: list[float] = []
    for _ in range(rounds):
        started = time.perf_counter()
        await call()
        times.append((time.perf_counter() - started) * 1e3)
    print(f"| {name} | {statistics.median(times):.1f} | {min(times):.1f} |", flush=True)


async def measure(home: Path, rounds: int) -> None:
    instance, settings = instance_of(home), read_settings(home)
    async with open_machine(settings, instance) as machine:
        async with NodeService(machine) as node:

            @contextlib.asynccontextmanager
            async def same_node(_: Settings, __: Instance) -> AsyncIterator[NodeApi]:
                yield node

            async with wired(settings, instance, same_node) as (product, _):
                socket = home / "bench.sock"
                with unix_socket(socket) as made:
                    async with serving(native_app(product, lambda: None), [made], listener="unix"):
                        await stages(node, socket, rounds)
        await purge(machine)


async def stages(node: NodeService, socket: Path, rounds: int) -> None:
    transport = httpx2.AsyncHTTPTransport(uds=str(socket))
    async with httpx2.AsyncClient(transport=transport, base_url="http://belljar", timeout=60) as http:
        made = (await http.post("/v1/sandboxes", json={})).raise_for_status().json()
        id, guest = made["id"], node.guest(made["id"])
        body = {"argv": ["python3", "-S", "-E", "-c", INSIDE, str(rounds)]}
        spec = ProcessSpec(new_id("px"), tuple(body["argv"]), stdin=False)
        inside = b""
        async for event in guest.start_attached(spec):
            inside += getattr(event, "data", b"")
        median, least = inside.split()
        print(f"| inside: a Python program spawns it | {float(median):.1f} | {float(least):.1f} |", flush=True)

        async def by_node() -> None:
            async for _ in guest.start_attached(ProcessSpec(new_id("px"), ("true",), stdin=False)):
                pass

        await timed("node: request, launcher, spawn, exit, answer", rounds, by_node)
        await timed(
            "server in this process: and HTTP, a stream",
            rounds,
            lambda: http.post(f"/v1/sandboxes/{id}/run", json={"argv": ["true"]}),
        )
        await http.delete(f"/v1/sandboxes/{id}")


def through_sdk(rounds: int) -> None:
    with belljar.Sandbox.create() as sandbox:

        async def by_sdk() -> None:
            sandbox.run(["true"])

        asyncio.run(timed("SDK and a server of its own", rounds, by_sdk))


def main(rounds: int) -> None:
    home = Path(tempfile.mkdtemp(prefix="bj-"))
    home.chmod(0o755)
    print("| exec `true` | p50 ms | min ms |\n|---|---|---|")
    try:
        asyncio.run(measure(home, rounds))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    through_sdk(rounds)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
