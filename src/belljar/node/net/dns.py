"""The name service of the sandboxes: relays each question to the host's resolvers, which may be private or on loopback.

It keeps no cache and believes nothing: one plain question goes on under a fresh id from a fresh port, one answer to just that
question comes back.
"""

import asyncio
import contextlib
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from types import TracebackType
from typing import Any, Self

from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet
from belljar.node.net.question import MAX_QUERY, SERVER_FAILED, BadQuery, Query, is_answer, parse, refusal
from belljar.node.net.slot import slot_of

__all__ = ("Bounds", "Forwarder")

_log = get_logger("node.net")
_PORTS_TRIED = 20
_Ask = Callable[[tuple[str, int], Query], Coroutine[Any, Any, bytes]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Times in seconds. A question beyond a bound is dropped, as a busy resolver does: the asker asks again."""

    questions: int = 512
    questions_per_slot: int = 64
    connections: int = 128
    connections_per_slot: int = 8
    questions_per_connection: int = 100
    attempt: float = 1.5
    """For one resolver, after which the next one is asked."""
    total: float = 4.5
    """Shorter than the 5 seconds after which a guest's C library asks again."""
    idle: float = 10.0


class Forwarder:
    """Listens at one address for the guests of one block. Opening and closing are cheap; nothing outlives it.

    `port` is the one to have if it is free, else another is picked; 0 has no wish. A successor should ask for the same: the
    kernel sends what belongs to an earlier question to where that went. `upstreams` says which resolvers to ask now
    (address, port); those inside the block are passed over, so that it never asks itself.
    """

    def __init__(
        self,
        block: IPv4Network,
        address: str,
        upstreams: Callable[[], Sequence[tuple[str, int]]],
        *,
        port: int = 0,
        bounds: Bounds = Bounds(),
    ) -> None:
        self._block = block
        self._address = address
        self._port = port
        self._upstreams = upstreams
        self._bounds = bounds
        self._tasks = TaskSet(_log_failure)
        self._asking: Counter[int] = Counter()
        self._connected: Counter[int] = Counter()
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens, the same for UDP and TCP, once open."""
        return self._port

    async def __aenter__(self) -> Self:
        """Raises OSError when it cannot listen."""
        for port in (self._port, *[0] * _PORTS_TRIED):
            with contextlib.suppress(OSError):
                await self._listen(port)
                return self
        await self._listen(0)
        return self

    async def _listen(self, wanted: int) -> None:
        udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Questions(self._question), local_addr=(self._address, wanted)
        )
        port = udp.get_extra_info("sockname")[1]
        try:
            self._tcp = await asyncio.start_server(self._connection, self._address, port, limit=2 * MAX_QUERY)
        except OSError:
            udp.close()  # the port is free for UDP alone
            raise
        self._udp, self._port = udp, port

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._udp is not None:
            self._udp.close()
            self._udp = None
        if self._tcp is not None:
            self._tcp.close()
            self._tcp = None
        await self._tasks.close()

    def _question(self, packet: bytes, source: tuple[str, int]) -> None:
        slot = slot_of(self._block, source[0])
        if slot is None:
            return
        try:
            query = parse(packet)
        except BadQuery as bad:
            self._say(bad.answer, source)
            return
        if self._asking[slot] >= self._bounds.questions_per_slot or self._asking.total() >= self._bounds.questions:
            return
        self._asking[slot] += 1
        self._tasks.start(self._relay(query, slot, source), name="name service: question")

    async def _relay(self, query: Query, slot: int, source: tuple[str, int]) -> None:
        try:
            self._say(await self._resolve(query, _ask_udp), source)
        finally:
            _leave(self._asking, slot)

    def _say(self, answer: bytes | None, source: tuple[str, int]) -> None:
        if answer is not None and self._udp is not None:
            self._udp.sendto(answer, source)

    async def _resolve(self, query: Query, ask: _Ask) -> bytes:
        """The first answer of any resolver, under the query's own id; a refusal when there is none in time."""
        deadline = asyncio.get_running_loop().time() + self._bounds.total
        servers = [server for server in self._upstreams() if not _is_inside(self._block, server[0])]
        for server in servers:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                break
            # The last one may use what is left.
            wait = left if server is servers[-1] else min(left, self._bounds.attempt)
            with contextlib.suppress(OSError, TimeoutError, EOFError):
                async with asyncio.timeout(wait):
                    return query.id.to_bytes(2) + (await ask(server, query))[2:]
        return refusal(query.packet, SERVER_FAILED)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        slot = slot_of(self._block, writer.get_extra_info("peername")[0])
        try:
            if (
                slot is not None
                and self._connected[slot] < self._bounds.connections_per_slot
                and self._connected.total() < self._bounds.connections
            ):
                self._connected[slot] += 1
                try:
                    # Its own task, so that closing the service ends it.
                    await self._tasks.start(self._converse(reader, writer), name="name service: connection")
                finally:
                    _leave(self._connected, slot)
        except asyncio.CancelledError:
            pass
        finally:
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, EOFError):
            for _ in range(self._bounds.questions_per_connection):
                async with asyncio.timeout(self._bounds.idle):
                    length = int.from_bytes(await reader.readexactly(2))
                    if length > MAX_QUERY:
                        return
                    packet = await reader.readexactly(length)
                try:
                    answer = await self._resolve(parse(packet), _ask_tcp)
                except BadQuery as bad:
                    if bad.answer is None:
                        return
                    answer = bad.answer
                async with asyncio.timeout(self._bounds.idle):
                    writer.write(len(answer).to_bytes(2) + answer)
                    await writer.drain()


class _Questions(asyncio.DatagramProtocol):
    def __init__(self, question: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._question = question

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._question(data, addr)


async def _ask_udp(server: tuple[str, int], query: Query) -> bytes:
    """A socket of its own for each question: the kernel picks a random port and lets only this server answer."""
    id = secrets.randbits(16)
    with socket.socket(_family(server[0]), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as upstream:
        upstream.connect(server)
        upstream.send(query.with_id(id))
        while True:
            answer = await asyncio.get_running_loop().sock_recv(upstream, 1 << 16)
            if is_answer(answer, query, id):
                return answer


async def _ask_tcp(server: tuple[str, int], query: Query) -> bytes:
    id = secrets.randbits(16)
    reader, writer = await asyncio.open_connection(*server, family=_family(server[0]))
    try:
        writer.write(len(query.packet).to_bytes(2) + query.with_id(id))
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
    finally:
        writer.transport.abort()
    if not is_answer(answer, query, id):
        raise EOFError("not an answer to this question")
    return answer


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _is_inside(block: IPv4Network, address: str) -> bool:
    return ":" not in address and IPv4Network(address).subnet_of(block)


def _leave(counter: Counter[int], slot: int) -> None:
    counter[slot] -= 1
    if not counter[slot]:
        del counter[slot]


def _log_failure(name: str, error: BaseException) -> None:
    _log.error("a task failed", task=name, exc_info=error)
