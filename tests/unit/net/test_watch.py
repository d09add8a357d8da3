"""What counts as somebody else's removal of our rules."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from belljar.node.net.watch import removes


def message(kind: int, body: bytes) -> bytes:
    whole = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body
    return whole + b"\0" * (-len(whole) % 4)


def test_only_removals_from_our_table_count() -> None:
    ours, other = b"\1\0\0\0belljar_abc123\0", b"\1\0\0\0belljar_abc1234\0"
    assert removes(message(0x0A02, ours), "belljar_abc123")
    assert removes(message(0x0A00, other) + message(0x0A05, ours), "belljar_abc123")
    assert not removes(message(0x0A02, other), "belljar_abc123")
    assert not removes(message(0x0A00, ours), "belljar_abc123")  # made, not removed
    assert not removes(message(0x0102, ours), "belljar_abc123")  # of another subsystem


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    removes(data, "belljar_abc123")
