"""What a guest does when it wakes as a clone: who it says it is, what its kernels draw, what goes on."""

import asyncio
import contextlib
import json
import secrets
import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest

from belljar.base.tasks import wait_until
from belljar.model.code import CodeSpec, ContextSpec, ContextState, Done, Printed, Raised, Shown, Status
from belljar.model.errors import LimitExceeded, NotFound
from belljar.model.process import Output, PtySize, Stream
from belljar.model.sandbox import Limits
from belljar.node.engine.api import Engine, Instance, InstanceSpec
from belljar.node.engine.conformance import Bed
from belljar.node.engine.conformance.bed import Box, command
from belljar.node.guest.guest import Guest
from belljar.node.setup import Installation

pytestmark = pytest.mark.node

LIMITS = Limits(cpus=1, memory=512 << 20, disk=256 << 20, pids=256)
WHO = (
    "hostname; cat /etc/hostname; uname -n; cat /proc/sys/kernel/hostname /etc/machine-id"
    " /proc/sys/kernel/random/boot_id; echo end"
)


@pytest.fixture
def code_bed(
    bed: Bed,
    installation: Installation,
    new_spec: Callable[[str, Limits], InstanceSpec],
    new_engine: Callable[[], Engine],
) -> Bed:
    """Its instances have the image `code`."""
    image = installation.images.get("code").path

    def spec(id: str, limits: Limits) -> InstanceSpec:
        return replace(new_spec(id, limits), root=image)

    return replace(bed, spec=spec, successor=new_engine)


@contextlib.asynccontextmanager
async def clone(bed: Bed, limits: Limits = LIMITS) -> AsyncGenerator[tuple[Instance, Box]]:
    """Of the checkpoint in the bed's scratch folder; not configured yet."""
    async with bed.made(limits) as twin:
        await bed.engine.restore(twin, bed.scratch / "c", None)
        async with bed.session(bed.engine, twin) as box:
            yield twin, box


async def checkpoint(bed: Bed, box: Box) -> None:
    await box.guest.quiesce()
    box.guest.stand_still(True)
    await bed.engine.checkpoint(box.instance, bed.scratch / "c")
    box.guest.stand_still(False)


async def run(box: Box, code: str, context: str = "python", **more: Any) -> Any:
    """What a cell's last expression is, as JSON has it; raises what the cell raised."""
    spec = CodeSpec(secrets.token_hex(8), code)
    create = ContextSpec(context, "python", **more)
    shown: Any = None
    async for event in box.guest.execute(context, spec, create=create):
        match event:
            case Shown(main=True):
                shown = json.loads(str(event.data["text/plain"]).strip("'"))
            case Raised():
                raise AssertionError(f"{event.name}: {event.value}")
            case _:
                pass
    return shown


async def test_it_says_who_it_is_to_new_processes_and_to_those_of_before(bed: Bed) -> None:
    async with bed.box(LIMITS) as box:
        await box.guest.configure(hostname="template", machine_id="0" * 32, hosts="127.0.0.1 template\n")
        old = await box.start("/bin/sh", "-c", 'while read line; do eval "$line"; done')
        at = await box.guest.write_stdin(old.id, 0, f"{WHO}\n".encode())
        seen = await box.seen(old.id, b"end\n")
        kept = (await box.sh("cat /proc/sys/kernel/random/boot_id")).text.strip()
        await checkpoint(bed, box)
    claims: list[list[str]] = []
    for number in range(3):
        name, machine, boot = f"clone{number}", secrets.token_hex(16), str(uuid.uuid4())
        async with clone(bed) as (_, box):
            # The last one is a fork: one kernel's past, so it keeps its boot id.
            said: dict[str, Any] = {"boot_id": boot} if number < 2 else {}
            said |= {"hosts": f"127.0.0.1 {name}\n", "resolv": "nameserver 192.0.2.9\n", "env": {"WHO": name}}
            began = monotonic()
            await box.guest.configure(
                hostname=name,
                machine_id=machine,
                pids=99,
                user="user",
                workdir="/usr",
                memory=LIMITS.memory,
                **said,
            )
            took = monotonic() - began
            assert took < 0.1
            mine = [name, name, name, name, machine, boot if number < 2 else kept]
            assert (await box.sh(WHO)).text.split()[:-1] == mine
            await box.guest.write_stdin(old.id, at, f"{WHO}\n".encode())
            end = await box.seen(old.id, b"end\n", offset=seen)
            told = await output(box, old.id, seen, end)
            assert told.split()[:-1] == mine
            rest = (await box.sh("cat /etc/hosts /etc/resolv.conf; echo $WHO; id -un; pwd")).text
            assert rest == f"127.0.0.1 {name}\nnameserver 192.0.2.9\n{name}\nuser\n/usr\n"
            assert (await box.sh("kill -9 1; sleep 5", user="root")).returncode == -9
            assert (await box.sh(WHO)).text.split()[:-1] == mine  # also in a namespace made anew
            claims.append(mine)
    assert len({who[5] for who in claims}) == 3


BEFORE = """
import json, os, random, ssl, tempfile, threading, uuid
import numpy, numpy.random
own, owns = random.Random(7), numpy.random.default_rng(7)
ssl.RAND_bytes(16), random.random(), numpy.random.rand(), tempfile.mktemp(), own.random(), owns.random()
threads, ask, told = [], threading.Event(), []
def other():  # OpenSSL has a generator for each thread
    ssl.RAND_bytes(16)
    ask.wait()
    told.append(ssl.RAND_bytes(16).hex())
threads.append(threading.Thread(target=other, daemon=True))
threads[0].start()
"""
DRAW = """
ask.set(), threads[0].join()
json.dumps({
    "global": [random.random(), numpy.random.rand(), ssl.RAND_bytes(16).hex(), told[0], str(uuid.uuid4()), tempfile.mktemp(),
        os.urandom(8).hex()],
    "own": [own.random(), owns.random()],
})
"""


async def test_code_draws_other_numbers_in_each_clone_but_from_its_own_generators(code_bed: Bed) -> None:
    async with code_bed.box(LIMITS) as box:
        await run(box, BEFORE)
        await checkpoint(code_bed, box)
        source = await run(box, DRAW)
    drawn: list[dict[str, Any]] = []
    for reseed in (True, True, False, False):
        async with clone(code_bed) as (_, box):
            await box.guest.configure(hostname="clone")
            await box.guest.wake(reseed=reseed, env={"WHO": str(len(drawn))})
            assert [info.state for info in await box.guest.contexts()] in ([ContextState.IDLE], [ContextState.BUSY])
            drawn.append(await run(box, DRAW))
            assert await run(box, "os.environ['WHO']") == len(drawn) - 1
    assert all(one["own"] == source["own"] for one in drawn)
    for values in zip(*(one["global"] for one in (source, *drawn[:2])), strict=True):
        assert len(set(values)) == 3
    # Left alone all but the system's goes on as it was: the assertions above have teeth.
    for one in drawn[2:]:
        same = [a == b for a, b in zip(one["global"], source["global"], strict=True)]
        assert same == [True, True, True, True, False, True, False]


async def test_a_cell_that_runs_goes_on_in_each_clone_and_the_next_one_is_renewed(code_bed: Bed) -> None:
    code = "import random, ssl, time; ssl.RAND_bytes(8); random.seed(1)\nfor i in range(40): time.sleep(0.05)\nrandom.random()"
    async with code_bed.box(LIMITS) as box:
        create = ContextSpec("python", "python")
        events = box.guest.execute("python", CodeSpec("long", code), create=create)
        running = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.8)
        assert [info.state for info in await box.guest.contexts()] == [ContextState.BUSY]
        await checkpoint(code_bed, box)
        await running
        await events.aclose()
    after: set[float] = set()
    for _ in range(2):
        async with clone(code_bed) as (_, box):
            await asyncio.gather(box.guest.configure(hostname="clone"), box.guest.wake())
            assert (await box.guest.context("python")).state is ContextState.BUSY
            found = [event async for event in box.guest.execute("python", CodeSpec("long", code), after=0)]
            assert isinstance(found[0], Shown) and found[0].data["text/plain"] == "0.13436424411240122"
            assert isinstance(found[-1], Done) and found[-1].status is Status.OK
            after.add(await run(box, "random.random()"))
    assert len(after) == 2


async def test_kernels_of_other_languages_are_told_too(code_bed: Bed) -> None:
    async def said(box: Box, language: str, code: str) -> str:
        create = ContextSpec(language, language)
        events = box.guest.execute(language, CodeSpec(secrets.token_hex(8), code), create=create)
        return "".join([event.text async for event in events if isinstance(event, Printed)])

    numbers: set[str] = set()
    async with code_bed.box(LIMITS) as box:
        await said(box, "bash", "RANDOM=5; mine=kept; cd /usr")
        await said(box, "javascript", "let mine = 'kept'")
        await checkpoint(code_bed, box)
    for number in range(2):
        async with clone(code_bed) as (_, box):
            await box.guest.wake(env={"WHO": f"it's {number}", "HOME": None})
            assert await said(box, "bash", "echo $mine $PWD $WHO $HOME") == f"kept /usr it's {number}\n"
            log = "console.log(mine, process.env.WHO, process.env.HOME)"
            assert await said(box, "javascript", log) == f"kept it's {number} undefined\n"
            numbers.add(await said(box, "bash", "echo $RANDOM"))
    assert len(numbers) == 2


async def test_a_warm_kernel_is_whoevers_it_becomes(code_bed: Bed, report_line: Callable[[str], None]) -> None:
    async with code_bed.box(LIMITS) as box:
        await box.guest.configure(user="user", env={"IMAGE": "code"})
        await box.guest.warm()
        await checkpoint(code_bed, box)
        assert await box.guest.contexts() == await box.guest.processes() == []

    @contextlib.asynccontextmanager
    async def claim(**wishes: Any) -> AsyncGenerator[Box]:
        async with clone(code_bed) as (instance, box):
            await box.guest.configure(user="user", env={"IMAGE": "code"})
            await box.guest.find_contexts()
            await box.guest.prime()
            box.guest.stand_still(True)
            await code_bed.engine.pause(instance)
            await code_bed.engine.resume(instance)
            box.guest.stand_still(False)
            env = {"IMAGE": "code", **wishes.pop("env", {})}
            began = monotonic()
            await asyncio.gather(
                box.guest.configure(hostname="claimed", machine_id="1" * 32, env=env, **wishes),
                box.guest.wake(env=env, user=wishes.get("user", "user"), cwd=wishes.get("workdir")),
            )
            took.append(monotonic() - began)
            yield box

    look = (
        "import json, os, sys\njson.dumps([os.getppid(), os.getcwd(), os.environ.get('A'), os.getuid(), sys.path[:2]])"
    )
    took: list[float] = []
    first: list[float] = []
    drawn: set[float] = set()
    for _ in range(3):
        async with claim(env={"A": "1"}, workdir="/usr") as box:
            assert await box.guest.contexts() == await box.guest.processes() == []
            began = monotonic()
            assert await run(box, "1 + 1") == 2
            first.append(monotonic() - began)
            (info,) = await box.guest.contexts()
            assert (info.count, info.restarts, info.state, info.user) == (1, 0, ContextState.IDLE, "user")
            assert (await run(box, look))[1:4] == ["/usr", "1", 1000]
            trace = (
                "json.dumps(['pandas' in sys.modules, len(In), sorted({'numpy', 'pandas', '_i3'} & set(globals()))])"
            )
            assert await run(box, trace) == [True, 4, ["_i3"]]
            drawn.add(await run(box, "import numpy, random; random.random() + numpy.random.rand()"))
            assert len(await box.guest.processes()) == 1
    assert len(drawn) == 3
    report_line(f"clone: claimed in {min(took) * 1e3:.1f} ms, its first cell took {min(first) * 1e3:.1f} ms")
    async with claim(user="root") as box:  # nobody's kernel is of any use to root
        assert (await run(box, look))[3] == 0
        assert len(await box.guest.processes()) == 1
    async with claim(env={"PYTHONPATH": "/made/up"}) as box:
        assert "/made/up" in (await run(box, look))[4]
    async with claim(workdir="/not/there") as box:
        with pytest.raises(NotFound):
            await run(box, "1")
        await box.guest.configure(workdir="/var")
        assert (await run(box, look))[1] == "/var"
    async with claim(env={"A": "1"}) as box:  # a context with wishes of its own
        assert (await run(box, look, cwd="/tmp", env={"A": "2"}))[1:3] == ["/tmp", "2"]
        (one,) = await box.guest.processes()
        assert one.stdout.start == 0 and one.id == 1
    async with claim() as box:
        assert (await box.guest.create_context(ContextSpec("python", user="root"))).user == "root"
        assert (await box.guest.create_context(ContextSpec("other"))).user == "user"
        assert len(await box.guest.processes()) == 3 - 1


async def test_processes_go_on_and_nothing_is_said_to_readers_of_before(bed: Bed) -> None:
    async with bed.box(LIMITS) as box:
        shell = await box.start("/bin/sh", pty=PtySize(cols=90, rows=20))
        flood = await box.start("python3", "-uc", "import os\nwhile True: os.write(1, b'x' * 65536)")
        counter = await box.start("/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
        at = await box.guest.write_stdin(shell.id, 0, b"mark=forty\n")
        await box.seen(shell.id, b"forty")
        slow = box.guest.output(flood.id, {Stream.STDOUT: 0})
        await anext(slow)  # nobody takes more: the process waits for us
        box.guest.stand_still(True)
        await box.guest.quiesce()
        await bed.engine.checkpoint(box.instance, bed.scratch / "c")
        box.guest.stand_still(False)
        stuck = (await box.guest.process(flood.id)).stdout.end
        await slow.aclose()
    for _ in range(2):
        async with clone(bed) as (instance, box):
            await asyncio.gather(box.guest.configure(hostname="clone"), box.guest.wake())
            began, end = monotonic(), (await box.guest.process(counter.id)).stdout.end
            await box.seen(counter.id, b"\n", offset=end)
            assert monotonic() - began < 3.0
            await box.guest.write_stdin(shell.id, at, b"echo $mark-$(stty size)\n")
            await box.seen(shell.id, b"forty-20 90\r\n")
            # Whoever read it reads from the other sandbox: this one's process is free.

            async def flows(guest: Guest = box.guest) -> bool:
                return (await guest.process(flood.id)).stdout.end > stuck + (4 << 20)

            assert await wait_until(flows, timeout=5)
            for one in (flood, counter, shell):
                await box.guest.signal(one.id, 9)
                assert (await box.guest.wait(one.id, timeout=5)).returncode == -9
            before = (await bed.engine.usage(instance)).cpu_seconds
            await asyncio.sleep(1.0)
            assert (await bed.engine.usage(instance)).cpu_seconds - before < 0.1


@pytest.mark.parametrize("memory", [256 << 20, 1 << 30])
async def test_limits_of_the_claim_hold_in_it(bed: Bed, memory: int) -> None:
    async with bed.box(LIMITS) as box:
        await box.guest.configure(pids=200, memory=LIMITS.memory)
        await checkpoint(bed, box)
    async with clone(bed, replace(LIMITS, memory=memory)) as (_, box):
        await box.guest.configure(pids=20, memory=memory, tmp=memory // 2, shm=memory // 4)
        shown = "grep MemTotal /proc/meminfo; df -k --output=size /tmp /dev/shm"
        sizes = [word for word in (await box.sh(shown)).text.split() if word.isdecimal()]
        assert sizes == [str(size >> 10) for size in (memory, memory // 2, memory // 4)]
        hold = "held = bytearray({}); print(len(held)); import time; time.sleep(1)"
        assert (await box.run("python3", "-c", hold.format(memory * 3 // 4))).returncode == 0
        bomb = await box.run("python3", "-c", hold.format(memory * 5 // 4))
        assert (bomb.returncode, bomb.out_of_memory) == (-9, True)
        with pytest.raises(LimitExceeded):
            for _ in range(25):
                await box.guest.start(command("sleep", "60"))


async def test_files_on_the_disk_are_no_memory_after_a_checkpoint(bed: Bed) -> None:
    limits = replace(LIMITS, memory=128 << 20)
    hold = "held = bytearray(32 << 20); import time; time.sleep(1.5)"
    async with bed.box(limits) as box:
        await box.guest.configure(memory=limits.memory)
        await box.sh(f"head -c {180 << 20} /dev/zero > /root/big")
        await checkpoint(bed, box)
        assert (await box.run("python3", "-c", hold)).returncode == 0
    async with clone(bed, limits) as (_, box):
        await box.guest.configure(memory=limits.memory)
        assert (await box.run("python3", "-c", hold)).returncode == 0
        bomb = await box.run("python3", "-c", hold.replace("32", "160"))
        assert (bomb.returncode, bomb.out_of_memory) == (-9, True)


async def test_tmp_and_shm_get_the_sizes_of_the_claim_where_they_are_empty(bed: Bed) -> None:
    sizes = "for d in /tmp /dev/shm; do stat -f -c '%b %S' $d | (read a b; echo $((a * b))); stat -c %a $d; done"
    async with bed.box(LIMITS) as box:
        await checkpoint(bed, box)
        assert (await box.sh(sizes)).text.split() == [str(256 << 20), "1777", str(128 << 20), "1777"]
    async with clone(bed) as (_, box):
        for tmp, shm in ((64 << 20, 32 << 20), (65 << 20, 33 << 20), (100_000, 5_000)):
            await box.guest.configure(tmp=tmp, shm=shm)
            pages = [str(size & -4096) for size in (tmp, shm)]
            assert (await box.sh(sizes)).text.split() == [pages[0], "1777", pages[1], "1777"]
            full = await box.sh("head -c 200000000 /dev/zero > /tmp/x; rm /tmp/x")
            assert b"No space left" in full.stderr
        assert (await box.sh("grep -cE ' (/tmp|/dev/shm) ' /proc/mounts")).text == "4\n"  # they do not pile up
        options = (await box.sh("grep ' /tmp ' /proc/mounts | tail -1")).text
        assert "nosuid" in options and "nodev" in options
        await box.sh("echo kept > /tmp/file", user="user")
        await box.guest.configure(tmp=64 << 20)
        assert (await box.sh("cat /tmp/file; stat -f -c %b /tmp")).text == f"kept\n{100_000 // 4096}\n"


async def output(box: Box, process: int, start: int, end: int) -> str:
    gathered = b""
    async with contextlib.aclosing(box.guest.output(process, {Stream.STDOUT: start})) as events:
        async for event in events:
            if isinstance(event, Output):
                gathered += event.data
            if start + len(gathered) >= end:
                break
    return gathered.decode()
