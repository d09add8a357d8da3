"""What a kernel says, from bytes to events: see docs/kernel.md. Nothing of it is believed before it was measured."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from belljar.model.code import MAX_EVENT

__all__ = ("KernelFault", "Lines", "encode_line")

MAX_LINE = 64 << 10
MAX_REQUEST = 64 << 20
_SLACK = 64


class KernelFault(Exception):
    """A kernel said what no honest one says."""


class Lines:
    """Bytes in, events with their size in bytes out. `whole` False: they may begin in the middle of a line."""

    def __init__(self, *, whole: bool) -> None:
        self._rest = bytearray()
        self._skipping = not whole
        self._pieces: list[str] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[tuple[Mapping[str, Any], int]]:
        """Raises KernelFault for a line or an event beyond its bound. A line that is no JSON object is left out."""
        self._rest += data
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        if len(rest) > MAX_LINE + _SLACK:
            raise KernelFault(f"a line has more than {MAX_LINE >> 10} KiB")
        for line in lines:
            if self._skipping:
                self._skipping = False
            elif line:
                found = self._take(bytes(line))
                if found is not None:
                    yield found

    def _take(self, line: bytes) -> tuple[Mapping[str, Any], int] | None:
        if len(line) > MAX_LINE + _SLACK:
            raise KernelFault(f"a line has more than {MAX_LINE >> 10} KiB")
        value = _object_of(line)
        if value is None:
            return None
        if "piece" not in value:
            self._forget()
            return value, len(line)
        piece = value["piece"]
        if not isinstance(piece, str):
            raise KernelFault("a piece that is no text")
        self._pieces.append(piece)
        self._size += len(line)
        if self._size > MAX_EVENT + MAX_EVENT // 4:  # the escapes of a piece within its line
            raise KernelFault(f"an event has more than {MAX_EVENT >> 20} MiB")
        if value.get("more") is True:
            return None
        whole, size = "".join(self._pieces).encode(errors="surrogatepass"), self._size
        self._forget()
        value = _object_of(whole)
        return None if value is None else (value, size)

    def _forget(self) -> None:
        self._pieces.clear()
        self._size = 0


def encode_line(request: Mapping[str, Any]) -> bytes:
    """Raises ValueError beyond 64 MiB."""
    line = json.dumps(request, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_REQUEST:
        raise ValueError(f"a request to a kernel has at most {MAX_REQUEST >> 20} MiB")
    return line


def _object_of(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast(dict[str, Any], value) if isinstance(value, dict) else None
