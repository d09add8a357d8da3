"""Where a cold create's time goes: each step of the node's provision, timed in this process. No server, no HTTP.

`python bench/create_profile.py [ROUNDS]` as root. What the sum leaves to a create through the SDK is server, store and HTTP.
"""

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from belljar.base.ids import new_id
from belljar.model.sandbox import SandboxSpec
from belljar.node.guest.guest import Guest
from belljar.node.instance import instance_of
from belljar.node.purge import purge
from belljar.node.record import PREFIX
from belljar.node.service import NodeService
from belljar.server.machine import open_machine
from belljar.server.settings import read_settings

__all__ = ("main",)

ENGINE = {
    "prepare": "engine: prepare (bundle, pipes, cgroup)",
    "create": "engine: create (the runsc command)",
    "start": "engine: start (two calls on the socket)",
    "delete": "engine: delete",
}
NETWORK = {
    "lease": "network: lease a slot",
    "open_socket": "network: packet socket",
    "release": "network: release the slot",
}
spent: dict[str, list[float]] = defaultdict(list)


def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The same call, its seconds noted; also for one that returns an awaitable."""

    def wrapper(*args: Any, **keywords: Any) -> Any:
        started = time.perf_counter()
        result = call(*args, **keywords)
        if not asyncio.iscoroutine(result):
            spent[name].append(time.perf_counter() - started)
            return result

        async def waiting() -> Any:
            try:
                return await result
            finally:
                spent[name].append(time.perf_counter() - started)

        return waiting()

    return wrapper


class Watched:
    """Stands for an object and times the calls named."""

    def __init__(self, inner: Any, names: dict[str, str]) -> None:
        self._inner = inner
        self._names = names

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return timed(self._names[name], found) if name in self._names else found


async def measure(home: Path, rounds: int) -> None:
    instance = instance_of(home)
    async with open_machine(read_settings(home), instance) as machine:
        watched = replace(
            machine,
            engine=Watched(machine.engine, ENGINE),  # type: ignore[arg-type]
            slots=Watched(machine.slots, NETWORK),  # type: ignore[arg-type]
        )
        async with NodeService(watched) as node:
            for _ in range(rounds + 1):
                id = new_id(PREFIX)
                await timed("create, in all", node.create)(id, SandboxSpec())
                await timed("terminate, in all", node.terminate)(id)
        await purge(machine)


def main(rounds: int) -> None:
    Guest.open = staticmethod(timed("agent: kernel boots, interpreter starts, hello", Guest.open))  # type: ignore[method-assign]
    Guest.configure = timed("agent: configure (namespace, files)", Guest.configure)  # type: ignore[method-assign]
    home = Path(tempfile.mkdtemp(prefix="belljar-bench-"))
    home.chmod(0o755)
    try:
        asyncio.run(measure(home, rounds))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(f"| step | p50 ms | min ms | of {rounds} |\n|---|---|---|---|")
    for name, seconds in spent.items():
        warm = seconds[1:]
        print(f"| {name} | {statistics.median(warm) * 1e3:.1f} | {min(warm) * 1e3:.1f} | {len(warm)} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
