"""Other programs' rules that would stop a sandbox's packets, as `nft -j` and `iptables -S` show them."""

from typing import Any

import pytest

from belljar.node.net.foreign import legacy_obstacles, obstacles_in


def chain(name: str, hook: str, policy: str, *, family: str = "ip", table: str = "filter") -> dict[str, Any]:
    return {"chain": {"family": family, "table": table, "name": name, "type": "filter", "hook": hook, "policy": policy}}


def rule(name: str, *expressions: dict[str, Any], family: str = "ip", table: str = "filter") -> dict[str, Any]:
    return {"rule": {"family": family, "table": table, "chain": name, "expr": list(expressions)}}


def on_link(name: str) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": name}}


ACCEPT, COUNTER = {"accept": None}, {"counter": {"packets": 0, "bytes": 0}}
REJECT = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}


def test_dockers_closed_forward_chain_is_named_with_the_command_that_opens_it() -> None:
    (found,) = obstacles_in(
        [chain("FORWARD", "forward", "drop"), rule("FORWARD", COUNTER, {"jump": {"target": "DOCKER"}})]
    )
    assert found.chain == "ip filter FORWARD"
    assert found.mend == "iptables -I FORWARD -i bj+ -j ACCEPT && iptables -I FORWARD -o bj+ -j ACCEPT"


def test_a_closed_input_chain_would_swallow_lookups() -> None:
    (found,) = obstacles_in([chain("input", "input", "drop", family="inet", table="fw")])
    assert found.hook == "input"
    assert found.mend == "nft 'insert rule inet fw input iifname \"bj*\" accept'"


def test_an_open_chain_that_ends_in_a_refusal_counts_too() -> None:
    entries = [
        chain("filter_FORWARD", "forward", "accept", family="inet", table="firewalld"),
        rule("filter_FORWARD", on_link("lo"), ACCEPT, family="inet", table="firewalld"),
        rule("filter_FORWARD", COUNTER, REJECT, family="inet", table="firewalld"),
    ]
    (found,) = obstacles_in(entries)
    assert found.chain == "inet firewalld filter_FORWARD"


def test_once_our_links_are_let_through_there_is_no_obstacle() -> None:
    assert not list(
        obstacles_in([chain("FORWARD", "forward", "drop"), rule("FORWARD", on_link("bj*"), COUNTER, ACCEPT)])
    )


def test_letting_them_through_after_the_refusal_does_not_help() -> None:
    entries = [chain("f", "forward", "accept"), rule("f", REJECT), rule("f", on_link("bj*"), ACCEPT)]
    assert len(list(obstacles_in(entries))) == 1


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [{"metainfo": {"version": "1.0.6"}}],
        [chain("FORWARD", "forward", "accept")],
        [chain("FORWARD", "forward", "drop", family="ip6")],
        [chain("forward", "forward", "drop", table="belljar_abc123")],
        [chain("PREROUTING", "prerouting", "drop")],
        [chain("FORWARD", "forward", "accept"), rule("FORWARD", on_link("eth1"), {"drop": None})],
        [{"chain": {"family": "ip", "table": "filter", "name": "DOCKER"}}, rule("DOCKER", {"drop": None})],
    ],
)
def test_what_stops_nobody_of_ours_is_not_named(entries: list[dict[str, Any]]) -> None:
    assert not list(obstacles_in(entries))


def test_the_old_iptables_is_read_by_its_own_listing() -> None:
    listing = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-A FORWARD -i docker0 -j ACCEPT\n"
    (found,) = legacy_obstacles(listing)
    assert found.hook == "forward"
    assert not legacy_obstacles(listing + "-A FORWARD -i bj+ -j ACCEPT\n")
