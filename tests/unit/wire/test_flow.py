"""Messages over several frames, the order of what is sent, and credit in both directions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from belljar.wire.faults import WireFault
from belljar.wire.frames import MAX_PAYLOAD, Frame, Kind, Parser, encode
from belljar.wire.inflow import InStream
from belljar.wire.messages import MAX_MESSAGE, Assembler, dump, frames_of, load
from belljar.wire.outbox import BufferedOut, Outbox
from belljar.wire.text import _slow, read_json, write_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def sent(outbox: Outbox, count: int | None = None) -> list[Frame]:
    """Takes `count` frames (or all) out of it, one at a time as a slow pipe would."""
    frames: list[Frame] = []
    while count is None or len(frames) < count:
        buffers = outbox.buffers(1)
        if not buffers:
            break
        data = bytes(buffers[0])
        outbox.wrote(len(data))
        frames += Parser(strict=True).feed(data)
    return frames


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=3))
def test_the_quick_json_is_the_usual_json(value):
    read, write = _slow()
    assert read_json(write(value)) == value
    assert read(write_json(value)) == value
    assert load(dump(value)) == value


@pytest.mark.parametrize(
    "text", ["", " ", "{", "[1,]", "{} {}", "NaN", '{"a":Infinity}', '"\\ud800', "1" * 5000, "nul"]
)
def test_what_is_no_json_is_refused(text):
    for read in (read_json, _slow()[0]):
        with pytest.raises(ValueError):
            read(text)


@pytest.mark.parametrize("payload", [b"[]", b"1", b"\xff", b"{", b"[" * 100_000])
def test_a_message_is_an_object(payload):
    with pytest.raises(WireFault):
        load(payload)


def test_names_that_are_not_utf8_come_through():
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert load(dump({"path": name}))["path"].encode("utf-8", "surrogateescape") == b"caf\xe9"


@pytest.mark.parametrize("size", [0, 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD, MAX_MESSAGE])
def test_a_message_of_any_size_comes_whole(size):
    payload, assembler, got = bytes(size), Assembler(), []
    for frame in Parser(strict=True).feed(b"".join(frames_of(Kind.REQUEST, 3, payload))):
        whole = assembler.add(frame)
        assert assembler.busy == (whole is None)
        if whole is not None:
            got.append(whole)
    assert got == [payload]
    assert not assembler.busy


def test_a_message_beyond_the_bound_is_refused_on_both_ends():
    with pytest.raises(ValueError, match="at most"):
        frames_of(Kind.REQUEST, 3, bytes(MAX_MESSAGE + 1))
    assembler = Assembler()
    with pytest.raises(WireFault, match="beyond"):
        for _ in range(MAX_MESSAGE // MAX_PAYLOAD + 1):
            assembler.add(Frame(Kind.REQUEST, 3, 0, bytes(MAX_PAYLOAD), True))


def test_parts_of_two_messages_do_not_mix():
    assembler = Assembler()
    assembler.add(Frame(Kind.REQUEST, 3, 0, b"{", True))
    with pytest.raises(WireFault, match="interrupted"):
        assembler.add(Frame(Kind.REQUEST, 4, 0, b"}"))


def test_messages_go_before_waiting_data_and_streams_take_turns():
    outbox = Outbox()
    streams = [BufferedOut(id, outbox, credit=1 << 30) for id in (1, 2, 3)]
    for stream in streams:
        stream.write(bytes(3 * MAX_PAYLOAD))
    first = sent(outbox, 4)
    outbox.message(encode(Kind.PING, 0, 9))
    rest = sent(outbox)
    assert [frame.stream for frame in first] == [1, 2, 3, 1]
    assert rest[0].kind == Kind.PING
    assert [frame.stream for frame in rest[1:]] == [2, 3, 1, 2, 3]


def test_data_waits_for_credit_and_end_comes_after_all_of_it():
    outbox = Outbox()
    stream = BufferedOut(1, outbox)
    stream.write(b"0123456789")
    stream.finish({"x": 1})
    assert sent(outbox) == []
    stream.begin(100, 104)
    assert [(frame.offset, frame.payload) for frame in sent(outbox)] == [(100, b"0123")]
    stream.grant(103)
    assert sent(outbox) == []
    stream.grant(200)
    frames = sent(outbox)
    assert [(frame.kind, frame.offset, frame.payload) for frame in frames] == [
        (Kind.DATA, 104, b"456789"),
        (Kind.END, 110, b'{"x":1}'),
    ]
    assert stream.buffered == 0
    assert sent(outbox) == []


def test_credit_that_came_before_the_answer_is_not_lost():
    outbox = Outbox()
    stream = BufferedOut(1, outbox)
    stream.grant(1000)
    stream.begin(100, 104)
    assert stream.credit == 1000


def test_a_reset_completes_the_frame_that_is_partly_in_the_pipe():
    outbox = Outbox()
    stream = BufferedOut(1, outbox, credit=1 << 30)
    stream.write(bytes(2 * MAX_PAYLOAD))
    outbox.message(encode(Kind.PING, 0, 1))
    outbox.buffers(1 << 20)
    outbox.wrote(10)
    outbox.reset()
    outbox.message(encode(Kind.PONG, 0, 2))
    data = b"".join(outbox.buffers(1 << 20))
    assert data == encode(Kind.PING, 0, 1)[10:] + encode(Kind.PONG, 0, 2)


def test_a_stream_that_waits_for_nobody_costs_no_turn():
    outbox = Outbox()
    idle = [BufferedOut(id, outbox, credit=1 << 20) for id in range(1, 4000)]
    for stream in idle:
        stream.wake()
    assert sent(outbox) == []
    assert not outbox._ready


def test_incoming_data_is_taken_once_and_never_with_a_gap():
    outbox = Outbox()
    stream = InStream(1, outbox, offset=10, window=100)
    assert stream.receive(10, b"abcd") == b"abcd"
    assert stream.receive(8, b"xxab") == b""
    assert stream.receive(12, b"cdef") == b"ef"
    with pytest.raises(WireFault, match="gap"):
        stream.receive(17, b"x")
    with pytest.raises(WireFault, match="credit"):
        stream.receive(16, bytes(95))


def test_credit_is_given_as_the_consumer_takes_bytes():
    outbox = Outbox()
    stream = InStream(1, outbox, window=100)
    stream.receive(0, bytes(100))
    stream.consumed(49)
    assert sent(outbox) == []
    stream.consumed(1)
    assert [(frame.kind, frame.offset) for frame in sent(outbox)] == [(Kind.CREDIT, 150)]
    with pytest.raises(WireFault, match="credit"):
        stream.receive(100, bytes(51))


def test_credit_counts_what_was_waiting_before():
    stream = InStream(1, Outbox(), offset=1000, window=100, waiting=60)
    assert stream.granted == 1040
    full = InStream(1, Outbox(), offset=1000, window=100, waiting=300)
    assert full.granted == 1000


def test_a_floating_stream_may_start_later_but_not_jump_again():
    stream = InStream(1, Outbox(), window=100, floating=True)
    assert stream.receive(500, bytes(100)) == bytes(100)
    with pytest.raises(WireFault):
        stream.receive(700, b"x")
    with pytest.raises(WireFault, match="beyond all"):
        InStream(1, Outbox(), floating=True).receive(1 << 63, b"x")


@given(st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=40)), max_size=30))
def test_whatever_comes_the_bytes_taken_are_in_order_and_within_credit(pieces):
    whole = bytes(range(256)) * 4
    outbox = Outbox()
    stream = InStream(1, outbox, window=64)
    got = b""
    for offset, junk in pieces:
        piece = whole[offset : offset + len(junk)]
        try:
            new = stream.receive(offset, piece)
        except WireFault:
            break
        got += new
        stream.consumed(len(new))
        assert got == whole[: len(got)]
        assert stream.granted - stream.offset <= 64
