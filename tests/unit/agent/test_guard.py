"""The memory guard on a made-up /proc: when it looks, whom it ends, and that it does not end the next one for the same bytes."""

import os
from pathlib import Path

import pytest

from belljar_agent import guard, loop
from belljar_agent.guard import Guard
from belljar_agent.loop import Loop

NOBODY = 4_194_400
"""Beyond all pids, so that a signal reaches nobody."""


class Clock:
    """Stands still but for those who wait by it, so that what a loaded machine takes for a look does not count."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def poll(self, seconds: float) -> list[tuple[int, int]]:
        self.now += seconds
        return []


class World:
    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder
        self.killed: list[int] = []
        self.looks = 0
        self.idle = False
        self.faults: list[BaseException] = []
        self.free(400)
        self.loop = Loop(self.faults.append)
        self.loop._epoll = clock
        self.guard = Guard(
            self.loop,
            os.open(folder, os.O_RDONLY),
            lambda: {1},
            lambda: None,
            lambda pid, tree, name: self.killed.append(pid),
            self._look,
            lambda: self.idle,
            lambda: (512 << 20, self.left),
        )

    def _look(self) -> None:
        self.looks += 1

    def free(self, mebibytes: int) -> None:
        self.left = mebibytes << 20

    def process(self, number: int, mebibytes: int) -> None:
        folder = self.folder / str(NOBODY + number)
        folder.mkdir(exist_ok=True)
        fields = ["S", "1", *["0"] * 19, str(mebibytes << 8)]
        (folder / "stat").write_text(f"{NOBODY + number} (a) b) {' '.join(fields)} 0\n")

    def go_on(self, seconds: float) -> None:
        self.loop._running = True
        self.loop.after(seconds, self.loop.stop)
        self.loop.run()


@pytest.fixture
def world(tmp_path, monkeypatch):
    clock = Clock()
    for module in (guard, loop):
        monkeypatch.setattr(module, "monotonic", clock)
    made = World(tmp_path, clock)
    made.guard.begin()
    yield made
    assert made.faults == []


def test_with_memory_left_it_looks_now_and_then(world):
    world.process(1, 100)
    world.go_on(0.7)
    assert world.killed == []
    assert 2 <= world.looks <= 6


def test_the_less_is_left_the_sooner_it_looks(world):
    world.free(40)
    world.go_on(0.3)
    seen = world.looks
    world.go_on(0.3)
    assert world.looks - seen > 12


def test_the_heaviest_is_ended_once_while_the_kernel_takes_the_memory_back(world):
    world.process(1, 100)
    world.process(2, 300)
    world.free(10)
    world.go_on(0.4)
    assert world.killed == [NOBODY + 2]
    world.go_on(0.4)
    assert world.killed == [NOBODY + 2] * 2


def test_another_bomb_is_not_waited_for(world):
    world.free(14)
    world.process(2, 300)
    world.go_on(0.3)
    world.process(3, 310)
    world.free(-10)
    world.go_on(0.1)
    assert world.killed == [NOBODY + 2, NOBODY + 3]


def test_small_processes_are_left_alone_when_the_memory_is_in_files(world):
    world.process(1, 4)
    world.free(3)
    world.go_on(0.3)
    assert world.killed == []


def test_nobody_looks_while_nothing_runs_until_something_starts(world):
    world.idle = True
    world.go_on(0.5)
    seen = world.looks
    world.go_on(1.2)
    assert world.looks == seen
    world.idle = False
    world.guard.wake()
    world.go_on(0.1)
    assert world.looks == seen + 1


def test_another_limit_is_looked_at_at_once_and_by_one_look_at_a_time(world):
    world.go_on(5)
    before = world.looks
    world.guard._limit = lambda: 110 << 20
    world.process(1, 90)
    world.guard.hurry()
    world.guard.hurry()
    world.go_on(0.05)
    assert world.killed == [NOBODY + 1]
    world.free(512)
    world.go_on(0.7)
    quiet = world.looks
    world.guard._limit = lambda: None
    world.guard.hurry()
    world.go_on(10)
    assert before < quiet
    assert 25 < world.looks - quiet < 45


def test_one_that_is_idle_looks_at_another_limit_once(world):
    world.idle = True
    world.go_on(5)
    before = world.looks
    world.guard.hurry()
    world.go_on(20)
    assert world.looks == before + 1
