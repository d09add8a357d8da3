"""An agent that lies: a typed failure, within time and within memory."""

import asyncio
import os
import struct
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from belljar.model.errors import DeadlineExceeded, EngineFailed, Internal, SandboxGone
from belljar.model.process import ProcessSpec, Stream
from belljar.node.guest.guest import Guest
from belljar.wire.events import Request
from belljar.wire.frames import Kind, encode
from belljar.wire.messages import dump

from .conftest import PROCESS, Played

SPEC = ProcessSpec(key="k", argv=("true",))


async def drained(events: Any) -> list[Any]:
    return [event async for event in events]


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(1000),
        bytes(1000),
        b"\xb3\x4a" + b"\xff" * 40,
        encode(Kind.DATA, 999, 0, b"for nobody"),
        encode(Kind.RESPONSE, 999, 0, b"{}"),
        encode(Kind.HELLO, 0, 0, b"{}"),
        encode(Kind.PONG, 0, 1 << 40),
        encode(99, 0, 0),
        encode(Kind.EVENT, 0, 0, b"[" * 60_000),
        encode(Kind.EVENT, 0, 0, b'"no object"'),
        encode(Kind.EVENT, 0, 0, b'{"event":"exit","process":{"id":-1}}'),
        encode(Kind.EVENT, 0, 0, b'{"event":"exit"}'),
        encode(Kind.EVENT, 0, 0, b"{", more=True) + encode(Kind.PONG, 0, 0),
        struct.pack(">2sBBIQI", b"\xb3\x4a", 1, 5, 1, 0, 0xFFFFFFFF) + bytes(8),
    ],
)
async def test_what_no_honest_agent_says_ends_the_session_at_once(played: Played, guest: Guest, junk: bytes) -> None:
    waiting = asyncio.create_task(guest.stat("/x"))
    played.on["stat"] = lambda request: None
    await asyncio.sleep(0.01)
    os.write(played.writing, junk)
    async with asyncio.timeout(1):
        with pytest.raises(SandboxGone):
            await waiting
    assert [reason for reason, _ in played.lost] == ["bad_agent"]
    with pytest.raises(SandboxGone):
        await guest.stat("/x")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"path": 1},
        {"path": "/x", "kind": "file", "size": -1},
        {"path": "/x", "kind": "door", "size": 1, "mode": 0, "uid": 0, "gid": 0, "user": "", "group": "", "mtime": 0},
        {"path": "/x", "kind": [], "size": 1},
        {
            "path": "x" * 100_000,
            "kind": "file",
            "size": 1,
            "mode": 0,
            "uid": 0,
            "gid": 0,
            "user": "",
            "group": "",
            "mtime": 0,
        },
        {
            "path": "/x",
            "kind": "file",
            "size": 1e300,
            "mode": 0,
            "uid": 0,
            "gid": 0,
            "user": "",
            "group": "",
            "mtime": 0,
        },
        {
            "path": "/x",
            "kind": "file",
            "size": 1,
            "mode": 0,
            "uid": 0,
            "gid": 0,
            "user": "",
            "group": "",
            "mtime": 10**400,
        },
        {
            "path": "/x",
            "kind": "file",
            "size": True,
            "mode": 0,
            "uid": 0,
            "gid": 0,
            "user": "",
            "group": "",
            "mtime": 0,
        },
    ],
)
async def test_wrong_types_and_ranges_in_an_answer_end_the_session(
    played: Played, guest: Guest, answer: dict[str, Any]
) -> None:
    played.on["stat"] = lambda request: answer
    with pytest.raises(SandboxGone):
        await guest.stat("/x")
    assert [reason for reason, _ in played.lost] == ["bad_agent"]


@pytest.mark.parametrize(
    "change", [{"id": "1"}, {"returncode": 10**9}, {"argv": [1]}, {"argv": ["x" * 99_999]}, {"stdout": []}]
)
async def test_a_process_that_makes_no_sense_ends_the_session(played: Played, guest: Guest, change: Any) -> None:
    played.on["process"] = lambda request: PROCESS | change
    with pytest.raises(SandboxGone):
        await guest.process(1)


async def test_a_list_of_more_than_a_page_ends_the_session(played: Played, guest: Guest) -> None:
    entry = {
        "path": "/x",
        "kind": "file",
        "size": 1,
        "mode": 0,
        "uid": 0,
        "gid": 0,
        "user": "",
        "group": "",
        "mtime": 0,
    }
    played.on["list"] = lambda request: {"entries": [entry] * 1001, "next": None}
    with pytest.raises(SandboxGone):
        await guest.list_directory("/")


async def test_an_agent_cannot_pretend_errors_that_are_not_its_own(played: Played, guest: Guest) -> None:
    def refuse(request: Request) -> None:
        played.session.refuse(request.id, "sandbox_gone", "gone\x1b[31m")

    played.on["stat"] = refuse
    with pytest.raises(Internal) as raised:
        await guest.stat("/x")
    assert "\x1b" not in raised.value.message
    assert not played.lost


async def test_data_beyond_the_credit_ends_the_session(played: Played, guest: Guest) -> None:
    def answer(request: Request) -> dict[str, Any]:
        for part in range(17):
            data = encode(Kind.DATA, request.args["stream"], part << 16, bytes(65536))
            played.session._outbox.message(data)  # pyright: ignore[reportPrivateUsage]
        return {"size": 1}

    played.on["read"] = answer
    with pytest.raises(SandboxGone):
        chunks = guest.read("/x")
        await asyncio.sleep(0)
        await anext(chunks)
        await asyncio.sleep(0.2)
        await anext(chunks)


async def test_a_gap_in_a_stream_ends_the_session(played: Played, guest: Guest) -> None:
    def answer(request: Request) -> dict[str, Any]:
        played.session._outbox.message(encode(Kind.DATA, request.args["stream"], 5, b"x"))  # pyright: ignore[reportPrivateUsage]
        return {"size": 1}

    played.on["read"] = answer
    with pytest.raises(SandboxGone):
        await drained(guest.read("/x"))


async def test_an_upload_that_was_never_taken_so_far_ends_the_session(played: Played, guest: Guest) -> None:
    played.on["write"] = lambda request: {"offset": 1 << 70, "credit": 1 << 71}

    async def nothing() -> AsyncIterator[bytes]:
        yield b"x"

    with pytest.raises(SandboxGone):
        await guest.write("/x", nothing(), upload="u")


async def test_a_silent_agent_is_lost_in_ten_seconds(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("belljar.wire.server.SILENT_AFTER", 0.5)
    monkeypatch.setattr("belljar.wire.server.PING_AFTER", 0.2)
    guest = await played.guest()
    played.deaf = True
    async with asyncio.timeout(5):
        with pytest.raises(SandboxGone):
            await guest.stat("/x")
    assert [reason for reason, _ in played.lost] == ["agent_silent"]


async def test_an_agent_that_is_stopped_on_purpose_may_be_silent(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("belljar.wire.server.SILENT_AFTER", 0.5)
    monkeypatch.setattr("belljar.wire.server.PING_AFTER", 0.2)
    guest = await played.guest()
    guest.stand_still(True)
    played.deaf = True
    await asyncio.sleep(2.5)
    assert not played.lost
    guest.stand_still(False)
    async with asyncio.timeout(5):
        await played.gone.wait()
    await guest.close()


async def test_an_agent_that_never_reads_but_talks_is_lost_too(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("belljar.node.guest.session._UNREAD", 0.5)
    guest = await played.guest()
    played.stop_reading()
    played.on["write"] = lambda request: None
    big = ProcessSpec(key="k", argv=("x" * 1_000_000,))
    waiting = [asyncio.create_task(guest.start(big)) for _ in range(4)]
    async with asyncio.timeout(10):
        while not played.lost:
            os.write(played.writing, encode(Kind.EVENT, 0, 0, b"{}"))
            await asyncio.sleep(0.05)
    assert played.lost[0][0] == "agent_silent"
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, SandboxGone)


async def test_an_agent_that_never_answers_one_request_is_met_by_its_deadline(played: Played, guest: Guest) -> None:
    played.on["configure"] = lambda request: None
    with pytest.raises(DeadlineExceeded):
        await guest.configure(timeout=0.2)
    assert not played.lost


async def test_no_welcome_is_a_deadline(played: Played) -> None:
    played.deaf = True
    with pytest.raises(DeadlineExceeded):
        await played.guest(timeout=0.2)
    assert not played.lost


@pytest.mark.parametrize("junk", [b"\xb3\x4a" * 32768, encode(Kind.WELCOME, 0, 0, bytes(4000)) * 16, bytes(65536)])
async def test_junk_without_end_instead_of_a_welcome_is_met_by_the_deadline(played: Played, junk: bytes) -> None:
    played.deaf = True
    flooding = asyncio.create_task(played.flood(junk, 100_000))
    started = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(DeadlineExceeded):
            await played.guest(timeout=0.5)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
        flooding.cancel()
        await asyncio.wait([flooding])
    assert time.monotonic() - started < 5


async def test_a_welcome_that_is_a_lie_fails_the_opening(played: Played) -> None:
    played.stop_reading()
    opening = asyncio.create_task(played.guest())
    await asyncio.sleep(0.05)
    hello = os.read(played.reading, 1 << 20)
    nonce = hello.split(b'"nonce":"')[1][:32].decode()
    os.write(played.writing, encode(Kind.WELCOME, 0, 0, dump({"nonce": nonce, "version": "one"})))
    with pytest.raises(EngineFailed):
        await opening


async def test_a_never_ending_message_is_cut_at_its_bound(played: Played, guest: Guest) -> None:
    part = encode(Kind.EVENT, 0, 0, bytes(65536), more=True)
    tracemalloc.start()
    try:
        async with asyncio.timeout(20):
            await played.flood(part, 1000)
            await played.gone.wait()
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
    assert played.lost[0][0] == "bad_agent"


@pytest.mark.parametrize(
    "frame",
    [
        encode(Kind.EVENT, 0, 0, b"{}"),
        encode(Kind.PONG, 0, 0),
        encode(Kind.EVENT, 0, 0, b'{"event":"exit","process":' + dump(PROCESS | {"returncode": 0}) + b"}"),
    ],
)
async def test_a_flood_leaves_the_loop_to_others_and_memory_alone(played: Played, guest: Guest, frame: bytes) -> None:
    """A neighbour in the same event loop goes on: its turns stay short."""
    flooding = asyncio.create_task(played.flood(frame * (65536 // len(frame)), 200))
    late: list[float] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + 2
    while loop.time() < end:
        before = loop.time()
        await asyncio.sleep(0.001)
        late.append(loop.time() - before)
    flooding.cancel()
    await asyncio.wait([flooding])
    late.sort()
    assert late[len(late) // 2] < 0.020
    assert late[int(len(late) * 0.95)] < 0.2


async def test_thousands_of_pieces_of_one_byte_cost_what_one_big_piece_does(played: Played, guest: Guest) -> None:
    def answer(request: Request) -> dict[str, Any]:
        asyncio.get_running_loop().create_task(send(request.args["stdout"]))
        return PROCESS

    async def send(stream: int) -> None:
        for start in range(0, 20_000, 1000):
            await played.flood(b"".join(encode(Kind.DATA, stream, at, b"x") for at in range(start, start + 1000)), 1)
        finished.set()

    finished = asyncio.Event()
    played.on["start"] = answer
    events = guest.start_attached(SPEC)
    await anext(events)
    tracemalloc.start()
    try:
        async with asyncio.timeout(30):
            await finished.wait()
        await asyncio.sleep(0.3)
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()
    got = 0
    async with asyncio.timeout(5):
        while got < 20_000:
            event: Any = await anext(events)
            assert event.offset == got
            assert len(event.data) <= 65536
            got += len(event.data)
    await events.aclose()


async def test_a_stream_that_ends_twice_or_ends_for_nobody_is_harmless_or_fatal(played: Played, guest: Guest) -> None:
    streams: list[int] = []

    def answer(request: Request) -> dict[str, Any]:
        streams.append(request.args["stdout"])
        return PROCESS | {"returncode": 0}

    played.on["start"] = answer
    events = guest.start_attached(SPEC)
    await anext(events)
    await events.aclose()
    os.write(played.writing, encode(Kind.END, streams[0], 0, b"{}") * 3)
    played.on["stat"] = lambda request: None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await guest.stat("/x")
    assert not played.lost  # cancelled by us: its frames may still be on their way
    os.write(played.writing, encode(Kind.END, 123_456, 0, b"{}"))
    await asyncio.sleep(0.05)
    assert played.lost


async def test_endings_of_processes_that_nobody_asked_for_are_not_collected(played: Played, guest: Guest) -> None:
    tracemalloc.start()
    try:
        for number in range(1, 2_000):
            event = {"event": "exit", "process": PROCESS | {"id": number, "returncode": 0, "argv": ["x" * 4000]}}
            await played.flood(encode(Kind.EVENT, 0, 0, dump(event)), 1)
        await asyncio.sleep(0.2)
        assert tracemalloc.get_traced_memory()[0] < 4 << 20
    finally:
        tracemalloc.stop()
    assert not played.lost


async def test_closing_ends_everything_that_waits(played: Played, guest: Guest) -> None:
    played.on["start"] = lambda request: PROCESS
    played.on["stat"] = lambda request: None
    events = guest.start_attached(SPEC)
    await anext(events)
    waiting: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(anext(events)),
        asyncio.ensure_future(guest.stat("/x")),
        asyncio.ensure_future(guest.wait(1, timeout=100)),
        asyncio.ensure_future(drained(guest.output(9, {Stream.STDOUT: 0}))),
    ]
    await asyncio.sleep(0.05)
    started = time.monotonic()
    await guest.close(SandboxGone("it was time"))
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, Exception)
    assert isinstance(waiting[0].exception(), SandboxGone)
    assert str(waiting[1].exception()) == "it was time"
    assert time.monotonic() - started < 0.5
    assert not played.lost
