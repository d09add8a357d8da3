"""Messages: JSON objects, over several frames where one is too small."""

from __future__ import annotations

from belljar.wire.faults import WireFault
from belljar.wire.frames import MAX_PAYLOAD, Frame, encode
from belljar.wire.text import read_json, write_json

TYPE_CHECKING = False  # `typing` costs the agent milliseconds at its start
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]

__all__ = ("MAX_MESSAGE", "Assembler", "dump", "frames_of", "load")

MAX_MESSAGE = 8 << 20


def dump(value: Message) -> bytes:
    """Names that are not UTF-8 (lone surrogates) come through, because all that is not ASCII is escaped."""
    return write_json(value).encode()


def load(payload: bytes) -> Message:
    """Raises WireFault for anything but a JSON object."""
    try:
        value: object = read_json(payload.decode()) if payload else {}
    except (ValueError, RecursionError) as error:
        raise WireFault("a message that is no JSON") from error
    if not isinstance(value, dict):
        raise WireFault("a message that is no JSON object")
    return value  # pyright: ignore[reportUnknownVariableType]


def frames_of(kind: int, stream: int, payload: bytes, offset: int = 0) -> list[bytes]:
    """The encoded frames of one message. Raises ValueError beyond `MAX_MESSAGE`."""
    if len(payload) > MAX_MESSAGE:
        raise ValueError(f"a message has at most {MAX_MESSAGE} bytes")
    if len(payload) <= MAX_PAYLOAD:
        return [encode(kind, stream, offset, payload)]
    view = memoryview(payload)
    last = (len(payload) - 1) // MAX_PAYLOAD
    return [
        encode(kind, stream, offset, view[at * MAX_PAYLOAD : (at + 1) * MAX_PAYLOAD], more=at < last)
        for at in range(last + 1)
    ]


class Assembler:
    """Puts messages together. The frames of one message follow each other with nothing between, so one is held at most."""

    __slots__ = ("_first", "_parts", "_size")

    def __init__(self) -> None:
        self._first: Frame | None = None
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def busy(self) -> bool:
        """A message is unfinished."""
        return self._first is not None

    def add(self, frame: Frame) -> bytes | None:
        """The whole payload when `frame` completes a message. Raises WireFault for mixed or too long ones."""
        first = self._first
        if first is None:
            if not frame.more:
                return frame.payload
            self._first = frame
        elif frame.kind != first.kind or frame.stream != first.stream:
            raise WireFault("a message was interrupted by another frame")
        if not frame.payload:
            raise WireFault("an empty part of a message")
        self._size += len(frame.payload)
        if self._size > MAX_MESSAGE:
            raise WireFault(f"a message beyond {MAX_MESSAGE} bytes")
        self._parts.append(frame.payload)
        if frame.more:
            return None
        whole = b"".join(self._parts)
        self.clear()
        return whole

    def clear(self) -> None:
        """Forgets what is unfinished."""
        self._first = None
        self._parts = []
        self._size = 0
