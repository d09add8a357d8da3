"""Where the time of a restore goes: each step of the node, timed in this process. No server, no HTTP.

`python bench/restore_profile.py [ROUNDS]` as root. Steps may overlap and hold one another: read them as a timeline, not as a sum.
"""

import asyncio
import functools
import inspect
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from belljar.base.ids import new_id
from belljar.model.process import ProcessSpec
from belljar.model.sandbox import SandboxSpec
from belljar.model.snapshot import SnapshotKind
from belljar.node.engine.gvisor.driver import GvisorEngine
from belljar.node.guest.guest import Guest
from belljar.node.instance import instance_of
from belljar.node.net.slots import SlotPool
from belljar.node.provision import Provisioner
from belljar.node.purge import purge
from belljar.node.record import PREFIX
from belljar.node.service import NodeService
from belljar.node.snapshot.memory import FastLane
from belljar.node.snapshot.store import SnapshotStore
from belljar.node.supervisor import Supervisor
from belljar.server.machine import open_machine
from belljar.server.settings import read_settings

__all__ = ("main",)

STEPS: dict[type, tuple[str, ...]] = {
    GvisorEngine: (
        "prepare",
        "create",
        "start",
        "restore",
        "checkpoint",
        "pause",
        "resume",
        "limit",
        "delete",
        "usage",
    ),
    SlotPool: ("lease", "open_socket", "release", "set_network"),
    Guest: ("open", "configure", "wake", "quiesce", "find_contexts"),
    SnapshotStore: ("begin", "commit", "delete"),
    FastLane: ("checkpoint",),
    Provisioner: ("provision", "_make", "_take_over", "_introduce"),
    Supervisor: ("checkpoint",),
}
HEAP = "import os, time; heap = bytearray().join(os.urandom(1 << 20) for _ in range(64)); time.sleep(1e6)"
BASE = SandboxSpec(image="base")
ODD = replace(BASE, limits=replace(BASE.limits, memory=700 << 20), pool=False)
"""No member that waits fits, not even one that was only created."""
spent: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
"""Operation → step → (when it began, how long it took), in seconds since the operation began."""
_now: list[tuple[str, float]] = []


def watch(owner: type, name: str) -> None:
    plain = inspect.getattr_static(owner, name)
    call: Callable[..., Any] = plain.__func__ if isinstance(plain, classmethod | staticmethod) else plain

    def note(started: float) -> None:
        if _now:
            operation, began = _now[-1]
            spent[operation][f"{owner.__name__}.{name}"].append((started - began, time.perf_counter() - started))

    @functools.wraps(call)
    async def waiting(*arguments: Any, **keywords: Any) -> Any:
        started = time.perf_counter()
        try:
            return await call(*arguments, **keywords)
        finally:
            note(started)

    @functools.wraps(call)
    def at_once(*arguments: Any, **keywords: Any) -> Any:
        started = time.perf_counter()
        try:
            return call(*arguments, **keywords)
        finally:
            note(started)

    watched: Any = waiting if inspect.iscoroutinefunction(call) else at_once
    setattr(owner, name, type(plain)(watched) if isinstance(plain, classmethod | staticmethod) else watched)


@contextmanager
def operation(name: str) -> Iterator[None]:
    began = time.perf_counter()
    _now.append((name, began))
    try:
        yield
    finally:
        _now.pop()
        spent[name]["in all"].append((0.0, time.perf_counter() - began))


async def measure(home: Path, rounds: int) -> None:
    async with open_machine(read_settings(home), instance_of(home)) as machine:
        async with NodeService(machine) as node:
            await prepared(node)
            spent.clear()
            for _ in range(rounds):
                await at_rest(node)
                id = new_id(PREFIX)
                with operation("create, pool hit"):
                    await node.create(id, BASE)
                with operation("terminate"):
                    await node.terminate(id)
                id = new_id(PREFIX)
                with operation("create, pool empty"):
                    await node.create(id, ODD)
                await snapshots(node, id)
                await node.terminate(id)
        await purge(machine)


async def prepared(node: NodeService) -> None:
    """The template is there, and files and code are in the host's memory."""
    for _ in range(2):
        id = new_id(PREFIX)
        await node.create(id, BASE)
        await node.terminate(id)
        await at_rest(node)


async def snapshots(node: NodeService, id: str) -> None:
    guest = node.guest(id)
    await guest.start(ProcessSpec(key="heap", argv=("python3", "-c", HEAP)))
    await asyncio.sleep(1.0)
    snapshot, copy = new_id("sn"), new_id(PREFIX)
    with operation("memory snapshot, 64 MiB"):
        await node.snapshot(id, snapshot, SnapshotKind.MEMORY)
    spec = replace((await node.get(id)).spec, snapshot=snapshot, pool=False)
    with operation("create from that snapshot"):
        await node.create(copy, spec)
    await node.terminate(copy)
    await node.delete_snapshot(snapshot)
    children = {new_id(PREFIX): replace(ODD, pool=True) for _ in range(5)}
    with operation("fork into 5"):
        await node.fork(id, children)
    for child in children:
        await node.terminate(child)


async def at_rest(node: NodeService) -> None:
    before, since = node.waiting(), time.monotonic()
    while time.monotonic() - since < 1.0:
        await asyncio.sleep(0.1)
        if (now := node.waiting()) != before or not now[0]:
            before, since = now, time.monotonic()


def main(rounds: int) -> None:
    for owner, names in STEPS.items():
        for name in names:
            watch(owner, name)
    home = Path(tempfile.mkdtemp(prefix="belljar-bench-", dir="/var/tmp"))
    home.chmod(0o755)
    try:
        asyncio.run(measure(home, rounds))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    for name, steps in spent.items():
        print(f"\n| {name} | calls | begins at | p50 ms | min ms |\n|---|---|---|---|---|")
        for step, times in sorted(steps.items(), key=lambda item: statistics.median(at for at, _ in item[1])):
            at, took = (statistics.median(values) * 1e3 for values in zip(*times, strict=True))
            print(
                f"| {step} | {len(times) / rounds:g} | {at:.1f} | {took:.1f} | {min(t for _, t in times) * 1e3:.1f} |"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
