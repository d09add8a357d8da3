"""The server's own connections to sandboxes: the rules let no others pass."""

import asyncio
import socket

from belljar.node.net.rules import DIAL_PRIORITY

__all__ = ("dial",)


async def dial(address: str, port: int, *, timeout: float) -> socket.socket:
    """A non-blocking TCP connection to a port of the guest at `address`; the caller closes it.

    `timeout` in seconds. Raises TimeoutError, ConnectionRefusedError, OSError.
    """
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, DIAL_PRIORITY)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(connection, (address, port))
    except BaseException:
        connection.close()
        raise
    return connection
