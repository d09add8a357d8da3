"""Thousands of sandboxes one after the other: nothing grows."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.faults.conftest import Host
from tests.long.footprint import Footprint, at_rest, news, table

import belljar

pytestmark = [pytest.mark.node]

Say = Callable[[str], None]
_WAITING = 2, 1
"""The default image's, for which one always waits, and one of `base`; and one only created, for who goes on from memory."""
_DESCRIPTORS, _THREADS = 6, 8
"""Connections, and threads of the loop's pool, come as they are needed and are bounded."""
_ENDED = 500
_SPARE = {"link": 2 * 64, "rule": 4 * 64}
"""What the slots of the network that wait for the next sandbox may be, and so many records of ended ones are kept."""


def create_exec_delete() -> None:
    sandbox = belljar.Sandbox.create("base")
    assert sandbox.run(["/bin/echo", "hi"], check=True).stdout == "hi\n"
    sandbox.terminate()


def snapshot_restore_delete(source: belljar.Sandbox, number: int) -> None:
    snapshot = source.snapshot(memory=number % 2 == 0)
    sandbox = belljar.Sandbox.create(image=snapshot)
    assert sandbox.path("/root/kept").read_text() == "kept"
    sandbox.terminate()
    snapshot.delete()


def repeat(call: Callable[[int], None], times: int, say: Say, what: str) -> None:
    """Prints how long the first and the last hundred took."""
    seconds: list[float] = []
    for number in range(times):
        started = time.perf_counter()
        call(number)
        seconds.append(time.perf_counter() - started)
        if number % 250 == 249:
            say(f"{what}: {number + 1} of {times}")
    part = min(100, max(1, times // 4))
    for name, some in (("first", seconds[:part]), ("last", seconds[-part:])):
        ordered = sorted(some)
        p50, p99 = statistics.median(ordered) * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3
        say(f"{what}, the {name} {part}: p50 {p50:.0f} ms, p99 {p99:.0f} ms")


def check(before: Footprint, after: Footprint, say: Say, *, memory: int) -> None:
    """`memory`: KiB that the server may have grown by."""
    for line in table(before, after):
        say(line)
    assert after.leaked == before.leaked == 0
    assert dict(after.sandboxes) == dict(before.sandboxes)
    for kind, count in after.server.items():
        assert count <= max(before.server.get(kind, 0), _SPARE.get(kind, 0)), kind
    assert after.ended <= _ENDED + 1
    new = "\n".join(news(before, after))
    assert len(after.files) <= len(before.files), new
    assert len(after.children) <= len(before.children), new
    assert len(after.descriptors) <= len(before.descriptors) + _DESCRIPTORS, new
    assert after.threads <= before.threads + _THREADS
    assert after.memory <= before.memory + memory


def endure(host: Host, say: Say, *, creates: int, snapshots: int, memory: int) -> None:
    with belljar.Sandbox.create("base") as source:
        source.path("/root/kept").write_text("kept")
        for number in range(4):  # what is made once is there
            snapshot_restore_delete(source, number)
    with ThreadPoolExecutor(16) as asking:  # each of the store's readers has had its first visit
        list(asking.map(lambda _: list(belljar.Sandbox.list(status="terminated")), range(64)))
    before = at_rest(host, *_WAITING)
    repeat(lambda _: create_exec_delete(), creates, say, "create, exec, delete")
    if snapshots:
        with belljar.Sandbox.create("base") as source:
            source.path("/root/kept").write_text("kept")
            repeat(lambda number: snapshot_restore_delete(source, number), snapshots, say, "snapshot, restore, delete")
    with belljar.Sandbox.create("base") as source:  # so that the same ones wait as before
        source.path("/root/kept").write_text("kept")
        snapshot_restore_delete(source, 0)
    check(before, at_rest(host, *_WAITING), say, memory=memory)
    host.server_lives()


def test_forty_rounds_leave_a_server_as_it_was(host: Host, say: Say) -> None:
    endure(host, say, creates=30, snapshots=8, memory=24 << 10)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_two_thousand_creates_leave_a_server_as_it_was(host: Host, say: Say) -> None:
    endure(host, say, creates=2000, snapshots=0, memory=32 << 10)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_thousand_snapshots_leave_a_server_as_it_was(host: Host, say: Say) -> None:
    endure(host, say, creates=20, snapshots=1000, memory=32 << 10)
