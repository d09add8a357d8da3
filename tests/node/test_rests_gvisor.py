"""Sandboxes at rest in real gVisor: what goes on where it was, and what each rest costs the machine."""

import asyncio
import time

import pytest
from tests.node.test_restores import SPEC, Place, place

from belljar.base.ids import new_id
from belljar.base.tasks import in_thread
from belljar.model.process import ProcessSpec
from belljar.model.sandbox import Status
from belljar.node.residue import leaks

__all__ = ("place",)
pytestmark = [pytest.mark.node, pytest.mark.asyncio(loop_scope="module")]
_SERVER = "python3 -m http.server 8000 -d /tmp/served >/dev/null 2>&1"
_COUNT = "i=0; while :; do i=$((i+1)); echo n$i; sleep 0.05; done"
_GET = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8000/a').read().decode(), end='')"


async def busy(place: Place, id: str) -> int:
    """A web server, a counter, a variable in a code context and a file; the id of the counter."""
    await place.sh(
        id, "mkdir -p /tmp/served; echo page > /tmp/served/a; echo kept > /root/note; cat /etc/machine-id > /root/mid"
    )
    await place.node.guest(id).start(ProcessSpec(new_id("px"), ("/bin/sh", "-c", _SERVER), stdin=False))
    counter = await place.node.guest(id).start(ProcessSpec(new_id("px"), ("/bin/sh", "-c", _COUNT), stdin=False))
    await place.node.guest(id).detach(counter.id)
    await place.code(id, "import random; x = 41; random.seed(5); state = random.getstate()")
    return counter.id


async def goes_on(place: Place, id: str) -> None:
    assert await place.sh(id, "cat /root/note") == "kept\n"
    assert await place.sh(id, "cmp /etc/machine-id /root/mid && echo same") == "same\n", "it is the same machine"
    assert await place.sh(id, "hostname") == f"{id}\n"


@pytest.mark.parametrize("status", [Status.PAUSED, Status.STANDBY])
async def test_all_that_ran_goes_on_where_it_was(place: Place, status: Status) -> None:
    async with place.sandbox() as id:
        counter = await busy(place, id)
        for _ in range(2):
            await place.node.rest(id, status)
            usage = await place.node.usage(id)
            assert (usage.memory == 0) == status.on_disk
            began = time.monotonic()
            await place.node.resume(id)
            print(f"{status}: awake after {(time.monotonic() - began) * 1000:.0f} ms")
            await goes_on(place, id)
            assert await place.sh(id, f'python3 -c "{_GET}"') == "page\n"
            assert await place.code(id, "print(x + 1, random.getstate() == state)") == "42 True\n"
            info = await place.node.guest(id).process(counter)
            assert info.returncode is None
            await place.seen(id, counter, b"n5\n")
        assert await place.sh(id, "cat /proc/sys/kernel/random/boot_id > /root/boot; date +%s") != ""


async def test_one_that_was_stopped_boots_from_its_files(place: Place) -> None:
    async with place.sandbox() as id:
        counter = await busy(place, id)
        await place.node.rest(id, Status.STOPPED)
        assert (await place.node.usage(id)).memory == 0
        await goes_on(place, id)
        assert counter not in [one.id for one in await place.node.guest(id).processes() if one.returncode is None]
        await place.node.rest(id, Status.STOPPED)
        await goes_on(place, id)


async def test_a_pause_can_become_a_standby_and_then_a_stop(place: Place) -> None:
    async with place.sandbox() as id:
        await busy(place, id)
        for status in (Status.PAUSED, Status.STANDBY):
            assert (await place.node.rest(id, status)).status is status
        await goes_on(place, id)
        for status in (Status.STANDBY, Status.STOPPED):
            assert (await place.node.rest(id, status)).status is status
        await goes_on(place, id)


async def test_a_paused_one_takes_no_processor(place: Place) -> None:
    async with place.sandbox() as id:
        spin = ProcessSpec(new_id("px"), ("/bin/sh", "-c", "while :; do :; done"), stdin=False)
        await place.node.guest(id).start(spin)
        await place.node.rest(id, Status.PAUSED)
        before = (await place.node.usage(id)).cpu_seconds
        await asyncio.sleep(1.0)
        assert (await place.node.usage(id)).cpu_seconds - before < 0.1
        await place.node.resume(id)
        await asyncio.sleep(1.0)
        assert (await place.node.usage(id)).cpu_seconds - before > 0.2


async def test_nothing_is_left_of_what_rested(place: Place) -> None:
    made = [(await place.node.create(new_id("sb"), SPEC)).id for _ in range(3)]
    for id, status in zip(made, (Status.PAUSED, Status.STANDBY, Status.STOPPED), strict=True):
        await place.node.rest(id, status)
    for id in made:
        await place.node.terminate(id)
    assert place.machine.snapshots.list() == []
    assert await in_thread(leaks, place.instance) == []
