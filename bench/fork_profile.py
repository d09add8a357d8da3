"""Where the processor's time of a fork goes. `python bench/fork_profile.py [CHILDREN] [ROUNDS]` as root; no server, no HTTP.

First one child by itself, step by step: milliseconds of its group (all its host processes) and of the clock.

Then seconds of all cores together, for one fork into so many: of this process (the node), of the children's groups (kernel,
gofer, and the runsc command that made them), and of the rest of the machine (nft, the host's own threads, whoever else works).
"""

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from belljar.base.ids import new_id
from belljar.model.sandbox import Network, Sandbox, SandboxSpec
from belljar.model.snapshot import SnapshotKind
from belljar.node.engine.gvisor.cgroup import Cgroups, find_hierarchies
from belljar.node.holding import begin, configuration, connect, free, make, plan
from belljar.node.instance import instance_of
from belljar.node.machine import Machine
from belljar.node.origins import Origins
from belljar.node.purge import purge
from belljar.node.record import PREFIX
from belljar.node.service import NodeService
from belljar.node.templates import Templates
from belljar.server.machine import open_machine
from belljar.server.settings import read_settings

__all__ = ("main",)

BASE = SandboxSpec(image="base")


@dataclass(frozen=True, slots=True)
class Round:
    wall: float
    busy: float
    node: float
    groups: float
    created: int

    def line(self) -> str:
        rest = self.busy - self.node - self.groups
        return (
            f"| {self.wall:.2f} | {self.busy:.2f} | {self.node:.2f} | {self.groups:.2f} | {rest:.2f} | {self.created} |"
        )


async def measure(home: Path, children: int, rounds: int) -> list[Round]:
    """Prints the steps of one child as they are known."""
    found: list[Round] = []
    async with open_machine(read_settings(home), instance_of(home)) as machine:
        async with NodeService(machine) as node:
            parent = new_id(PREFIX)
            await node.create(parent, BASE)
            await asyncio.sleep(5)
            print("| step of one child | processor ms | wall ms |\n|---|---|---|")
            for step, times in (await steps(machine, node, parent, 2 * rounds)).items():
                processor, wall = (statistics.median(values) for values in zip(*times, strict=True))
                print(f"| {step} | {processor:.0f} | {wall:.0f} |")
            for _ in range(rounds):
                await asyncio.sleep(12)  # the pool has made what it makes
                found.append(await one(machine.instance.cgroup, node, parent, children))
            await node.terminate(parent)
        await purge(machine)
    return found


async def steps(machine: Machine, node: NodeService, parent: str, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Step → its (milliseconds of processor time, of the clock) in each round."""
    found: dict[str, list[tuple[float, float]]] = {}
    snapshot = (await node.snapshot(parent, new_id("sn"), SnapshotKind.MEMORY)).id
    spec = replace(BASE, snapshot=snapshot)
    async with Origins(machine, Templates(machine, machine.templates)).open(spec) as origin:
        for _ in range(rounds):
            planned = plan(machine, origin, origin.fitted(spec.limits))
            at = 0.0, time.monotonic()

            def note(step: str) -> None:
                nonlocal at
                now = _groups(planned.instance.spec.cgroup), time.monotonic()  # noqa: B023 (called in this round)
                found.setdefault(step, []).append(((now[0] - at[0]) * 1e3, (now[1] - at[1]) * 1e3))
                at = now

            holding = await make(machine, planned, Network.OPEN)
            note("the runsc command: kernel and gofer made")
            await begin(machine, holding, origin)
            note("gVisor's restore")
            guest = await connect(machine, holding.instance, on_lost=lambda reason, message: None)
            note("its agent answers")
            said = configuration(origin, spec, planned.id, holding.slot)
            await guest.configure(**said)
            await guest.wake(reseed=True, env=said["env"], cwd=said.get("workdir"), user=said.get("user"))
            note("its new identity")
            await guest.close(None)
            await free(machine, holding)
    await node.delete_snapshot(snapshot)
    return found


async def one(cgroup: str, node: NodeService, parent: str, children: int) -> Round:
    ids = [new_id(PREFIX) for _ in range(children)]
    created = node.waiting()[1]
    busy, own, groups, began = _busy(), time.process_time(), _groups(cgroup), time.monotonic()
    made = await node.fork(parent, dict.fromkeys(ids, BASE))
    wall = time.monotonic() - began
    busy, own, groups = _busy() - busy, time.process_time() - own, _groups(cgroup) - groups
    assert all(isinstance(child, Sandbox) for child in made.values())
    await asyncio.gather(*(node.terminate(id) for id in ids))
    return Round(wall, busy, own, groups, created)


def _groups(cgroup: str) -> float:
    """Seconds that all guests of the instance were at work."""
    return Cgroups(find_hierarchies(Path("/proc/self/mountinfo").read_text())).usage(cgroup).cpu_seconds


def _busy() -> float:
    """Seconds that all cores were at work since the machine started."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(field) for field in file.readline().split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:8])) / os.sysconf("SC_CLK_TCK")


def main(children: int, rounds: int) -> None:
    home = Path(tempfile.mkdtemp(prefix="belljar-bench-", dir="/var/tmp"))
    home.chmod(0o755)
    try:
        found = asyncio.run(measure(home, children, rounds))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print("\n| wall s | all cores | node | children's groups | rest | were created |\n|---|---|---|---|---|---|")
    for one_round in found:
        print(one_round.line())
    print(f"p50: {statistics.median(one_round.wall for one_round in found):.2f} s until {children} run")


if __name__ == "__main__":
    main(*(int(word) for word in (sys.argv[1:] + ["20", "3"][len(sys.argv) - 1 :])))
