"""Where the time of `run_code("1+1")` goes, beside a Jupyter kernel with its client on the same machine.

`python bench/code_profile.py [ROUNDS]` as root. Rows marked + include the one before them.
"""

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import belljar
from belljar.base.ids import new_id
from belljar.model.code import CodeSpec, ContextSpec
from belljar.model.sandbox import SandboxSpec
from belljar.node.instance import instance_of
from belljar.node.purge import purge
from belljar.node.service import NodeService
from belljar.server.machine import open_machine
from belljar.server.settings import read_settings

__all__ = ("main",)

CELL = """
import statistics, time
shell, times = get_ipython(), []
for _ in range({rounds}):
    started = time.perf_counter()
    shell.run_cell("_ = 1+1", store_history=True)
    times.append((time.perf_counter() - started) * 1e3)
(statistics.median(times), min(times))
"""
JUPYTER = """
import statistics, sys, time
from jupyter_client.manager import start_new_kernel
started = time.perf_counter()
manager, client = start_new_kernel(kernel_name="python3")
begun, times = time.perf_counter() - started, []
for _ in range(int(sys.argv[1])):
    started = time.perf_counter()
    client.execute_interactive("1+1", output_hook=lambda message: None)
    times.append((time.perf_counter() - started) * 1e3)
print(begun * 1e3, statistics.median(times), min(times))
client.stop_channels()
manager.shutdown_kernel(now=True)
"""
FRAME = "import numpy, pandas; pandas.DataFrame(numpy.random.rand(1_000_000, 5))"


def main(rounds: int) -> None:
    home = Path(tempfile.mkdtemp(prefix="bj-"))
    home.chmod(0o755)
    print('| `run_code("1+1")` | p50 ms | min ms |\n|---|---|---|')
    try:
        asyncio.run(through_node(home, rounds))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    ours = through_sdk(rounds)
    print(f"\nrun_code over a Jupyter kernel with its client inside: {ours[0] / ours[1]:.2f} times its time")


async def through_node(home: Path, rounds: int) -> None:
    async with open_machine(read_settings(home), instance_of(home)) as machine:
        async with NodeService(machine) as node:
            id = new_id("sb")
            await node.create(id, SandboxSpec(image="code"))
            guest, context = node.guest(id), ContextSpec("python")

            async def cell(code: str = "1+1") -> list[object]:
                spec = CodeSpec(new_id("ex"), code)
                return [event async for event in guest.execute("python", spec, create=context)]

            median, least = await inside(cell, rounds)
            row("the cell itself, inside", median, least)
            times = await timed(cell, rounds)
            row("+ node: request, kernel, events", statistics.median(times), min(times))
            await node.terminate(id)
        await purge(machine)


async def inside(cell: Callable[[str], Awaitable[list[object]]], rounds: int) -> tuple[float, float]:
    shown, _ = await cell(CELL.format(rounds=rounds))
    data: dict[str, str] = getattr(shown, "data", {})
    median, least = data["text/plain"].strip("()").split(",")
    return float(median), float(least)


async def timed(call: Callable[[], Awaitable[object]], rounds: int) -> list[float]:
    times: list[float] = []
    await call()
    for _ in range(rounds):
        started = time.perf_counter()
        await call()
        times.append((time.perf_counter() - started) * 1e3)
    return times


def through_sdk(rounds: int) -> tuple[float, float]:
    """Median milliseconds of ours and of Jupyter's."""
    with belljar.Sandbox.create("code", memory="2GiB") as sandbox:
        started = time.perf_counter()
        sandbox.run_code("1+1")
        first = (time.perf_counter() - started) * 1e3

        async def by_sdk() -> None:
            sandbox.run_code("1+1")

        times = asyncio.run(timed(by_sdk, rounds))
        ours = statistics.median(times)
        row("+ HTTP, server, SDK", ours, min(times))
        row("of 1,000 more in a row, the last 100", *last_of(sandbox, 1000, 100))
        begun, median, least = sandbox.run(["python3", "-c", JUPYTER, str(rounds)], check=True).stdout.split()
        row("Jupyter's kernel and client, both inside", float(median), float(least))
        row("the first call: the kernel's start", first, first)
        row("Jupyter's kernel: its start", float(begun), float(begun))
        started = time.perf_counter()
        shown = sandbox.run_code(FRAME).results[-1]
        took = (time.perf_counter() - started) * 1e3
        row("a DataFrame of 1,000,000 rows made and shown", took, took)
        size = len(shown.text or "") + len(shown.html or "") + len(str(shown.data))
        print(f"\nthat DataFrame as shown: {size / 1024:.0f} KiB in all forms")
    return ours, float(median)


def last_of(sandbox: belljar.Sandbox, count: int, last: int) -> tuple[float, float]:
    times: list[float] = []
    for _ in range(count):
        started = time.perf_counter()
        sandbox.run_code("1+1")
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times[-last:]), min(times[-last:])


def row(name: str, median: float, least: float) -> None:
    print(f"| {name} | {median:.1f} | {least:.1f} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
