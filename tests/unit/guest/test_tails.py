"""The end of what processes wrote, as it passes through, and of a guest that is about to end."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from belljar.model.errors import SandboxGone
from belljar.model.process import Output, OutputEvent, ProcessInfo, Stream, StreamState, Tail
from belljar.node.guest.api import GuestApi
from belljar.node.guest.tails import NEWEST, TAIL, Tails, last_words


def process(id: int = 1, stdout: int = 0, stderr: int = 0) -> ProcessInfo:
    return ProcessInfo(
        id, 100 + id, ("sh",), "root", 1.0, stdout=StreamState(end=stdout), stderr=StreamState(end=stderr)
    )


def wrote(tails: Tails, offset: int, data: bytes, *, id: int = 1, stream: Stream = Stream.STDOUT) -> None:
    tails.wrote(id, Output(stream, offset, data))


def test_each_stream_has_its_end() -> None:
    tails = Tails()
    tails.know(process())
    wrote(tails, 0, b"out")
    wrote(tails, 0, b"err", stream=Stream.STDERR)
    wrote(tails, 3, b"put")
    wrote(tails, 0, b"of nobody", id=2)
    assert tails.all() == [Tail(process(), False, b"output", b"err")]


def test_what_is_read_again_counts_once_and_what_is_missing_leaves_no_seam() -> None:
    tails = Tails()
    tails.know(process())
    wrote(tails, 0, b"abc")
    wrote(tails, 0, b"abcd")
    wrote(tails, 1, b"bc")
    assert tails.all()[0].stdout == b"abcd"
    wrote(tails, 10, b"later")
    assert tails.all()[0].stdout == b"later"


@pytest.mark.parametrize("piece", [1, 1000, TAIL - 1, TAIL, TAIL + 1, 5 * TAIL])
def test_memory_is_bounded_whatever_the_size_of_a_piece(piece: int) -> None:
    tails = Tails()
    tails.know(process())
    whole = bytes(range(256)) * (8 * TAIL // 256)
    for at in range(0, len(whole), piece) if piece > 1 else range(3000):
        wrote(tails, at, whole[at : at + piece])
    assert len(tails._known[1].tails[Stream.STDOUT].data) <= 2 * TAIL
    assert tails.all()[0].stdout == (whole if piece > 1 else whole[:3000])[-TAIL:]


def test_only_the_newest_processes_are_known() -> None:
    tails = Tails()
    for id in range(NEWEST + 5):
        tails.know(process(id))
        wrote(tails, 0, b"x", id=id)
    assert [tail.process.id for tail in tails.all()] == list(range(5, NEWEST + 5))
    tails.know(replace(process(7), returncode=3))
    tails.know(process(7))
    assert next(tail for tail in tails.all() if tail.process.id == 7).process.returncode == 3


class Guest:
    """An agent with these processes; `slow` seconds for each answer, or dead."""

    def __init__(self, outputs: dict[int, bytes], *, slow: float = 0.0, dead: bool = False) -> None:
        self.outputs = outputs
        self.slow = slow
        self.dead = dead
        self.asked: list[int] = []

    async def processes(self) -> list[ProcessInfo]:
        await asyncio.sleep(self.slow)
        if self.dead:
            raise SandboxGone("it is dead")
        return [process(id, len(data)) for id, data in self.outputs.items()]

    async def output(self, ref: int, offsets: Mapping[Stream, int]) -> AsyncGenerator[OutputEvent, None]:
        self.asked.append(ref)
        await asyncio.sleep(self.slow)
        yield Output(Stream.STDOUT, offsets[Stream.STDOUT], self.outputs[ref][offsets[Stream.STDOUT] :])


async def words(guest: Guest, tails: Tails, read: tuple[int, ...] = (), **more: Any) -> dict[int, bytes]:
    said = {"ask": True, "seconds": 0.25} | more
    found = await last_words(cast(GuestApi, guest), tails, lambda id: id in read, **said)
    return {tail.process.id: tail.stdout for tail in found}


async def test_the_agent_is_asked_only_for_what_did_not_pass_through() -> None:
    tails = Tails()
    for id in (1, 2):
        tails.know(process(id))
        wrote(tails, 0, b"seen", id=id)
    guest = Guest({1: b"seen", 2: b"seen and more", 3: b"detached", 4: b"", 5: b"read"})
    found = await words(guest, tails, read=(5,))
    assert found == {1: b"seen", 2: b"seen and more", 3: b"detached", 4: b""}
    assert guest.asked == [2, 3]


@pytest.mark.parametrize(("more", "ask"), [({"slow": 60.0}, True), ({"dead": True}, True), ({"slow": 60.0}, False)])
async def test_an_agent_that_is_silent_or_dead_holds_nothing_up(more: dict[str, Any], ask: bool) -> None:
    tails = Tails()
    tails.know(process())
    wrote(tails, 0, b"the last words")
    began = time.monotonic()
    assert await words(Guest({1: b"the last words and more"}, **more), tails, ask=ask) == {1: b"the last words"}
    assert time.monotonic() - began < 5


async def test_a_command_of_megabytes_is_cut() -> None:
    tails = Tails()
    tails.know(replace(process(), argv=("sh", "-c", "x" * (2 << 20), *["y"] * 100_000)))
    (tail,) = await last_words(cast(GuestApi, Guest({})), tails, lambda _: False, ask=False, seconds=1.0)
    assert sum(map(len, tail.process.argv)) <= 4096
    assert tail.process.argv[:2] == ("sh", "-c")
