"""Which addresses an instance takes, and what instances on one host tell each other."""

import json
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belljar.base.ids import ALPHABET
from belljar.model.errors import NoCapacity
from belljar.node.instance import Instance, instance_of
from belljar.node.net.blocks import POOLS, Blocks, choose_block

networks = st.builds(
    lambda address, prefix: IPv4Network((address, prefix), strict=False),
    st.one_of(st.integers(0, 2**32 - 1), st.integers(0x0A000000, 0x0AFFFFFF), st.integers(0xAC100000, 0xAC1FFFFF)),
    st.integers(0, 32),
)
seeds = st.text(ALPHABET, min_size=6, max_size=6)


@given(seeds, st.lists(networks, max_size=40))
def test_a_block_overlaps_nothing_that_is_taken(seed: str, taken: list[IPv4Network]) -> None:
    try:
        block = choose_block(seed, taken)
    except NoCapacity:
        assert sum(network.num_addresses for network in taken) >= 1 << 24
        return
    assert block.prefixlen == 18
    assert any(block.subnet_of(pool) for pool in POOLS)
    assert not any(block.overlaps(network) for network in taken if network.prefixlen >= 8)
    assert choose_block(seed, [*taken, IPv4Network("0.0.0.0/0")]) == block


@given(st.lists(seeds, min_size=2, max_size=30, unique=True))
def test_instances_that_choose_after_each_other_get_blocks_apart(ids: list[str]) -> None:
    blocks: list[IPv4Network] = []
    for id in ids:
        blocks.append(choose_block(id, blocks))
    assert len(set(blocks)) == len(ids)


def test_the_last_free_block_is_found_and_after_it_none() -> None:
    pool = IPv4Network("172.16.0.0/12")
    *taken, last = pool.subnets(new_prefix=18)
    assert choose_block("abcdef", taken, [pool]) == last
    with pytest.raises(NoCapacity, match="no free private address block"):
        choose_block("abcdef", [*taken, last], [pool])


def test_a_company_network_over_one_range_sends_us_to_the_next() -> None:
    assert choose_block("abcdef", [IPv4Network("10.0.0.0/8")]).subnet_of(IPv4Network("172.16.0.0/12"))


@pytest.fixture
def ledger(tmp_path: Path) -> Blocks:
    (tmp_path / "forward").write_text("0\n")
    return Blocks(tmp_path, forward=tmp_path / "forward")


def test_an_instance_keeps_its_block_until_it_gives_it_back(ledger: Blocks, tmp_path: Path) -> None:
    one, two = instance_of(tmp_path / "one"), instance_of(tmp_path / "two")
    first = ledger.claim(one, [], 1500)
    second = ledger.claim(two, [], 1500)
    assert not first.block.overlaps(second.block)
    assert ledger.claim(one, [first.block], 9000) == first
    ledger.release(one)
    ledger.release(one)
    assert ledger.claim(one, [first.block], 1500).block != first.block


def test_the_last_one_to_go_puts_forwarding_back(ledger: Blocks, tmp_path: Path) -> None:
    forward = tmp_path / "forward"
    one, two = instance_of(tmp_path / "one"), instance_of(tmp_path / "two")
    for instance in (one, two):
        ledger.claim(instance, [], 1500)
        ledger.forward()
    assert forward.read_text() == "1"
    ledger.release(one)
    assert forward.read_text() == "1"
    ledger.release(two)
    assert forward.read_text() == "0"
    assert not (tmp_path / "network.json").exists()


def test_a_switch_that_was_on_before_stays_on(ledger: Blocks, tmp_path: Path) -> None:
    (tmp_path / "forward").write_text("1\n")
    one = instance_of(tmp_path / "one")
    ledger.claim(one, [], 1500)
    ledger.forward()
    ledger.release(one)
    assert (tmp_path / "forward").read_text().strip() == "1"


def test_a_state_directory_that_is_gone_holds_no_block(ledger: Blocks, tmp_path: Path) -> None:
    gone = ledger.claim(Instance("zzzzzz", tmp_path / "gone"), [], 1500)
    one = instance_of(tmp_path / "one")
    ledger.claim(one, [], 1500)
    assert set(ledger.claims()) == {one.id}
    ledger.release(Instance("zzzzzz", tmp_path / "gone"))
    assert gone.block not in [claim.block for claim in ledger.claims().values()]


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b'{"boot": 1, "claims": {"x": {}}}', b"\xff\xfe", b"null"])
def test_a_spoilt_ledger_is_started_anew(ledger: Blocks, tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "network.json").write_bytes(junk)
    one = instance_of(tmp_path / "one")
    assert ledger.claim(one, [], 1500).block.prefixlen == 18


def test_what_an_earlier_boot_wrote_counts_no_more(ledger: Blocks, tmp_path: Path) -> None:
    one = instance_of(tmp_path / "one")
    ledger.claim(one, [], 1500)
    ledger.forward()
    file = tmp_path / "network.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"boot": "another"}))
    assert ledger.claims() == {}
