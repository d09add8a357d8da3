"""Lines of JSON, both ways: written whole by any thread, longer ones in pieces; read within a bound."""

from __future__ import annotations

import json
import math
import os
import threading
from typing import TYPE_CHECKING, Any, cast

from belljar_kernel.limits import LINE_BYTES, LINE_IN_BYTES, MAX_EVENT

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("TooBig", "Writer", "encode", "read_lines")

# A piece's JSON is put into a string, where quotes and backslashes take two bytes.
_PIECE = LINE_BYTES // 2 - 64
_READ = 1 << 20
_MAX_PIECES = MAX_EVENT + MAX_EVENT // 5
_BROKEN = 74
"""Exit status of a kernel that nobody can hear any more (EX_IOERR)."""


class TooBig(Exception):
    """An event of more than MAX_EVENT bytes, or so full of quotes and backslashes that its pieces are too many."""


def encode(value: dict[str, Any]) -> bytes:
    """JSON in UTF-8. What UTF-8 cannot say becomes ``?``, what JSON cannot say (NaN) null. Raises TooBig, TypeError."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_without_nan(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    data = text.encode("utf-8", "replace")
    # What pieces make of it counts too.
    if len(data) > MAX_EVENT or len(data) + data.count(b'"') + data.count(b"\\") > _MAX_PIECES:
        raise TooBig
    return data


class Writer:
    """The kernel's voice. A kernel whose voice is gone ends at once: nobody would learn what it does."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self.silent = False
        """In a child that the code forked: it does not speak for the kernel."""
        os.register_at_fork(after_in_child=self._silence)

    def send(self, data: bytes) -> None:
        """One encoded object. No other line comes between its pieces."""
        if self.silent:
            return
        with self._lock:
            try:
                for line in _lines(data):
                    _write(self._descriptor, line)
            except OSError:
                os._exit(_BROKEN)

    def _silence(self) -> None:
        self.silent = True


def read_lines(descriptor: int) -> Iterator[dict[str, Any]]:
    """The objects that the host sends, until it closes its end. Other lines, and longer ones, are dropped."""
    kept: list[bytes] = []
    size = 0
    while data := os.read(descriptor, _READ):
        first, *others = data.split(b"\n")
        for index, part in enumerate((first, *others)):
            if index:
                if size <= LINE_IN_BYTES and (found := _object(b"".join(kept))) is not None:
                    yield found
                kept, size = [], 0
            size += len(part)
            if size <= LINE_IN_BYTES:
                kept.append(part)
            else:
                kept.clear()


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _lines(data: bytes) -> Iterator[bytes]:
    if len(data) < LINE_BYTES:
        yield data + b"\n"
        return
    start = 0
    while start < len(data):
        end = min(start + _PIECE, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1  # not inside a character
        piece = {"piece": data[start:end].decode("utf-8"), "more": end < len(data)}
        yield json.dumps(piece, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        start = end


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in cast("list[Any]", value)]
    return value
