"""Other limits for a real sandbox that runs: what its programs may use and see from then on, and what goes on from there."""

import contextlib
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.faults.conftest import Host, home, host

import belljar

__all__ = ("home", "host")
pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]
MIB = 1 << 20
HOLD = """
import sys, time
held = []
for line in sys.stdin:
    held.append(bytearray(b"x") * (int(line) << 20))
    print(sum(map(len, held)) >> 20, flush=True)
"""


@pytest.fixture
def box(host: Host) -> Iterator[belljar.Sandbox]:
    with belljar.Sandbox.create("base", memory="256MiB", disk="1GiB", cpu=1, network="none", pids=100) as made:
        yield made


def seen(box: belljar.Sandbox) -> int:
    """MiB of memory in all, as `free`, /proc/meminfo and sysinfo(2) show them: they agree."""
    script = "free -m | awk '/^Mem:/ {print $2}'; awk '/^MemTotal:/ {print int($2 / 1024)}' /proc/meminfo"
    one, two = map(int, box.run(script).stdout.split())
    pages = int(box.run(["getconf", "_PHYS_PAGES"]).stdout)
    assert one == two == pages * 4096 >> 20
    return one


class Holder:
    """A process that takes memory when it is told to."""

    def __init__(self, box: belljar.Sandbox) -> None:
        self._process = box.popen(["python3", "-u", "-c", HOLD])

    def take(self, mib: int) -> str:
        """What it holds now, or nothing when it was ended."""
        with contextlib.suppress(belljar.Error, OSError):
            self._process.stdin.write(f"{mib}\n".encode())
        return self._process.stdout.readline().decode().strip()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def test_memory_that_was_raised_can_be_used_by_what_runs_already(box: belljar.Sandbox) -> None:
    holder = Holder(box)
    assert (seen(box), holder.take(100)) == (256, "100")
    assert box.update(memory="1GiB").memory == 1024 * MIB
    assert seen(box) == 1024
    assert holder.take(500) == "600"
    assert box.stats().memory_limit == 1024 * MIB
    with pytest.raises(belljar.Conflict, match=r"\d+ MiB of memory are in use") as refused:
        box.update(memory="512MiB", labels={"a": "b"})
    used = re.search(r"(\d+) MiB of memory are in use", str(refused.value))
    assert used is not None
    assert 600 <= int(used[1]) < 900
    info = box.info()
    assert (info.memory, info.labels, seen(box), holder.take(10)) == (1024 * MIB, {}, 1024, "610")
    holder.end()
    box.update(memory="256MiB")
    assert seen(box) == 256
    greedy = Holder(box)
    assert (greedy.take(100), greedy.take(400)) == ("100", "")
    assert box.run("true").returncode == 0


def share(box: belljar.Sandbox, seconds: float = 2.0) -> float:
    """Processors that it uses now."""
    before, began = box.stats().cpu_seconds, time.monotonic()
    time.sleep(seconds)
    return (box.stats().cpu_seconds - before) / (time.monotonic() - began)


def test_processor_time_follows_the_limit_and_the_number_that_is_seen_stays(box: belljar.Sandbox) -> None:
    box.update(cpu=0.25)
    loops = [box.popen("while :; do :; done", stdin=False) for _ in range(2)]
    time.sleep(0.5)
    assert share(box) < 0.4
    box.update(cpu=1.75)
    until, most = time.monotonic() + 90, 0.0
    while most < 0.45:  # a busy machine gives less than is asked for, and more when it has it
        assert time.monotonic() < until, f"two loops with 1.75 cores had {most:.2f} at most"
        most = max(most, share(box, 1.0))
    box.update(cpu=0.25)
    time.sleep(0.5)
    assert share(box) < 0.4
    assert box.run("nproc").stdout.strip() == "1"
    for loop in loops:
        loop.kill()


def test_processes_follow_the_limit(box: belljar.Sandbox) -> None:
    script = "i=0; while [ $i -lt 150 ]; do sleep 10 & i=$((i+1)); done; wait; echo all"
    assert "all" not in box.run(script).stdout
    box.update(pids=400)
    assert "all" in box.run(script).stdout


def test_what_goes_on_from_it_has_its_limits_and_a_rollback_keeps_them(box: belljar.Sandbox) -> None:
    early = box.snapshot(memory=True)
    box.update(memory="768MiB", cpu=1.5, pids=222)
    late = box.snapshot(memory=True)
    files = box.snapshot()
    (twin,) = box.fork(1)
    made = [twin, belljar.Sandbox.create(late), belljar.Sandbox.create(files)]
    try:
        for one in made:
            info = one.info()
            assert (info.memory, info.cpu, info.pids, seen(one)) == (768 * MIB, 1.5, 222, 768)
        assert [one.run("nproc").stdout.strip() for one in made] == ["1", "1", "2"]
    finally:
        for one in made:
            one.terminate()
    box.rollback(early)
    info = box.info()
    assert (info.memory, info.cpu, info.pids, seen(box)) == (768 * MIB, 1.5, 222, 768)
    assert Holder(box).take(400) == "400"
    for snapshot in (early, late, files):
        snapshot.delete()


def test_they_outlive_the_server(host: Host, box: belljar.Sandbox) -> None:
    holder = Holder(box)
    box.update(memory="1GiB", cpu=0.5)
    host.kill_server()
    info = box.info()
    assert (info.memory, info.cpu, seen(box)) == (1024 * MIB, 0.5, 1024)
    assert holder.take(600) == "600"


def test_servers_that_are_killed_while_they_change_it_leave_what_they_say(host: Host, box: belljar.Sandbox) -> None:
    sizes = (512, 768)

    def change() -> None:
        for number in range(40):
            # Asked for again when the server was killed meanwhile: the same change twice is the same.
            box.update(memory=sizes[number % 2] * MIB, pids=100 + number)

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        for number in range(3):
            time.sleep(0.2 + 0.013 * number)
            host.kill_server()
            info = belljar.Sandbox.get(box.id).info()
            assert info.memory in (256 * MIB, *(size * MIB for size in sizes))
        changing.result()
    info = box.info()
    assert (info.memory, info.pids, seen(box)) == (768 * MIB, 139, 768)
    host.kill_server()
    assert (box.info().memory, seen(box)) == (768 * MIB, 768)


@pytest.mark.parametrize(
    "trick", ["umount -l /proc; mount -t tmpfs x /proc", "kill -STOP -1", "rm -rf /tmp /usr/bin/free"]
)
def test_a_hostile_guest_does_not_decide_what_is_said_of_it(box: belljar.Sandbox, trick: str) -> None:
    box.run(trick, check=False, timeout=20)
    assert box.update(memory="512MiB", pids=50).memory == 512 * MIB
    assert box.stats().memory_limit == 512 * MIB
    assert box.update(memory="256MiB").memory == 256 * MIB


def test_the_disk_stays_and_says_why(box: belljar.Sandbox) -> None:
    with pytest.raises(belljar.NotSupported, match="disk") as refused:
        box.update(disk="2GiB", memory="512MiB")
    assert "snapshot" in (refused.value.hint or "")
    assert box.info().memory == 256 * MIB
    assert box.update(disk="1GiB").disk == 1 << 30  # as it is
