"""Hostile packets on both sides of the name service."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.node.net.question import MAX_QUERY, BadQuery, Query, is_answer, parse, refusal

NAME = b"\x03www\x07example\x03com\x00"


def packet(
    name: bytes = NAME, *, flags: int = 0x0100, kind: int = 1, group: int = 1, counts: tuple[int, ...] = (1, 0, 0, 0)
) -> bytes:
    return struct.pack(">HHHHHH", 0x1234, flags, *counts) + name + struct.pack(">HH", kind, group)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_question_or_refused_in_form(data: bytes) -> None:
    try:
        query = parse(data)
    except BadQuery as bad:
        if bad.answer is not None:
            assert bad.answer[:2] == data[:2]
            assert bad.answer[2] & 0x80
            assert len(bad.answer) <= len(data)  # nobody is flooded through us
    else:
        assert query.question in data


@given(st.binary(max_size=600), st.integers(0, 0xFFFF))
def test_any_bytes_are_an_answer_or_not(data: bytes, id: int) -> None:
    if is_answer(data, parse(packet()), id):
        assert int.from_bytes(data[:2]) == id


def test_a_plain_question_is_taken_as_it_is_but_for_its_id() -> None:
    query = parse(packet())
    assert query.id == 0x1234
    assert query.with_id(0xBEEF) == b"\xbe\xef" + packet()[2:]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (packet(kind=252), 5),  # a whole zone
        (packet(kind=251), 5),
        (packet(group=3), 5),  # "version.bind"
        (packet(flags=0x2800), 5),  # an update
        (packet(counts=(0, 0, 0, 0)), 1),
        (packet(counts=(2, 0, 0, 0)), 1),
        (packet(counts=(1, 1, 0, 0)), 1),
        (packet(b"\xc0\x0c"), 1),  # compressed onto itself
        (packet(b"\x40" + b"a" * 64 + b"\0"), 1),
        (packet((b"\x3f" + b"a" * 63) * 4 + b"\x00"), 1),  # 257 bytes
        (packet()[:-3], 1),
        (packet()[:14], 1),
        (packet() + b"\0" * MAX_QUERY, 1),
    ],
)
def test_what_is_not_one_plain_question_is_refused(bad: bytes, code: int) -> None:
    with pytest.raises(BadQuery) as caught:
        parse(bad)
    assert caught.value.answer is not None
    assert caught.value.answer[3] & 0xF == code


@pytest.mark.parametrize("mute", [b"", b"\x12\x34\x01\x00", packet(flags=0x8180)])
def test_what_has_no_header_or_is_an_answer_is_not_answered(mute: bytes) -> None:
    with pytest.raises(BadQuery) as caught:
        parse(mute)
    assert caught.value.answer is None


def answer_to(query: Query, id: int, *, question: bytes | None = None, flags: int = 0x8180, count: int = 1) -> bytes:
    return struct.pack(">HHHHHH", id, flags, count, 0, 0, 0) + (query.question if question is None else question)


def test_only_the_answer_to_this_question_under_this_id_is_believed() -> None:
    query = parse(packet())
    assert is_answer(answer_to(query, 7), query, 7)
    assert is_answer(answer_to(query, 7, question=query.question.upper()), query, 7)
    assert is_answer(answer_to(query, 7, question=b"", flags=0x8182, count=0), query, 7)
    assert not is_answer(answer_to(query, 8), query, 7)
    assert not is_answer(answer_to(query, 7, flags=0x0100), query, 7)
    assert not is_answer(answer_to(query, 7, question=query.question.replace(b"www", b"ww2")), query, 7)
    assert not is_answer(answer_to(query, 7, question=b"", count=0), query, 7)
    assert not is_answer(answer_to(query, 7)[:20], query, 7)


def test_a_refusal_repeats_the_question_and_says_why() -> None:
    said = refusal(packet(), 2)
    assert said[:2] == b"\x12\x34"
    assert said[3] & 0xF == 2
    assert said.endswith(packet()[12:])
