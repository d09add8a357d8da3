"""What instances on one host share: which address block belongs to whom, and the host's forwarding switch.

Both are in one file, changed under a lock. It names the boot that it holds for: links end with a reboot, and so does this.
"""

import bisect
import contextlib
import hashlib
import itertools
import json
import socket
import time
from collections.abc import Collection, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from belljar.base.clock import boot_id
from belljar.base.files import LockHeld, lock_file, write_atomic
from belljar.base.log import get_logger
from belljar.model.errors import NoCapacity
from belljar.node.instance import Instance
from belljar.node.net.slot import BLOCK_PREFIX

__all__ = ("POOLS", "Blocks", "Claim", "choose_block")

POOLS = (IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12"), IPv4Network("100.64.0.0/10"))
"""In this order. Carrier-grade NAT's range comes last: Tailscale drops what comes from it elsewhere than from its own link."""
_SHORTEST_REAL = 8
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_LOCK_SECONDS = 10.0


def choose_block(
    seed: str, taken: Iterable[IPv4Network], pools: Iterable[IPv4Network] = POOLS, prefix: int = BLOCK_PREFIX
) -> IPv4Network:
    """A block that overlaps nothing in `taken`; the same seed gives the same one while that is free.

    Networks shorter than /8 in `taken` are ignored: they are default routes by another name (a tunnel's 0.0.0.0/1).
    Raises NoCapacity when nothing is free.
    """
    ranges = sorted(
        (int(network.network_address), int(network.broadcast_address))
        for network in taken
        if network.prefixlen >= _SHORTEST_REAL
    )
    starts = [start for start, _ in ranges]
    furthest = list(itertools.accumulate((end for _, end in ranges), max))
    for candidate in _candidates(seed, pools, prefix):
        # Of all ranges that start before the candidate's end, the one that reaches furthest decides.
        before = bisect.bisect_right(starts, int(candidate.broadcast_address))
        if not before or furthest[before - 1] < int(candidate.network_address):
            return candidate
    raise NoCapacity(
        "no free private address block for the sandboxes' network",
        hint="`ip route show table all` lists what this host routes; a /18 of 10/8, 172.16/12 or 100.64/10 must be free",
    )


def _candidates(seed: str, pools: Iterable[IPv4Network], prefix: int) -> Iterator[IPv4Network]:
    draw = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8])
    for pool in pools:
        count = 1 << (prefix - pool.prefixlen)
        size = 1 << (32 - prefix)
        for step in range(count):
            yield IPv4Network((int(pool.network_address) + (draw + step) % count * size, prefix))


@dataclass(frozen=True, slots=True)
class Claim:
    """What an instance has until a reboot or its purge. `mtu` stays too: links made by different servers fit together."""

    block: IPv4Network
    mtu: int
    home: str


@dataclass(slots=True)
class _Ledger:
    boot: str
    forward_was: str | None = None
    """What the forwarding switch said before the first instance needed it; None while none has touched it."""
    claims: dict[str, Claim] = field(default_factory=dict[str, Claim])

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, default=str).encode()


class Blocks:
    """The host's ledger. Methods block (for milliseconds; at most 10 s while another instance has the lock)."""

    def __init__(self, folder: Path, forward: Path = _FORWARD) -> None:
        self._file = folder / "network.json"
        self._lock = folder / "network.lock"
        self._forward = forward

    def claim(
        self, instance: Instance, routed: Collection[IPv4Network], mtu: int, pools: Iterable[IPv4Network] = POOLS
    ) -> Claim:
        """What the instance has, else a new block and this mtu, written down before this returns.

        `routed` is what the host routes or talks to. Raises NoCapacity.
        """
        with self._changed() as ledger:
            if mine := ledger.claims.get(instance.id):
                return mine
            block = choose_block(instance.id, [*routed, *(claim.block for claim in ledger.claims.values())], pools)
            mine = ledger.claims[instance.id] = Claim(block, mtu, str(instance.home))
            return mine

    def claims(self) -> dict[str, Claim]:
        """By instance id, without a lock: for reports."""
        return self._read().claims

    def release(self, instance: Instance) -> None:
        """Gives the block back; the last instance puts the forwarding switch back where it was. Repeatable."""
        if not self._file.exists():
            return
        with self._changed() as ledger:
            ledger.claims.pop(instance.id, None)
            if not ledger.claims and ledger.forward_was is not None:
                if self._forward.read_text().strip() != ledger.forward_was:
                    self._forward.write_text(ledger.forward_was)
                ledger.forward_was = None

    def forward(self) -> None:
        """Makes the host forward IPv4, having written down what was before."""
        now = self._forward.read_text().strip()
        with self._changed() as ledger:
            if ledger.forward_was is None:
                ledger.forward_was = now
        if now != "1":
            get_logger("node.net").info("switching IPv4 forwarding on", was=now)
            self._forward.write_text("1")

    @contextlib.contextmanager
    def _changed(self) -> Generator[_Ledger]:
        with _locked(self._lock):
            ledger = self._read()
            before = ledger.to_json()
            _forget_dead(ledger)
            try:
                yield ledger
            finally:
                if not ledger.claims and ledger.forward_was is None:
                    self._file.unlink(missing_ok=True)
                elif (after := ledger.to_json()) != before:
                    write_atomic(self._file, after, durable=False)

    def _read(self) -> _Ledger:
        now = boot_id()
        try:
            raw = json.loads(self._file.read_bytes())
            claims = {
                id: Claim(IPv4Network(claim["block"]), int(claim["mtu"]), str(claim["home"]))
                for id, claim in raw["claims"].items()
            }
            ledger = _Ledger(raw["boot"], raw["forward_was"], claims)
        except FileNotFoundError:
            return _Ledger(now)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            get_logger("node.net").warning(
                "the host's network ledger cannot be read; starting a new one", error=str(error)
            )
            return _Ledger(now)
        return ledger if ledger.boot == now else _Ledger(now)


def _forget_dead(ledger: _Ledger) -> None:
    """A claim whose state directory is gone counts only while its links are there."""
    links = [name for _, name in socket.if_nameindex()]
    for id, claim in list(ledger.claims.items()):
        with contextlib.suppress(OSError):
            if (Path(claim.home) / "instance").read_text().strip() == id:
                continue
        prefix = Instance(id, Path(claim.home)).link_prefix
        if not any(link.startswith(prefix) for link in links):
            del ledger.claims[id]


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    deadline = time.monotonic() + _LOCK_SECONDS
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock_file(path, about="network ledger"))
                break
            except LockHeld:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
        yield
