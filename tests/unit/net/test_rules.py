"""The text of the rules, word for word: a change of policy is a change of the file beside."""

import shutil
import subprocess
from ipaddress import IPv4Network
from pathlib import Path

from belljar.node.instance import Instance
from belljar.node.net.rules import Resolver, render
from belljar.node.net.slot import slot_at

BLOCK = IPv4Network("10.64.0.0/18")
INSTANCE = Instance("abc123", Path("/nowhere"))
GOLDEN = Path(__file__).with_name("rules.nft")


def test_the_rules_are_the_ones_written_down() -> None:
    slots = [slot_at(INSTANCE, BLOCK, number, 1500) for number in (1, 2, 4095)]
    assert render(INSTANCE, BLOCK, Resolver("10.64.0.1", 5353), slots, [1, 4095]) == GOLDEN.read_text()


def test_without_slots_the_sets_are_empty() -> None:
    text = render(INSTANCE, BLOCK, Resolver("10.64.0.1", 5353), [], [])
    assert "h1" not in text
    assert text.count("elements") == 1  # the denied ranges


def test_nft_understands_them() -> None:
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
    assert nft, "nftables is needed to check its rules"
    done = subprocess.run([nft, "--check", "-f", GOLDEN], capture_output=True, text=True, timeout=20)
    if "Operation not permitted" in done.stderr:  # without root it can only parse them
        return
    assert done.returncode == 0, done.stderr
