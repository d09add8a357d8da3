"""The sizes of docs/kernel.md, and how what is longer is cut."""

from __future__ import annotations

__all__ = (
    "ENDED_KEYS",
    "LATE_CHARACTERS",
    "LINE_BYTES",
    "LINE_IN_BYTES",
    "MAX_CALL",
    "MAX_EVENT",
    "MAX_NAME",
    "MAX_TEXT",
    "OUTPUT_CHARACTERS",
    "VERSION",
    "clip",
)

VERSION = 1
LINE_BYTES = 64 << 10
"""Of a line to the host, its end included."""
LINE_IN_BYTES = 64 << 20
MAX_EVENT = 16 << 20
"""Bytes of one event's JSON."""
MAX_TEXT = 1 << 20
"""Characters of a `text/plain`, an error's value, a traceback."""
MAX_NAME = 128
MAX_CALL = 12 << 20
"""Bytes of a call's payload: with what JSON adds it usually is an event that passes."""
OUTPUT_CHARACTERS = 32 << 10
LATE_CHARACTERS = 64 << 10
ENDED_KEYS = 256


def clip(text: str, limit: int = MAX_TEXT, *, whole: int | None = None) -> str:
    """At most `limit` characters, the note of the cut included. `whole`: its length, where `text` is only the start."""
    length = len(text) if whole is None else whole
    if length <= limit and len(text) <= limit:
        return text
    note = f"\n[cut: the first {limit} of {length} characters]"
    return text[: max(limit - len(note), 0)] + note
