"""Real links, rules and packets. A plain network namespace stands in for the guest, another one for the internet."""

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from pyroute2 import Conntrack
from tests.node.net_world import (
    PRIVATE,
    QUESTION,
    Outside,
    ask,
    clean_instance,
    fake_resolver,
    guest_on,
    inside,
    outside_world,
    sh,
)

from belljar.model.errors import NoCapacity
from belljar.model.sandbox import Network
from belljar.node.instance import Instance, instance_of
from belljar.node.net.conntrack import forget_flows
from belljar.node.net.dial import dial
from belljar.node.net.slots import SlotPool, purge, read_leases

pytestmark = pytest.mark.node


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    with outside_world(tmp_path) as world:
        yield world


@pytest.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    async with clean_instance(tmp_path) as instance:
        yield instance


@pytest.fixture
async def pool(instance: Instance) -> AsyncIterator[SlotPool]:
    async with SlotPool(instance, spare=2) as pool:
        yield pool


async def test_an_open_sandbox_reaches_the_internet_under_the_hosts_address(
    instance: Instance, pool: SlotPool, outside: Outside, tmp_path: Path
) -> None:
    slot = await pool.lease("sb1", Network.OPEN)
    with guest_on(instance, slot, tmp_path) as guest:
        connection = guest.connect(outside.address, 8080)
        assert connection.recv(100) == f"{outside.gateway}\n".encode()
        connection.close()


async def test_private_ranges_are_denied_at_once(
    instance: Instance, pool: SlotPool, outside: Outside, tmp_path: Path
) -> None:
    slot = await pool.lease("sb1", Network.OPEN)
    with guest_on(instance, slot, tmp_path) as guest:
        for address in PRIVATE:
            socket.create_connection((address, 8080), 3).close()  # the host itself does reach it
            began = time.monotonic()
            with pytest.raises(ConnectionRefusedError):
                guest.connect(address, 8080)
            assert time.monotonic() - began < 1


async def test_the_host_is_out_of_reach_at_each_of_its_addresses(
    instance: Instance, pool: SlotPool, outside: Outside, tmp_path: Path
) -> None:
    slot = await pool.lease("sb1", Network.OPEN)
    own = [address.split("/")[0] for address in re.findall(r"inet (\S+)", sh("ip -4 addr"))]
    with guest_on(instance, slot, tmp_path) as guest, socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        for address in {slot.gateway, outside.gateway, *own} - {"127.0.0.1"}:
            assert not guest.reaches(address, port), address
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()


async def test_siblings_do_not_reach_each_other(
    instance: Instance, pool: SlotPool, outside: Outside, tmp_path: Path
) -> None:
    one, two = await pool.lease("sb1", Network.OPEN), await pool.lease("sb2", Network.OPEN)
    with (
        guest_on(instance, one, tmp_path) as first,
        guest_on(instance, two, tmp_path) as second,
        inside(second.namespace, lambda: socket.create_server(("0.0.0.0", 9000))) as listener,
    ):
        assert not first.reaches(two.address, 9000)
        assert not first.reaches(two.gateway, 9000)
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()


async def test_only_the_server_dials_a_sandbox(
    instance: Instance, pool: SlotPool, outside: Outside, tmp_path: Path
) -> None:
    slot = await pool.lease("sb1", Network.NONE)
    with (
        guest_on(instance, slot, tmp_path) as guest,
        inside(guest.namespace, lambda: socket.create_server(("0.0.0.0", 9000))),
    ):
        connection = await dial(slot.address, 9000, timeout=3)
        assert connection.getpeername()[0] == slot.address
        connection.close()
        with pytest.raises(OSError, match=r"refused|unreachable|No route"):
            socket.create_connection((slot.address, 9000), 3)
        # Nor does anybody who uses this host as a router.
        sh(f"nsenter --net={outside.namespace} ip route replace {slot.address}/32 via {outside.gateway}")
        with inside(outside.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as stranger:
            stranger.settimeout(0.5)
            with pytest.raises(OSError):
                stranger.connect((slot.address, 9000))


async def test_network_none_reaches_nothing_not_even_names(
    instance: Instance, pool: SlotPool, outside: Outside, tmp_path: Path
) -> None:
    slot = await pool.lease("sb1", Network.NONE)
    with guest_on(instance, slot, tmp_path) as guest:
        assert not guest.reaches(outside.address, 8080)
        asking = guest.udp()
        asking.sendto(QUESTION, (slot.gateway, 53))
        with pytest.raises(OSError):
            asking.recv(100)
        asking.close()
        inner = inside(guest.namespace, lambda: socket.create_server(("127.0.0.1", 0)))
        assert guest.reaches("127.0.0.1", inner.getsockname()[1])
        inner.close()


async def test_closing_a_network_cuts_live_connections(
    instance: Instance, pool: SlotPool, outside: Outside, tmp_path: Path
) -> None:
    slot = await pool.lease("sb1", Network.OPEN)
    with guest_on(instance, slot, tmp_path) as guest:
        connection = guest.connect(outside.address, 8080)
        connection.recv(100)
        await pool.set_network(slot, Network.NONE)
        connection.settimeout(1)
        with pytest.raises(OSError):
            connection.sendall(b"still there?")
            assert connection.recv(100) == b""
            raise ConnectionResetError
        connection.close()
        await pool.set_network(slot, Network.OPEN)
        assert guest.reaches(outside.address, 8080)


async def test_a_forged_source_address_gets_nowhere(
    instance: Instance, pool: SlotPool, outside: Outside, tmp_path: Path
) -> None:
    one, two = await pool.lease("sb1", Network.OPEN), await pool.lease("sb2", Network.OPEN)
    with (
        guest_on(instance, one, tmp_path) as guest,
        inside(outside.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as listener,
    ):
        listener.bind(("0.0.0.0", 7000))
        listener.settimeout(0.3)
        # The kernel refuses to tell a forger even the gateway's hardware address, so it is given.
        guest.sh(f"ip neigh replace {one.gateway} lladdr 02:62:6a:00:00:01 dev eth0 nud permanent")
        for source in (two.address, one.gateway, "198.18.255.1", "8.8.8.8"):
            guest.sh(f"ip addr add {source}/32 dev lo")
            with guest.udp() as forger:
                forger.bind((source, 0))
                forger.sendto(b"forged", (outside.address, 7000))
            guest.sh(f"ip addr del {source}/32 dev lo")
        with pytest.raises(TimeoutError):
            listener.recv(100)
        with guest.udp() as honest:
            honest.sendto(b"honest", (outside.address, 7000))
            assert listener.recv(100) == b"honest"


async def test_ipv6_is_dead_on_the_link(instance: Instance, pool: SlotPool, outside: Outside, tmp_path: Path) -> None:
    slot = await pool.lease("sb1", Network.OPEN)
    with guest_on(instance, slot, tmp_path) as guest:
        assert "inet6" not in sh(f"ip -6 addr show dev {slot.link}")
        guest.sh("echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip -6 addr add fd77::2/64 dev eth0 nodad")
        talker = inside(guest.namespace, lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
        talker.settimeout(0.5)
        with pytest.raises(OSError):
            talker.connect(("fd77::1", 80))
        talker.close()


async def test_leased_slots_are_used_again_and_carry_nothing_over(
    instance: Instance, pool: SlotPool, outside: Outside, tmp_path: Path
) -> None:
    slot = await pool.lease("sb1", Network.OPEN)
    assert await pool.lease("sb1", Network.OPEN) == slot
    with guest_on(instance, slot, tmp_path) as guest:
        connections = [guest.connect(outside.address, 8080) for _ in range(20)]
    assert sum(f"src={slot.address}" in line for line in await asyncio.to_thread(flows)) == 20
    await pool.release(slot)
    await pool.release(slot)
    assert not [line for line in await asyncio.to_thread(flows) if slot.address in line]
    for connection in connections:
        connection.close()
    later = [await pool.lease(f"sb{n}", Network.NONE) for n in range(2, 6)]
    assert slot in later
    assert len({one.number for one in later}) == 4
    assert [lease.sandbox for lease in read_leases(instance) if lease.sandbox] != []


def flows() -> list[str]:
    """The kernel's tracked connections, by the library that the product does without (see conntrack.py)."""
    with Conntrack() as conntrack:
        return [f"src={entry.tuple_orig.saddr} dst={entry.tuple_orig.daddr}" for entry in conntrack.dump_entries()]


async def test_a_slot_somebody_still_listens_on_is_never_leased_again(instance: Instance, pool: SlotPool) -> None:
    slot = await pool.lease("sb1", Network.OPEN)
    fd = await asyncio.to_thread(pool.open_socket, slot)
    index = socket.if_nametoindex(slot.link)
    await pool.release(slot)
    listener = socket.socket(fileno=fd)
    listener.setblocking(False)
    with pytest.raises(OSError, match="down"):
        listener.recv(100)
    listener.close()
    again = [await pool.lease(f"sb{n}", Network.OPEN) for n in range(2, 6)]
    for other in again:
        assert socket.if_nametoindex(other.link) != index


async def test_a_packet_socket_hears_what_the_host_sends_to_its_guest(instance: Instance, pool: SlotPool) -> None:
    slot = await pool.lease("sb1", Network.OPEN)
    with socket.socket(fileno=await asyncio.to_thread(pool.open_socket, slot)) as packet:
        packet.settimeout(3)
        calling = asyncio.create_task(dial(slot.address, 80, timeout=2))
        frame = await asyncio.to_thread(packet.recv, 2000)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
    header = 10  # virtio_net_hdr
    assert frame[header : header + 6] == slot.mac
    assert socket.inet_ntoa(frame[header + 30 : header + 34]) == slot.address


async def test_a_successor_goes_on_with_what_is_leased_and_frees_the_rest(
    instance: Instance, outside: Outside, tmp_path: Path
) -> None:
    async with SlotPool(instance, spare=1) as first:
        kept = await first.lease("sb1", Network.OPEN)
        shut = await first.lease("sb2", Network.NONE)
        lost = await first.lease("sb3", Network.OPEN)
        block = first.block
    with guest_on(instance, kept, tmp_path) as guest, guest_on(instance, shut, tmp_path) as mute:
        connection = guest.connect(outside.address, 8080)
        connection.recv(100)
        async with SlotPool(instance, spare=1) as second:
            assert second.block == block
            await second.adopt([kept, shut])
            connection.sendall(b"still there?")
            assert connection.recv(100) == b"still there?"
            assert guest.reaches(outside.address, 8080)
            assert not mute.reaches(outside.address, 8080)
            assert {lease.sandbox for lease in read_leases(instance)} == {"sb1", "sb2", None}
            again = await second.lease("sb4", Network.OPEN)
            assert again.number == lost.number
        connection.close()


async def test_rules_that_somebody_flushed_come_back_by_themselves(
    instance: Instance, pool: SlotPool, outside: Outside, tmp_path: Path
) -> None:
    slot = await pool.lease("sb1", Network.OPEN)
    with guest_on(instance, slot, tmp_path) as guest:
        sh(f"nft delete table inet {instance.table}")
        for _ in range(100):
            await asyncio.sleep(0.02)
            if instance.table in await asyncio.to_thread(sh, "nft list tables"):
                break
        assert guest.reaches(outside.address, 8080)
        assert not guest.reaches(PRIVATE[0], 8080)


async def test_a_pool_that_was_purged_puts_nothing_back(instance: Instance, pool: SlotPool) -> None:
    await pool.lease("sb1", Network.OPEN)
    await purge(instance)  # by somebody else, while the pool still watches
    await asyncio.sleep(0.5)
    assert instance.table not in sh("nft list tables")
    await pool.purge()


async def test_while_the_name_service_is_away_a_guest_is_left_to_ask_again(
    instance: Instance, outside: Outside, tmp_path: Path
) -> None:
    async with fake_resolver() as (port, _):
        async with SlotPool(instance, spare=0, upstreams=lambda: [("127.0.0.1", port)]) as first:
            slot = await first.lease("sb1", Network.OPEN)
        with guest_on(instance, slot, tmp_path) as guest, guest.udp() as asking:
            asking.settimeout(0.3)
            asking.connect((slot.gateway, 53))
            for _ in range(3):
                asking.send(QUESTION)
                with pytest.raises(TimeoutError):  # not refused: a C library would give up at once
                    asking.recv(100)
            async with SlotPool(instance, spare=0, upstreams=lambda: [("127.0.0.1", port)]) as second:
                await second.adopt([slot])
                asking.settimeout(3)
                asking.send(QUESTION)
                assert (await asyncio.to_thread(asking.recv, 100))[:2] == QUESTION[:2]


async def test_large_segments_pass_a_narrow_uplink(
    instance: Instance, pool: SlotPool, outside: Outside, tmp_path: Path
) -> None:
    slot = await pool.lease("sb1", Network.OPEN)
    sh(f"ip link set {outside.link} mtu 1300; nsenter --net={outside.namespace} ip link set wan mtu 1300")
    with guest_on(instance, slot, tmp_path) as guest:
        connection = guest.connect(outside.address, 8080)
        maximum = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        assert maximum <= 1260
        connection.close()


async def test_a_spare_slot_reaches_out_at_once_and_another_takes_its_place(
    instance: Instance, outside: Outside, tmp_path: Path
) -> None:
    async with SlotPool(instance, spare=3) as pool:
        await pool.adopt([])
        await _full(pool, 3)
        ready = {slot.number for slot in pool._idle}
        leased = [await pool.lease(f"sb{n}", Network.OPEN) for n in range(3)]
        assert {slot.number for slot in leased} == ready
        with guest_on(instance, leased[-1], tmp_path) as guest:
            assert guest.reaches(outside.address, 8080)
        await _full(pool, 3)
        assert not ready & {slot.number for slot in pool._idle}


async def _full(pool: SlotPool, count: int) -> None:
    for _ in range(500):
        if len(pool._idle) >= count:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{len(pool._idle)} of {count} slots wait after 10 s")


async def test_two_instances_side_by_side_have_their_own_of_everything(
    instance: Instance, pool: SlotPool, outside: Outside, tmp_path: Path
) -> None:
    other = instance_of(tmp_path / "other")
    try:
        async with SlotPool(other, spare=1) as second:
            assert not pool.block.overlaps(second.block)
            one, two = await pool.lease("sb1", Network.OPEN), await second.lease("sb1", Network.OPEN)
            with guest_on(instance, one, tmp_path) as left, guest_on(other, two, tmp_path) as right:
                with inside(right.namespace, lambda: socket.create_server(("0.0.0.0", 9000))):
                    assert not left.reaches(two.address, 9000)
                    for guest, other_slot in ((left, two), (right, one)):  # whoever's rules come first
                        for address in (other_slot.address, other_slot.gateway):
                            with pytest.raises(ConnectionRefusedError):
                                guest.connect(address, 9001)
                assert right.reaches(outside.address, 8080)
            await second.purge()
        with guest_on(instance, one, tmp_path) as left:
            assert left.reaches(outside.address, 8080)
    finally:
        await purge(other)
        sh(f"rm -rf {other.run}")


async def test_forgetting_flows_takes_thousands_at_once(
    instance: Instance, pool: SlotPool, outside: Outside, tmp_path: Path
) -> None:
    slot = await pool.lease("sb1", Network.OPEN)
    with guest_on(instance, slot, tmp_path) as guest:
        sender = guest.udp()
        for port in range(10000, 13000):
            sender.sendto(b"x", (outside.address, port))
        sender.close()
    began = time.perf_counter()
    count = await asyncio.to_thread(forget_flows, [slot.address])
    print(f"{count} flows forgotten in {(time.perf_counter() - began) * 1e3:.1f} ms")
    assert count >= 2900
    assert await asyncio.to_thread(forget_flows, [slot.address]) == 0


async def test_a_pool_without_room_says_so(instance: Instance) -> None:
    with pytest.raises(NoCapacity, match="no free private address block"):
        async with SlotPool(instance, pools=[IPv4Network("127.0.0.0/18")], spare=0) as pool:
            pytest.fail(f"a block of {pool.block} was taken although it is routed")


@pytest.mark.parametrize("over", ["udp", "tcp"])
async def test_names_are_answered_at_the_gateway_by_the_hosts_resolver(
    instance: Instance, outside: Outside, tmp_path: Path, over: str
) -> None:
    async with (
        fake_resolver() as (port, seen),
        SlotPool(instance, spare=1, upstreams=lambda: [("127.0.0.1", port)]) as pool,
    ):
        slot = await pool.lease("sb1", Network.OPEN)
        with guest_on(instance, slot, tmp_path) as guest:
            answer = await asyncio.to_thread(ask, guest, slot.gateway, over)
            assert answer[:2] == QUESTION[:2]
            assert answer.endswith(socket.inet_aton("203.0.113.9"))
            assert seen == [over]
