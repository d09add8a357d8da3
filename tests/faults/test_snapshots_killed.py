"""The server dies in the middle of a snapshot, a fork, a rollback: the source goes on, and nothing half-made is left."""

import threading
import time
from collections.abc import Callable

import pytest
from tests.faults.conftest import Host

import belljar

pytestmark = [
    pytest.mark.node,
    pytest.mark.timeout(240),
    # The HTTP library leaves the closing of a socket whose server was killed to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
_DELAYS = (0.01, 0.08, 0.2)
"""Seconds: in the checkpoint, in what follows, near the end."""


@pytest.fixture
def source(host: Host) -> belljar.Sandbox:
    sandbox = belljar.Sandbox.create("base", memory="256MiB", network="none")
    sandbox.run("i=0; (while :; do i=$((i+1)); echo $i > /root/count; sleep 0.05; done) >/dev/null 2>&1 &")
    sandbox.run_code("kept = ['yes']")
    return sandbox


def _goes_on(sandbox: belljar.Sandbox) -> None:
    assert sandbox.run_code("print(kept)").stdout == "['yes']\n"
    before = _count(sandbox)
    deadline = time.monotonic() + 10
    while _count(sandbox) <= before:
        assert time.monotonic() < deadline, "its process stands still"
        time.sleep(0.05)


def _count(sandbox: belljar.Sandbox) -> int:
    while not (text := sandbox.path("/root/count").read_text()):
        time.sleep(0.01)  # the shell has emptied it and not yet written
    return int(text)


def _killed(host: Host, delay: float, work: Callable[[], object]) -> Exception | None:
    """What the caller of `work` hears when the server is killed `delay` seconds after the call."""
    heard: list[Exception] = []

    def call() -> None:
        try:
            work()
        except (belljar.Error, ExceptionGroup) as error:
            heard.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    time.sleep(delay)
    host.kill_server()
    caller.join(90)
    assert not caller.is_alive()
    return heard[0] if heard else None


def test_a_memory_snapshot_is_whole_or_not_there(host: Host, source: belljar.Sandbox) -> None:
    for delay in _DELAYS:
        error = _killed(host, delay, lambda: source.snapshot(memory=True))
        _goes_on(source)
        there = list(belljar.Snapshot.list())
        assert len(there) == (error is None), (delay, error, there)
        for snapshot in there:
            with snapshot.create(network="none") as twin:
                _goes_on(twin)
            snapshot.delete()
        assert not list(host.home.glob("snapshots/*")), "an unfinished snapshot lies about"


def test_forks_are_there_for_whoever_asked_or_not_at_all(host: Host, source: belljar.Sandbox) -> None:
    for delay in _DELAYS:
        children: list[belljar.Sandbox] = []
        error = _killed(host, delay, lambda children=children: children.extend(source.fork(2)))
        _goes_on(source)
        for child in children:
            _goes_on(child)
            child.terminate()
        left = {sandbox.id for sandbox in belljar.Sandbox.list()} - {source.id}
        assert not left, (delay, error, left)
        assert host.leaks() == []


def test_a_rollback_has_happened_or_has_not(host: Host, source: belljar.Sandbox) -> None:
    snapshot = source.snapshot(memory=True)
    for delay in _DELAYS:
        source.path("/root/late").write_text("late")
        error = _killed(host, delay, lambda: source.rollback(snapshot))
        _goes_on(source)
        assert source.path("/root/late").exists() == (error is not None), (delay, error)
        source.path("/root/late").unlink(missing_ok=True)
        assert host.leaks() == []
    snapshot.delete()
