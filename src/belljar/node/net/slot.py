"""A slot: one link with its addresses. A value that can be written down and read by a successor process."""

import ipaddress
from dataclasses import dataclass

from belljar.node.instance import Instance

__all__ = ("BLOCK_PREFIX", "SLOT_PREFIX", "SLOTS", "GUEST_MAC", "HOST_MAC", "Slot", "slot_at", "slot_of")

BLOCK_PREFIX = 18
SLOT_PREFIX = 30
SLOTS = 1 << (SLOT_PREFIX - BLOCK_PREFIX)
"""Of one instance; number 0 is the name service's own and never leased."""

# Every slot has the same two addresses on its own link: a clone that wakes on another slot finds its neighbour where it was.
HOST_MAC = bytes.fromhex("02626a000001")
GUEST_MAC = bytes.fromhex("02626a000002")


@dataclass(frozen=True, slots=True)
class Slot:
    """What a guest's only interface is given, and the host's names for it.

    `link` is the host's end, `far` the other end (in the instance's namespace). `gateway` is also the resolver.
    """

    number: int
    address: str
    prefix: int
    gateway: str
    mac: bytes
    mtu: int
    link: str
    far: str


def slot_at(instance: Instance, block: ipaddress.IPv4Network, number: int, mtu: int) -> Slot:
    """Slot `number` of the instance's block: everything about it follows from these. Raises ValueError outside the block."""
    if not 0 <= number < block.num_addresses >> (32 - SLOT_PREFIX):
        raise ValueError(f"{block} has no slot {number}")
    network = block.network_address + number * (1 << (32 - SLOT_PREFIX))
    link, far = instance.link(number)
    return Slot(number, str(network + 2), SLOT_PREFIX, str(network + 1), GUEST_MAC, mtu, link, far)


def slot_of(block: ipaddress.IPv4Network, address: str) -> int | None:
    """The number of the slot whose guest has this address; None for any other address."""
    try:
        offset = int(ipaddress.IPv4Address(address)) - int(block.network_address)
    except ValueError:
        return None
    return offset >> 2 if 4 <= offset < block.num_addresses and offset & 3 == 2 else None
