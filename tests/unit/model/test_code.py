"""Events as they travel: what was said comes back, and nothing is taken on trust."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.model.code import (
    CodeEvent,
    CodeSpec,
    ContextSpec,
    Done,
    HostCall,
    Printed,
    Raised,
    Shown,
    Status,
    decode_event,
    encode_event,
)
from belljar.model.errors import InvalidArgument
from belljar.model.process import Stream

SEQ = st.integers(1, 1 << 50)
NAME = st.text(min_size=1, max_size=128)
EVENTS = st.one_of(
    st.builds(Printed, SEQ, st.sampled_from(Stream), st.text()),
    st.builds(Shown, SEQ, st.booleans(), st.dictionaries(st.text(max_size=20), st.text()), st.just({"x": [1]})),
    st.builds(HostCall, SEQ, NAME, NAME, st.text()),
    st.builds(Raised, SEQ, st.text(), st.text(), st.text()),
    st.builds(Done, SEQ, st.sampled_from(Status), SEQ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(EVENTS)
def test_an_event_comes_back_as_it_was(event: CodeEvent) -> None:
    assert decode_event(encode_event(event)) == event


@given(
    st.dictionaries(st.sampled_from(["seq", "kind", "text", "main", "data", "call", "name", "payload", "status"]), JSON)
)
def test_anything_else_is_an_event_or_a_value_error(value: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):
        decode_event(value)


def test_what_is_nested_too_deep_is_left_out() -> None:
    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    kinds = {"application/json": deep, "x+json": {"a": [1]}, "text/plain": "t"}
    shown = decode_event({"seq": 1, "kind": "result", "data": kinds, "extra": {"deep": deep}})
    assert shown == Shown(1, False, {"x+json": {"a": [1]}, "text/plain": "t"}, {})


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 65, "a/b", "a\0", "../x"])
def test_names_are_plain(name: str) -> None:
    for make in (lambda: ContextSpec(name), lambda: ContextSpec("a", name), lambda: CodeSpec(name, "")):
        with pytest.raises(InvalidArgument):
            make()
