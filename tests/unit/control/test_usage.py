"""Accounts over a store: whatever is killed, restarted and tried again, nothing is lost and nothing is there twice."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert
from tests.unit.control.conftest import Plant

from belljar.base.clock import SystemClock
from belljar.base.ids import new_id
from belljar.base.tasks import wait_until
from belljar.control.index import Index
from belljar.control.keys import LOCAL, Principal
from belljar.control.meters import Meters
from belljar.control.store.database import Database
from belljar.control.store.place import Change, Place
from belljar.control.store.sandboxes import Record, SandboxStore
from belljar.control.store.sqlite import Sqlite
from belljar.control.store.steps import step_of, upgrade
from belljar.control.store.tables import HEAD, WorkspaceRow
from belljar.control.store.usage import UsageStore, changes_of
from belljar.control.usage import Usage
from belljar.model.errors import DiskFull, InvalidArgument, NotFound
from belljar.model.sandbox import Ended, Limits, Sandbox, SandboxSpec, Status
from belljar.model.usage import AMOUNTS, HOUR_US, Amounts, Counters, Reading, UsageEntry, micros, opened

EVER = (0, 1 << 40)
NOTHING = Counters()
STARTED = 1_800_000_000.5


@dataclass
class Truth:
    """What really happened to one sandbox, and what of it an account may know."""

    id: str
    workspace: str
    started: float
    now: Counters = NOTHING
    seen: Counters = NOTHING
    total: int = 0
    durable: tuple[Counters, int] = (NOTHING, 0)
    ended: float | None = None
    lost: bool = False
    cores: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    """From when on how many were promised, after the one that it began with; 0: it rests."""

    def promised(self, until: int) -> int:
        """Microseconds of one core up to `until`."""
        return sum(count * time for count, time in self._pieces(until))

    def ran(self, until: int) -> int:
        return sum(time for count, time in self._pieces(until) if count)

    def _pieces(self, until: int) -> list[tuple[int, int]]:
        told = [(micros(self.started), 1), *((micros(at), count) for at, count in self.cores), (until, 0)]
        return [(count, end - begin) for (begin, count), (end, _) in pairwise(told)]

    def take(self) -> None:
        self.total += self.now.since(self.seen).cpu_us
        self.seen = self.now

    def keep(self) -> None:
        self.durable = (self.seen, self.total)

    def forget(self) -> None:
        self.seen, self.total = self.durable


class HouseClock(SystemClock):
    def __init__(self, house: "House") -> None:
        self._house = house

    def now(self) -> float:
        return self._house.at


@dataclass
class House:
    """One store; `server` is one server's time on it. `full`: it takes no write."""

    database: Database
    index: Index = field(default_factory=Index)
    at: float = STARTED
    full: bool = False
    known: list[Truth] = field(default_factory=list)
    meters: Meters | None = None
    store: SandboxStore | None = None

    def __post_init__(self) -> None:
        write = self.database.write

        async def maybe(*changes: Change, durable: bool = True) -> None:
            if self.full:
                raise DiskFull("full")
            await write(*changes, durable=durable)

        self.database.write = maybe  # type: ignore[method-assign]

    async def start(self) -> None:
        self.index = Index()
        self.meters = Meters(UsageStore(self.database), self.index, clock=HouseClock(self))
        await self.meters.__aenter__()
        self.store = SandboxStore(self.database, self.meters)
        for record in await self.store.live():
            self.index.add(record.workspace, record.sandbox)
        self.meters.close_orphans()

    async def kill(self) -> None:
        """What is in memory alone is gone."""
        for one in self.known:
            if one.ended is None:
                one.forget()
        self.full = False
        await self.start()

    async def make(self, workspace: str) -> None:
        assert self.store is not None
        id = new_id("sb")
        running = Sandbox(id, SandboxSpec(lifetime=None), Status.RUNNING, self.at, self.at)
        await self.store.insert(Record(workspace, running, "b"))
        self.index.add(workspace, running)
        self.known.append(Truth(id, workspace, self.at))

    async def sample(self, chosen: Sequence[Truth]) -> None:
        assert self.meters is not None
        self.meters.open()
        self.meters.add({one.id: Reading(self.at, one.now, 100 << 20, 5 << 20) for one in chosen})
        for one in chosen:
            one.take()
        with contextlib.suppress(DiskFull):
            await self.meters.write()
            for one in self.known:
                if one.ended is None:
                    one.keep()

    async def resize(self, one: Truth, cores: int) -> None:
        """Written at once, with all that was counted of it until then. Without cores it is put to rest, with some it runs."""
        assert self.store is not None
        entry = self.index.entry(one.id)
        assert entry is not None
        assert self.meters is not None
        self.meters.open()  # as the write that said that it runs has done
        limits = Limits(cpus=cores) if cores else entry.sandbox.spec.limits
        spec = replace(entry.sandbox.spec, limits=limits)
        status = Status.RUNNING if cores else Status.STANDBY
        now = self.index.follow(replace(entry.sandbox, spec=spec, status=status))
        assert now is not None
        self.full = False
        await self.store.settle(now)
        one.keep()
        one.cores.append((self.at, cores))

    async def end(self, one: Truth, *, lost: bool) -> None:
        """Tried again until it is written, by this server or the next."""
        assert self.store is not None
        entry = self.index.entry(one.id)
        assert entry is not None
        final = None if lost else Reading(self.at, one.now, None, None)
        status = Status.LOST if lost else Status.TERMINATED
        now = self.index.follow(replace(entry.sandbox, status=status, ended=Ended("x", self.at), final=final))
        assert now is not None
        try:
            await self.store.settle(now)
        except DiskFull:
            self.full = False
            await self.store.settle(now)
        await self.store.settle(now)  # once more: what comes twice changes nothing
        if not lost:
            one.take()
        one.ended, one.lost = self.at, lost


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[str, int, int, int]]:
    verbs = st.sampled_from(
        ("make", "run", "run", "sample", "sample", "kill", "reset", "end", "lose", "full", "room", "resize", "rest")
    )
    step = st.tuples(verbs, st.integers(0, 1 << 30), st.integers(0, 2 * HOUR_US), st.integers(0, 5))
    return draw(st.lists(step, min_size=5, max_size=40))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(stories())
def test_whatever_happens_the_sums_are_what_was_used(
    fresh: Callable[[], Place], story: list[tuple[str, int, int, int]]
):
    asyncio.run(told(fresh(), story))


async def told(place: Place, story: list[tuple[str, int, int, int]]) -> None:
    async with Database(place) as database:
        await database.write((insert(WorkspaceRow), {"id": "team", "created": 0.0}))
        house = House(database)
        await house.start()
        await house.make("default")
        for verb, amount, time, which in story:
            house.at += time / 1e6
            await step(house, verb, amount, which)
        house.full = False
        await house.kill()
        for one in [one for one in house.known if one.ended is None]:
            house.at += 1
            await house.end(one, lost=False)
        await compare(house)


async def step(house: House, verb: str, amount: int, which: int) -> None:
    alive = [one for one in house.known if one.ended is None]
    some = alive[which % len(alive)] if alive else None
    match verb:
        case "make" if not house.full:
            await house.make(("default", "team")[which % 2])
        case "run" if some is not None:
            some.now += Counters(amount, amount // 3, amount // 7)
        case "sample":
            await house.sample(alive if which % 2 or some is None else [some])
        case "kill":
            await house.kill()
        case "reset" if some is not None:
            some.now = Counters(amount % 1000, 0, 0)
        case "end" if some is not None:
            await house.end(some, lost=False)
        case "lose" if some is not None:
            await house.end(some, lost=True)
        case "resize" if some is not None:
            await house.resize(some, 1 + amount % 4)
        case "rest" if some is not None:
            await house.resize(some, 0)
        case "full":
            house.full = True
        case "room":
            house.full = False
        case _:
            pass


async def compare(house: House) -> None:
    store = UsageStore(house.database)
    assert await store.unclosed() == []
    by_sandbox = await store.by_sandbox(None, EVER, after=None, limit=1000)
    by_hour = await store.by_hour(None, EVER, after=None, limit=100_000)
    by_workspace = await store.by_workspace(None, EVER, after=None, limit=1000)
    assert total(by_sandbox) == total(by_hour) == total(by_workspace)
    for workspace in ("default", "team"):
        own = await store.by_hour(workspace, EVER, after=None, limit=100_000)
        assert total(own) == total([line for line in by_workspace if line.workspace == workspace])
        assert total(own) == total([line for line in by_sandbox if line.workspace == workspace])
    lines = {line.sandbox: line for line in by_sandbox}
    for one in house.known:
        ledger = await store.account(one.id)
        line = lines.get(one.id, UsageEntry())
        assert ledger is not None
        assert ledger.closed
        assert ledger.total == total([line])
        assert line.cpu_us == one.total
        assert one.ended is not None
        if not one.lost:
            assert ledger.until == micros(one.ended)
        assert line.running_us == one.ran(ledger.until)
        assert line.promised_cpu_us == one.promised(ledger.until)


def total(lines: Sequence[UsageEntry]) -> Amounts:
    found = Amounts()
    for line in lines:
        found += Amounts(*(getattr(line, name) for name in AMOUNTS))
    return found


@contextlib.asynccontextmanager
async def metered(plant: Plant, *, every: float = 0.3, days: int = 0) -> AsyncGenerator[tuple[Usage, SandboxStore]]:
    """A server that reads, over the plant's node and store."""
    index = Index()
    used = UsageStore(plant.database)
    async with Meters(used, index) as meters, SandboxStore(plant.database, meters) as store:
        for record in await store.live():
            index.add(record.workspace, plant.node.known.get(record.sandbox.id, record.sandbox))
        async with Usage(plant.node, meters, used, store, every=every, days=days, clock=plant.clock) as usage:
            yield usage, store


async def running(plant: Plant, workspace: str = "default") -> Sandbox:
    made = replace(await plant.node.create(new_id("sb"), SandboxSpec()), started=plant.clock.now())
    plant.node.known[made.id] = made
    await plant.store.insert(Record(workspace, made, "b"))
    return made


async def test_what_runs_is_read_again_and_again(plant: Plant):
    box = await running(plant)
    async with metered(plant) as (usage, _):
        for cpu in (5, 9):
            plant.node.readings[box.id] = Reading(plant.clock.now(), Counters(cpu, 1, 2), 1, 2)

            async def read(cpu: int = cpu) -> bool:
                items, _ = await usage.report(LOCAL, "sandbox")
                return bool(items) and items[0].cpu_us == cpu

            assert await wait_until(read, timeout=5)
    (ledger, _), *_ = await UsageStore(plant.database).unclosed()
    assert (ledger.sandbox, ledger.seen) == (box.id, Counters(9, 1, 2))


async def test_a_node_that_does_not_answer_is_asked_again(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    box = await running(plant)
    asked = 0

    async def meter(ids: Sequence[str]) -> dict[str, Reading]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise OSError("broken")
        return {id: Reading(plant.clock.now(), Counters(7)) for id in ids}

    monkeypatch.setattr(plant.node, "meter", meter)
    async with metered(plant) as (usage, _):

        async def read() -> bool:
            items, _ = await usage.report(LOCAL, "sandbox")
            return [(item.sandbox, item.cpu_us) for item in items] == [(box.id, 7)]

        assert await wait_until(read, timeout=5)
    assert asked > 1


async def written(store: UsageStore, id: str, workspace: str, hours: Sequence[int]) -> None:
    made = opened(id, workspace, cpus=1, memory=1 << 30, started=hours[0] * 3600.0)
    ledger = replace(made, until=(hours[-1] + 1) * HOUR_US, closed=True)
    await store.write(changes_of([(ledger, {hour: Amounts(cpu_us=hour) for hour in hours})]))


async def test_pages_periods_and_who_may_see_what(plant: Plant):
    store = UsageStore(plant.database)
    await plant.database.write((insert(WorkspaceRow), {"id": "team", "created": 0.0}))
    first, second, third = sorted(new_id("sb") for _ in range(3))
    await written(store, first, "default", [100, 101])
    await written(store, second, "team", [101, 102])
    await written(store, third, "default", [102])

    async def all_of(by: str, who: Principal = LOCAL, **more: object) -> list[UsageEntry]:
        found: list[UsageEntry] = []
        cursor: str | None = None
        while True:
            items, cursor = await usage.report(who, by, cursor=cursor, limit=1, **more)  # type: ignore[arg-type]
            found += items
            assert len(items) <= 1
            if cursor is None:
                return found

    member = Principal("team", "key1")
    async with metered(plant) as (usage, _):
        assert [(line.sandbox, line.cpu_us) for line in await all_of("sandbox")] == [
            (third, 102),
            (second, 203),
            (first, 201),
        ]
        assert [(line.hour, line.cpu_us) for line in await all_of("hour")] == [
            (102 * 3600, 204),
            (101 * 3600, 202),
            (100 * 3600, 100),
        ]
        assert [(line.workspace, line.cpu_us) for line in await all_of("workspace")] == [
            ("default", 303),
            ("team", 203),
        ]
        assert [line.sandbox for line in await all_of("sandbox", workspace="team")] == [second]
        for more in ({}, {"workspace": "team"}):
            assert [line.workspace for line in await all_of("workspace", member, **more)] == ["team"]
            assert [line.sandbox for line in await all_of("sandbox", member, **more)] == [second]
            assert [line.cpu_us for line in await all_of("hour", member, **more)] == [102, 101]
        with pytest.raises(NotFound):
            await usage.report(member, "sandbox", workspace="default")
        for workspace, error in (("nowhere", NotFound), ("\0", InvalidArgument)):
            with pytest.raises(error):
                await usage.report(LOCAL, "sandbox", workspace=workspace)
        period = {"since": 101 * 3600.0 + 1, "until": 101 * 3600.0 + 2}
        assert [line.cpu_us for line in await all_of("hour", **period)] == [202]
        assert [line.cpu_us for line in await all_of("hour", until=101 * 3600.0)] == [100]
        for by, more in (
            ("day", {}),
            ("sandbox", {"cursor": "x"}),
            ("hour", {"cursor": "1e3"}),
            ("hour", {"cursor": "²"}),
            ("hour", {"cursor": "9" * 40}),
            ("workspace", {"cursor": ""}),
            ("hour", {"since": 5.0, "until": 5.0}),
            ("hour", {"since": -1.0}),
            ("hour", {"until": 1e300}),
            ("hour", {"since": float("nan")}),
        ):
            with pytest.raises(InvalidArgument):
                await usage.report(LOCAL, by, **more)  # type: ignore[arg-type]


async def test_old_hours_go_and_what_still_runs_keeps_its_account(plant: Plant):
    store = UsageStore(plant.database)
    now = int(plant.clock.now() // 3600)
    old, young = sorted(new_id("sb") for _ in range(2))
    await written(store, old, "default", [now - 100, now - 50])
    await written(store, young, "default", [now - 50, now])
    async with metered(plant, days=1) as (usage, _):

        async def pruned() -> bool:
            items, _ = await usage.report(LOCAL, "sandbox")
            hours = [(item.sandbox, item.cpu_us) for item in items]
            return hours == [(young, now)] and await store.account(old) is None

        assert await wait_until(pruned, timeout=5)
    assert await store.account(young) is not None


async def test_an_account_whose_sandbox_is_not_known_is_closed(plant: Plant):
    store = UsageStore(plant.database)
    stray = opened(new_id("sb"), "default", cpus=1, memory=1 << 30, started=STARTED)
    await store.write(changes_of([(stray, {})]))
    async with metered(plant):
        pass
    assert await store.unclosed() == []


async def test_a_store_from_before_gets_the_tables(tmp_path: Path):
    old = Sqlite(tmp_path / "old.db")
    upgrade(old, to="0005")
    async with Database(old) as database:
        assert await UsageStore(database).unclosed() == []
        assert await database.read(step_of) == HEAD
