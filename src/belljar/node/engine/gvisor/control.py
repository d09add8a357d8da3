"""Calls to a sandbox's kernel over its control socket: one JSON object each way, descriptors beside the first byte.

The kernel process is the first thing that an attacker inside would own, so its answers are bounded, parsed as plain JSON,
and descriptors that it sends are dropped by the host's kernel unread.
"""

import array
import asyncio
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from belljar.model.errors import DeadlineExceeded, EngineFailed

__all__ = ("MAX_ANSWER", "MAX_SOCKET_PATH", "Json", "KernelGone", "KernelRefused", "call")

Json = object
MAX_ANSWER = 1 << 20
MAX_SOCKET_PATH = 107
_PIECE = 64 << 10
_WORDS_KEPT = 2000


class KernelGone(EngineFailed):
    """Nobody answers on the control socket any more."""


class KernelRefused(EngineFailed):
    """The kernel answered that it did not do it; the message has its words."""


async def call(
    path: Path, method: str, argument: Json = None, *, descriptors: Sequence[int] = (), timeout: float
) -> Json:
    """One call on a connection of its own: the kernel drops its connections at every restore and checkpoint.

    `descriptors` are lent for the call. Raises KernelGone, KernelRefused, DeadlineExceeded, and EngineFailed for an answer
    that is none. After a deadline the kernel may still do what it was asked.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        async with asyncio.timeout(timeout):
            loop = asyncio.get_running_loop()
            try:
                await loop.sock_connect(connection, str(path))
                await _send(connection, method, argument, descriptors)
                answer = await _receive(connection, method)
            except OSError as error:
                raise KernelGone(f"{method}: the kernel does not answer ({error.strerror or error})") from error
    except TimeoutError as error:
        raise DeadlineExceeded(f"{method}: the kernel gave no answer within {timeout:g} s") from error
    finally:
        connection.close()
    if answer.get("success") is not True:
        raise KernelRefused(f"{method}: {str(answer.get('err') or 'refused')[:_WORDS_KEPT]}")
    return answer.get("result")


async def _send(connection: socket.socket, method: str, argument: Json, descriptors: Sequence[int]) -> None:
    data = json.dumps({"method": method, "arg": {} if argument is None else argument}).encode()
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())] if descriptors else []
    # A fresh connection has room for the first bytes, so this never meets a full buffer.
    sent = connection.sendmsg([data], ancillary)
    if sent < len(data):
        await asyncio.get_running_loop().sock_sendall(connection, data[sent:])


async def _receive(connection: socket.socket, method: str) -> dict[str, Json]:
    loop = asyncio.get_running_loop()
    buffer = bytearray()
    while piece := await loop.sock_recv(connection, _PIECE):
        buffer += piece
        if len(buffer) > MAX_ANSWER:
            raise EngineFailed(f"{method}: the kernel's answer is longer than {MAX_ANSWER} bytes")
        # There is no length in front: an answer is complete when it parses, and only then can it end so.
        if not buffer.rstrip().endswith(b"}"):
            continue
        try:
            answer = cast("Json", json.loads(buffer))
        except RecursionError as error:
            raise EngineFailed(f"{method}: the kernel's answer is nested too deep") from error
        except ValueError:
            continue
        if not isinstance(answer, dict):
            raise EngineFailed(f"{method}: the kernel's answer is not an object")
        return cast("dict[str, Json]", answer)
    raise KernelGone(f"{method}: the kernel closed the connection without an answer")
