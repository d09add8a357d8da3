"""What holds for a store of each kind when its place is locked, gone, or slow: typed errors in time, and then all goes on."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Generator
from contextlib import AbstractContextManager

import pytest
from sqlalchemy import insert, select, text
from tests.postgres import Cluster

from belljar.base.tasks import wait_until
from belljar.control.store import database as database_module
from belljar.control.store import sqlite as sqlite_module
from belljar.control.store.database import Database
from belljar.control.store.place import Place
from belljar.control.store.sqlite import Sqlite
from belljar.control.store.tables import WorkspaceRow
from belljar.model.errors import DeadlineExceeded, Error, Internal, Starting

_SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "postgresql": "SELECT pg_sleep(100)",
}


@contextlib.contextmanager
def locked(place: Sqlite) -> Generator[None]:
    with contextlib.closing(sqlite3.connect(place.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def gone(cluster: Cluster) -> Generator[None]:
    cluster.stop()
    try:
        yield
    finally:
        cluster.start()


@pytest.fixture
def away(place: Place, request: pytest.FixtureRequest) -> AbstractContextManager[None]:
    """While it is open nobody can write: a file is locked by another process, a Postgres has crashed."""
    return locked(place) if isinstance(place, Sqlite) else gone(request.getfixturevalue("cluster"))


async def add(database: Database, name: str) -> None:
    await database.write((insert(WorkspaceRow), {"id": name, "created": 1.0}))


async def names(database: Database) -> set[str]:
    return {row.id for row in await database.rows(select(WorkspaceRow))}


async def test_while_it_is_away_writes_are_refused_in_time_and_then_all_goes_on(
    place: Place, away: AbstractContextManager[None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.2)
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 1.0)
    acknowledged = {"default"}

    async def work(database: Database, number: int) -> list[Error]:
        """Writes on and on, as a client that tries again what may be tried again."""
        refused: list[Error] = []
        for turn in range(5):
            name = f"w{number}-{turn}"
            began = time.monotonic()
            try:
                await add(database, name)
            except Error as error:
                assert time.monotonic() - began < 3
                refused.append(error)
                await asyncio.sleep(0.1)
            else:
                acknowledged.add(name)
        return refused

    async def answers() -> bool:
        try:
            await add(database, "back")
        except Starting:
            return False
        return True

    async with Database(place) as database:
        await add(database, "before")
        with away:
            tried = await asyncio.gather(*(work(database, number) for number in range(3)))
            said = [error for each in tried for error in each]
            assert said
            assert {type(error) for error in said} == {Starting}
            assert all(error.retryable and error.retry_after for error in said)
        assert await wait_until(answers, timeout=20, every=0.2)
        assert acknowledged | {"before", "back"} == await names(database)


async def test_a_read_that_takes_too_long_is_ended_and_the_next_one_works(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database_module, "_LONGEST_SECONDS", 0.3)
    monkeypatch.setattr(database_module, "_LOOK_SECONDS", 0.1)
    async with Database(place) as database:
        slow = text(_SLOW[place.engine().name])
        began = time.monotonic()
        with pytest.raises((DeadlineExceeded, Starting)):
            await database.read(lambda connection: connection.execute(slow).all())
        assert time.monotonic() - began < 5
        assert await names(database) == {"default"}


async def test_what_waited_too_long_for_its_turn_is_not_tried(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.2)
    async with Database(place) as database:
        lane = database._writer
        assert lane is not None
        blocking = lane.visit(lambda link: time.sleep(0.5))
        with pytest.raises(Starting, match="not tried"):
            await add(database, "late")
        await blocking
        assert await names(database) == {"default"}


async def test_writes_come_in_the_order_in_which_they_were_asked_for(database: Database):
    await database.write((text("UPDATE workspaces SET created = 0"), {}))
    step = text("UPDATE workspaces SET created = created * 2 + :bit")
    bits = [number % 3 == 0 for number in range(40)]
    await asyncio.gather(
        *(database.write((step, {"bit": int(bit)}), durable=bool(n % 2)) for n, bit in enumerate(bits))
    )
    expected = sum(1 << (len(bits) - 1 - n) for n, bit in enumerate(bits) if bit)
    assert await database.scalar(select(WorkspaceRow.created)) == expected


async def test_a_closed_one_says_so(place: Place):
    async with Database(place) as database:
        pass
    for asked in (names(database), add(database, "x")):
        with pytest.raises(Internal, match="closed"):
            await asked
