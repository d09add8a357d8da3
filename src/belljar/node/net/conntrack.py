"""Forgets tracked connections of one address.

By hand and not through pyroute2: its dump decodes each entry in Python and deletes one per round trip (0.5 ms an entry, and a
hostile guest leaves thousands). Here the kernel filters, its own bytes are sent back, and deletions go out in bulk.
"""

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

__all__ = ("forget_flows",)

_NETLINK_NETFILTER = 12
_NEW, _GET, _DELETE = 0x100, 0x101, 0x102  # subsystem 1 (conntrack) << 8 | message
_REQUEST, _DUMP, _ACK = 0x1, 0x300, 0x4
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF
_TUPLE_ORIG, _ZONE, _FILTER = 1, 18, 25
_TUPLE_IP, _IP_SRC, _IP_DST = 1, 1, 2
_FILTER_ORIG_FLAGS = 1
_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.pack("=BBH", socket.AF_INET, 0, 0)
_BATCH = 64
_TIMEOUT = 10.0
_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
_MANY = 5000
"""Connections of the host for each address, from where on the kernel's filter is quicker than a look at all of them."""


def forget_flows(addresses: Collection[str]) -> int:
    """Drops every connection whose originator or destination is one of these IPv4 addresses; returns how many.

    Blocks: 10 ms in which the kernel goes through its table, twice for each address where the host has many connections;
    then 20 us a connection. Raises OSError.
    """
    wanted = {socket.inet_aton(address) for address in addresses}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        netlink.settimeout(_TIMEOUT)
        found: list[bytes] = []
        if int(_COUNT.read_text()) > _MANY * len(wanted):
            for address in wanted:
                found += _dump(netlink, wanted, _filter(_IP_SRC, address))
                found += _dump(netlink, wanted, _filter(_IP_DST, address))
        else:
            found = _dump(netlink, wanted, b"")
        for start in range(0, len(found), _BATCH):
            _delete(netlink, found[start : start + _BATCH])
    return len(found)


def _filter(attribute: int, address: bytes) -> bytes:
    """Lets the kernel (5.8 and later) tell only of connections with this address at that place of their first packet."""
    name = _attribute(_TUPLE_ORIG | _NESTED, _attribute(_TUPLE_IP | _NESTED, _attribute(attribute, address)))
    # The flag of each address happens to be its attribute's number.
    return name + _attribute(_FILTER | _NESTED, _attribute(_FILTER_ORIG_FLAGS, struct.pack("=I", attribute)))


def _dump(netlink: socket.socket, wanted: Collection[bytes], filter: bytes) -> list[bytes]:
    """Of each wanted connection the attributes that name it. Whatever the kernel filtered, it is looked at again."""
    netlink.send(_message(_GET, _REQUEST | _DUMP, _FAMILY + filter))
    found: list[bytes] = []
    while True:
        for kind, body in _messages(netlink.recv(1 << 18)):
            if kind == _NLMSG_DONE:
                return found
            if kind == _NLMSG_ERROR:
                _raise(body)
            elif kind == _NEW and (name := _name_of(body, wanted)):
                found.append(name)


def _name_of(body: bytes, wanted: Collection[bytes]) -> bytes:
    name, is_wanted = b"", False
    for kind, whole, value in _attributes(body[4:]):
        if kind == _TUPLE_ORIG:
            for inner_kind, _, inner in _attributes(value):
                if inner_kind == _TUPLE_IP:
                    is_wanted = any(address in wanted for _, _, address in _attributes(inner))
            name += whole
        elif kind == _ZONE:
            name += whole
    return name if is_wanted else b""


def _delete(netlink: socket.socket, names: list[bytes]) -> None:
    netlink.send(b"".join(_message(_DELETE, _REQUEST | _ACK, _FAMILY + name) for name in names))
    waiting = len(names)
    while waiting:
        for kind, body in _messages(netlink.recv(1 << 18)):
            if kind == _NLMSG_ERROR:
                waiting -= 1
                _raise(body, errno.ENOENT)  # ended by itself in between


def _raise(body: bytes, fine: int = 0) -> None:
    code = -struct.unpack_from("=i", body)[0]
    if code not in (0, fine):
        raise OSError(code, f"connection tracking: {os.strerror(code)}")


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        end = offset + ((length + 3) & ~3)
        yield kind & _TYPE_MASK, data[offset:end], data[offset + 4 : offset + length]
        offset = end
