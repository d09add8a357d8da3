"""A peer that means harm: any bytes, any frames, a million of them. No hang, no growth, no error but a fault."""

import random
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from belljar.wire.agent import AgentSession
from belljar.wire.faults import WireFault
from belljar.wire.frames import MAX_PAYLOAD, Kind, encode
from belljar.wire.messages import dump
from belljar.wire.server import ServerSession

NONCE = "ab" * 16
ABOUT = {"nonce": NONCE, "version": 1, "agent": "a", "features": [], "started": 0}
WELCOME = encode(Kind.WELCOME, 0, 0, dump(ABOUT))
HELLO = encode(Kind.HELLO, 0, 0, dump({"nonce": NONCE, "version_min": 1, "version_max": 1, "time": 0}))

payloads = st.one_of(
    st.binary(max_size=64),
    st.sampled_from([b"", b"{}", b"[]", b'{"ok":{}}', b'{"error":{}}', b'{"error":{"code":"x","message":"y"}}', b"{"]),
    st.builds(
        lambda op, args: dump({"op": op, "args": args}),
        st.sampled_from(["stat", "start", ""]),
        st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    ),
)
wild_frames = st.builds(
    encode,
    st.integers(0, 127),
    st.one_of(st.integers(0, 12), st.integers(0, 0xFFFFFFFF)),
    st.one_of(st.integers(0, 200), st.integers(0, (1 << 64) - 1)),
    payloads,
    st.booleans(),
)
wild = st.lists(st.one_of(wild_frames, st.binary(max_size=50), st.just(HELLO), st.just(WELCOME)), max_size=25)


def busy_server() -> ServerSession:
    server = ServerSession(NONCE, now=0)
    server.receive(WELCOME, 0)
    for _ in range(3):
        server.request("stat", {"path": "/"})
        server.open_in(window=100, floating=True)
        server.open_out().begin(0, 100)
    return server


def busy_agent() -> AgentSession:
    agent = AgentSession("a", [], 0)
    agent.receive(HELLO)
    for stream in (1, 2, 3):
        agent.open_out(stream, lambda limit: b"x" * min(limit, 5), window=50)
        agent.open_in(stream + 3, window=100)
    return agent


@settings(max_examples=150)
@given(wild)
def test_a_server_raises_nothing_but_a_fault(pieces):
    server = busy_server()
    try:
        for piece in pieces:
            server.receive(piece, 1)
            server.wrote(sum(map(len, server.buffers())))
    except WireFault:
        pass
    server.tick(2)


@settings(max_examples=150)
@given(wild)
def test_an_agent_raises_nothing_and_always_finds_the_next_hello(pieces):
    agent = busy_agent()
    for piece in pieces:
        agent.receive(piece)
        agent.wrote(sum(map(len, agent.buffers())))
    agent.receive(bytes(65_600) + HELLO)
    agent.wrote(0)
    out = b""
    while buffers := agent.buffers():
        out += b"".join(buffers)
        agent.wrote(sum(map(len, buffers)))
    assert out.endswith(WELCOME)


def hostile_frames(seed: int, count: int):
    """Frames that a liar would send, in blocks of bytes."""
    draw = random.Random(seed)
    block: list[bytes] = []
    for _ in range(count):
        kind = draw.randrange(0, 16)
        stream = draw.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, draw.randrange(1 << 32)))
        offset = draw.choice((0, 1, draw.randrange(200), draw.randrange(1 << 64)))
        payload = draw.choice(
            (b"", b"{}", b'{"ok":{}}', b'{"event":"x"}', b"x" * draw.randrange(200), b'{"op":"x","args":{}}', b"{")
        )
        piece = encode(kind, stream, offset, payload, draw.random() < 0.1)
        trick = draw.randrange(40)
        if trick == 0:
            piece = piece[: draw.randrange(len(piece))]
        elif trick == 1:
            piece = bytes(draw.randrange(256) for _ in range(30)) + piece
        elif trick == 2:
            piece = encode(Kind.DATA, 1, 0, bytes(MAX_PAYLOAD))[:24]
        elif trick == 3:
            piece = b"\xb3\x4a" * draw.randrange(100)
        block.append(piece)
        if len(block) == 200:
            yield b"".join(block)
            block = []
    yield b"".join(block)


def survive(count: int) -> None:
    tracemalloc.start()
    try:
        agent = AgentSession("a", [], 0)
        server = busy_server()
        worst = 0
        for number, block in enumerate(hostile_frames(7, count)):
            begin = time.perf_counter()
            for event in agent.receive(block):
                if type(event).__name__ == "Request":
                    agent.refuse(event.id, "not_supported", "no")
            while buffers := agent.buffers():
                agent.wrote(sum(map(len, buffers)))
            if number % 5 == 0:
                agent.receive(bytes(65_600) + HELLO)
            try:
                server.receive(block, 1)
            except WireFault:
                server = busy_server()
            while buffers := server.buffers():
                server.wrote(sum(map(len, buffers)))
            assert time.perf_counter() - begin < 5
            worst = max(worst, tracemalloc.get_traced_memory()[0])
        assert worst < 24 << 20, f"{worst >> 20} MiB"
        assert agent.faults > 0
    finally:
        tracemalloc.stop()


def test_twenty_thousand_hostile_frames_do_no_harm():
    survive(20_000)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_million_hostile_frames_do_no_harm():
    survive(1_000_000)


def test_a_server_that_floods_without_reading_is_not_read_any_more():
    agent = busy_agent()
    for number in range(20_000):
        agent.receive(encode(Kind.REQUEST, number + 100, 0, b'{"op":"x","args":{}}'))
        agent.refuse(number + 100, "internal", "x" * 4000)
        if not agent.reading:
            break
    assert not agent.reading
    assert number < 10_000
    while buffers := agent.buffers():
        agent.wrote(sum(map(len, buffers)))
    assert agent.reading


def test_a_million_pings_in_one_piece_cost_a_bounded_answer():
    agent = busy_agent()
    ping = encode(Kind.PING, 0, 1)
    for _ in range(20):
        agent.receive(ping * 2_000)
    assert sum(map(len, agent._outbox._control)) <= 32 << 20
