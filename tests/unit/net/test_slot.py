"""What follows from a slot's number."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from belljar.node.instance import Instance
from belljar.node.net.slot import SLOTS, Slot, slot_at, slot_of

BLOCK = IPv4Network("10.64.0.0/18")
INSTANCE = Instance("abc123", Path("/nowhere"))


@given(st.integers(0, SLOTS - 1))
def test_a_slot_has_one_guest_and_one_gateway_and_nobody_else(number: int) -> None:
    slot = slot_at(INSTANCE, BLOCK, number, 1500)
    own = IPv4Interface(f"{slot.address}/{slot.prefix}").network
    assert own.subnet_of(BLOCK)
    assert list(own.hosts()) == [IPv4Address(slot.gateway), IPv4Address(slot.address)]
    assert slot_of(BLOCK, slot.address) == (number or None)
    assert slot_of(BLOCK, slot.gateway) is None
    assert max(len(slot.link), len(slot.far)) <= 15


@given(st.integers(0, 2**32 - 1).map(lambda number: str(IPv4Address(number))))
def test_any_address_belongs_to_at_most_the_slot_that_has_it(address: str) -> None:
    number = slot_of(BLOCK, address)
    assert number is None or slot_at(INSTANCE, BLOCK, number, 1500).address == address


@pytest.mark.parametrize("address", ["", "::1", "10.64.0.6.1", "fe80::1%lo", "x"])
def test_what_is_no_address_is_nobodys(address: str) -> None:
    assert slot_of(BLOCK, address) is None


@pytest.mark.parametrize("number", [-1, SLOTS])
def test_there_is_no_slot_outside_the_block(number: int) -> None:
    with pytest.raises(ValueError, match="has no slot"):
        slot_at(INSTANCE, BLOCK, number, 1500)


def test_a_slot_can_be_written_down_and_read_again() -> None:
    slot = slot_at(INSTANCE, BLOCK, 77, 1400)
    form = TypeAdapter(Slot)
    assert form.validate_json(form.dump_json(slot)) == slot
