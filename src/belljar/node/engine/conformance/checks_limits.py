"""Limits: what the guest sees of them, and what happens at each."""

import asyncio
import os

from belljar.model.errors import Conflict, LimitExceeded
from belljar.model.sandbox import Limits
from belljar.node.engine.api import InstanceState
from belljar.node.engine.conformance.bed import Bed, command
from belljar.node.engine.conformance.suite import Check, expect

__all__ = ("LIMITS",)

_MEMORY = 256 << 20
_DISK = 64 << 20
_NEEDS = ("isolation", "limits")


async def _seen_inside(bed: Bed) -> None:
    async with bed.box(Limits(cpus=1.5, memory=_MEMORY, disk=_DISK, pids=100)) as box:
        free = await box.sh("free -b | awk '/^Mem:/ {print $2}'")
        expect(free.text.strip() == str(_MEMORY), f"free shows {free.text.strip()} bytes, not {_MEMORY}")
        disk = await box.sh("df -B1 --output=size / | tail -n 1")
        expect(disk.text.strip() == str(_DISK), f"df shows {disk.text.strip()} bytes, not {_DISK}")
        cpus = await box.run("nproc")
        expect(cpus.text.strip() == "2", f"nproc shows {cpus.text.strip()}, not 2 for 1.5")
    async with bed.box(Limits(cpus=0.5, memory=_MEMORY, disk=_DISK)) as box:
        cpus = await box.run("nproc")
        expect(cpus.text.strip() == "1", f"nproc shows {cpus.text.strip()}, not 1 for 0.5")


async def _cpu(bed: Bed) -> None:
    async with bed.box(Limits(cpus=0.5, memory=_MEMORY, disk=_DISK)) as box:
        busy = [await box.start("/bin/sh", "-c", "while :; do :; done") for _ in range(2)]
        await asyncio.sleep(0.5)
        loop = asyncio.get_running_loop()
        first, begun = await bed.engine.usage(box.instance), loop.time()
        await asyncio.sleep(2.0)
        second, ended = await bed.engine.usage(box.instance), loop.time()
        share = (second.cpu_seconds - first.cpu_seconds) / (ended - begun)
        expect(share < 0.6, f"two busy processes used {share:.2f} CPUs with a limit of 0.5")
        expect(share > 0.1, f"two busy processes used only {share:.2f} CPUs with a limit of 0.5")
        for process in busy:
            await box.guest.signal(process.id, 9)


async def _out_of_memory(bed: Bed) -> None:
    async with bed.box(Limits(memory=_MEMORY, disk=_DISK)) as box:
        await box.sh("echo kept > /root/before")
        bystander = await box.start("sleep", "1000")
        for _ in range(2):
            bomb = await box.run("tail", "/dev/zero")
            expect(bomb.returncode == -9, f"the process at the memory limit ended with {bomb.returncode}")
            expect(bomb.out_of_memory, "it was not told that memory was the reason")
        state = await bed.engine.state(box.instance)
        expect(state == InstanceState.RUNNING, f"the sandbox is {state} after a memory bomb")
        info = await box.guest.process(bystander.id)
        expect(info.returncode is None, f"an innocent process ended with {info.returncode}")
        kept = await box.run("cat", "/root/before")
        expect(kept.text == "kept\n", "a file written before the bomb is gone")


async def _memory_tree(bed: Bed) -> None:
    async with bed.box(Limits(memory=_MEMORY, disk=_DISK)) as box:
        bystander = await box.start("sleep", "1000")
        await box.sh("tail /dev/zero & tail /dev/zero & tail /dev/zero & wait")
        info = await box.guest.process(bystander.id)
        expect(info.returncode is None, f"an innocent process ended with {info.returncode}")
        expect((await box.sh("exit 4")).returncode == 4, "nothing starts after a tree of bombs")


async def _memory_is_enough(bed: Bed) -> None:
    async with bed.box(Limits(memory=_MEMORY, disk=_DISK)) as box:
        # Three quarters of what it was promised, held for a moment by one process.
        size = _MEMORY * 3 // 4
        done = await box.run("dd", "if=/dev/zero", "of=/dev/null", f"bs={size}", "count=2")
        expect(done.returncode == 0, f"holding {size} bytes of {_MEMORY}: {done}")


async def _tmp(bed: Bed) -> None:
    async with bed.box(Limits(memory=_MEMORY, disk=_DISK)) as box:
        for folder in ("/tmp", "/dev/shm", "/dev"):
            done = await box.sh(f"head -c {2 * _MEMORY} /dev/zero > {folder}/full")
            expect(done.returncode != 0, f"{folder} took twice the memory")
            expect(b"No space left" in done.stderr, f"a full {folder} said {done.stderr!r}")
            await box.sh(f"rm {folder}/full")
        expect((await box.sh("exit 4")).returncode == 4, "nothing starts after memory file systems were full")


async def _pids(bed: Bed) -> None:
    async with bed.box(Limits(memory=_MEMORY, disk=_DISK, pids=64)) as box:
        script = "i=0; while [ $i -lt 100 ]; do sleep 3 & i=$((i+1)); done; wait; echo all"
        done = await box.sh(script)
        expect("all" not in done.text, "100 processes fit into a limit of 64")
        expect(b"fork" in done.stderr.lower(), f"at the limit it said {done.stderr!r}")


async def _fork_bomb(bed: Bed) -> None:
    async with bed.box(Limits(memory=_MEMORY, disk=_DISK, pids=128)) as box:
        await box.sh("echo kept > /root/before")
        bomb = await box.start("/bin/sh", "-c", "f() { f | f & wait; }; f")
        await asyncio.sleep(2.0)
        async with asyncio.timeout(10):
            await box.guest.processes()
            state = await bed.engine.state(box.instance)
        expect(state == InstanceState.RUNNING, f"the sandbox is {state} during a fork bomb")
        usage = await bed.engine.usage(box.instance)
        expect(usage.processes < 4096, f"the host counts {usage.processes} tasks")
        chunks = [piece async for piece in box.guest.read("/root/before")]
        expect(b"".join(chunks) == b"kept\n", "a file written before the bomb cannot be read")
        await box.guest.signal(bomb.id, 9, group=True)

        async def starts() -> bool:
            try:
                await box.guest.start(command("true"))
            except LimitExceeded:
                return False
            return True

        async with asyncio.timeout(20):
            while not await starts():
                await box.guest.signal(bomb.id, 9, group=True)
                await asyncio.sleep(0.2)


async def _disk(bed: Bed) -> None:
    async with bed.box(Limits(memory=_MEMORY, disk=_DISK)) as box:
        done = await box.sh(f"head -c {2 * _DISK} /dev/zero > /root/full")
        expect(done.returncode != 0, f"a disk of {_DISK} bytes took twice that")
        expect(b"No space left" in done.stderr, f"a full disk said {done.stderr!r}")
        done = await box.sh("rm /root/full && echo again > /root/small && cat /root/small")
        expect(done.text == "again\n", f"after making room: {done}")


async def _disk_is_not_memory(bed: Bed) -> None:
    async with bed.box(Limits(memory=128 << 20, disk=1 << 30)) as box:
        done = await box.sh("head -c 600000000 /dev/zero > /root/big && wc -c < /root/big")
        expect(done.text.strip() == "600000000", f"600 MB on disk beside 128 MiB of memory: {done}")
        state = await bed.engine.state(box.instance)
        expect(state == InstanceState.RUNNING, f"the sandbox is {state} after writing to disk")
        used = await box.sh("free -b | awk '/^Mem:/ {print $3}'")
        expect(int(used.text) < 100 << 20, f"files on disk count as {used.text.strip()} bytes of memory")


async def _changed(bed: Bed) -> None:
    async with bed.box(Limits(cpus=0.2, memory=_MEMORY, disk=_DISK)) as box:
        await box.start("/bin/sh", "-c", "while :; do :; done")
        await bed.engine.limit(box.instance, Limits(cpus=1, memory=_MEMORY, disk=_DISK))
        await asyncio.sleep(0.3)
        loop = asyncio.get_running_loop()
        first, begun = await bed.engine.usage(box.instance), loop.time()
        await asyncio.sleep(1.5)
        second, ended = await bed.engine.usage(box.instance), loop.time()
        share = (second.cpu_seconds - first.cpu_seconds) / (ended - begun)
        # A busy machine gives less than asked for, never more.
        expect(share > 0.25 or os.getloadavg()[0] > 4 * (os.cpu_count() or 1), f"after raising it: {share:.2f} CPUs")


_MORE = 2 * _MEMORY


_LONG = 5
"""Seconds for which processes of a crowd stay: all of them are there at once, however slowly they start."""


def _hold(size: int, seconds: int = 0) -> tuple[str, ...]:
    """A program that has so many bytes at once, and for so long: on a busy machine nobody sees what is there for a moment."""
    return "python3", "-c", f"import time; kept = b'x' * {size}; time.sleep({seconds})"


async def _memory_changed(bed: Bed) -> None:
    before, after = Limits(memory=_MEMORY, disk=_DISK), Limits(memory=_MORE, disk=_DISK)
    async with bed.box(before) as box:

        async def give(limits: Limits) -> None:
            await box.guest.limit(limits)
            await bed.engine.limit(box.instance, limits)
            await bed.engine.show(box.instance, limits)
            free = await box.sh("free -b | awk '/^Mem:/ {print $2}'")
            expect(free.text.strip() == str(limits.memory), f"free shows {free.text.strip()} of {limits.memory} bytes")

        await box.guest.limit(before)
        held = await box.run(*_hold(_MEMORY, 30))
        expect(held.out_of_memory, f"holding {_MEMORY} bytes of as many: {held}")
        await give(after)
        held = await box.run(*_hold(_MORE * 3 // 4))
        expect(held.returncode == 0, f"holding more than the former limit: {held}")
        await box.sh(f"head -c {_MEMORY // 3} /dev/zero > /tmp/full")
        try:
            await box.guest.limit(Limits(memory=_MEMORY // 3, disk=_DISK))
        except Conflict as error:
            expect("in use" in error.message, f"less than is in use is refused by: {error.message}")
        else:
            expect(False, "the guest took a limit below what is in use")
        expect((await box.run(*_hold(_MEMORY))).returncode == 0, "a refused limit changed something")
        await box.sh("rm /tmp/full")
        await give(before)
        held = await box.run(*_hold(_MEMORY, 30))
        expect(held.out_of_memory, f"holding {_MEMORY} bytes with the former limit again: {held}")
        expect((await box.sh("exit 4")).returncode == 4, "nothing starts after all that")


async def _pids_changed(bed: Bed) -> None:
    script = f"i=0; while [ $i -lt 100 ]; do sleep {_LONG} & i=$((i+1)); done; wait; echo all"
    async with bed.box(Limits(memory=_MEMORY, disk=_DISK, pids=64)) as box:
        await box.guest.limit(Limits(memory=_MEMORY, disk=_DISK, pids=300))
        done = await box.sh(script)
        expect("all" in done.text, f"100 processes do not fit into a limit that was raised to 300: {done}")
        await box.guest.limit(Limits(memory=_MEMORY, disk=_DISK, pids=32))
        done = await box.sh(script)
        expect("all" not in done.text, "100 processes fit into a limit that was lowered to 32")


LIMITS = (
    Check("limits are what the guest sees", _NEEDS, _seen_inside),
    Check("cpu is a quota", _NEEDS, _cpu),
    Check("out of memory ends the guilty process and keeps the rest", _NEEDS, _out_of_memory, 120.0),
    Check("out of memory by many processes ends no innocent one", _NEEDS, _memory_tree, 120.0),
    Check("the memory that was promised can be used", _NEEDS, _memory_is_enough),
    Check("memory file systems are bounded", _NEEDS, _tmp),
    Check("pids ends in an error of fork", _NEEDS, _pids),
    Check("a fork bomb harms nobody else", _NEEDS, _fork_bomb, 120.0),
    Check("a full disk is ENOSPC, and room helps", _NEEDS, _disk),
    Check("what is written to disk takes no memory", _NEEDS, _disk_is_not_memory, 120.0),
    Check("limits of a live guest can be changed", _NEEDS, _changed),
    Check("the memory of a live guest can be changed, and is seen", _NEEDS, _memory_changed, 120.0),
    Check("the processes of a live guest can be changed", _NEEDS, _pids_changed, 120.0),
)
