"""The name service against resolvers and guests of every kind. Loopback addresses stand in for a block."""

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from belljar.node.net.dns import Bounds, Forwarder
from belljar.node.net.resolvers import Resolvers, parse_resolv_conf

BLOCK = IPv4Network("127.64.0.0/18")
SERVICE = "127.64.0.1"
QUICK = Bounds(attempt=0.2, total=0.5, idle=0.3)


def guest(number: int) -> str:
    return f"127.64.{number * 4 // 256}.{number * 4 % 256 + 2}"


def question(id: int = 0x1234, name: bytes = b"\x07example\x03com\x00") -> bytes:
    return struct.pack(">HHHHHH", id, 0x0100, 1, 0, 0, 0) + name + b"\x00\x01\x00\x01"


def answer(asked: bytes, *, id: int | None = None, address: str = "203.0.113.9") -> bytes:
    head = struct.pack(">HHHHHH", int.from_bytes(asked[:2]) if id is None else id, 0x8180, 1, 1, 0, 0)
    return head + asked[12:] + b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + socket.inet_aton(address)


class Resolver(asyncio.DatagramProtocol):
    """`reply` makes the packets that a question is answered with."""

    def __init__(self, reply: Callable[[bytes], list[bytes]]) -> None:
        self.reply = reply
        self.asked: list[bytes] = []
        self.sources: list[Any] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.asked.append(data)
        self.sources.append(addr)
        for packet in self.reply(data):
            self.transport.sendto(packet, addr)

    async def tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, OSError):
            asked = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            self.asked.append(asked)
            for packet in self.reply(asked):
                writer.write(len(packet).to_bytes(2) + packet)
            await writer.drain()
            await reader.read()  # the asker hangs up
        writer.close()


@contextlib.asynccontextmanager
async def resolver(reply: Callable[[bytes], list[bytes]]) -> AsyncIterator[tuple[Resolver, tuple[str, int]]]:
    fake = Resolver(reply)
    server = await asyncio.start_server(fake.tcp, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: fake, local_addr=("127.0.0.1", port)
    )
    try:
        yield fake, ("127.0.0.1", port)
    finally:
        transport.close()
        server.close()
        await server.wait_closed()


@contextlib.contextmanager
def asker(number: int, port: int) -> Any:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setblocking(False)
        made.bind((guest(number), 0))
        made.connect((SERVICE, port))
        yield made


async def ask(number: int, port: int, packet: bytes, timeout: float = 2.0) -> bytes:
    with asker(number, port) as made:
        made.send(packet)
        async with asyncio.timeout(timeout):
            return await asyncio.get_running_loop().sock_recv(made, 65536)


async def test_a_question_goes_on_under_another_id_and_port_and_its_answer_comes_back() -> None:
    async with (
        resolver(lambda asked: [answer(asked)]) as (fake, upstream),
        Forwarder(BLOCK, SERVICE, lambda: [upstream]) as service,
    ):
        for _ in range(8):
            assert await ask(1, service.port, question()) == answer(question())
    assert len({packet[:2] for packet in fake.asked}) > 1
    assert {packet[2:] for packet in fake.asked} == {question()[2:]}
    assert len(set(fake.sources)) > 1


async def test_forged_answers_are_passed_over_until_the_right_one_comes() -> None:
    def forge(asked: bytes) -> list[bytes]:
        other = asked.replace(b"example", b"exbmple")
        wrong = int.from_bytes(asked[:2]) ^ 1
        return [
            b"",
            b"\0",
            os.urandom(40),
            answer(asked, id=wrong, address="6.6.6.6"),
            answer(other),
            asked,
            answer(asked),
        ]

    async with (
        resolver(forge) as (_, upstream),
        Forwarder(BLOCK, SERVICE, lambda: [upstream]) as service,
    ):
        assert await ask(1, service.port, question()) == answer(question())


async def test_the_next_resolver_is_asked_when_one_is_silent_or_gone() -> None:
    async with (
        resolver(lambda _: []) as (silent, first),
        resolver(lambda asked: [answer(asked)]) as (_, last),
        Forwarder(BLOCK, SERVICE, lambda: [first, ("127.0.0.1", 1), last], bounds=QUICK) as service,
    ):
        began = time.monotonic()
        assert await ask(1, service.port, question()) == answer(question())
        assert 0.15 < time.monotonic() - began < 1
        assert silent.asked


async def test_without_any_answer_the_asker_hears_so_in_time() -> None:
    async with (
        resolver(lambda _: []) as (_, upstream),
        Forwarder(BLOCK, SERVICE, lambda: [upstream, upstream], bounds=QUICK) as service,
    ):
        began = time.monotonic()
        assert (await ask(1, service.port, question()))[3] & 0xF == 2
        assert time.monotonic() - began < 1.5


async def test_it_never_asks_itself() -> None:
    async with Forwarder(BLOCK, SERVICE, lambda: [(SERVICE, service.port)]) as service:
        assert (await ask(1, service.port, question()))[3] & 0xF == 2


async def test_who_is_no_guest_is_not_heard() -> None:
    async with (
        resolver(lambda asked: [answer(asked)]) as (fake, upstream),
        Forwarder(BLOCK, SERVICE, lambda: [upstream]) as service,
    ):
        for address in ("127.0.0.1", SERVICE, "127.64.0.2", "127.64.0.5"):  # the service's own slot and a gateway, too
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.setblocking(False)
                stranger.bind((address, 0))
                stranger.sendto(question(), (SERVICE, service.port))
            with socket.create_connection((SERVICE, service.port), source_address=(address, 0)) as stream:
                stream.setblocking(False)
                async with asyncio.timeout(2):
                    with contextlib.suppress(ConnectionResetError):
                        assert await asyncio.get_running_loop().sock_recv(stream, 10) == b""
        await asyncio.sleep(0.05)
        assert not fake.asked


async def test_one_greedy_guest_delays_no_other_and_stays_within_its_bound() -> None:
    quiet = b"\x05quiet\x00"
    async with (
        resolver(lambda asked: [answer(asked)] if quiet in asked else []) as (fake, upstream),
        Forwarder(BLOCK, SERVICE, lambda: [upstream], bounds=Bounds(questions_per_slot=16, total=1.0)) as service,
    ):
        with asker(1, service.port) as greedy:
            for id in range(300):
                greedy.send(question(id))
                if id % 50 == 0:
                    await asyncio.sleep(0)
            for _ in range(80):
                await asyncio.sleep(0.01)
                if len(fake.asked) >= 16:
                    break
            await asyncio.sleep(0.05)
            assert len(fake.asked) == 16
            assert await ask(2, service.port, question(7, quiet)) == answer(question(7, quiet))
            await asyncio.sleep(1.2)  # its questions have timed out: it is served again
        assert await ask(1, service.port, question(8, quiet)) == answer(question(8, quiet))


async def test_a_flood_of_junk_leaves_it_at_work() -> None:
    async with (
        resolver(lambda asked: [answer(asked)]) as (_, upstream),
        Forwarder(BLOCK, SERVICE, lambda: [upstream]) as service,
    ):
        with asker(1, service.port) as junk:
            for size in range(2000):
                with contextlib.suppress(BlockingIOError):
                    junk.send(os.urandom(size % 700))
        for _ in range(20):
            with contextlib.suppress(TimeoutError):
                assert await ask(2, service.port, question(), 0.5) == answer(question())
                return
        pytest.fail("no answer after the flood")


async def talk(port: int, *packets: bytes, number: int = 1) -> list[bytes]:
    """All packets in one go over one connection; the answers until it ends."""
    reader, writer = await asyncio.open_connection(SERVICE, port, local_addr=(guest(number), 0))
    answers: list[bytes] = []
    try:
        writer.write(b"".join(packets))
        async with asyncio.timeout(3):
            with contextlib.suppress(EOFError, ConnectionResetError):
                while True:
                    answers.append(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))
    finally:
        writer.close()
    return answers


def framed(packet: bytes) -> bytes:
    return len(packet).to_bytes(2) + packet


async def test_tcp_carries_several_questions_and_long_answers() -> None:
    long = b"\0" * 40_000
    async with (
        resolver(lambda asked: [answer(asked) + long]) as (_, upstream),
        Forwarder(BLOCK, SERVICE, lambda: [upstream], bounds=QUICK) as service,
    ):
        answers = await talk(service.port, framed(question(1)), framed(question(2)), framed(question(3)))
        assert answers == [answer(question(id)) + long for id in (1, 2, 3)]


async def test_a_lying_resolver_on_tcp_is_not_believed() -> None:
    async with (
        resolver(lambda asked: [answer(asked, id=int.from_bytes(asked[:2]) ^ 1)]) as (_, upstream),
        Forwarder(BLOCK, SERVICE, lambda: [upstream], bounds=QUICK) as service,
    ):
        (said,) = await talk(service.port, framed(question()))
        assert said[3] & 0xF == 2


@pytest.mark.parametrize("opening", [b"", b"\xff", b"\xff\xff" + b"x" * 70000, b"\x00\x05abc", framed(b"\0" * 4)])
async def test_slow_and_malformed_connections_are_ended(opening: bytes) -> None:
    async with (
        resolver(lambda asked: [answer(asked)]) as (_, upstream),
        Forwarder(BLOCK, SERVICE, lambda: [upstream], bounds=QUICK) as service,
    ):
        assert await talk(service.port, opening) == []


async def test_a_guest_has_so_many_connections_and_no_more() -> None:
    async with (
        resolver(lambda asked: [answer(asked)]) as (_, upstream),
        Forwarder(BLOCK, SERVICE, lambda: [upstream], bounds=Bounds(connections_per_slot=4, idle=1.0)) as service,
    ):
        held = [await asyncio.open_connection(SERVICE, service.port, local_addr=(guest(1), 0)) for _ in range(4)]
        await asyncio.sleep(0.05)
        assert await talk(service.port, framed(question())) == []
        assert (await talk(service.port, framed(question()), number=2))[0] == answer(question())
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.05)
        assert (await talk(service.port, framed(question())))[0] == answer(question())


async def test_closing_ends_what_is_in_flight_and_frees_the_port() -> None:
    async with resolver(lambda _: []) as (_, upstream):
        service = await Forwarder(BLOCK, SERVICE, lambda: [upstream]).__aenter__()
        with asker(1, service.port) as waiting:
            waiting.send(question())
            talking = asyncio.create_task(talk(service.port, framed(question())))
            await asyncio.sleep(0.1)
            await service.close()
        assert await talking == []
        async with Forwarder(BLOCK, SERVICE, lambda: [upstream], port=service.port) as again:
            assert again.port == service.port


def test_resolvers_are_read_as_the_c_library_reads_them() -> None:
    lines = "# x", "search corp", "nameserver 10.0.0.1", "nameserver", "nameserver evil.example", ";"
    text = "\n".join([*lines, " nameserver fe80::1%eth0 # y", "nameserver ::1", "nameserver 9.9.9.9", ""])
    assert parse_resolv_conf(text) == ("10.0.0.1", "fe80::1%eth0", "::1")
    assert parse_resolv_conf("") == ("127.0.0.1",)


def test_a_changed_resolv_conf_is_seen_and_a_missing_one_survived(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    resolvers = Resolvers(file)
    assert resolvers.current() == ("127.0.0.1",)
    file.write_text("nameserver 10.0.0.1\n")
    assert resolvers.current() == ("10.0.0.1",)
    file.write_text("nameserver 10.0.0.200\n")
    assert resolvers.current() == ("10.0.0.200",)
    file.unlink()
    assert resolvers.current() == ("127.0.0.1",)
