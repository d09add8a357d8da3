"""Frames: the golden bytes, every way to cut them, and what is no frame."""

import json
import struct
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.wire.faults import WireFault
from belljar.wire.frames import FRAME_OVERHEAD, MAX_PAYLOAD, PAD, Frame, Kind, Parser, WelcomeSearch, encode

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())["frames"]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_a_frame_has_its_golden_bytes_and_comes_back(case):
    payload = case["payload"].encode()
    data = encode(case["kind"], case["stream"], case["offset"], payload, case["more"])
    assert data.hex() == case["bytes"]
    assert Parser(strict=True).feed(bytes.fromhex(case["bytes"])) == [
        Frame(case["kind"], case["stream"], case["offset"], payload, case["more"])
    ]


def test_the_layout_is_what_the_document_says():
    data = encode(Kind.DATA, 0x01020304, 0x0102030405060708, b"xyz", True)
    head = bytes.fromhex("b34a018501020304010203040506070800000003")
    check = zlib.crc32(head)
    assert data == head + struct.pack(">I", check) + b"xyz" + struct.pack(">I", check ^ 0xFFFFFFFF)


def test_a_payload_beyond_the_bound_is_refused():
    with pytest.raises(ValueError, match="65536"):
        encode(Kind.DATA, 1, 0, bytes(MAX_PAYLOAD + 1))


frames = st.builds(
    Frame,
    st.integers(1, 11),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, (1 << 64) - 1),
    st.binary(max_size=300),
    st.booleans(),
)


def bytes_of(frame: Frame) -> bytes:
    return encode(frame.kind, frame.stream, frame.offset, frame.payload, frame.more)


@given(st.lists(frames, max_size=8), st.lists(st.integers(1, 40), min_size=1))
def test_frames_come_back_however_the_bytes_are_cut(wanted, cuts):
    data = b"".join(map(bytes_of, wanted))
    parser, got, at, turn = Parser(strict=True), [], 0, 0
    while at < len(data):
        step = cuts[turn % len(cuts)]
        got += parser.feed(data[at : at + step])
        at, turn = at + step, turn + 1
    assert got == wanted


@given(st.lists(st.one_of(frames, st.binary(max_size=200)), max_size=10))
def test_frames_are_found_between_noise(pieces):
    """Noise may swallow a frame only if it looks like a frame's header itself, which random bytes do not."""
    parser = Parser(strict=False)
    data = b"".join(bytes_of(piece) if isinstance(piece, Frame) else piece.replace(b"\xb3", b"") for piece in pieces)
    assert parser.feed(data) == [piece for piece in pieces if isinstance(piece, Frame)]


@pytest.mark.parametrize("written", [0, 1, 2, 10, 23, 24, 25, 1000, 65_563])
def test_the_pad_completes_what_a_dead_server_left(written):
    half = encode(Kind.DATA, 5, 0, bytes(range(256)) * 256)[:written]
    hello = encode(Kind.HELLO, 0, 0, b"{}")
    parser = Parser(strict=False)
    assert parser.feed(half + PAD + hello) == [Frame(Kind.HELLO, 0, 0, b"{}")]


def test_a_payload_is_never_read_as_frames():
    """A file that is being uploaded may hold forged frames; they must not run when its frame was cut short."""
    forged = encode(Kind.REQUEST, 1, 0, b'{"op":"start","args":{"argv":["evil"]}}')
    half = encode(Kind.DATA, 5, 0, forged * 900)[:50_000]
    hello = encode(Kind.HELLO, 0, 0, b"{}")
    assert Parser(strict=False).feed(half + PAD + hello) == [Frame(Kind.HELLO, 0, 0, b"{}")]


@pytest.mark.parametrize(
    "wrong",
    [
        b"x" + encode(Kind.PING),
        encode(Kind.PING)[:-1] + b"\0" + encode(Kind.PING),
        b"\xb3\x4a\x02" + encode(Kind.PING)[3:],
        encode(Kind.PING)[:16] + struct.pack(">I", MAX_PAYLOAD + 1) + bytes(8),
    ],
    ids=["noise", "trailer", "framing", "length"],
)
def test_a_strict_parser_takes_no_noise(wrong):
    with pytest.raises(WireFault):
        Parser(strict=True).feed(wrong)


def test_a_parser_holds_no_more_than_one_frame():
    parser = Parser(strict=False)
    noise = encode(Kind.DATA, 1, 0, bytes(MAX_PAYLOAD))[:-1]
    for _ in range(50):
        parser.feed(noise)
        parser.feed(b"\xb3" * 1000)
        assert len(parser._buffer) <= MAX_PAYLOAD + FRAME_OVERHEAD


def test_a_welcome_is_found_in_the_middle_of_a_forged_frame():
    nonce = b"0123456789abcdef0123456789abcdef"
    welcome = encode(Kind.WELCOME, 0, 0, b'{"nonce":"' + nonce + b'"}')
    forged = encode(Kind.DATA, 1, 0, bytes(60_000))[:24]
    other = encode(Kind.WELCOME, 0, 0, b'{"nonce":"ffff"}')
    cut = encode(Kind.WELCOME, 0, 0, bytes(4000))[:24]
    search = WelcomeSearch(nonce)
    assert search.feed(b"junk" + forged + other + cut) is None
    assert search.feed(welcome + b"rest") == (b'{"nonce":"' + nonce + b'"}', b"rest")


@given(st.lists(st.binary(max_size=400), max_size=20), st.integers(1, 50))
def test_a_search_stays_small_and_finds_it_in_any_pieces(noise, cut):
    nonce = b"0123456789abcdef0123456789abcdef"
    payload = b'{"nonce":"' + nonce + b'"}'
    data = b"\xb3\x4a".join(noise) + encode(Kind.WELCOME, 0, 0, payload) + b"!"
    search = WelcomeSearch(nonce)
    for at in range(0, len(data), cut):
        found = search.feed(data[at : at + cut])
        assert len(search._buffer) < 5000
        if found is not None:
            assert found[0] == payload
            return
    raise AssertionError("not found")


def test_big_frames_are_parsed_faster_than_pipes_carry_them():
    block = encode(Kind.DATA, 1, 0, bytes(MAX_PAYLOAD)) * 16
    best = 0.0
    for _ in range(5):
        parser, begin, count = Parser(strict=True), time.perf_counter(), 0
        for _ in range(16):
            for at in range(0, len(block), 262_144):
                count += len(parser.feed(memoryview(block)[at : at + 262_144]))
        best = max(best, count * MAX_PAYLOAD / (time.perf_counter() - begin))
    assert count == 256
    assert best > 1e9, f"{best / 1e9:.2f} GB/s"
