"""The instance's nftables table: who may talk to whom. Policy is here, on the host's side, never inside.

One table per instance. What differs between slots are elements of sets, so leasing and returning one never edits a rule. The
whole table is replaced in one transaction at start, and whenever somebody else removed it.
"""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from belljar.base import proc
from belljar.model.errors import EngineFailed, NotSupported
from belljar.node.instance import Instance
from belljar.node.net.slot import Slot

__all__ = ("DENIED", "DIAL_PRIORITY", "ENVIRONMENT", "MAX_FLOWS", "Resolver", "Rules", "flows_of_one", "render")

ANY_LINK = "bj*"
"""Links of every instance on this host."""
DENIED = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
    "224.0.0.0/3",
)  # fmt: skip
"""Never reached from a sandbox, whatever else is allowed. A list, not `is_private`: documentation ranges are in real use."""

DIAL_PRIORITY = 0x0BE11A00
"""SO_PRIORITY of the server's own sockets towards sandboxes. Values above 6 need CAP_NET_ADMIN, so no user of the host can set
it; a firewall mark would do too, but would also steer routing on hosts that route by marks (VPNs, Kubernetes)."""

MAX_FLOWS = 8192
"""Tracked connections of one sandbox at most; fewer where the host's one table for all is small (`flows_of_one`)."""

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
"""For nft and its like: found also where root's path lacks the sbin folders."""
_LOOKUPS = "limit rate over 300/second burst 600 packets"
_TIMEOUT = 20.0
_TRACKED_AT_MOST = Path("/proc/sys/net/netfilter/nf_conntrack_max")


@dataclass(frozen=True, slots=True)
class Resolver:
    """Where the name service listens."""

    address: str
    port: int


def flows_of_one() -> int:
    """How many connections one sandbox may have on this host: no more than a sixteenth of what the host can track."""
    try:
        room = int(_TRACKED_AT_MOST.read_text())
    except (OSError, ValueError):
        return MAX_FLOWS
    return max(256, min(MAX_FLOWS, room // 16))


def render(
    instance: Instance,
    block: IPv4Network,
    resolver: Resolver,
    slots: Iterable[Slot],
    open: Collection[int],
    *,
    flows: int = MAX_FLOWS,
) -> str:
    """The whole table as text for `nft -f`. `open`: numbers of the slots that may reach the outside."""
    slots = list(slots)
    lookups = f"meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {resolver.address}:{resolver.port}"
    ours = f'"{instance.link_prefix}*"'
    known = _elements(f'"{slot.link}" . {slot.address}' for slot in slots)
    opened = _elements(f'"{slot.link}"' for slot in slots if slot.number in open)
    return f"""\
table inet {instance.table}
delete table inet {instance.table}
table inet {instance.table} {{
	set slots {{
		type ifname . ipv4_addr{known}
	}}

	set open {{
		type ifname{opened}
	}}

	set denied {{
		type ipv4_addr
		flags interval
		elements = {{ {", ".join(DENIED)} }}
	}}

	set flows {{
		type ipv4_addr
		size 8192
		flags dynamic
	}}

	set lookups {{
		type ipv4_addr
		size 8192
		flags dynamic,timeout
		timeout 10s
	}}

	# A packet from a slot's link has the slot's address, or is nobody's. That ends IPv6 too.
	chain arrive {{
		type filter hook prerouting priority raw - 5; policy accept;
		iifname {ours} goto known_source
	}}

	chain known_source {{
		iifname . ip saddr @slots accept
		drop
	}}

	chain name_service {{
		type nat hook prerouting priority dstnat - 5; policy accept;
		iifname @open fib daddr . iif type local {lookups}
	}}

	chain input {{
		type filter hook input priority filter - 5; policy accept;
		iifname {ours} goto to_host
		iifname "{ANY_LINK}" ip daddr {block} goto refuse
		iifname != "lo" ip daddr {block} drop
	}}

	chain to_host {{
		ct direction reply ct state established accept
		iifname @open ip daddr {resolver.address} meta l4proto {{ tcp, udp }} th dport {resolver.port} goto lookup
		goto refuse
	}}

	chain lookup {{
		meta l4proto udp update @lookups {{ ip saddr {_LOOKUPS} }} drop
		ct state new add @flows {{ ip saddr ct count over {flows} }} drop
		accept
	}}

	chain forward {{
		type filter hook forward priority filter - 5; policy accept;
		iifname {ours} goto outward
		oifname {ours} goto inward
	}}

	chain outward {{
		iifname != @open goto refuse
		oifname {ours} goto refuse
		ip daddr @denied goto refuse
		ct state invalid drop
		ct state new add @flows {{ ip saddr ct count over {flows} }} drop
		tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
		accept
	}}

	# Another instance's sandbox hears at once that it may not; the world outside hears nothing.
	chain inward {{
		iifname "{ANY_LINK}" ct direction original goto refuse
		oifname != @open drop
		meta l4proto icmp ct state related accept
		ct direction original drop
		ct state != established drop
		tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
		accept
	}}

	# Of this host only the server dials a sandbox. While the name service is away (a restart) lookups are left to time
	# out and be asked again, instead of failing at once.
	chain output {{
		type filter hook output priority filter - 5; policy accept;
		oifname {ours} goto from_host
	}}

	chain from_host {{
		icmp type destination-unreachable ct status dnat drop
		ct state established,related accept
		meta priority {DIAL_PRIORITY:#010x} accept
		goto refuse
	}}

	# At once and in words gVisor's network stack knows ("prohibited" it passes over), so that a program inside does not
	# hang on what it may not have.
	chain refuse {{
		meta l4proto tcp reject with tcp reset
		reject with icmp type port-unreachable
	}}

	chain leave {{
		type nat hook postrouting priority srcnat - 5; policy accept;
		ip saddr {block} oifname != {ours} masquerade fully-random
	}}
}}
"""


def _elements(elements: Iterable[str]) -> str:
    joined = ", ".join(elements)
    return f"\n\t\telements = {{ {joined} }}" if joined else ""


class Rules:
    """Applies the table; one change at a time. All raise EngineFailed with nft's own words."""

    def __init__(self, instance: Instance) -> None:
        self._table = instance.table
        self._turn = asyncio.Lock()

    async def replace(self, table: str) -> None:
        """Puts a rendered table in place of whatever the instance had, in one step."""
        await self._nft(table)

    async def add(self, slots: Collection[Slot], *, open: bool) -> None:
        """Makes slots known, and able to reach the outside if `open`."""
        await self._nft(
            self._change("add", "slots", (f'"{slot.link}" . {slot.address}' for slot in slots))
            + (self._change("add", "open", (f'"{slot.link}"' for slot in slots)) if open else "")
        )

    async def open(self, slot: Slot) -> None:
        await self._nft(self._change("add", "open", [f'"{slot.link}"']))

    async def close(self, slot: Slot) -> None:
        """The slot reaches nothing from then on; connections that it has are cut."""
        await self._nft(self._change("delete", "open", [f'"{slot.link}"']))

    async def forget(self, slots: Collection[Slot]) -> None:
        """Nothing that arrives on these links is let through from then on."""
        await self._nft(
            self._change("delete", "open", (f'"{slot.link}"' for slot in slots))
            + self._change("delete", "slots", (f'"{slot.link}" . {slot.address}' for slot in slots))
        )

    async def exist(self) -> bool:
        """Whether the table is there."""
        try:
            await proc.run(["nft", "-t", "list", "table", "inet", self._table], timeout=_TIMEOUT, env=ENVIRONMENT)
        except proc.CommandFailed:
            return False
        return True

    async def remove(self) -> None:
        await self._nft(f"table inet {self._table}\ndelete table inet {self._table}\n")

    def _change(self, verb: str, set: str, elements: Iterable[str]) -> str:
        where = f"inet {self._table} {set} {{ {', '.join(elements)} }}\n"
        # "delete" refuses what is not there, "add" takes what is: so deleting is made repeatable.
        return f"add element {where}" + (f"delete element {where}" if verb == "delete" else "")

    async def _nft(self, script: str) -> None:
        async with self._turn:
            try:
                await proc.run(["nft", "-f", "-"], input=script.encode(), timeout=_TIMEOUT, env=ENVIRONMENT)
            except proc.CommandFailed as error:
                if error.returncode == 127:
                    raise NotSupported("nft is missing on this host", hint="apt-get install nftables") from error
                raise EngineFailed(f"the sandboxes' network rules could not be set: {error}") from error
