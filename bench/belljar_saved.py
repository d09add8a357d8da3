"""Belljar's snapshots and forks, for bench/belljar_side.py."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import belljar
from belljar.base.home import state_home
from gap import ask, gap_program
from measure import forget
from rounds import Case, Sampler

__all__ = ("Probe", "saved_cases")

_GROWN = 10.0
"""Seconds after which the background has made an image of a snapshot of 200 MB."""


def saved_cases() -> dict[str, Case]:
    return {
        "memory": _memory,
        "files": _files,
        "grown": _grown,
        "fork": lambda: _fork(20, None),
        "disk 0.1": lambda: _fork(5, 0.1),
        "disk 1": lambda: _fork(5, 1),
        "disk 4": lambda: _fork(5, 4),
    }


class Probe:
    """A program inside that is asked again and again: how long did it not answer, how long did it not run?

    `pause` and `gap` are seconds, the longest within the last `watching`.
    """

    def __init__(self, sandbox: belljar.Sandbox, mib: int, *, ticking: bool = True) -> None:
        self.process = sandbox.popen(["/usr/bin/python3", "-S", "-E", "-c", gap_program(mib, ticking=ticking)])
        self.pause = self.gap = 0.0
        answer(self.process)

    @contextmanager
    def watching(self) -> Iterator[None]:
        end = threading.Event()

        def watch() -> None:
            answer(self.process)
            self.pause = self.gap = 0.0
            begun.set()
            while not end.wait(0.002):
                started = time.perf_counter()
                gap = answer(self.process)
                self.pause = max(self.pause, time.perf_counter() - started)
                self.gap = max(self.gap, gap / 1e3)

        begun = threading.Event()
        thread = threading.Thread(target=watch)
        thread.start()
        begun.wait(30)
        try:
            time.sleep(0.05)
            yield
            time.sleep(0.05)
        finally:
            end.set()
            thread.join(60)


def answer(process: belljar.Process) -> float:
    assert process.stdin
    return ask(process.stdin, process.stdout)


@contextmanager
def _memory() -> Iterator[Sampler]:
    """64 MiB of a program's heap on the disk, and sandboxes that go on from there."""
    with belljar.Sandbox.create(image="base") as sandbox:
        probe = Probe(sandbox, 64)

        def sample() -> dict[str, float]:
            started = time.perf_counter()
            snapshot = sandbox.snapshot(memory=True)
            durable = time.perf_counter() - started
            with probe.watching():
                sandbox.snapshot(memory=True).delete()
            found = {
                "memory snapshot 64 MiB, until durable": durable,
                "memory snapshot 64 MiB, pause of the source": probe.pause,
                "memory snapshot 64 MiB, longest gap inside": probe.gap,
            }
            for row, cold in (
                ("create from memory snapshot 64 MiB + answer", False),
                ("the same, its files not in the page cache", True),
            ):
                if cold:
                    forget(state_home(), snapshot.id)
                started = time.perf_counter()
                copy = belljar.Sandbox.create(image=snapshot)
                answer(copy.process(probe.process.pid))
                found[row] = time.perf_counter() - started
                copy.terminate()
            snapshot.delete()
            return found

        yield sample


@contextmanager
def _files() -> Iterator[Sampler]:
    """What changed on the image, and sandboxes that boot with it."""
    sizes = {10: belljar.Sandbox.create(image="base"), 200: belljar.Sandbox.create(image="base")}
    for size, sandbox in sizes.items():
        sandbox.run(f"head -c {size}000000 /dev/urandom > /root/changed", check=True)

    def sample() -> dict[str, float]:
        found: dict[str, float] = {}
        for size, sandbox in sizes.items():
            started = time.perf_counter()
            snapshot = sandbox.snapshot()
            found[f"filesystem snapshot, {size} MB changed"] = time.perf_counter() - started
            started = time.perf_counter()
            _echo(snapshot)
            found[f"create from filesystem snapshot {size} MB + echo, at once"] = time.perf_counter() - started
            if size == 200:
                time.sleep(_GROWN)
                started = time.perf_counter()
                _echo(snapshot)
                found["create from filesystem snapshot 200 MB + echo, later"] = time.perf_counter() - started
            snapshot.delete()
        return found

    yield sample
    for sandbox in sizes.values():
        sandbox.terminate()


@contextmanager
def _grown() -> Iterator[Sampler]:
    """10 MB more each time in a sandbox that wrote 1 GB before."""
    with belljar.Sandbox.create(image="base") as sandbox:
        sandbox.run("head -c 1000000000 /dev/urandom > /root/written; sync", check=True, timeout=120)

        def sample() -> dict[str, float]:
            sandbox.run("head -c 10000000 /dev/urandom > /root/changed", check=True)
            started = time.perf_counter()
            snapshot = sandbox.snapshot()
            took = time.perf_counter() - started
            snapshot.delete()
            return {"filesystem snapshot, 10 MB changed after 1 GB": took}

        yield sample


@contextmanager
def _fork(count: int, gigabytes: float | None) -> Iterator[Sampler]:
    row = f"fork into {count}" + (f", {gigabytes:g} GB on disk" if gigabytes is not None else "")
    with belljar.Sandbox.create(image="base") as sandbox, belljar.Sandbox.create(image="base") as watched:
        # The copies of one that ticks tick too, and take half the machine with it.
        still, probe = Probe(sandbox, 1, ticking=False), Probe(watched, 1)
        for one in (sandbox, watched) if gigabytes is not None else ():
            size = round(gigabytes * 1e9)
            one.run(f"head -c {size} /dev/urandom > /root/written", check=True, timeout=600)

        def sample() -> dict[str, float]:
            started = time.perf_counter()
            children = sandbox.fork(count)
            forked = time.perf_counter() - started
            with ThreadPoolExecutor(4) as threads:
                list(threads.map(lambda child: answer(child.process(still.process.pid)), children))
                answered = time.perf_counter() - started
                list(threads.map(lambda child: child.terminate(), children))
                with probe.watching():
                    children = watched.fork(count)
                list(threads.map(lambda child: child.terminate(), children))
            return {
                row: forked,
                f"{row}, and each has answered": answered,
                f"{row}, pause of the source": probe.pause,
                f"{row}, longest gap inside the source": probe.gap,
            }

        yield sample


def _echo(snapshot: Any) -> None:
    sandbox = belljar.Sandbox.create(image=snapshot)
    sandbox.run(["/bin/echo", "hi"], check=True)
    with suppress(belljar.Error):
        sandbox.terminate()
