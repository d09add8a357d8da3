"""What a state directory has on the host now, found by its names, and who owns each thing.

Looks for itself instead of asking those who made the things, and needs no server: names, processes, mounts, cgroups and rules
all carry the instance's id. Shipped for `belljar doctor --leaks`, and run after every test that makes sandboxes.
"""

import contextlib
import json
import os
import re
import socket
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from belljar.base import proc
from belljar.base.clock import boot_id
from belljar.node.holding import owned
from belljar.node.instance import Instance
from belljar.node.net.blocks import Blocks
from belljar.node.net.rules import ENVIRONMENT
from belljar.node.net.slots import read_leases
from belljar.node.record import Records
from belljar.node.snapshot.memory import fast_lane
from belljar.node.snapshot.plain import plain_room

__all__ = ("SERVER", "HostObject", "host_objects", "leaks", "live_sandboxes")

SERVER = "server"
"""Owner of what serves all sandboxes: it stays for the next server, as long as the state directory is there."""
_OCTAL = re.compile(r"\\([0-7]{3})")
_WORDS = re.compile(r"[/=:\0]")


@dataclass(frozen=True, slots=True)
class HostObject:
    """`kind`: process, mount, namespace, link, cgroup, table, rule, file or block. `owner`: a live sandbox's id, SERVER, or
    None: a leak. `name` is what the host calls it, fit for the command that looks at it."""

    kind: str
    name: str
    owner: str | None


def leaks(instance: Instance, owners: Collection[str] | None = None) -> list[HostObject]:
    """Everything of this instance on the host without a living owner."""
    return [found for found in host_objects(instance, owners) if found.owner is None]


def host_objects(instance: Instance, owners: Collection[str] | None = None) -> list[HostObject]:
    """Everything that carries this instance's id. `owners`: ids of the live sandboxes, None reads the records on disk.

    Blocks (30 ms). Without root it sees less. Raises nothing: what ends while it looks is left out.
    """
    if owners is not None:
        return _look(instance, frozenset(owners))
    found = _look(instance, live_sandboxes(instance))
    ownerless = {(thing.kind, thing.name) for thing in found if thing.owner is None}
    if not ownerless:
        return found
    # A server makes and frees guests while we look: what has no owner now and had one a moment ago, or the other way round, is
    # on its way.
    again = _look(instance, live_sandboxes(instance))
    passing = [thing for thing in again if thing.owner is None and (thing.kind, thing.name) not in ownerless]
    return [replace(thing, owner=SERVER) if thing in passing else thing for thing in again]


def _look(instance: Instance, alive: Collection[str]) -> list[HostObject]:
    mounts = list(_mounted())
    found = [
        *_processes(instance, alive),
        *_mounts(instance, alive, mounts),
        *_network(instance, alive),
        *_cgroups(instance, alive, mounts),
        *_files(instance, alive),
    ]
    if not _is_there(instance):
        # Nobody will ever come back for what an erased state directory left.
        found = [replace(thing, owner=None) if thing.owner == SERVER else thing for thing in found]
    return found


def live_sandboxes(instance: Instance) -> frozenset[str]:
    """Ids of the sandboxes that the records on disk say are not at their end, those of an earlier boot left out, and of what
    holds things for them on the host; and of the guests that wait for a claim.
    """
    if not instance.sandboxes.is_dir():
        return owned(instance.run)
    records, _ = Records(instance.sandboxes).load()
    now = boot_id()
    live = [record for record in records if not record.life.status.is_end and record.boot == now]
    holdings = {record.instance.spec.id for record in live if record.instance is not None}
    return frozenset({record.id for record in live} | holdings) | owned(instance.run)


def _is_there(instance: Instance) -> bool:
    try:
        return (instance.home / "instance").read_text().strip() == instance.id
    except OSError:
        return False


def _owner_among(words: Iterable[str], alive: Collection[str]) -> str | None:
    return next((word for word in words if word in alive), None)


def _processes(instance: Instance, alive: Collection[str]) -> Iterator[HostObject]:
    """Every process that was told a path below our run folder: runsc, its kernels and gofers, and mount helpers."""
    mark = f"{instance.run}/"
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            text = (folder / "cmdline").read_bytes().decode(errors="replace")
            if mark in text:
                program, _, _ = text.partition("\0")
                yield HostObject("process", f"{folder.name} {program}", _owner_among(_WORDS.split(text), alive))


def _mounted() -> Iterator[tuple[Path, str]]:
    """Mount point and kind of file system of each mount here."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), before.split()[4])
        yield Path(point), after.split()[0]


def _mounts(instance: Instance, alive: Collection[str], mounts: Iterable[tuple[Path, str]]) -> Iterator[HostObject]:
    for point, kind in mounts:
        if not any(point.is_relative_to(folder) for folder in (instance.run, instance.home)):
            continue
        if kind == "nsfs":
            # The far ends' namespace, and the empty one that each engine root keeps for its helpers.
            yield HostObject("namespace", str(point), SERVER)
        elif point in (fast_lane(instance.run), plain_room(instance.run)):
            yield HostObject("mount", str(point), SERVER)
        elif point == instance.home:
            continue  # somebody gave the state directory a file system of its own
        else:
            yield HostObject("mount", str(point), _owner_among(point.parts, alive))


def _network(instance: Instance, alive: Collection[str]) -> Iterator[HostObject]:
    owners: dict[str, str | None] = {instance.link(0)[0]: SERVER}
    for lease in read_leases(instance):
        owner = SERVER if lease.sandbox is None else _owner_among([lease.sandbox], alive)
        owners[instance.link(lease.number)[0]] = owner
        yield HostObject("file", str(instance.run / "slots" / f"{lease.number}.json"), owner)
    _, far = instance.link(0)
    for _, name in socket.if_nameindex():
        if name.startswith((instance.link_prefix, far[:-1])):
            yield HostObject("link", name, owners.get(name))
    if (entries := _table(instance)) is not None:
        yield HostObject("table", f"inet {instance.table}", SERVER)
        for name, link in entries:
            yield HostObject("rule", f"inet {instance.table} {name} {link}", owners.get(link))
    if (claim := Blocks(instance.run.parent).claims().get(instance.id)) is not None:
        yield HostObject("block", str(claim.block), SERVER)


def _table(instance: Instance) -> list[tuple[str, str]] | None:
    """Of the instance's table each set's name with each link in it; None when there is no table (or no right to look)."""
    try:
        done = proc.run_sync(["nft", "-j", "list", "table", "inet", instance.table], timeout=20, env=ENVIRONMENT)
        entries: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
    except (proc.CommandFailed, ValueError, KeyError):
        return None
    sets: list[dict[str, Any]] = [entry["set"] for entry in entries if "set" in entry]
    return [
        (str(one["name"]), _link_of(element))
        for one in sets
        if one.get("name") in ("slots", "open")
        for element in one.get("elem", ())
    ]


def _link_of(element: Any) -> str:
    return str(cast("dict[str, list[str]]", element)["concat"][0] if isinstance(element, dict) else element)


def _cgroups(instance: Instance, alive: Collection[str], mounts: Iterable[tuple[Path, str]]) -> Iterator[HostObject]:
    for point, kind in mounts:
        if kind not in ("cgroup", "cgroup2"):
            continue
        top = point / instance.cgroup
        if top.is_dir():
            yield HostObject("cgroup", str(top), SERVER)
            # os.walk passes over what ends meanwhile; Path.rglob raises.
            for place, names, _ in os.walk(top):
                for folder in (Path(place, name) for name in sorted(names)):
                    yield HostObject("cgroup", str(folder), _owner_among(folder.relative_to(top).parts, alive))


def _files(instance: Instance, alive: Collection[str]) -> Iterator[HostObject]:
    if instance.run.is_dir():
        yield HostObject("file", str(instance.run), SERVER)
    for folder in (instance.run / "sandboxes", instance.overlays):
        for path in _entries(folder):
            yield HostObject("file", str(path), _owner_among([path.name], alive))
    for path in (instance.run / "r").glob("*/*"):
        if path.name != "null-netns":
            names = re.split(r"[-._:]", path.name)
            yield HostObject("file", str(path), _owner_among(names, alive))
    ended: set[str] = set()
    if instance.sandboxes.is_dir():
        records, _ = Records(instance.sandboxes).load()
        ended = {record.id for record in records} - set(alive)
    for path in _entries(instance.sandboxes):
        # What is known of one that ended is history, and bounded.
        history = path.name in ended and {entry.name for entry in _entries(path)} <= {"record.json"}
        yield HostObject("file", str(path), SERVER if history else _owner_among([path.name], alive))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
