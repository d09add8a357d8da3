"""Copies of the database: of one moment, while others write; and what is said in one that was restored."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, text

from belljar.base.ids import new_id
from belljar.base.tasks import in_thread, wait_until
from belljar.control.store import copying
from belljar.control.store.copying import Copied, copy_store, pour, settle_restored, sweep
from belljar.control.store.database import Database
from belljar.control.store.events import EventStore
from belljar.control.store.place import Place
from belljar.control.store.sandboxes import Record, Repeat, SandboxStore
from belljar.control.store.sqlite import Sqlite
from belljar.control.store.steps import upgrade
from belljar.control.store.tables import Base
from belljar.model.errors import DiskFull, InvalidArgument
from belljar.model.events import EventFilter
from belljar.model.sandbox import Sandbox, SandboxSpec, Status

RELEASED = Path(__file__).with_name("released")
_PAIR = text(
    "INSERT INTO keys (id, workspace, name, digest, scope, created, used) VALUES (:id, 'default', 'x', :n, 'run', 1.0, 0.0)"
)


@contextlib.contextmanager
def opened(copy: Copied, folder: Path) -> Iterator[sqlite3.Connection]:
    data = b""
    while piece := copy.read(len(data)):
        data += piece
    os.close(copy.descriptor)
    assert len(data) == copy.size
    (folder / "copy.db").write_bytes(data)
    with contextlib.closing(sqlite3.connect(folder / "copy.db")) as store:
        yield store


async def test_it_is_of_one_moment_while_others_write(database: Database, tmp_path: Path) -> None:
    """The pairs are in columns of keys: a copy has the tables of the code and no others."""
    done = asyncio.Event()
    written = 0

    async def write_on() -> None:
        nonlocal written
        while not done.is_set():
            both = [
                (_PAIR, {"id": f"{written:06}", "n": str(written)}),
                (text("UPDATE keys SET used = :n"), {"n": written}),
            ]
            await database.write(*both, durable=False)
            written += 1

    async def written_more() -> bool:
        return written > before + 20

    before = 0
    writing = asyncio.create_task(write_on())
    try:
        for _ in range(5):
            before = written
            copy = await in_thread(copy_store, database.place, tmp_path / "belljar.db")
            with opened(copy, tmp_path) as store:
                rows = store.execute("SELECT cast(id AS int), cast(used AS int) FROM keys ORDER BY id").fetchall()
            assert [a for a, _ in rows] == list(range(len(rows)))
            assert {b for _, b in rows} <= {len(rows) - 1}, "half of a transaction"
            assert len(rows) >= before
            assert await wait_until(written_more, timeout=20)
    finally:
        done.set()
        await writing


async def test_it_has_no_name_and_one_that_a_killed_server_left_is_removed(database: Database, tmp_path: Path) -> None:
    beside = tmp_path / "belljar.db"
    names = {path.name for path in tmp_path.iterdir()}
    copy = copy_store(database.place, beside)
    assert {path.name for path in tmp_path.iterdir()} == names
    os.close(copy.descriptor)

    def leave() -> None:
        for end in ("", "-journal", "-wal", "-shm"):
            (tmp_path / f".belljar.db.copy{end}").write_bytes(b"half")

    leave()
    os.close(copy_store(database.place, beside).descriptor)
    assert {path.name for path in tmp_path.iterdir()} == names
    leave()
    sweep(beside)
    assert {path.name for path in tmp_path.iterdir()} == names


async def test_without_room_it_is_refused_before_it_begins(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_RESERVE", 1 << 60)
    with pytest.raises(DiskFull, match="beside it"):
        copy_store(database.place, tmp_path / "belljar.db")


async def test_a_store_goes_from_one_place_to_another_with_every_row(place: Place, tmp_path: Path) -> None:
    """From a file into each kind, and from there into a file again."""
    first, last = Sqlite(tmp_path / "first.db"), Sqlite(tmp_path / "last.db")
    with contextlib.closing(sqlite3.connect(first.file)) as store:
        store.executescript(max(RELEASED.glob("*.sql")).read_text())
    upgrade(first)
    upgrade(last)
    pour(first, place)
    pour(place, last)

    def rows(place: Place) -> dict[str, list[str]]:
        def read(connection: Connection) -> dict[str, list[str]]:
            tables = Base.metadata.sorted_tables
            return {table.name: sorted(map(repr, connection.execute(select(table)))) for table in tables}

        link = place.reader()
        with contextlib.closing(link):
            return link.read(read)

    found = rows(first)
    assert {name for name, there in found.items() if there} >= {"keys", "sandboxes", "snapshots", "audit", "templates"}
    assert rows(place) == found
    assert rows(last) == found


async def test_what_lived_in_a_restored_one_is_lost_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "belljar.db"
    place = Sqlite(file)
    running, creating, ended = (
        Sandbox(new_id("sb"), SandboxSpec(name=name), status, 1000.0)
        for name, status in (("a", Status.RUNNING), ("b", Status.CREATING), ("c", Status.TERMINATED))
    )
    async with Database(place) as database, SandboxStore(database) as store:
        for number, one in enumerate((running, creating, ended)):
            await store.insert(Record("default", one, "boot"), Repeat(f"k{number}", "d"))
        await database.write(
            (text("UPDATE sandboxes SET ended_at = 5.0, ended_reason = 'killed' WHERE name = 'c'"), {})
        )
    settled = settle_restored(file, at=2000.0, message="restored, you see")
    assert (settled.workspaces, settled.lost, settled.snapshots, settled.keys) == (1, 2, 0, 0)
    async with Database(place) as database, SandboxStore(database) as store:
        assert await store.live() == []
        told = await EventStore(database).behind("default", EventFilter(), 0, limit=10)
        assert {(event.sandbox, event.name) for event in told} == {(running.id, "a"), (creating.id, "b")}
        assert {(event.kind, event.reason, event.at) for event in told} == {("sandbox.lost", "restored", 2000.0)}
        for one in (running, creating):
            found = await store.get(one.id)
            assert found is not None and found.sandbox.ended is not None
            assert found.sandbox.status is Status.LOST
            said = found.sandbox.ended
            assert (said.reason, said.at, said.message) == ("restored", 2000.0, "restored, you see")
        untouched = await store.get(ended.id)
        assert untouched is not None and untouched.sandbox.ended is not None
        assert untouched.sandbox.ended.reason == "killed"
        assert await store.repeated("default", "k0", now=1000.0) is not None
        assert await store.repeated("default", "k1", now=1000.0) is None, "it may be asked for again"


def test_a_damaged_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "belljar.db"
    file.write_bytes(b"no store" * 1000)
    with pytest.raises(InvalidArgument, match="cannot be read"):
        settle_restored(file, at=1.0, message="")
    file.unlink()
    upgrade(Sqlite(file))
    data = bytearray(file.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 64] = os.urandom(64)
    file.write_bytes(data)
    with pytest.raises(InvalidArgument, match=r"damaged|cannot be read"):
        settle_restored(file, at=1.0, message="")
