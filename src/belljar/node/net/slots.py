"""The pool of slots: made ahead, leased to sandboxes, cleaned and used again. The door of this room."""

import asyncio
import contextlib
import json
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Self

from belljar.base.clock import boot_id
from belljar.base.files import remove_tree, write_atomic
from belljar.base.log import get_logger
from belljar.base.tasks import TaskSet, in_thread
from belljar.model.errors import Error, NoCapacity
from belljar.model.sandbox import Network
from belljar.node.instance import Instance
from belljar.node.net.blocks import POOLS, Blocks
from belljar.node.net.dns import Forwarder
from belljar.node.net.links import Links, link_traffic, remove_links, routed_networks, tcp_peers, uplink_mtu
from belljar.node.net.resolvers import Resolvers
from belljar.node.net.rules import MAX_FLOWS, Resolver, Rules, flows_of_one, render
from belljar.node.net.slot import SLOTS, Slot, slot_at
from belljar.node.net.watch import TableWatch

__all__ = ("Lease", "Slot", "SlotPool", "purge", "read_leases", "slot_records")

_log = get_logger("node.net")
_SERVICE = 0
_KEPT_IDLE = 64
"""Returned slots that stay for the next burst: making one anew costs 5 ms, taking one away 30."""
_PORTS = range(20000, 30000)
"""Of the name service: the instance's id picks one, so that every server of it has the same."""
_LINGER = 0.25
_BACKOFF = (0.1, 1.0, 5.0, 30.0)


@dataclass(frozen=True, slots=True)
class Lease:
    """Who has a slot. `sandbox` None: nobody; it is spare, or waits to be cleaned."""

    number: int
    sandbox: str | None
    network: Network = Network.NONE


class SlotPool:
    """The network of one instance: an async context manager, entered once per server.

    Leaving it keeps everything that is leased, for a successor; `purge` takes all of it away. Each slot is written down
    before it is made. All calls raise EngineFailed (nft's words), NotSupported, OSError when the host refuses.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        spare: int = 4,
        upstreams: Callable[[], Sequence[tuple[str, int]]] | None = None,
        pools: Iterable[IPv4Network] = POOLS,
    ) -> None:
        self._instance = instance
        self._spare = spare
        self._boot = boot_id()
        self._resolvers = Resolvers()
        self._upstreams = upstreams or (lambda: [(server, 53) for server in self._resolvers.current()])
        self._pools = tuple(pools)
        self._blocks = Blocks(instance.run.parent)
        self._links = Links(instance)
        self._rules = Rules(instance)
        self._tasks = TaskSet(_log_failure)
        self._wake = asyncio.Event()
        self._cleaning = asyncio.Lock()
        # Held while slots become known to the rules and idle, so that a replaced table has either both or neither.
        self._listing = asyncio.Lock()
        self._forwarder: Forwarder | None = None
        self._block = IPv4Network("0.0.0.0/32")
        self._mtu = 1500
        self._flows = MAX_FLOWS
        self._leases: dict[int, Lease] = {}
        self._idle: deque[Slot] = deque()
        self._dirty: set[int] = set()
        self._making: set[int] = set()

    @property
    def block(self) -> IPv4Network:
        return self._block

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def lease(self, sandbox: str, network: Network) -> Slot:
        """A slot of its own for the sandbox; the one it has if it asks again. Raises NoCapacity when all are taken."""
        for lease in self._leases.values():
            if lease.sandbox == sandbox:
                return self._slot(lease.number)
        fresh = not self._idle
        slot = self._next() if fresh else self._idle.popleft()
        try:
            self._note(Lease(slot.number, sandbox, network))
            self._wake.set()
            if fresh:
                await self._links.make(slot)
                await self._rules.add([slot], open=network is Network.OPEN)
            elif network is not Network.OPEN:
                await self._rules.close(slot)
        except BaseException:
            self._leases.pop(slot.number, None)
            self._dirty.add(slot.number)
            raise
        finally:
            self._making.discard(slot.number)
        return slot

    def open_socket(self, slot: Slot) -> int:
        """A packet socket on the slot's far end for one engine instance; the caller closes it. Blocks: call it in a thread."""
        return self._links.open_socket(slot)

    async def traffic(self, slot: Slot) -> tuple[int, int] | None:
        """Bytes that the guest received and sent since the link was made; None when the host does not say."""
        return await in_thread(link_traffic, slot.link)

    async def set_network(self, slot: Slot, network: Network) -> None:
        """What the slot may reach from now on; a tightening also ends live connections."""
        lease = self._leases.get(slot.number)
        if lease is None or not self._is_ours(slot):
            return
        self._note(Lease(slot.number, lease.sandbox, network))
        if network is Network.OPEN:
            await self._rules.open(slot)
        else:
            await self._rules.close(slot)
            await self._links.forget_flows([slot.address])

    async def release(self, slot: Slot) -> None:
        """Takes the slot back and cleans it. Call it when the engine instance is gone. Repeatable."""
        if slot.number not in self._leases or not self._is_ours(slot):
            return
        self._retire([slot.number])
        await self._try_to_clean()

    async def release_of(self, sandbox: str) -> None:
        """Takes back whatever this sandbox has: for one that died before it could write its slot down. Repeatable."""
        for lease in list(self._leases.values()):
            if lease.sandbox == sandbox:
                await self.release(self._slot(lease.number))

    async def adopt(self, slots: Iterable[Slot]) -> None:
        """Says which slots of an earlier server are still in use, all of them; every other one is taken back."""
        kept: set[int] = set()
        for slot in slots:
            if not self._is_ours(slot):
                _log.warning(
                    "a sandbox names a network slot that is not of this instance's block", address=slot.address
                )
                continue
            kept.add(slot.number)
            if slot.number not in self._leases:
                # Nothing was written down of it (a reboot, say). It stays shut, and its number is not given out twice.
                self._idle = deque(idle for idle in self._idle if idle.number != slot.number)
                self._dirty.discard(slot.number)
                self._note(Lease(slot.number, "unknown"))
                await self._rules.close(slot)
        lost = [lease for number, lease in self._leases.items() if number not in kept]
        for lease in lost:
            _log.info("taking back a network slot without an owner", sandbox=lease.sandbox)
        self._retire([lease.number for lease in lost])
        await self._try_to_clean()

    async def purge(self) -> None:
        """Takes everything away that this instance has on the host's network. No slot may be in use."""
        await self._close()
        await purge(self._instance)

    async def _open(self) -> None:
        instance = self._instance
        await in_thread(_make_folders, instance)
        routed = await in_thread(lambda: [*routed_networks(), *tcp_peers()])
        routed += [IPv4Network(server) for server in self._resolvers.current() if ":" not in server]
        mtu = await in_thread(uplink_mtu)
        claim = await in_thread(self._blocks.claim, instance, routed, mtu, self._pools)
        self._block, self._mtu = claim.block, claim.mtu
        await self._links.open()
        service = self._slot(_SERVICE)
        await self._links.make(service)
        port = _PORTS[zlib.crc32(instance.id.encode()) % len(_PORTS)]
        self._forwarder = await Forwarder(self._block, service.gateway, self._upstreams, port=port).__aenter__()
        leases = read_leases(instance)
        for number, path in _records(instance):
            if number not in {lease.number for lease in leases}:
                path.unlink()  # of an earlier boot, where /run is kept on a disk
        for lease in leases:
            if lease.sandbox is None:
                self._dirty.add(lease.number)
            else:
                self._leases[lease.number] = lease
        self._flows = await in_thread(flows_of_one)
        await self._replace_table()
        await in_thread(self._blocks.forward)
        await self._clean()
        self._tasks.start(self._keep_filled(), name="network slots: spare ones")
        self._tasks.start(self._keep_table(), name="network slots: rules")

    async def _close(self) -> None:
        await self._tasks.close()
        if self._forwarder is not None:
            await self._forwarder.close()
            self._forwarder = None
        await self._links.close()

    def _slot(self, number: int) -> Slot:
        return slot_at(self._instance, self._block, number, self._mtu)

    def _is_ours(self, slot: Slot) -> bool:
        return 0 < slot.number < SLOTS and self._slot(slot.number).address == slot.address

    def _next(self) -> Slot:
        """A slot that does not exist yet; its number is taken until it is leased, idle or forgotten."""
        idle = {slot.number for slot in self._idle}
        for number in range(1, SLOTS):
            if not (number in self._leases or number in idle or number in self._dirty or number in self._making):
                self._making.add(number)
                return self._slot(number)
        raise NoCapacity(f"all {SLOTS - 1} network slots are taken", hint="end some sandboxes")

    def _note(self, lease: Lease) -> None:
        record = {"boot": self._boot, "number": lease.number, "sandbox": lease.sandbox, "network": str(lease.network)}
        write_atomic(_record(self._instance, lease.number), json.dumps(record).encode(), durable=False)
        if lease.sandbox is None:
            self._leases.pop(lease.number, None)
        else:
            self._leases[lease.number] = lease

    def _retire(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._note(Lease(number, None))
            self._dirty.add(number)
        self._wake.set()

    async def _try_to_clean(self) -> None:
        try:
            await self._clean()
        except (Error, OSError) as error:
            _log.warning("a returned network slot could not be cleaned yet", error=str(error))

    async def _clean(self) -> None:
        """Makes returned slots as new, or takes them away: all that wait, in one go. They stay dirty when that fails.

        The rules are left alone: with nobody on the far end nothing arrives, and a change of rules that takes something
        away costs 20 ms.
        """
        async with self._cleaning:
            slots = [self._slot(number) for number in sorted(self._dirty)]
            if not slots:
                return  # somebody else's turn included ours
            sound, listened = await self._links.sound(slots), await self._listened(slots)
            room = max(self._spare, _KEPT_IDLE) - len(self._idle)
            kept: list[Slot] = []
            for slot in slots:
                if slot.far in listened:
                    # Leased again, it would show the next guest's packets to whoever still listens.
                    _log.warning("a returned network slot still has a listener; its link is removed", slot=slot.number)
                elif slot.number in sound and len(kept) < room:
                    kept.append(slot)
            gone = [slot for slot in slots if slot not in kept]
            for slot in gone:
                await self._links.remove(slot)
            await self._links.forget_flows([slot.address for slot in slots])
            if gone:
                await self._rules.forget(gone)
            for slot in gone:
                _record(self._instance, slot.number).unlink(missing_ok=True)
            async with self._listing:
                if kept:
                    await self._rules.add(kept, open=True)
                self._dirty.difference_update(slot.number for slot in slots)
                self._idle.extend(kept)

    async def _listened(self, slots: Collection[Slot]) -> set[str]:
        """Far ends with a packet socket. The one of a kernel that was just killed closes a few milliseconds after its death."""
        deadline = asyncio.get_running_loop().time() + _LINGER
        while True:
            listened = await self._links.listened()
            if not any(slot.far in listened for slot in slots) or asyncio.get_running_loop().time() > deadline:
                return listened
            await asyncio.sleep(0.005)

    async def _keep_filled(self) -> None:
        failures = 0
        while True:
            try:
                await self._fill()
                failures = 0
            except (Error, OSError) as error:
                _log.warning("no spare network slots for now", error=str(error))
                await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF) - 1)])
                failures += 1
                continue
            await self._wake.wait()
            self._wake.clear()

    async def _fill(self) -> None:
        await self._clean()
        while len(self._idle) < self._spare and len(self._leases) + len(self._idle) < SLOTS - 1:
            slot = self._next()
            try:
                self._note(Lease(slot.number, None))
                await self._links.make(slot)
                async with self._listing:
                    await self._rules.add([slot], open=True)
                    self._idle.append(slot)
            except BaseException:
                self._dirty.add(slot.number)
                raise
            finally:
                self._making.discard(slot.number)

    async def _keep_table(self) -> None:
        """Puts the rules back when somebody else removed them. Watches only while it changes nothing itself."""
        while True:
            try:
                removed = asyncio.Event()
                with TableWatch(self._instance.table, removed.set):
                    if await self._rules.exist():
                        await removed.wait()
                if self._instance.id not in await in_thread(self._blocks.claims):
                    return  # purged: there is nothing left to guard
                _log.warning("the sandboxes' network rules were removed by somebody else; putting them back")
                await self._replace_table()
            except (Error, OSError) as error:
                _log.error("the network rules could not be put back", error=str(error))
                await asyncio.sleep(1.0)

    async def _replace_table(self) -> None:
        assert self._forwarder is not None
        resolver = Resolver(self._slot(_SERVICE).gateway, self._forwarder.port)
        async with self._listing:
            idle = {slot.number for slot in self._idle}
            reaching = idle | {number for number, lease in self._leases.items() if lease.network is Network.OPEN}
            slots = map(self._slot, sorted(idle | set(self._leases)))
            table = render(self._instance, self._block, resolver, slots, reaching, flows=self._flows)
            await self._rules.replace(table)


async def purge(instance: Instance) -> None:
    """Takes away what an instance has on the host's network: links, namespace, rules, block. No server may run. Repeatable."""
    # The claim first: without it no server that is still about puts the rules back.
    await in_thread(Blocks(instance.run.parent).release, instance)
    await in_thread(remove_links, instance)
    await Rules(instance).remove()
    await in_thread(_remove_folder, slot_records(instance))


def slot_records(instance: Instance) -> Path:
    """The folder where leases are written down, with the boot that they hold for."""
    return instance.run / "slots"


def read_leases(instance: Instance) -> list[Lease]:
    """What is written down, without a server. A record that cannot be read is nobody's; one of an earlier boot is none."""
    found: list[Lease] = []
    now = boot_id()
    for number, path in _records(instance):
        try:
            record = json.loads(path.read_bytes())
            sandbox = None if record["sandbox"] is None else str(record["sandbox"])
            lease = Lease(number, sandbox, Network(record["network"]))
            if record["boot"] == now:
                found.append(lease)
        except (ValueError, KeyError, TypeError, OSError):
            found.append(Lease(number, None))
    return sorted(found, key=lambda lease: lease.number)


def _records(instance: Instance) -> list[tuple[int, Path]]:
    folder = slot_records(instance)
    paths = list(folder.iterdir()) if folder.is_dir() else []
    numbered = [(int(path.stem), path) for path in paths if path.stem.isdecimal() and path.suffix == ".json"]
    return [(number, path) for number, path in numbered if 0 < number < SLOTS]


def _record(instance: Instance, number: int) -> Path:
    return slot_records(instance) / f"{number}.json"


def _make_folders(instance: Instance) -> None:
    instance.make_run()
    slot_records(instance).mkdir(exist_ok=True, mode=0o700)


def _remove_folder(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        remove_tree(folder)


def _log_failure(name: str, error: BaseException) -> None:
    _log.error("a task failed", task=name, exc_info=error)
