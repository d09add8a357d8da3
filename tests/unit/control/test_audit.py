"""The audit log as it is kept: in order, in batches, through a store that fails, and what is pruned of it."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from structlog.testing import CapturingLogger
from tests.postgres import ONLY_SQLITE

from belljar.base.clock import SystemClock
from belljar.base.tasks import wait_until
from belljar.control import audit as module
from belljar.control.audit import Audit
from belljar.control.store import audit as store_module
from belljar.control.store.audit import AuditStore
from belljar.control.store.database import Database
from belljar.control.store.sqlite import Sqlite
from belljar.control.store.steps import step_of, upgrade
from belljar.control.store.tables import HEAD
from belljar.model.audit import START, Act, AuditEntry, seal, verify
from belljar.model.errors import DeadlineExceeded, DiskFull, NoCapacity

DAY = 86400.0


class Clock(SystemClock):
    at = 100 * DAY

    def now(self) -> float:
        return self.at


class Store(AuditStore):
    """Counts what it is given at once, and fails on demand."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.batches: list[int] = []
        self.error: Exception | None = None

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        if self.error is not None:
            raise self.error
        self.batches.append(len(entries))
        await super().append(entries)


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


def act(request_id: str = "r", workspace: str = "default", **said: Any) -> Act:
    usual: dict[str, Any] = {"key": None, "via": "unix", "peer": "uid:0", "method": "POST", "status": 201}
    usual |= {"route": "/v1/sandboxes", "target": "/v1/sandboxes/sb1"}
    return Act(**usual | said, workspace=workspace, request_id=request_id)


async def everything(audit: Audit, workspace: str = "default", after: int = 0) -> list[AuditEntry]:
    return [entry async for page in audit.export(workspace, after=after) for entry in page]


async def test_entries_are_written_in_the_order_they_were_noted_and_hold_together(store: Store):
    async with Audit(store) as audit:
        for number in range(300):
            audit.note(act(f"r{number}"))
        await audit.write(act("last"))
        found = await everything(audit)
    assert [entry.request_id for entry in found] == [*(f"r{number}" for number in range(300)), "last"]
    assert [entry.seq for entry in found] == list(range(1, 302))
    assert verify(found).broken is None
    assert found[0].prev == START


async def test_an_address_with_a_nul_in_it_keeps_nothing_back(store: Store):
    async with Audit(store) as audit:
        await audit.write(act("r", target="/v1/sandboxes/\0", route="/\0"))
        await audit.write(act("next"))
        found = await everything(audit)
    assert [(entry.target, entry.route) for entry in found[:1]] == [("/v1/sandboxes/%00", "/%00")]
    assert verify(found).count == 2


async def test_many_at_once_are_few_transactions(store: Store):
    async with Audit(store) as audit:
        await asyncio.gather(*(audit.write(act(f"r{number}")) for number in range(500)))
        assert sum(store.batches) == 500
        assert len(store.batches) <= 5


async def test_what_nobody_waits_for_is_gathered_and_written_by_itself(store: Store):
    async with Audit(store) as audit:
        for _ in range(3):
            for _ in range(10):
                audit.note(act())
            await asyncio.sleep(0)
        assert store.batches == []

        async def written() -> bool:
            return store.batches == [30]

        assert await wait_until(written, timeout=5)


async def test_each_workspace_has_a_chain_of_its_own(store: Store):
    async with Audit(store) as audit:
        for number in range(20):
            audit.note(act(f"r{number}", "one" if number % 2 else "two"))
        for workspace in ("one", "two"):
            found = await everything(audit, workspace)
            assert [entry.seq for entry in found] == list(range(1, 11))
            assert {entry.workspace for entry in found} == {workspace}
            assert verify(found).broken is None
        assert await everything(audit) == []


async def test_a_clean_end_writes_what_waits_and_the_next_server_goes_on_behind_it(store: Store):
    async with Audit(store) as audit:
        audit.note(act("first"))
    async with Audit(store) as audit:
        audit.note(act("second"))
    async with Audit(store) as audit:
        found = await everything(audit)
    assert [(entry.seq, entry.request_id) for entry in found] == [(1, "first"), (2, "second")]
    assert verify(found).broken is None


@pytest.mark.parametrize("error", [DiskFull("full"), DBAPIError("x", None, Exception("locked")), OSError("io")])
async def test_a_store_that_takes_nothing_is_tried_again_and_loses_nothing(store: Store, error: Exception):
    async with Audit(store) as audit:
        await audit.write(act("before"))
        store.error = error
        for number in range(10):
            audit.note(act(f"r{number}"))
        waiting = asyncio.create_task(audit.write(act("waits")))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        store.error = None
        await waiting
        found = await everything(audit)
    assert [entry.request_id for entry in found] == ["before", *(f"r{number}" for number in range(10)), "waits"]
    assert verify(found).broken is None


@ONLY_SQLITE
async def test_a_real_lock_of_another_process_delays_and_does_not_lose(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await database.write((text("PRAGMA busy_timeout=10"), {}))
    async with Audit(AuditStore(database)) as audit:
        with contextlib.closing(sqlite3.connect(tmp_path / "belljar.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(audit.write(act("late")))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            other.execute("ROLLBACK")
        await waiting
        assert [entry.request_id for entry in await everything(audit)] == ["late"]


async def test_a_full_disk_refuses_nothing_until_there_are_too_many_and_then_says_what_to_do(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MOST_WAITING", 50)
    async with Audit(store) as audit:
        store.error = DiskFull("full")
        for _ in range(50):
            audit.require_room()
            audit.note(act())
        with pytest.raises(NoCapacity, match="audit log") as refused:
            audit.require_room()
        assert refused.value.retryable
        audit.note(act("was under way"))  # what was begun before is told all the same
        store.error = None
        assert await audit.settled(5)
        audit.require_room()
        assert len(await everything(audit)) == 51


async def test_whoever_waits_too_long_is_told_and_the_entry_stays_on_its_way(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.1)
    async with Audit(store) as audit:
        store.error = DiskFull("full")
        with pytest.raises(DeadlineExceeded, match="it was done"):
            await audit.write(act("late"))
        store.error = None
        assert await audit.settled(5)
        assert [entry.request_id for entry in await everything(audit)] == ["late"]


async def test_a_caller_that_leaves_does_not_take_its_entry_along(store: Store):
    async with Audit(store) as audit:
        store.error = DiskFull("full")
        leaving = asyncio.create_task(audit.write(act("left")))
        staying = asyncio.create_task(audit.write(act("stayed")))
        await asyncio.sleep(0.05)
        leaving.cancel()
        await asyncio.wait([leaving])
        store.error = None
        await staying
        assert [entry.request_id for entry in await everything(audit)] == ["left", "stayed"]


async def test_an_end_while_the_store_takes_nothing_is_short_and_says_how_many_are_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    log = CapturingLogger()
    monkeypatch.setattr(module, "_log", log)
    monkeypatch.setattr(module, "_END_SECONDS", 0.1)
    async with asyncio.timeout(5):
        async with Audit(store) as audit:
            store.error = DiskFull("full")
            audit.note(act())
    assert log.calls[-1].kwargs == {"lost": 1}


async def test_pages_go_from_the_newest_to_the_oldest(store: Store):
    clock = Clock()
    async with Audit(store, clock=clock) as audit:
        for number in range(10):
            clock.at = 100 * DAY + number
            audit.note(act(f"r{number}"))
        audit.note(act("foreign", "other"))
        seen: list[int] = []
        before: int | None = None
        while True:
            page, before = await audit.page("default", before=before, limit=4)
            seen += [entry.seq for entry in page]
            if before is None:
                break
        assert seen == list(range(10, 0, -1))
        page, _ = await audit.page("default", since=100 * DAY + 3, until=100 * DAY + 6)
        assert [entry.request_id for entry in page] == ["r5", "r4", "r3"]
        page, following = await audit.page("default", since=100 * DAY + 3, until=100 * DAY + 6, limit=2)
        assert ([entry.request_id for entry in page], following) == (["r5", "r4"], 5)
        assert await audit.page("nowhere") == ([], None)


async def test_an_export_takes_pages_and_ends_where_the_log_ended_when_it_began(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_PAGE", 7)
    async with Audit(store) as audit:
        for number in range(20):
            audit.note(act(f"r{number}"))
        sizes: list[int] = []
        async for page in audit.export("default"):
            sizes.append(len(page))
            await audit.write(act("meanwhile"))
        assert sizes == [7, 7, 6]
        assert [entry.seq for entry in await everything(audit, after=21)] == [22, 23]
        assert await everything(audit, after=23) == []
        assert await everything(audit, after=1 << 62) == []


async def written_on(store: AuditStore, days: Sequence[float], workspace: str = "default") -> list[AuditEntry]:
    prev, made = START, list[AuditEntry]()
    for seq, day in enumerate(days, 1):
        made.append(seal(act(f"r{seq}", workspace), seq=seq, at=day * DAY, prev=prev))
        prev = made[-1].hash
    await store.append(made)
    return made


async def test_what_is_too_old_goes_and_the_rest_still_holds_together(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store_module, "_PRUNED", 3)
    made = await written_on(store, range(1, 31))
    assert await store.prune(20 * DAY) == 19
    async with Audit(store, days=0) as audit:
        found = await everything(audit)
        assert found == made[19:]
        assert verify(found).broken is None
        assert verify(found, noted=(19, made[18].hash)).broken is None
        assert await store.prune(20 * DAY) == 0
        await audit.write(act("next"))
        assert verify(await everything(audit)).count == 12


async def test_the_newest_entry_of_each_workspace_stays_however_old(store: Store):
    made = {name: await written_on(store, range(1, 6), name) for name in ("a", "b", "c")}
    assert await store.prune(50 * DAY) == 12
    async with Audit(store, days=0) as audit:
        for name, entries in made.items():
            assert await everything(audit, name) == entries[-1:]
            await audit.write(act("next", name))
            found = await everything(audit, name)
            assert [entry.seq for entry in found] == [5, 6]
            assert verify(found).broken is None


async def test_a_clock_that_was_wrong_leaves_no_gap(store: Store):
    made = await written_on(store, [1, 2, 50, 3, 4, 51])
    assert await store.prune(20 * DAY) == 2
    async with Audit(store, days=0) as audit:
        assert await everything(audit) == made[2:]


async def test_the_log_is_pruned_when_a_server_starts_unless_it_is_kept_forever(store: Store):
    made = await written_on(store, range(1, 11))
    clock = Clock()
    clock.at = 100 * DAY
    async with Audit(store, days=0, clock=clock) as audit:
        await asyncio.sleep(0.1)
        assert len(await everything(audit)) == 10
    async with Audit(store, days=94, clock=clock) as audit:

        async def pruned() -> bool:
            return await everything(audit) == made[5:]

        assert await wait_until(pruned, timeout=5)


async def test_an_entry_is_not_changed_even_by_a_mistake_of_ours(database: Database, store: Store):
    await written_on(store, [1, 2])
    with pytest.raises(DBAPIError, match="append-only"):
        await database.write((text("UPDATE audit SET target = '/x'"), {}))
    assert await store.last("default") is not None


async def test_a_store_from_before_the_log_gets_one(tmp_path: Path):
    old = Sqlite(tmp_path / "old.db")
    upgrade(old, to="0003")
    async with Database(old) as database:
        store = AuditStore(database)
        assert await store.last("default") is None
        await written_on(store, [1])
        assert await database.read(step_of) == HEAD
