"""Rules of other programs of this host that stop the sandboxes' packets. A drop anywhere is final, whatever our table says.

Nothing here changes them: they are the operator's. `belljar doctor` shows them with the command that lets sandboxes through.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from belljar.base import proc
from belljar.node.net.rules import ENVIRONMENT

__all__ = ("Obstacle", "legacy_obstacles", "obstacles", "obstacles_in")

_HOOKS = ("input", "forward", "output")
_LINKS = "bj"
_LEGACY_TABLES = Path("/proc/net/ip_tables_names")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """`chain` as its owner's tool calls it; `mend` is a command for a shell."""

    chain: str
    hook: str
    why: str
    mend: str


def obstacles() -> list[Obstacle]:
    """What stops the sandboxes' packets here now. Blocks (10 ms). Needs root. Raises CommandFailed."""
    done = proc.run_sync(["nft", "-j", "list", "ruleset"], timeout=30, env=ENVIRONMENT)
    found = list(obstacles_in(json.loads(done.stdout).get("nftables", [])))
    if _LEGACY_TABLES.exists() and "filter" in _LEGACY_TABLES.read_text().split():
        found += legacy_obstacles(
            proc.run_sync(["iptables-legacy", "-S"], timeout=30, env=ENVIRONMENT).stdout.decode(errors="replace")
        )
    return found


def obstacles_in(ruleset: Iterable[dict[str, Any]]) -> Iterator[Obstacle]:
    """From what `nft -j list ruleset` says."""
    entries = list(ruleset)
    rules: list[dict[str, Any]] = [entry["rule"] for entry in entries if "rule" in entry]
    for chain in (entry["chain"] for entry in entries if "chain" in entry):
        if chain.get("hook") not in _HOOKS or chain["family"] not in ("ip", "inet"):
            continue
        if chain["table"].startswith("belljar_"):
            continue
        place = (chain["family"], chain["table"], chain["name"])
        own = [rule["expr"] for rule in rules if (rule["family"], rule["table"], rule["chain"]) == place]
        last = next((expressions for expressions in own if _is_final(expressions)), None)
        if chain.get("policy") != "drop" and last is None:
            continue
        if any(_lets_us_through(expressions) for expressions in own[: own.index(last) if last is not None else None]):
            continue
        why = "it drops" if chain.get("policy") == "drop" else "its last rule refuses"
        yield Obstacle(" ".join(place), chain["hook"], f"{why} what no rule allows", _mend(*place, chain["hook"]))


def legacy_obstacles(listing: str) -> list[Obstacle]:
    """From what `iptables-legacy -S` says."""
    lines = listing.splitlines()
    found: list[Obstacle] = []
    for hook in _HOOKS:
        name = hook.upper()
        allowed = any(line.startswith(f"-A {name} ") and f" {_LINKS}" in line and "ACCEPT" in line for line in lines)
        if f"-P {name} DROP" in lines and not allowed:
            mend = " && ".join(f"iptables-legacy {words}" for words in _words(name, hook))
            found.append(Obstacle(f"iptables-legacy {name}", hook, "it drops what no rule allows", mend))
    return found


def _is_final(expressions: list[dict[str, Any]]) -> bool:
    """Whether the rule refuses everything that reaches it."""
    kinds = [next(iter(expression)) for expression in expressions]
    return bool(kinds) and kinds[-1] in ("drop", "reject") and set(kinds[:-1]) <= {"counter", "log"}


def _lets_us_through(expressions: list[dict[str, Any]]) -> bool:
    ours = any(str(expression.get("match", {}).get("right", "")).startswith(_LINKS) for expression in expressions)
    return ours and any("accept" in expression for expression in expressions)


def _mend(family: str, table: str, chain: str, hook: str) -> str:
    if (family, table, chain) == ("ip", "filter", hook.upper()):
        # Made by iptables, whose own listing no longer works once nft has put a rule there.
        return " && ".join(f"iptables {words}" for words in _words(chain, hook))
    sides = [f'{side}ifname "{_LINKS}*"' for side in _sides(hook)]
    return " && ".join(f"nft 'insert rule {family} {table} {chain} {side} accept'" for side in sides)


def _words(chain: str, hook: str) -> list[str]:
    return [f"-I {chain} -{side} {_LINKS}+ -j ACCEPT" for side in _sides(hook)]


def _sides(hook: str) -> tuple[str, ...]:
    return {"input": ("i",), "output": ("o",), "forward": ("i", "o")}[hook]
