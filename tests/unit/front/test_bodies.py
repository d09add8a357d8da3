"""Big bodies: text passes, however it looks; what is no text does not."""

import json

import pytest

from belljar.front.native.bodies import check_mostly_text
from belljar.model.errors import InvalidArgument

MIB = 1 << 20


@pytest.mark.parametrize(
    "text", ["a" * 3 * MIB, "[{," * MIB, '"' * MIB, "\\" * MIB, '\\"[' * MIB, "\n" * MIB, "\udcff" * MIB, "日本" * MIB]
)
def test_text_passes_whatever_it_holds(text: str) -> None:
    env = {f"E{n}": "," for n in range(512)}
    check_mostly_text(json.dumps({"key": "k", "code": text, "env": env}, indent=4).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 2 * MIB,
        b'{"a":' * MIB,
        b"[" + b'"",' * MIB,
        b'["' + b"a" * MIB + b'",' + b"1," * MIB,
        b'"' * 2 * MIB + b"," * MIB,
        b'"open' + b"," * 2 * MIB,
    ],
)
def test_what_is_more_than_text_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidArgument, match="few fields"):
        check_mostly_text(body)


def test_a_small_body_is_not_looked_at() -> None:
    check_mostly_text(b"[" * MIB)
