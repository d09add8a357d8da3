"""Copies of the database: of one moment, while others write; and what is said in one that was restored."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from belljar.base.ids import new_id
from belljar.base.tasks import in_thread, wait_until
from belljar.control.store import copying
from belljar.control.store.copying import Copied, copy_database, settle_restored
from belljar.control.store.database import Database, upgrade
from belljar.control.store.sandboxes import Record, Repeat, SandboxStore
from belljar.model.errors import DiskFull, InvalidArgument
from belljar.model.sandbox import Sandbox, SandboxSpec, Status


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
    await database.write((text("CREATE TABLE pairs (a INTEGER, b INTEGER)"), {}))
    done = asyncio.Event()
    written = 0

    async def write_on() -> None:
        nonlocal written
        while not done.is_set():
            both = [
                (text("INSERT INTO pairs VALUES (:n, 0)"), {"n": written}),
                (text("UPDATE pairs SET b = :n"), {"n": written}),
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
            copy = await in_thread(copy_database, database.file)
            with opened(copy, tmp_path) as store:
                rows = store.execute("SELECT a, b FROM pairs ORDER BY a").fetchall()
            assert [a for a, _ in rows] == list(range(len(rows)))
            assert {b for _, b in rows} <= {len(rows) - 1}, "half of a transaction"
            assert len(rows) >= before
            assert await wait_until(written_more, timeout=20)
    finally:
        done.set()
        await writing


async def test_it_has_no_name_and_one_that_a_killed_server_left_is_removed(database: Database) -> None:
    home = database.file.parent
    names = {path.name for path in home.iterdir()}
    copy = copy_database(database.file)
    assert {path.name for path in home.iterdir()} == names
    os.close(copy.descriptor)
    left = home / f".{database.file.name}.copy"
    left.write_bytes(b"half")
    left.with_name(f"{left.name}-journal").write_bytes(b"half")
    os.close(copy_database(database.file).descriptor)
    assert {path.name for path in home.iterdir()} == names
    left.write_bytes(b"half")
    async with Database(database.file):
        assert not left.exists()


async def test_without_room_it_is_refused_before_it_begins(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_RESERVE", 1 << 60)
    with pytest.raises(DiskFull, match="beside it"):
        copy_database(database.file)


async def test_what_lived_in_a_restored_one_is_lost_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "belljar.db"
    running, creating, ended = (
        Sandbox(new_id("sb"), SandboxSpec(name=name), status, 1000.0)
        for name, status in (("a", Status.RUNNING), ("b", Status.CREATING), ("c", Status.TERMINATED))
    )
    async with Database(file) as database, SandboxStore(database) as store:
        for number, one in enumerate((running, creating, ended)):
            await store.insert(Record("default", one, "boot"), Repeat(f"k{number}", "d"))
        await database.write(
            (text("UPDATE sandboxes SET ended_at = 5.0, ended_reason = 'killed' WHERE name = 'c'"), {})
        )
    settled = settle_restored(file, at=2000.0, message="restored, you see")
    assert (settled.workspaces, settled.lost, settled.snapshots, settled.keys) == (1, 2, 0, 0)
    async with Database(file) as database, SandboxStore(database) as store:
        assert await store.live() == []
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
    upgrade(file)
    data = bytearray(file.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 64] = os.urandom(64)
    file.write_bytes(data)
    with pytest.raises(InvalidArgument, match=r"damaged|cannot be read"):
        settle_restored(file, at=1.0, message="")
