"""What only Postgres has: a line that breaks, another server, an address with a password."""

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncGenerator, Iterator

import psycopg
import pytest
from sqlalchemy import insert, select, text
from tests.postgres import Cluster
from tests.unit.control.cutting_proxy import CuttingProxy, When, cutting_proxy

from belljar.base.tasks import in_thread
from belljar.control.store import database as database_module
from belljar.control.store import postgres as module
from belljar.control.store.database import Database
from belljar.control.store.places import place_at
from belljar.control.store.postgres import Postgres
from belljar.control.store.tables import WorkspaceRow
from belljar.model.errors import Conflict, DeadlineExceeded, Error, Internal, InvalidArgument, NotSupported, Starting

SECRET = "hunter2"


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[CuttingProxy]:
    with cutting_proxy(cluster.port) as running:
        yield running


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.cleaned()


@pytest.fixture
async def database(url: str, cluster: Cluster, proxy: CuttingProxy) -> AsyncGenerator[Database]:
    """Behind the proxy."""
    async with Database(Postgres(url.replace(str(cluster.port), str(proxy.port)))) as opened:
        yield opened


def new(id: str) -> tuple[object, dict[str, object]]:
    return insert(WorkspaceRow), {"id": id, "created": 1.0}


async def ids(database: Database) -> list[str]:
    rows = await database.rows(select(WorkspaceRow).order_by(WorkspaceRow.id))
    return [row.id for row in rows]


async def test_a_commit_whose_answer_is_lost_is_found_to_have_happened(database: Database, proxy: CuttingProxy):
    for durable in (True, False):
        proxy.when = When.AFTER
        await database.write(new(f"w-{durable}"), durable=durable)
    assert proxy.cuts == 2
    assert await ids(database) == ["default", "w-False", "w-True"]


async def test_a_commit_that_did_not_arrive_is_told_as_one_that_may_be_tried_again(
    database: Database, proxy: CuttingProxy
):
    proxy.when = When.BEFORE
    with pytest.raises(Starting, match="does not answer"):
        await database.write(new("w"))
    assert (proxy.cuts, await ids(database)) == (1, ["default"])
    await database.write(new("w"))
    assert await ids(database) == ["default", "w"]


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
async def test_when_nobody_can_know_the_caller_is_told_so(
    database: Database, proxy: CuttingProxy, when: When, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_SETTLE_SECONDS", 0.3)
    proxy.when, proxy.open = when, False
    with pytest.raises(Internal, match="not known whether") as told:
        await database.write(new("w"))
    assert not told.value.retryable
    assert told.value.hint is not None
    proxy.open = True
    await asyncio.sleep(module._PAUSE_SECONDS)
    assert await ids(database) == (["default", "w"] if when is When.AFTER else ["default"])


async def test_a_line_that_broke_while_nobody_used_it_is_not_noticed(database: Database, proxy: CuttingProxy):
    assert await ids(database) == ["default"]
    proxy.cut()
    await database.write(new("w"))
    proxy.cut()
    assert await ids(database) == ["default", "w"]


async def test_one_server_has_a_database_until_its_end(url: str):
    async with Database(Postgres(url)) as first:
        with pytest.raises(Conflict, match="another server uses the database") as refused:
            async with Database(Postgres(url)):
                pass
        assert refused.value.hint is not None
        await first.write(new("w"))
    async with Database(Postgres(url)) as second:
        assert await ids(second) == ["default", "w"]


async def test_a_server_that_lost_its_database_to_another_writes_nothing_over_it(
    database: Database, proxy: CuttingProxy, url: str
):
    await database.write(new("first"))
    proxy.open = False
    proxy.cut()
    async with Database(Postgres(url)) as successor:
        proxy.open = True
        with pytest.raises(Conflict, match="another server uses"):
            await database.write(new("late"))
        await successor.write(new("second"))
    # Not even when the other has ended: what it did is not known to this one.
    with pytest.raises(Conflict, match="has taken the database"):
        await database.write(new("late"))
    assert await ids(database) == ["default", "first", "second"]


async def test_a_database_that_hangs_holds_nobody_for_long(url: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    """Not gone, but silent: its processes are stopped."""
    monkeypatch.setattr(database_module, "_LONGEST_SECONDS", 0.5)
    monkeypatch.setattr(database_module, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(module, "_CONNECT_SECONDS", 2)
    monkeypatch.setattr(module, "_SETTLE_SECONDS", 0.5)
    async with Database(Postgres(url)) as database:
        await database.write(new("before"))
        with psycopg.connect(url) as other:
            pids = [pid for (pid,) in other.execute(PIDS)]
        for pid in pids:
            signal.pidfd_send_signal(_pidfd(pid), signal.SIGSTOP)
        cluster.send(signal.SIGSTOP)
        began = time.monotonic()
        try:
            asked = (ids(database), database.write(new("lost")), database.write(new("later")))
            said = await asyncio.gather(*asked, return_exceptions=True)
        finally:
            cluster.send(signal.SIGCONT)
            for pid in pids:
                signal.pidfd_send_signal(_pidfd(pid), signal.SIGCONT)
        assert time.monotonic() - began < 10
        assert [isinstance(one, Error) for one in said] == [True, True, True], said
        await asyncio.sleep(module._PAUSE_SECONDS)
        await database.write(new("after"))
        assert {"before", "after"} <= set(await ids(database))


PIDS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def _pidfd(pid: int) -> int:

    return os.pidfd_open(pid)


async def test_a_statement_that_takes_too_long_is_told_as_such(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_STATEMENT_SECONDS", 0.2)
    async with Database(Postgres(url)) as database:
        with pytest.raises(DeadlineExceeded, match="longer than"):
            await database.read(lambda connection: connection.execute(text("SELECT pg_sleep(30)")))
        assert await ids(database) == ["default"]


async def test_what_only_follows_is_not_flushed_and_a_durable_write_is(database: Database):
    level = text("UPDATE workspaces SET id = current_setting('synchronous_commit') WHERE id <> 'default'")
    await database.write(new("x"))
    for durable, expected in ((True, "on"), (False, "off"), (True, "on")):
        await database.write((level, {}), durable=durable)
        assert await ids(database) == ["default", expected]


async def test_a_new_database_gets_its_tables_and_drop_takes_everything_away(cluster: Cluster):
    with cluster.database(empty=True) as url:
        place = Postgres(url)
        async with Database(place) as database:
            await database.write(new("w"))
            assert await ids(database) == ["default", "w"]
            with pytest.raises(Conflict):
                await in_thread(place.drop)
        await in_thread(place.drop)
        with psycopg.connect(url) as raw:
            for what in ("pg_tables", "pg_proc"):
                column = "schemaname" if what == "pg_tables" else "pronamespace::regnamespace::text"
                assert raw.execute(f"SELECT count(*) FROM {what} WHERE {column} = 'public'".encode()).fetchone() == (0,)


async def test_a_schema_of_its_own_can_be_named_in_the_address(cluster: Cluster):
    with cluster.database(empty=True) as url:
        with psycopg.connect(url, autocommit=True) as raw:
            raw.execute("CREATE SCHEMA jar")
        async with Database(Postgres(f"{url}?options=-csearch_path%3Djar")) as database:
            await database.write(new("w"))
        with psycopg.connect(url) as raw:
            assert raw.execute("SELECT count(*) FROM jar.workspaces").fetchone() == (2,)


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://u:{SECRET}@x@127.0.0.1/db",
        f"postgresql://u:{SECRET}@127.0.0.1/db?nonsense=1",
        f"postgresql://u:{SECRET}@[127.0.0.1/db",
        f"mysql://u:{SECRET}@127.0.0.1/db",
        SECRET,
    ],
)
def test_an_address_that_makes_no_sense_is_refused_without_its_password(address: str, tmp_path):
    with pytest.raises(InvalidArgument, match="postgresql://") as refused:
        place_at(address, tmp_path / "x")
    assert SECRET not in f"{refused.value!r} {refused.value} {refused.value.__cause__!r}"


async def test_no_message_has_the_password(url: str, cluster: Cluster, caplog: pytest.LogCaptureFixture):
    port = re.escape(str(cluster.port))
    for wrong in (url.replace(f":{cluster.port}", ":1"), f"{url}-not-there"):
        place = Postgres(wrong.replace("belljar@", f"belljar:{SECRET}@"))
        with pytest.raises(Starting, match="cannot be reached") as refused:
            async with Database(place):
                pass
        assert refused.value.retryable
        assert re.search(rf"postgresql://belljar@127.0.0.1:({port}|1)/", str(refused.value))
        chain = f"{refused.value!r} {refused.value} {refused.value.__cause__!r} {place} {place!r} {caplog.text}"
        assert SECRET not in chain


def test_without_its_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.delitem(sys.modules, "belljar.control.store.postgres")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(NotSupported, match="psycopg") as refused:
        place_at(f"postgresql://u:{SECRET}@h/db", tmp_path / "x")
    assert refused.value.hint == "pip install 'belljar[postgres]'"
    assert SECRET not in str(refused.value)
