"""The store: its schema, its rows, what it keeps over a power cut."""

import asyncio
import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from tests.postgres import ONLY_SQLITE

from belljar.base.ids import new_id
from belljar.control.keys import Keys
from belljar.control.store import database as module
from belljar.control.store.database import Database
from belljar.control.store.keys import KeyStore
from belljar.control.store.place import Place
from belljar.control.store.sandboxes import Filter, Record, Repeat, SandboxStore
from belljar.control.store.sqlite import Sqlite
from belljar.control.store.steps import MIGRATIONS, upgrade
from belljar.control.store.tables import HEAD, Base, WorkspaceRow
from belljar.model.errors import AlreadyExists, DiskFull, Internal, Unauthenticated
from belljar.model.sandbox import Ended, Limits, Network, Sandbox, SandboxSpec, Status


def sandbox(**spec: object) -> Sandbox:
    return Sandbox(new_id("sb"), SandboxSpec(**spec), Status.CREATING, 1000.0)  # type: ignore[arg-type]


def record(one: Sandbox, workspace: str = "default") -> Record:
    return Record(workspace, one, "boot-1")


def test_the_steps_lead_to_the_tables_of_the_code(place: Place):
    engine = place.engine()
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_the_newest_step_is_the_one_the_code_names():
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


async def test_a_store_that_is_up_to_date_is_opened_without_the_steps(place: Place, monkeypatch: pytest.MonkeyPatch):
    def never(place: Place) -> None:
        raise AssertionError("looked at the steps")

    monkeypatch.setattr(module, "upgrade", never)
    async with Database(place) as again:
        assert await SandboxStore(again).live() == []


async def test_a_new_store_is_made_for_its_owner_alone(tmp_path: Path):
    file = tmp_path / "new" / "belljar.db"
    async with Database(Sqlite(file)) as made:
        assert await SandboxStore(made).live() == []
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_file_that_is_no_store_is_told_in_words(tmp_path: Path):
    file = tmp_path / "belljar.db"
    file.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(Internal, match=r"belljar\.db"):
        async with Database(Sqlite(file)):
            pass


async def test_a_store_of_an_earlier_release_keeps_what_it_has(tmp_path: Path):
    file = tmp_path / "belljar.db"
    upgrade(Sqlite(file), to="0001")
    columns = "id, workspace, image, cpus, memory, disk, pids, env, labels, network, status, boot, created"
    with contextlib.closing(sqlite3.connect(file)) as old, old:
        old.execute(
            f"INSERT INTO sandboxes ({columns}) VALUES ('sb1', 'default', 'base', 1, 1073741824, 10737418240, 99, '{{}}', "
            "'{}', 'open', 'running', 'boot', 1.0)"
        )
    async with Database(Sqlite(file)) as database:
        (found,) = await SandboxStore(database).live()
        assert (found.sandbox.id, found.sandbox.spec.snapshot, found.sandbox.parent) == ("sb1", None, None)


async def test_a_row_comes_back_as_it_was(plant):
    one = sandbox(
        name="one",
        limits=Limits(0.5, 1 << 41, 1 << 43, 99),
        env={"A": "ä\n"},
        labels={"a/b.c": "d"},
        workdir="/w",
        user="u",
        network=Network.NONE,
        lifetime=None,
    )
    await plant.store.insert(record(one))
    assert await plant.store.get(one.id) == record(one)
    ended = replace(one, status=Status.TERMINATED, started=1001.0, ended=Ended("killed", 1002.0, "x" * 5000))
    await plant.store.settle(ended)
    found = await plant.store.get(one.id)
    assert found is not None and found.sandbox.ended is not None
    assert (found.sandbox.status, found.sandbox.ended.reason) == (Status.TERMINATED, "killed")
    assert len(found.sandbox.ended.message) == 2000


async def test_what_has_ended_does_not_live_again(plant):
    one = sandbox()
    await plant.store.insert(record(one))
    plant.store.follow(replace(one, status=Status.LOST, ended=Ended("node_lost", 1.0)))
    plant.store.follow(replace(one, status=Status.RUNNING))
    found = await plant.store.get(one.id)
    assert found is not None and found.sandbox.status is Status.LOST


async def test_a_name_is_unique_among_the_live_of_a_workspace(plant, database: Database):
    await database.write((text("INSERT INTO workspaces (id, created) VALUES ('other', 1.0)"), {}))
    first = sandbox(name="n")
    await plant.store.insert(record(first))
    with pytest.raises(AlreadyExists):
        await plant.store.insert(record(sandbox(name="n")))
    await plant.store.insert(record(sandbox(name="n"), "other"))
    plant.store.follow(replace(first, status=Status.TERMINATED, ended=Ended("killed", 2.0)))
    second = sandbox(name="n")
    await plant.store.insert(record(second))
    latest = await plant.store.latest_named("default", "n")
    assert latest is not None and latest.sandbox.id == second.id


async def test_workspaces_do_not_see_each_other(plant, database: Database):
    await database.write((text("INSERT INTO workspaces (id, created) VALUES ('other', 1.0)"), {}))
    mine, theirs = sandbox(), sandbox()
    await plant.store.insert(record(mine))
    await plant.store.insert(record(theirs, "other"))
    for workspace, one in (("default", mine), ("other", theirs)):
        page = await plant.store.page(workspace, Filter(None), after=None, limit=10)
        assert [row.sandbox.id for row in page] == [one.id]


async def test_a_name_that_is_taken_leaves_no_key_behind(plant):
    await plant.store.insert(record(sandbox(name="n")))
    with pytest.raises(AlreadyExists):
        await plant.store.insert(record(sandbox(name="n")), Repeat("k", "d"))
    assert await plant.store.repeated("default", "k", now=1000.0) is None


async def test_a_key_is_kept_for_a_day(plant):
    one = sandbox()
    await plant.store.insert(record(one), Repeat("k", "d"))
    assert await plant.store.repeated("default", "k", now=1000.0 + 86000) == ("d", one.id)
    assert await plant.store.repeated("default", "k", now=1000.0 + 87000) is None
    await plant.store.prune_repeats(now=1000.0 + 87000)
    assert await plant.store.repeated("default", "k", now=1000.0) is None


@ONLY_SQLITE
async def test_a_full_disk_is_told_as_such_and_nothing_is_half_there(plant, database: Database):
    await database.write((text("PRAGMA max_page_count=20"), {}))
    made = []
    with pytest.raises(DiskFull):
        for _ in range(200):
            made.append(sandbox(env={"A": "x" * 4000}))
            await plant.store.insert(record(made[-1]), Repeat(made[-1].id, "d"))
    there = {row.sandbox.id for row in await plant.store.live()}
    assert there == {one.id for one in made[:-1]}
    assert await plant.store.repeated("default", made[-1].id, now=1000.0) is None


@ONLY_SQLITE
async def test_durable_writes_are_flushed_and_the_others_are_not(database: Database):
    seen: list[float | None] = []
    level = text("UPDATE workspaces SET created = (SELECT synchronous FROM pragma_synchronous)")
    for durable in (True, False, True):
        await database.write((level, {}), durable=durable)
        seen.append(await database.scalar(select(WorkspaceRow.created)))
    assert seen == [2, 1, 2]
    for pragma, expected in (("journal_mode", "wal"), ("foreign_keys", 1), ("query_only", 1)):
        said = await database.read(
            lambda connection, pragma=pragma: connection.exec_driver_sql(f"PRAGMA {pragma}").scalar()
        )
        assert said == expected


async def test_who_reads_cannot_write(database: Database):
    with pytest.raises(DBAPIError, match=r"readonly|read-only"):
        await database.read(lambda connection: connection.execute(text("UPDATE workspaces SET created = 2.0")))
    assert await database.scalar(select(WorkspaceRow.created)) != 2.0


async def test_what_follows_the_node_is_read_at_once_and_survives_a_failure_beside_it(plant):
    one = sandbox(name="n")
    await plant.store.insert(record(one))
    plant.store.follow(replace(one, status=Status.RUNNING, started=1.0))
    with pytest.raises(AlreadyExists):
        await plant.store.insert(record(sandbox(name="n")))
    plant.store.follow(replace(one, status=Status.RUNNING, started=2.0))
    found = await plant.store.get(one.id)
    assert found is not None
    assert (found.sandbox.status, found.sandbox.started) == (Status.RUNNING, 2.0)


async def test_a_writer_that_leaves_does_not_cut_the_write(plant):
    for _ in range(20):
        one = sandbox()
        task = asyncio.create_task(plant.store.insert(record(one)))
        await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        # Either not begun or whole; and the store goes on.
        assert await plant.store.get(one.id) in (None, record(one))
    await plant.store.insert(record(sandbox()))


async def test_only_a_digest_of_a_key_is_kept_and_it_works_after_a_restart(database: Database):
    async with Keys(KeyStore(database)) as keys:
        made, key = await keys.make("one")
        who = keys.check(key)
        assert (who.workspace, who.key, who.local) == ("default", made.id, False)
        for wrong in (None, "", key + "x", key[:-1], "bjk_", "\udcff"):
            with pytest.raises(Unauthenticated):
                keys.check(wrong)
    async with Keys(KeyStore(database)) as keys:
        assert keys.check(key) == who
    kept = await database.read(lambda connection: connection.execute(text("SELECT * FROM keys")).all())
    assert len(kept) == 1
    assert key not in str(kept)


def test_a_reader_that_leaves_at_once_leaves_no_thread_behind(place: Place):
    """The loop ends right after; a thread that still had something to tell it would fail the test."""

    async def leave(turns: int) -> None:
        async with Database(place) as database:
            reader = asyncio.create_task(database.scalar(select(WorkspaceRow.id)))
            for _ in range(turns):
                await asyncio.sleep(0)
            reader.cancel()
            await asyncio.wait([reader])

    for turns in range(20):
        asyncio.run(leave(turns))
