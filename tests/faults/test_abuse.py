"""What hostile code does to its own sandbox: it may end its processes, never the sandbox, the server or a neighbour."""

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator

import pytest
from tests.faults.conftest import Host

import belljar

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]

EAT = "import time; a = []\nwhile True: a.append(bytearray(b'x') * (64 << 20))"
EAT_IN_CHILDREN = """
import os, time
for _ in range(60):
    if not os.fork():
        a = bytearray(b"x") * (20 << 20)
        time.sleep(60)
time.sleep(60)
"""
JUNK = """
for f in /proc/[0-9]*/fd/* /dev/pts/* /dev/shm /proc/[0-9]*/mem /proc/sys/kernel/*; do
  [ -f "$f" ] || [ -p "$f" ] || [ -c "$f" ] && timeout 1 sh -c 'head -c 200000 /dev/urandom > "$1"' _ "$f"
done 2>/dev/null
true
"""
ABUSES = {
    "kills every python": "pkill -9 python3; pkill -9 -f python; true",
    "kills everything": "kill -9 -1",
    "kills process 1": "kill -9 1; sleep 1",
    "stops process 1": "kill -STOP 1; sleep 1",
    "stops everything": "kill -STOP -1; sleep 1",
    "forks without end": "b() { b | b & }; b 2>/dev/null; sleep 60",
    "eats the memory": f'exec python3 -c "{EAT}"',
    "eats the memory in children": f"python3 -c '{EAT_IN_CHILDREN}'",
    "eats the memory in /tmp": "cat /dev/zero > /tmp/zeros",
    "fills the disk": "cat /dev/zero > /root/zeros; rm /root/zeros",
    "fills the disk with names": "mkdir /root/n; cd /root/n; i=0; while [ $i -lt 20000 ]; do : > f$i; i=$((i+1)); done",
    "writes junk wherever it can": JUNK,
    "opens all descriptors": "exec python3 -c 'import os; os.closerange(0, 99); [os.dup(os.open(\"/\", 0)) for _ in range(999)]'",
}


@pytest.fixture(scope="module")
def neighbour() -> Iterator[belljar.Sandbox]:
    with belljar.Sandbox.create(network="none", lifetime="20m") as sandbox:
        yield sandbox


def _execs(sandbox: belljar.Sandbox, count: int) -> float:
    """The median of some execs, in milliseconds."""
    times: list[float] = []
    for _ in range(count):
        started = time.perf_counter()
        assert sandbox.run(["true"]).returncode == 0
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def _soon(sandbox: belljar.Sandbox, command: str) -> str:
    """Its output; a little later when the dead of a fork bomb are not yet all buried."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return sandbox.run(command).stdout
        except belljar.LimitExceeded:
            assert time.monotonic() < deadline, "the bomb still burns"
            time.sleep(0.2)


@pytest.mark.parametrize("abuse", ABUSES)
def test_only_its_own_processes_end(host: Host, neighbour: belljar.Sandbox, abuse: str) -> None:
    rest = _execs(neighbour, 10)
    with belljar.Sandbox.create(memory="256MiB", disk="200MiB", pids=128, network="none") as sandbox:
        sandbox.path("/root/before").write_text("still here")

        def misbehave() -> None:
            with contextlib.suppress(belljar.ProcessTimeout, belljar.Error):  # how it ends is its own affair
                sandbox.run(ABUSES[abuse], timeout=8)

        attacker = threading.Thread(target=misbehave)
        attacker.start()
        time.sleep(1)
        meanwhile = _execs(neighbour, 20)
        attacker.join()
        print(f"{abuse}: a neighbour's exec took {meanwhile:.1f} ms, {meanwhile / rest:.1f} times that of rest")

        sandbox.refresh()
        assert sandbox.status == "running", sandbox.ended
        assert sandbox.path("/root/before").read_text() == "still here"
        assert _soon(sandbox, "echo $((6*7))") == "42\n"
    host.server_lives()


def test_a_reader_that_stops_holds_up_nobody(host: Host, neighbour: belljar.Sandbox) -> None:
    with belljar.Sandbox.create(memory="256MiB", network="none") as sandbox:
        flood = sandbox.popen("head -c 1000000000 /dev/zero; echo done >&2", stdin=False)
        time.sleep(2)
        assert _execs(neighbour, 10) > 0
        assert _execs(sandbox, 10) > 0
        assert flood.poll() is None, "it waits for its reader"
        flood.detach()
        assert flood.wait(timeout=60) == 0, "without a reader it does not wait"
        assert len(sandbox.process(flood.pid).stdout.read()) <= 17 << 20, "the newest 16 MiB and what was in the pipe"
    host.server_lives()
