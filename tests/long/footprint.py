"""What one server holds: of the machine and of itself."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.conftest import Host

from belljar.node.holding import owned
from belljar.node.instance import Instance, instance_of
from belljar.node.residue import SERVER, host_objects, leaks

__all__ = ("Footprint", "at_rest", "footprint", "news", "table")

_REST = 60.0
"""Seconds: the pool forgets a burst after ten, and then takes its members down one by one."""
_QUIET = 1.5


@dataclass(frozen=True, slots=True)
class Footprint:
    """`sandboxes` and `server`: objects on the host by kind, as `doctor --leaks` finds them, of those that wait and of the server
    itself. `ended`: records of sandboxes that are no more, and `files` all the others in the state directory and on the file
    systems in memory below /run. `memory`: KiB of the server's own pages.
    """

    sandboxes: Mapping[str, int]
    server: Mapping[str, int]
    leaked: int
    ended: int
    files: frozenset[str]
    children: frozenset[str]
    descriptors: tuple[str, ...]
    threads: int
    memory: int

    def rows(self) -> dict[str, int]:
        return {
            **{f"{kind} of those that wait": count for kind, count in sorted(self.sandboxes.items())},
            **{f"{kind} of the server": count for kind, count in sorted(self.server.items())},
            "without an owner": self.leaked,
            "records of ended sandboxes": self.ended,
            "other files in the state directory and below /run": len(self.files),
            "children of the server": len(self.children),
            "open files of the server": len(self.descriptors),
            "threads of the server": self.threads,
            "memory of the server, KiB": self.memory,
        }


def footprint(host: Host) -> Footprint:
    instance = instance_of(host.home)
    process = Path(f"/proc/{host.pid}")
    found = host_objects(instance)
    alive = {path.name for path in (instance.run / "sandboxes").iterdir()}
    return Footprint(
        sandboxes=Counter(thing.kind for thing in found if thing.owner not in (None, SERVER)),
        server=Counter(thing.kind for thing in found if thing.owner == SERVER and thing.kind != "file"),
        leaked=len(leaks(instance)),
        ended=sum(path.name not in alive for path in instance.sandboxes.iterdir()),
        files=frozenset(
            str(path) for place in (host.home, instance.run) for path in place.rglob("*") if _counts(path, instance)
        ),
        children=frozenset(_children(process)),
        descriptors=tuple(_descriptors(process)),
        threads=len(list((process / "task").iterdir())),
        memory=_own_pages(process),
    )


def _counts(path: Path, instance: Instance) -> bool:
    """The store's journal comes and goes; what the ended wrote last is kept up to a bound, and so are slots of the network for
    the next one.
    """
    return (
        path.is_file()
        and "sqlite" not in path.name
        and "belljar.db" not in path.name
        and not path.is_relative_to(instance.sandboxes)
        and not path.is_relative_to(instance.home / "logs")
        and not path.is_relative_to(instance.run / "slots")
    )


def _children(process: Path) -> Iterator[str]:
    for path in process.glob("task/*/children"):
        for pid in path.read_text().split():
            with suppress(OSError):
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                yield f"{pid} {state} {Path(f'/proc/{pid}/cmdline').read_bytes()[-80:]!r}"


def _descriptors(process: Path) -> Iterator[str]:
    for path in (process / "fd").iterdir():
        with suppress(OSError):
            yield str(path.readlink())


def at_rest(host: Host, hot: int, created: int) -> Footprint:
    """Once the pool has forgotten the burst and so many members wait, paused ones and created ones. AssertionError after 60 s."""
    run, until, since = instance_of(host.home).run, time.monotonic() + _REST, time.monotonic()
    while time.monotonic() - since < _QUIET:
        time.sleep(0.1)
        now = owned(run)
        paused = sum((run / "sandboxes" / id / "paused").exists() for id in now)
        assert time.monotonic() < until, (
            f"the pool does not come to rest: {paused} wait, {len(now) - paused} are created"
        )
        if (paused, len(now) - paused) != (hot, created):
            since = time.monotonic()
    return footprint(host)


def _own_pages(process: Path) -> int:
    """KiB that it shares with nobody."""
    lines = (process / "smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return sizes["Private_Clean"] + sizes["Private_Dirty"]


def news(before: Footprint, after: Footprint) -> list[str]:
    """What is there now and was not before, by name; of the members that wait there are others now, too."""
    seen = Counter(before.descriptors)
    return [
        *sorted(after.files - before.files),
        *sorted(after.children - before.children),
        *sorted((Counter(after.descriptors) - seen).elements()),
    ]


def table(before: Footprint, after: Footprint) -> list[str]:
    first, last = before.rows(), after.rows()
    width = max(map(len, first | last))
    return [f"{name:{width}} {first.get(name, 0):>9} {last.get(name, 0):>9}" for name in dict.fromkeys([*first, *last])]
