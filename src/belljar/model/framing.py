"""How a process's output travels in an HTTP body: pieces with a kind, an offset and a length.

``kind`` (1 byte), ``offset`` (8 bytes, big endian), ``length`` (4 bytes), then that many bytes:
1 stdout · 2 stderr · 3 exit (JSON ``{returncode, out_of_memory}``, the last piece) · 4 error (JSON as in the API, the last) ·
5 started (JSON of the process, the first piece of ``run``) · 6 nothing (keeps the connection warm).
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from belljar.model.process import Exit, Output, Stream

__all__ = ("CONTENT_TYPE", "MAX_PIECE", "NOTHING", "Decoder", "Failure", "Piece", "Started", "encode")

CONTENT_TYPE = "application/vnd.belljar.output"
MAX_PIECE = 1 << 20
_HEAD = struct.Struct(">BQI")
_STREAMS = {Stream.STDOUT: 1, Stream.STDERR: 2}
_KINDS = {1: Stream.STDOUT, 2: Stream.STDERR}
NOTHING = _HEAD.pack(6, 0, 0)


@dataclass(frozen=True, slots=True)
class Started:
    """The process, as the API describes it."""

    process: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """The platform failed: an error as the API describes it."""

    error: dict[str, Any]


Piece = Output | Exit | Started | Failure


def encode(piece: Piece) -> bytes:
    match piece:
        case Output(stream, offset, data):
            return _HEAD.pack(_STREAMS[stream], offset, len(data)) + data
        case Exit(returncode, out_of_memory):
            kind, value = 3, {"returncode": returncode, "out_of_memory": out_of_memory}
        case Failure(error):
            kind, value = 4, error
        case Started(process):
            kind, value = 5, process
    body = json.dumps(value).encode()
    return _HEAD.pack(kind, 0, len(body)) + body


class Decoder:
    """Feed it a body as it comes. Raises ValueError for what is no such body."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Piece]:
        """The pieces that are whole now; keep-alives are left out."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            kind, offset, length = _HEAD.unpack_from(self._buffer)
            if kind not in range(1, 7) or length > MAX_PIECE:
                raise ValueError("this is no output of a process")
            end = _HEAD.size + length
            if len(self._buffer) < end:
                return
            body = bytes(memoryview(self._buffer)[_HEAD.size : end])
            del self._buffer[:end]
            if kind in _KINDS:
                yield Output(_KINDS[kind], offset, body)
            elif kind != 6:
                yield self._message(kind, json.loads(body))

    @staticmethod
    def _message(kind: int, value: dict[str, Any]) -> Piece:
        if kind == 3:
            return Exit(int(value["returncode"]), bool(value.get("out_of_memory")))
        return Failure(value) if kind == 4 else Started(value)
