"""Events: told once, with the change they tell of, in order, and pruned."""

import asyncio
import time
from typing import Any

import pytest
from sqlalchemy import Connection, text
from tests.unit.control.conftest import Control, Plant

from belljar.base.ids import new_id
from belljar.base.tasks import wait_until
from belljar.control import eventlog
from belljar.control.branches import Fork
from belljar.control.changes import Changes
from belljar.control.eventlog import EventLog
from belljar.control.events import Events
from belljar.control.origins import Wanted
from belljar.control.snapshots import SnapshotChanges
from belljar.control.store import events as store_module
from belljar.control.store import sandboxes as behind
from belljar.control.store.database import Database
from belljar.control.store.events import EventStore, changes_of
from belljar.control.store.place import Change
from belljar.control.store.sandboxes import Record
from belljar.model.errors import AlreadyExists, DiskFull, EngineFailed, LimitExceeded
from belljar.model.events import Event, EventFilter, EventKind
from belljar.model.sandbox import Sandbox, SandboxSpec, Status
from belljar.model.snapshot import SnapshotKind, SnapshotSpec
from belljar.model.template import TemplateSpec

HOME = "default"
ALL = EventFilter()


async def told(control: Control, workspace: str = HOME, filter: EventFilter = ALL) -> list[Event]:
    """The oldest first."""
    items, _ = await control.events.page(workspace, filter, limit=1000)
    return items[::-1]


async def kinds(control: Control, filter: EventFilter = ALL) -> list[str]:
    return [event.kind.value for event in await told(control, filter=filter)]


# what is told ----------------------------------------------------------------------------------------------------------


async def test_the_life_of_a_sandbox(plant: Plant):
    async with plant.control() as control:
        made = await control.sandboxes.create(HOME, SandboxSpec(name="web"))
        await control.sandboxes.update(HOME, "web", Changes(lifetime=60.0, labels={"a": "b"}))
        await control.sandboxes.terminate(HOME, "web")
        await control.sandboxes.terminate(HOME, made.id)
        events = await told(control)
    assert [(event.seq, event.kind, event.reason, event.message) for event in events] == [
        (1, "sandbox.created", None, None),
        (2, "sandbox.started", None, None),
        (3, "sandbox.updated", None, "lifetime"),
        (4, "sandbox.updated", None, "labels"),
        (5, "sandbox.ended", "killed", "scripted"),
    ]
    assert {(event.sandbox, event.name, event.workspace) for event in events} == {(made.id, "web", HOME)}
    assert events[0].at <= events[1].at <= events[-1].at
    assert len({event.id for event in events}) == 5


async def test_an_end_that_the_node_tells_and_one_that_was_asked_for_are_told_once(plant: Plant):
    async with plant.control() as control:
        made = [await control.sandboxes.create(HOME, SandboxSpec()) for _ in range(5)]
        for one in made:
            plant.node.end(one.id, "out_of_memory")
            await control.sandboxes.terminate(HOME, one.id)
        ends = await told(control, filter=EventFilter(kinds=(EventKind.SANDBOX_ENDED,)))
        assert sorted(event.sandbox or "" for event in ends) == sorted(one.id for one in made)


async def test_a_create_that_fails_says_why(plant: Plant):
    async with plant.control() as control:
        plant.node.failure = EngineFailed("no \x1b[31mroom\n")
        with pytest.raises(EngineFailed):
            await control.sandboxes.create(HOME, SandboxSpec())
        created, failed = await told(control)
    assert (created.kind, failed.kind, failed.reason) == ("sandbox.created", "sandbox.failed", "start_failed")
    assert failed.message == "no �[31mroom�"


async def test_a_create_that_is_refused_leaves_no_event(plant: Plant):
    async with plant.control() as control:
        await control.sandboxes.create(HOME, SandboxSpec(name="a"))
        with pytest.raises(AlreadyExists):
            await control.sandboxes.create(HOME, SandboxSpec(name="a"))
        assert await kinds(control) == ["sandbox.created", "sandbox.started"]


async def test_snapshots_tell_of_themselves(plant: Plant):
    async with plant.control() as control:
        sandbox = await control.sandboxes.create(HOME, SandboxSpec())
        kept = await control.snapshots.create(HOME, sandbox.id, SnapshotSpec(SnapshotKind.FILESYSTEM, name="one"))
        await control.snapshots.update(HOME, "one", SnapshotChanges(name="two", ttl=50.0))
        plant.node.snapshot_failure = EngineFailed("no")
        with pytest.raises(EngineFailed):
            await control.snapshots.create(HOME, sandbox.id, SnapshotSpec(SnapshotKind.MEMORY))
        await control.sandboxes.create(HOME, Wanted(snapshot="two"))
        await control.branches.rollback(HOME, sandbox.id, kept.id)
        await control.snapshots.delete(HOME, "two")
        await control.snapshots.delete(HOME, kept.id)
        events = (await told(control))[2:]
    assert [(event.kind, event.name, event.reason, event.message) for event in events] == [
        ("snapshot.created", "one", None, None),
        ("snapshot.updated", "two", None, "name, ttl"),
        ("snapshot.failed", None, "failed", None),
        ("sandbox.created", None, None, None),
        ("sandbox.started", None, None, None),
        ("sandbox.rolled_back", None, None, None),
        ("snapshot.deleted", "two", "deleted", None),
    ]
    assert {event.snapshot for event in events if event.kind is not EventKind.SNAPSHOT_FAILED} == {kept.id}
    assert events[0].sandbox == sandbox.id


async def test_a_snapshot_that_expires_or_is_lost_says_so(plant: Plant):
    async with plant.control() as control:
        sandbox = await control.sandboxes.create(HOME, SandboxSpec())
        short = await control.snapshots.create(HOME, sandbox.id, SnapshotSpec(SnapshotKind.FILESYSTEM, ttl=0.05))
        lost = await control.snapshots.create(HOME, sandbox.id, SnapshotSpec(SnapshotKind.FILESYSTEM))

        async def expired() -> bool:
            return "snapshot.deleted" in await kinds(control)

        assert await wait_until(expired, timeout=5)
        (event,) = await told(control, filter=EventFilter(kinds=(EventKind.SNAPSHOT_DELETED,)))
        assert (event.snapshot, event.reason) == (short.id, "expired")
    plant.node.kept.clear()
    async with plant.control() as control:
        assert [(event.kind, event.snapshot) for event in (await told(control))[-1:]] == [("snapshot.lost", lost.id)]
    async with plant.control() as control:
        assert (await kinds(control)).count("snapshot.lost") == 1, "the next start has nothing to add"


async def test_a_template_and_all_that_belongs_to_it(plant: Plant):
    async with plant.control() as control:
        await control.templates.create(HOME, TemplateSpec("warm", image="base"))
        await control.templates.create(HOME, TemplateSpec("warm", image="base", env={"A": "1"}), overwrite=True)
        plant.node.snapshot_failure = EngineFailed("no")
        with pytest.raises(EngineFailed):
            await control.templates.create(HOME, TemplateSpec("cold", image="base"))
        await control.templates.delete(HOME, "warm")
        events = await told(control)
    of_it = [event for event in events if not event.kind.startswith("sandbox.")]
    assert [(event.kind, event.template, event.reason) for event in of_it] == [
        ("snapshot.created", None, None),
        ("template.created", "warm", None),
        ("snapshot.created", None, None),
        ("snapshot.deleted", None, "replaced"),
        ("template.created", "warm", None),
        ("snapshot.failed", None, "failed"),
        ("template.failed", "cold", None),
        ("snapshot.deleted", None, "deleted"),
        ("template.deleted", "warm", None),
    ]
    assert of_it[-1].snapshot == of_it[4].snapshot == of_it[2].snapshot


async def test_children_name_their_parent(plant: Plant):
    async with plant.control() as control:
        parent = await control.sandboxes.create(HOME, SandboxSpec())
        await control.branches.fork(HOME, parent.id, Fork(count=3))
        created = await told(control, filter=EventFilter(kinds=(EventKind.SANDBOX_CREATED,)))
    assert [event.parent for event in created] == [None, parent.id, parent.id, parent.id]


# exactly once, also over a kill ----------------------------------------------------------------------------------------


async def test_what_a_killed_server_did_not_write_is_told_by_the_next(plant: Plant):
    half = Sandbox(new_id("sb"), SandboxSpec(), Status.CREATING, plant.clock.now())
    ready = Sandbox(new_id("sb"), SandboxSpec(), Status.CREATING, plant.clock.now())
    for one in (half, ready):
        await plant.store.insert(Record(HOME, one, "boot-1"))
    await plant.node.create(ready.id, ready.spec)
    async with plant.control() as control:
        said = {(event.sandbox, event.kind.value) for event in await told(control)}
    assert said == {(half.id, "sandbox.failed"), (ready.id, "sandbox.started")}
    plant.node.known.clear()
    for _ in range(3):
        async with plant.control() as control:
            assert [event.sandbox for event in (await told(control)) if event.kind == "sandbox.lost"] == [ready.id]


async def test_an_event_is_in_the_transaction_of_its_change(plant: Plant, database: Database):
    """Another reader never sees one without the other."""
    ended: list[tuple[int, int]] = []

    def counts(connection: Connection) -> tuple[int, int]:
        rows = connection.scalar(text("SELECT count(*) FROM sandboxes WHERE ended_at IS NOT NULL"))
        events = connection.scalar(text("SELECT count(*) FROM events WHERE kind = 'sandbox.ended'"))
        return rows or 0, events or 0

    async with plant.control() as control:
        made = [await control.sandboxes.create(HOME, SandboxSpec()) for _ in range(10)]
        for one in made:
            looking = asyncio.create_task(database.read(counts))
            await control.sandboxes.terminate(HOME, one.id)
            ended.append(await looking)
        ended.append(await database.read(counts))
    assert ended[-1] == (10, 10)
    # The two counts are two looks: the second may be newer, never older.
    assert all(rows <= events for rows, events in ended)


async def test_an_event_that_was_written_before_its_change_is_not_told_again(plant: Plant, database: Database):
    """A server was killed in between: the next one sees the change itself."""
    half = Sandbox(new_id("sb"), SandboxSpec(), Status.CREATING, plant.clock.now())
    await plant.store.insert(Record(HOME, half, "boot-1"))
    log = EventLog(clock=plant.clock)
    log.followed(HOME, half, await plant.node.create(half.id, half.spec))
    with log.told(HOME, EventKind.SNAPSHOT_CREATED, snapshot="sn1") as changes:
        await database.write(*changes)
    assert log.changes(())[0] == []
    async with plant.control() as control:
        assert (await control.sandboxes.get(HOME, half.id)).status is Status.RUNNING
        assert await kinds(control) == ["sandbox.started", "snapshot.created"]


async def test_a_store_that_takes_nothing_loses_none_and_doubles_none(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(behind, "_AGAIN_SECONDS", 0.05)
    real = plant.database.write
    failing = False

    async def write(*changes: Change, durable: bool = True) -> None:
        if failing == "before":
            raise DiskFull("full")
        await real(*changes, durable=durable)
        if failing == "after":
            raise DiskFull("nobody knows whether it was written")

    async with plant.control() as control:
        made = [await control.sandboxes.create(HOME, SandboxSpec()) for _ in range(4)]
        monkeypatch.setattr(plant.database, "write", write)
        for number, one in enumerate(made):
            failing = ("before", "after")[number % 2]
            plant.node.end(one.id, "exited")
            await asyncio.sleep(0.05)
        failing = False
        ends = await told(control, filter=EventFilter(kinds=(EventKind.SANDBOX_ENDED,)))
        assert [event.sandbox for event in ends] == [one.id for one in made]
        assert [event.seq for event in await told(control)] == list(range(1, 13))


async def test_more_than_can_wait_are_lost_and_that_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(eventlog, "MOST_WAITING", 3)
    log = EventLog()
    for number in range(5):
        log.note(HOME, EventKind.SANDBOX_CREATED, sandbox=f"sb{number}")
    changes, written = log.changes(())
    ((_, rows),) = changes
    assert len(rows) == 3
    written()
    assert log.changes(())[0] == []
    log.note(HOME, EventKind.SANDBOX_CREATED, sandbox="sb1")
    assert len(log.changes(())[0]) == 1


# pages and followers ---------------------------------------------------------------------------------------------------


async def put(database: Database, count: int, workspace: str = HOME, *, at: float | None = None, **said: Any) -> None:
    at = time.time() if at is None else at
    kind = said.pop("kind", EventKind.SANDBOX_CREATED)
    events = [Event(id=new_id("ev"), workspace=workspace, kind=kind, at=at + number, **said) for number in range(count)]
    await database.write(*changes_of(events))


async def test_pages_hold_each_event_once_and_filters_hold(plant: Plant):
    now = plant.clock.now()
    await put(plant.database, 25, sandbox="sb1", at=now)
    await put(plant.database, 5, "other", sandbox="sb1", at=now)
    await put(plant.database, 10, sandbox="sb2", kind=EventKind.SANDBOX_ENDED, at=now + 100)
    async with plant.control() as control:
        events = control.events
        found: list[Event] = []
        cursor = None
        while True:
            items, cursor = await events.page(HOME, ALL, before=cursor, limit=10)
            found += items
            if cursor is None:
                break
        assert [event.seq for event in found] == list(range(35, 0, -1))
        assert {event.workspace for event in found} == {HOME}
        for wanted, count in (
            (EventFilter("sb1"), 25),
            (EventFilter("sb2"), 10),
            (EventFilter("sb3"), 0),
            (EventFilter("sb1", (EventKind.SANDBOX_ENDED,)), 0),
            (EventFilter(kinds=(EventKind.SANDBOX_ENDED, EventKind.SANDBOX_LOST)), 10),
            (EventFilter(since=now + 100), 10),
            (EventFilter(until=now + 10), 10),
            (EventFilter(since=now + 10, until=now + 101), 16),
        ):
            assert len((await events.page(HOME, wanted, limit=100))[0]) == count, wanted
        assert (await events.page("nobody", ALL))[0] == []


async def test_a_follower_gets_what_is_kept_and_then_what_comes(plant: Plant):
    async with plant.control() as control:
        first = await control.sandboxes.create(HOME, SandboxSpec())
        got: list[Event] = []

        async def follow() -> None:
            async for _, part in control.events.follow(HOME, ALL, after=1):
                got.extend(part)

        task = asyncio.create_task(follow())
        second = await control.sandboxes.create(HOME, SandboxSpec())
        await put(plant.database, 3, "other")
        await control.sandboxes.terminate(HOME, first.id)

        async def came() -> bool:
            return len(got) >= 4

        assert await wait_until(came, timeout=5)
        task.cancel()
        await asyncio.wait([task])
    assert [(event.seq, event.sandbox) for event in got] == [
        (2, first.id),
        (3, second.id),
        (4, second.id),
        (5, first.id),
    ]


async def test_one_that_comes_back_misses_nothing_over_restarts(plant: Plant):
    """Cut at random places, it goes on behind the last number that it saw."""
    seen: list[int] = []
    for _ in range(4):
        async with plant.control() as control:
            parts = control.events.follow(HOME, ALL, after=seen[-1] if seen else 0)
            await anext(parts)
            await parts.aclose()
            for _ in range(3):
                await control.sandboxes.create(HOME, SandboxSpec())
            parts = control.events.follow(HOME, ALL, after=seen[-1] if seen else 0)
            seen += [event.seq for event in (await anext(parts))[1]]
            await parts.aclose()
            await control.sandboxes.create(HOME, SandboxSpec())
    async with plant.control() as control:
        parts = control.events.follow(HOME, ALL, after=seen[-1])
        seen += [event.seq for event in (await anext(parts))[1]]
        await parts.aclose()
    assert seen == list(range(1, 33))


async def test_without_a_number_it_begins_now_and_says_where(plant: Plant):
    await put(plant.database, 7)
    async with plant.control() as control:
        parts = control.events.follow(HOME, ALL)
        assert await anext(parts) == (7, [])
        await control.sandboxes.create(HOME, SandboxSpec())
        place, part = await anext(parts)
        assert part[0].seq == 8
        assert place == part[-1].seq
        await parts.aclose()


async def test_a_burst_is_read_in_parts_and_whole(plant: Plant):
    await put(plant.database, 1234)
    async with plant.control() as control:
        got: list[int] = []
        parts = control.events.follow(HOME, ALL, after=0)
        async for _, part in parts:
            assert len(part) <= 500
            got += [event.seq for event in part]
            if len(got) == 1234:
                break
        await parts.aclose()
    assert got == list(range(1, 1235))


async def test_followers_are_bounded_and_their_places_come_back(plant: Plant, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(eventlog, "MOST_FOLLOWERS", 2)
    async with plant.control() as control:
        open_ones = [control.events.follow(HOME, ALL) for _ in range(2)]
        for one in open_ones:
            await anext(one)
        with pytest.raises(LimitExceeded):
            await anext(control.events.follow(HOME, ALL))
        other = control.events.follow("other", ALL)
        assert await anext(other) == (0, [])
        await other.aclose()
        await open_ones.pop().aclose()
        again = control.events.follow(HOME, ALL)
        await anext(again)
        for one in (again, *open_ones):
            await one.aclose()
    assert plant.log._followers == {}  # pyright: ignore[reportPrivateUsage]


# what goes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "most", "left"),
    [(0, 10, range(31, 41)), (1, 0, range(21, 41)), (1, 10, range(31, 41)), (1, 1000, range(21, 41)), (0, 1, [40])],
)
async def test_the_oldest_go_by_age_and_number_in_small_steps(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, days: int, most: int, left: list[int]
):
    monkeypatch.setattr(store_module, "_PRUNED", 4)
    now = plant.clock.now()
    await put(plant.database, 20, at=now - 3 * 86400.0)
    await put(plant.database, 20, at=now - 3600.0)
    await put(plant.database, 3, "other", at=now - 3600.0)
    store = EventStore(plant.database)
    events = Events(plant.log, store, plant.store, days=days, most=most, clock=plant.clock)
    removed = await events.prune()
    kept = [event.seq for event in await store.behind(HOME, ALL, 0, limit=100)]
    assert kept == list(left)
    assert removed == 40 - len(kept) + (2 if most == 1 else 0)
    assert await events.prune() == 0


async def test_the_newest_always_stays_so_that_numbers_never_come_again(plant: Plant):
    await put(plant.database, 5, at=1.0)
    store = EventStore(plant.database)
    await Events(plant.log, store, plant.store, days=1, clock=plant.clock).prune()
    assert [event.seq for event in await store.behind(HOME, ALL, 0, limit=10)] == [5]
    await put(plant.database, 1)
    assert await store.last(HOME) == 6


async def test_a_server_prunes_by_itself(plant: Plant):
    await put(plant.database, 5, at=1.0)
    async with plant.control() as control:

        async def gone() -> bool:
            return len(await told(control)) == 1

        assert await wait_until(gone, timeout=5)


async def test_writing_an_event_again_changes_nothing(database: Database):
    event = Event(id=new_id("ev"), workspace=HOME, kind=EventKind.SANDBOX_CREATED, at=1.0)
    other = Event(id=new_id("ev"), workspace="other", kind=EventKind.SANDBOX_CREATED, at=1.0)
    await database.write(*changes_of([event, other]), *changes_of([event]))
    await database.write(*changes_of([event]))
    store = EventStore(database)
    for workspace in (HOME, "other"):
        assert [found.seq for found in await store.behind(workspace, ALL, 0, limit=10)] == [1]
