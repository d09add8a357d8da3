"""Sees it when somebody else removes the instance's table: `systemctl restart nftables` flushes every table of the host.

Without its table a sandbox could reach what it must not, so the owner puts it back at once.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Self

__all__ = ("TableWatch", "removes")

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES = 270, 1, 7
_SUBSYSTEM_NFTABLES = 10
_REMOVALS = {2, 5, 8, 11}  # table, chain, rule, set
_HEADER = struct.Struct("=IHHII")


class TableWatch:
    """Calls `on_removed` when a part of the table is removed, by whomever, while the context is entered."""

    def __init__(self, table: str, on_removed: Callable[[], None]) -> None:
        self._table = table
        self._on_removed = on_removed
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        """In a running event loop. Raises OSError."""
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        )
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        asyncio.get_running_loop().add_reader(self._socket, self._readable)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    data = self._socket.recv(1 << 17)
                except BlockingIOError:
                    return
                except OSError:  # more events than the buffer holds: what they said is unknown
                    self._on_removed()
                    continue
                if removes(data, self._table):
                    self._on_removed()


def removes(data: bytes, table: str) -> bool:
    """Whether these netlink messages say that a part of the table went away."""
    name = table.encode() + b"\0"
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return False
        if kind >> 8 == _SUBSYSTEM_NFTABLES and kind & 0xFF in _REMOVALS and name in data[offset : offset + length]:
            return True
        offset += (length + 3) & ~3
    return False
