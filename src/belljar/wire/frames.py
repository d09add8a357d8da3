"""Frames as bytes: encoding, and a parser that takes bytes as they come. The layout is in docs/wire.md."""

from __future__ import annotations

import struct
from zlib import crc32

from belljar.wire.faults import WireFault

__all__ = (
    "FRAME_OVERHEAD",
    "MAX_PAYLOAD",
    "PAD",
    "Frame",
    "Kind",
    "Parser",
    "WelcomeSearch",
    "encode",
)

MAGIC = b"\xb3\x4a"
FRAMING = 1
"""The version byte of every frame: the layout of frames themselves, not of what they say."""
MORE = 0x80
MAX_PAYLOAD = 65_536
HEADER = 24
FRAME_OVERHEAD = HEADER + 4
PAD = bytes(65_600)
"""More zeros than the longest frame can lack, so that they complete whatever a dead server left half written."""
MAX_WELCOME = 4_096
_MASK = 0xFFFF_FFFF
_PARTS = struct.Struct(">2sBBIQI")
_HEAD = struct.Struct(">2sBBIQII")
_WORD = struct.Struct(">I")


class Kind:
    """The kinds of frames."""

    HELLO = 1
    WELCOME = 2
    REQUEST = 3
    RESPONSE = 4
    DATA = 5
    CREDIT = 6
    END = 7
    EVENT = 8
    CANCEL = 9
    PING = 10
    PONG = 11


class Frame:
    """One frame; `more` says that the message goes on in the next one."""

    __slots__ = ("kind", "more", "offset", "payload", "stream")

    def __init__(self, kind: int, stream: int, offset: int, payload: bytes, more: bool = False) -> None:
        self.kind = kind
        self.stream = stream
        self.offset = offset
        self.payload = payload
        self.more = more

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        more = "+" if self.more else ""
        return f"Frame({self.kind}{more}, stream={self.stream}, offset={self.offset}, {len(self.payload)} bytes)"


def encode(kind: int, stream: int = 0, offset: int = 0, payload: bytes | memoryview = b"", more: bool = False) -> bytes:
    """Raises ValueError for a payload beyond `MAX_PAYLOAD`."""
    length = len(payload)
    if length > MAX_PAYLOAD:
        raise ValueError(f"a frame carries at most {MAX_PAYLOAD} bytes")
    head = _PARTS.pack(MAGIC, FRAMING, kind | MORE if more else kind, stream, offset, length)
    check = crc32(head)
    return b"".join((head, _WORD.pack(check), payload, _WORD.pack(check ^ _MASK)))


class Parser:
    """Frames out of bytes that come in any pieces. Holds at most one unfinished frame.

    `strict`: what is no frame raises WireFault. Otherwise it is thrown away: a frame with a right header and a wrong trailer
    whole, because its payload was written by somebody else and must never be read as frames; after a wrong header the
    search goes on one byte after its magic.
    """

    __slots__ = ("_buffer", "skipped", "strict")

    def __init__(self, *, strict: bool, rest: bytes = b"") -> None:
        self.strict = strict
        self.skipped = 0
        """Bytes thrown away so far."""
        self._buffer = bytearray(rest)

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """The frames that are whole now. Raises WireFault (strict only); the parser must not be used after that."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        at = 0
        end = len(buffer)
        while at < end:
            if buffer[at] != MAGIC[0] or (at + 1 < end and buffer[at + 1] != MAGIC[1]):
                at = self._skip(buffer, at, at, end)
                continue
            if end - at < HEADER:
                break
            _, framing, kind, stream, offset, length, check = _HEAD.unpack_from(buffer, at)
            if framing != FRAMING or length > MAX_PAYLOAD or crc32(buffer[at : at + HEADER - 4]) != check:
                at = self._skip(buffer, at, at + 1, end)
                continue
            body = at + HEADER
            after = body + length + 4
            if after > end:
                break
            if _WORD.unpack_from(buffer, after - 4)[0] != check ^ _MASK:
                at = self._skip(buffer, at, after, end)
                continue
            with memoryview(buffer) as view:
                payload = bytes(view[body : after - 4])
            frames.append(Frame(kind & 0x7F, stream, offset, payload, kind >= MORE))
            at = after
        del buffer[:at]
        return frames

    def _skip(self, buffer: bytearray, at: int, start: int, end: int) -> int:
        """Where the next magic may begin, searched from `start` on."""
        if self.strict:
            raise WireFault("bytes that are no frame")
        found = buffer.find(MAGIC, start)
        if found < 0:
            found = end - 1 if end > start and buffer[-1] == MAGIC[0] else end
        self.skipped += found - at
        return found


class WelcomeSearch:
    """Finds the WELCOME that carries our nonce among whatever the pipe still holds.

    Nothing before it is believed, not even a frame that looks right: the reader may be in the middle of a payload that the
    code in the sandbox wrote. Every magic is looked at, so a forged header can hide nothing. Holds at most a few KiB.
    """

    __slots__ = ("_buffer", "_nonce")

    def __init__(self, nonce: bytes) -> None:
        self._nonce = nonce
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> tuple[bytes, bytes] | None:
        """The payload of the WELCOME and the bytes after it, or None while it has not come."""
        buffer = self._buffer
        buffer += data
        end = len(buffer)
        keep = end
        at = buffer.find(MAGIC)
        while at >= 0:
            if end - at < HEADER:
                keep = min(keep, at)
                break
            _, framing, kind, _, _, length, check = _HEAD.unpack_from(buffer, at)
            if kind == Kind.WELCOME and framing == FRAMING and length <= MAX_WELCOME:
                after = at + HEADER + length + 4
                if crc32(buffer[at : at + HEADER - 4]) == check:
                    if after > end:
                        keep = min(keep, at)
                    elif _WORD.unpack_from(buffer, after - 4)[0] == check ^ _MASK:
                        payload = bytes(buffer[at + HEADER : after - 4])
                        if self._nonce in payload:
                            return payload, bytes(buffer[after:])
            at = buffer.find(MAGIC, at + 1)
        if keep == end and buffer and buffer[-1] == MAGIC[0]:
            keep = end - 1
        del buffer[:keep]
        return None
