"""Links and the namespace of their far ends, by netlink.

Every call here blocks (1 to 3 ms; longer while the kernel's routing lock is taken by somebody else) and has its own thread:
one in the host's namespace and one that lives in the instance's, so that neither the event loop nor a worker thread of
somebody else ever changes namespace.
"""

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from belljar.model.errors import NotSupported
from belljar.node.instance import Instance
from belljar.node.net.conntrack import forget_flows
from belljar.node.net.slot import GUEST_MAC, HOST_MAC, Slot

__all__ = ("Links", "link_traffic", "remove_links", "routed_networks", "tcp_peers", "uplink_mtu")

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH = 2
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 0x1
_RUNNING = _IFF_UP | 0x40  # IFF_RUNNING: the other end is up, too
_NUD_PERMANENT = 0x80
_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SOCKET_BUFFER = 4 << 20
_DEVICES = Path("/sys/class/net")
_SOCKET_DEADLINE = 10.0
_LINK_SETTINGS = (
    # One guest behind each link, with one address: nothing else may be answered, believed or learnt there.
    ("ipv4", "rp_filter", "1"),
    ("ipv4", "arp_ignore", "1"),
    ("ipv4", "send_redirects", "0"),
    ("ipv4", "accept_redirects", "0"),
    ("ipv4", "route_localnet", "0"),
    ("ipv6", "disable_ipv6", "1"),
)


class Links:
    """The links of one instance. Open it before use; `close` leaves links and namespace for a successor."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._near = ThreadPoolExecutor(1, f"links-{instance.id}")
        self._far = ThreadPoolExecutor(1, f"netns-{instance.id}")
        self._route: Any = None

    async def open(self) -> None:
        """Makes the namespace if it is not there. Raises NotSupported without the right to, OSError."""
        try:
            await _result(self._far.submit(_enter, self._instance.namespace))
            await self._nearby(self._connect)
        except PermissionError as error:
            raise NotSupported(
                f"network namespaces cannot be made here: {error.strerror}", hint="the server needs root"
            ) from error

    async def close(self) -> None:
        if self._route is not None:
            await self._nearby(self._route.close)
            self._route = None
        for executor in (self._near, self._far):
            executor.shutdown(wait=False, cancel_futures=True)

    async def sound(self, slots: Collection[Slot]) -> set[int]:
        """Numbers of those whose link is there and whole: being up on both ends is the last step of making it."""
        return await self._nearby(_running, slots)

    async def make(self, slot: Slot) -> None:
        """Makes the link of this slot, anew if it was there."""
        await self._nearby(self._add, slot)
        await _result(self._far.submit(_bring_up, slot.far))
        await self._nearby(self._set_up, slot)

    async def remove(self, slot: Slot) -> None:
        """One that is not there is fine. Sockets still open on its far end are dead from then on."""
        await self._nearby(self._remove, slot.link)

    async def listened(self) -> set[str]:
        """Names of the far ends on which some process has a packet socket."""
        return await _result(self._far.submit(_links_with_packet_sockets))

    async def forget_flows(self, addresses: Collection[str]) -> int:
        """Drops every tracked connection from and to these guests; returns how many."""
        return await asyncio.to_thread(forget_flows, addresses)

    def open_socket(self, slot: Slot) -> int:
        """A packet socket on the far end, for one engine instance: the caller closes it. Blocks (0.2 ms). Raises OSError."""
        return self._far.submit(_packet_socket, slot.far).result(_SOCKET_DEADLINE)

    async def _nearby(self, call: Callable[..., T], *args: Any) -> T:
        return await _result(self._near.submit(call, *args))

    def _connect(self) -> None:
        self._route = IPRoute()

    def _add(self, slot: Slot) -> None:
        with open(self._instance.namespace, "rb") as namespace:
            peer = {"ifname": slot.far, "net_ns_fd": namespace.fileno(), "mtu": slot.mtu}
            arguments = {
                "ifname": slot.link,
                "kind": "veth",
                "mtu": slot.mtu,
                "address": HOST_MAC.hex(":"),
                "peer": peer,
            }
            try:
                self._route.link("add", **arguments)
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise
                self._remove(slot.link)
                self._route.link("add", **arguments)

    def _set_up(self, slot: Slot) -> None:
        index = socket.if_nametoindex(slot.link)
        for family, name, value in _LINK_SETTINGS:
            # A kernel without IPv6 has no folder for it: then there is nothing to switch off.
            with contextlib.suppress(FileNotFoundError):
                Path(f"/proc/sys/net/{family}/conf/{slot.link}/{name}").write_text(value)
        self._route.addr("add", index=index, address=slot.gateway, prefixlen=slot.prefix)
        self._route.link("set", index=index, state="up")
        self._route.neigh("add", ifindex=index, dst=slot.address, lladdr=GUEST_MAC.hex(":"), state=_NUD_PERMANENT)

    def _remove(self, link: str) -> None:
        try:
            self._route.link("del", index=socket.if_nametoindex(link))
        except OSError:
            pass
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise


def link_traffic(link: str) -> tuple[int, int] | None:
    """Bytes that went to the far end of a link and came from there since it was made. Blocks (50 µs)."""
    folder = _DEVICES / link / "statistics"
    try:
        return int((folder / "tx_bytes").read_text()), int((folder / "rx_bytes").read_text())
    except (OSError, ValueError):
        return None


async def _result(future: "Future[T]") -> T:
    return await asyncio.wrap_future(future)


def remove_links(instance: Instance) -> None:
    """Removes namespace and links of an instance, whoever made them. Blocks. Repeatable."""
    path = instance.namespace
    libc = ctypes.CDLL(None, use_errno=True)
    while _is_namespace(path):
        if libc.umount2(os.fsencode(path), _MNT_DETACH):
            number = ctypes.get_errno()
            raise OSError(number, f"cannot unmount {path}: {os.strerror(number)}")
    path.unlink(missing_ok=True)
    # The kernel takes the namespace's links in one go (3 ms for all), unless a socket still holds it: then one by one.
    for _ in range(50):
        if not _links_with_prefix(instance.link_prefix):
            return
        time.sleep(0.002)
    with IPRoute() as netlink:
        route: Any = netlink
        for name in _links_with_prefix(instance.link_prefix):
            with contextlib.suppress(OSError, NetlinkError):
                route.link("del", index=socket.if_nametoindex(name))


def routed_networks() -> list[IPv4Network]:
    """Every IPv4 network that this host has a route for, in any table; default routes left out. Blocks."""
    found: list[IPv4Network] = []
    with IPRoute() as netlink:
        route: Any = netlink
        found.extend(
            IPv4Network((destination, message["dst_len"]), strict=False)
            for message in route.get_routes(family=socket.AF_INET)
            if (destination := message.get_attr("RTA_DST")) is not None
        )
    return found


def tcp_peers() -> list[IPv4Network]:
    """Whom this host has TCP connections with: an administrator's address may lie in a private range behind the default
    route, and taking that range would cut them off. Blocks."""
    peers: set[IPv4Address] = set()
    with open("/proc/net/tcp", encoding="ascii") as file:
        next(file)
        for line in file:
            remote = line.split()[2].partition(":")[0]
            peers.add(IPv4Address(int.from_bytes(bytes.fromhex(remote), sys.byteorder)))
    return [IPv4Network(peer) for peer in peers if int(peer)]


def uplink_mtu(default: int = 1500) -> int:
    """What the link of the default route carries, at most `default`. Blocks."""
    with IPRoute() as netlink:
        route: Any = netlink
        indexes = {message.get_attr("RTA_OIF") for message in route.get_default_routes(family=socket.AF_INET)} - {None}
        sizes = [link.get_attr("IFLA_MTU") for index in indexes for link in route.get_links(index)]
    return max(576, min([default, *(size for size in sizes if size)]))


def _links_with_prefix(prefix: str) -> set[str]:
    return {name for _, name in socket.if_nameindex() if name.startswith(prefix)}


def _is_namespace(path: Path) -> bool:
    try:
        return path.stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False


def _enter(path: Path) -> None:
    """Moves the calling thread into the namespace mounted at `path`, making it first if there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    if _is_namespace(path):
        with open(path, "rb") as file:
            _check(libc.setns(file.fileno(), _CLONE_NEWNET), "setns")
    else:
        path.touch(mode=0o600)
        _check(libc.unshare(_CLONE_NEWNET), "unshare")
        _check(libc.mount(b"/proc/thread-self/ns/net", os.fsencode(path), b"none", _MS_BIND, None), "mount")
    # The far ends have no address and want none: whatever arrives there is the guest's.
    for name in ("all", "default"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _running(slots: Collection[Slot]) -> set[int]:
    found: set[int] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for slot in slots:
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH14x", slot.link.encode(), 0))
                if struct.unpack("16sH14x", answer)[1] & _RUNNING == _RUNNING:
                    found.add(slot.number)
    return found


def _bring_up(name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", name.encode(), _IFF_UP))


def _links_with_packet_sockets() -> set[str]:
    with open("/proc/thread-self/net/packet", encoding="ascii") as file:
        indexes = {int(line.split()[4]) for line in file.readlines()[1:]}
    return {name for index, name in socket.if_nameindex() if index in indexes}


def _packet_socket(name: str) -> int:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as packet:
        packet.bind((name, _ETH_P_ALL))
        packet.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            packet.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER)
        return packet.detach()
