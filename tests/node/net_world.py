"""What the tests of the network stand on: stand-ins for guest and internet, and a look at the machine before and after."""

import asyncio
import contextlib
import ctypes
import json
import re
import secrets
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from belljar.node.instance import Instance, instance_of
from belljar.node.net.slots import Slot, purge

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000
# Benchmarking range (RFC 2544): on no real network.
NET = f"198.18.{secrets.randbelow(256)}"
PRIVATE = ("10.99.77.77", "172.31.77.77", "192.168.77.77", "100.100.77.77", "169.254.77.77")


def sh(command: str) -> str:
    return subprocess.run(command, shell=True, check=True, text=True, capture_output=True, timeout=30).stdout


def inside(namespace: Path, call: Callable[[], T]) -> T:
    """Runs a call in a thread of its own in that namespace: a socket that it makes stays there."""

    def work() -> T:
        with open(namespace, "rb") as file:
            assert ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET) == 0
        return call()

    with ThreadPoolExecutor(1) as own:
        return own.submit(work).result()


@dataclass
class Outside:
    """A stand-in internet: servers at a public and at private addresses, all routed by the host."""

    namespace: Path
    address: str
    gateway: str
    link: str
    sockets: list[socket.socket] = field(default_factory=list)

    def serve_tcp(self, port: int) -> None:
        """Answers each connection with the peer's address, then echoes."""
        listener = inside(self.namespace, lambda: socket.create_server(("0.0.0.0", port), backlog=64))
        self.sockets.append(listener)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, peer = listener.accept()
                self.sockets.append(connection)
                threading.Thread(target=self._echo, args=(connection, peer[0]), daemon=True).start()

    def _echo(self, connection: socket.socket, peer: str) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(peer.encode() + b"\n")
            while data := connection.recv(65536):
                connection.sendall(data)


@contextlib.contextmanager
def outside_world(tmp_path: Path) -> Iterator[Outside]:
    namespace = tmp_path / "outside"
    namespace.touch()
    link = f"t{secrets.token_hex(4)}"
    sh(f"unshare --net={namespace} true")
    world = Outside(namespace, f"{NET}.2", f"{NET}.1", link)
    try:
        sh(f"ip link add {link} type veth peer name wan netns {namespace}")
        sh(f"ip addr add {NET}.1/30 dev {link} && ip link set {link} up")
        inner = (
            f"ip link set lo up; ip link set wan up; ip addr add {NET}.2/30 dev wan; ip route add default via {NET}.1;"
        )
        inner += "".join(f"ip addr add {address}/32 dev lo;" for address in PRIVATE)
        sh(f"nsenter --net={namespace} sh -c '{inner}'")
        for address in PRIVATE:
            sh(f"ip route add {address}/32 via {NET}.2")
        world.serve_tcp(8080)
        yield world
    finally:
        for opened in world.sockets:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        sh(f"ip link del {link}; umount {namespace}")


@contextlib.asynccontextmanager
async def clean_instance(tmp_path: Path) -> AsyncIterator[Instance]:
    """The machine is afterwards as it was, or the test fails."""
    instance = instance_of(tmp_path / "home")
    before = host_state(instance)
    yield instance
    await purge(instance)
    sh(f"rm -rf {instance.run}")
    after = host_state(instance)
    assert after == before


def host_state(instance: Instance) -> dict[str, Any]:
    """Tables, links and routes of this machine, those of other instances left out (tests may run side by side)."""
    others = re.compile(rf"\bbj(?!{instance.id})[0-9a-z]{{6}}[hg]")
    ruleset = json.loads(sh("nft -j list ruleset"))["nftables"]
    tables = [
        entry
        for entry in ruleset
        if not (table := next(iter(entry.values())).get("table", next(iter(entry.values())).get("name", "")))
        or not str(table).startswith("belljar_")
        or table == instance.table
    ]
    links = sorted(name for _, name in socket.if_nameindex() if not others.search(name))
    routes = [line for line in sh("ip route show table all").splitlines() if not others.search(line)]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if instance.id in line]
    return {"nft": tables, "links": links, "routes": sorted(routes), "mounts": mounts}


@dataclass
class Guest:
    """A Linux network stack in the place of gVisor's."""

    slot: Slot
    namespace: Path

    def connect(self, address: str, port: int, timeout: float = 3.0) -> socket.socket:
        made = inside(self.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        made.settimeout(timeout)
        try:
            made.connect((address, port))
        except BaseException:
            made.close()
            raise
        return made

    def udp(self) -> socket.socket:
        made = inside(self.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.settimeout(3)
        return made

    def reaches(self, address: str, port: int, timeout: float = 3.0) -> bool:
        try:
            self.connect(address, port, timeout).close()
        except OSError:
            return False
        return True

    def sh(self, command: str) -> str:
        return sh(f"nsenter --net={self.namespace} sh -c '{command}'")


@contextlib.contextmanager
def guest_on(instance: Instance, slot: Slot, folder: Path) -> Iterator[Guest]:
    """Takes the far end into a namespace of its own and gives it what an engine would."""
    namespace = folder / f"guest-{slot.number}-{secrets.token_hex(2)}"
    namespace.touch()
    sh(f"unshare --net={namespace} true")
    try:
        sh(f"nsenter --net={instance.namespace} ip link set {slot.far} netns {namespace}")
        guest = Guest(slot, namespace)
        guest.sh(
            f"ip link set lo up; ip link set {slot.far} address {slot.mac.hex(':')} name eth0; ip link set eth0 up; "
            f"ip addr add {slot.address}/{slot.prefix} dev eth0; ip route add default via {slot.gateway}"
        )
        yield guest
        with contextlib.suppress(subprocess.CalledProcessError):
            guest.sh(f"ip link set eth0 down; ip link set eth0 name {slot.far}")
            sh(f"nsenter --net={namespace} ip link set {slot.far} netns {instance.namespace}")
            sh(f"nsenter --net={instance.namespace} ip link set {slot.far} up")
    finally:
        sh(f"umount {namespace}")


QUESTION = bytes.fromhex("123401000001000000000000") + b"\x07example\x03com\x00\x00\x01\x00\x01"


def ask(guest: Guest, server: str, over: str) -> bytes:
    if over == "tcp":
        with guest.connect(server, 53) as stream:
            stream.sendall(len(QUESTION).to_bytes(2) + QUESTION)
            return stream.recv(4096)[2:]
    with guest.udp() as packet:
        packet.sendto(QUESTION, (server, 53))
        data, source = packet.recvfrom(4096)
        assert source == (server, 53)
        return data


@contextlib.asynccontextmanager
async def fake_resolver() -> AsyncIterator[tuple[int, list[str]]]:
    seen: list[str] = []

    def answer(question: bytes) -> bytes:
        record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + socket.inet_aton("203.0.113.9")
        return question[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + question[12:] + record

    class Udp(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            seen.append("udp")
            self.transport.sendto(answer(data), addr)

    async def tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append("tcp")
        reply = answer(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))
        writer.write(len(reply).to_bytes(2) + reply)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(tcp, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Udp, local_addr=("127.0.0.1", port))
    try:
        yield port, seen
    finally:
        transport.close()
        server.close()
        await server.wait_closed()
