"""Messages between the agent and its launcher: a length, marshalled values, and descriptors beside the first byte.

`marshal` is safe here: both ends are one program, and no user code reaches the socket.
"""

from __future__ import annotations

import _socket
import os
from marshal import loads
from struct import Struct, pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator
    from typing import Any
else:
    from _collections import deque

__all__ = ("Receiver", "frame", "rights", "send_all")

_HEAD = Struct(">IB")
_CLOSE_ON_EXEC = 0x4000_0000
_MAX_FDS = 64


def frame(payload: bytes, fds: list[int]) -> bytes:
    """The bytes of a message; `fds` must go beside its first one."""
    return _HEAD.pack(len(payload), len(fds)) + payload


def rights(fds: list[int]) -> list[tuple[int, int, bytes]]:
    """The ancillary data that hands descriptors over."""
    return [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack(f"{len(fds)}i", *fds))] if fds else []


def send_all(link: _socket.socket, payload: bytes, fds: list[int]) -> None:
    """On a blocking socket. Raises OSError when the other end is gone."""
    data = frame(payload, fds)
    sent = link.sendmsg([data], rights(fds))
    if sent < len(data):
        link.sendall(memoryview(data)[sent:])


class Receiver:
    """Puts messages together from what the socket gives."""

    def __init__(self, link: _socket.socket) -> None:
        self._link = link
        self._buffer = bytearray()
        self._fds: deque[int] = deque()

    def receive(self) -> bool:
        """Reads once; False when the other end is gone. Raises BlockingIOError on a socket that never blocks."""
        try:
            data, beside, _, _ = self._link.recvmsg(262_144, _socket.CMSG_SPACE(4 * _MAX_FDS), _CLOSE_ON_EXEC)
        except ConnectionResetError:
            return False
        for level, kind, raw in beside:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                self._fds.extend(unpack(f"{len(raw) // 4}i", raw[: len(raw) // 4 * 4]))
        self._buffer += data
        return bool(data)

    def messages(self) -> Iterator[tuple[tuple[Any, ...], list[int]]]:
        """The messages that are whole now, each with its descriptors, which are the caller's to close."""
        buffer = self._buffer
        while len(buffer) >= _HEAD.size:
            length, count = _HEAD.unpack_from(buffer)
            if len(buffer) < _HEAD.size + length:
                return
            value: tuple[Any, ...] = loads(bytes(memoryview(buffer)[_HEAD.size : _HEAD.size + length]))
            del buffer[: _HEAD.size + length]
            yield value, [self._fds.popleft() for _ in range(count)]

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._link.close()
