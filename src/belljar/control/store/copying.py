"""A copy of the database as it is in one moment, made while others write, and what is to be said in one that was restored."""

import contextlib
import os
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, delete, func, insert, select

from belljar.control.store.place import BUSY_SECONDS, Place, Question, T, explained
from belljar.control.store.sqlite import Sqlite
from belljar.control.store.steps import step_of, upgrade
from belljar.control.store.tables import Base, WorkspaceRow
from belljar.model.errors import DiskFull, InvalidArgument

__all__ = ("Copied", "Settled", "copy_store", "is_new", "pour", "settle_restored", "sweep")

_RESERVE = 64 << 20
_AT_ONCE = 1000
_ONE_MOMENT = {"sqlite": "SERIALIZABLE", "postgresql": "REPEATABLE READ"}
_PIECE = 1 << 20
_LOST = (
    "INSERT INTO events (id, kind, at, reason, message, workspace, sandbox, name, seq) "
    "VALUES (?1, 'sandbox.lost', ?2, 'restored', ?3, ?4, ?5, ?6, "
    "(SELECT coalesce(max(seq), 0) + 1 FROM events WHERE workspace = ?4))"
)
"""The event that each end has."""


@dataclass(frozen=True, slots=True)
class Copied:
    """`descriptor` reads the copy, which has no name any more: it goes with the process, however that ends. The caller closes it.

    `snapshots`: ids of those that are acknowledged and not deleted in it.
    """

    descriptor: int
    size: int
    snapshots: tuple[str, ...]

    def read(self, offset: int) -> bytes:
        """The next piece, at most 1 MiB; none at the end. Blocks."""
        return os.pread(self.descriptor, _PIECE, offset)


@dataclass(frozen=True, slots=True)
class Settled:
    """How many there are in a restored store; `lost`: sandboxes that lived when it was copied."""

    workspaces: int
    keys: int
    snapshots: int
    templates: int
    lost: int


def copy_store(place: Place, beside: Path) -> Copied:
    """As a SQLite file, whatever the place is, made beside the file of that name. Blocks for as long as writing it takes; nobody
    who reads or writes waits. Raises DiskFull, Starting."""
    with explained(place.explain):
        _check_room(place, beside)
    sweep(beside)
    target = _target(beside)
    # For its owner alone before anything is in it.
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        if isinstance(place, Sqlite):
            with contextlib.closing(sqlite3.connect(place.file, timeout=BUSY_SECONDS)) as source:
                source.execute("VACUUM INTO ?", (str(target),))
        else:
            upgrade(Sqlite(target))
            pour(place, Sqlite(target))
        with contextlib.closing(sqlite3.connect(target)) as made:
            rows = made.execute("SELECT id FROM snapshots WHERE state = 'ready' AND ended_at IS NULL ORDER BY id")
            snapshots = tuple(str(id) for (id,) in rows)
        descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        return Copied(descriptor, os.fstat(descriptor).st_size, snapshots)
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise DiskFull("no space is left on the disk for a copy of the store") from error
        raise
    finally:
        sweep(beside)


def _check_room(place: Place, beside: Path) -> None:
    if isinstance(place, Sqlite):
        size = place.file.stat().st_size
    else:
        size = _asked(place, lambda connection: int(connection.scalar(func.pg_database_size(func.current_database()))))
    if (free := shutil.disk_usage(beside.parent).free) < size + _RESERVE:
        raise DiskFull(
            f"a copy of the store needs {(size + _RESERVE) >> 20} MiB beside it, and {free >> 20} MiB are free"
        )


def pour(source: Place, target: Place) -> None:
    """All rows as they are in one moment, into a store of the same step with nothing but a new one's workspace. All of them or
    none. Blocks."""
    from_engine, to_engine = source.engine(), target.engine()
    try:
        with (
            explained(source.explain),
            explained(target.explain),
            from_engine.connect().execution_options(
                isolation_level=_ONE_MOMENT[from_engine.name], yield_per=_AT_ONCE
            ) as there,
            to_engine.begin() as here,
        ):
            here.execute(delete(WorkspaceRow))
            for table in Base.metadata.sorted_tables:
                for part in there.execute(select(table)).mappings().partitions():
                    here.execute(insert(table), [dict(row) for row in part])
    finally:
        from_engine.dispose()
        to_engine.dispose()


def is_new(place: Place) -> bool:
    """Whether there are no rows but a new store's workspace, or no tables yet. Blocks."""
    return _asked(place, _is_new)


def _is_new(connection: Connection) -> bool:
    if step_of(connection) is None:
        return True
    tables = [table for table in Base.metadata.sorted_tables if connection.dialect.has_table(connection, table.name)]
    counts = {table.name: connection.scalar(select(func.count()).select_from(table)) for table in tables}
    return sum(count or 0 for count in counts.values()) == counts.get(WorkspaceRow.__tablename__) == 1


def _asked(place: Place, question: Question[T]) -> T:
    link = place.reader()
    try:
        return link.read(question)
    finally:
        link.close()


def sweep(beside: Path) -> None:
    """Removes what a killed server was copying."""
    for end in ("", "-journal", "-wal", "-shm"):
        beside.with_name(f"{_target(beside).name}{end}").unlink(missing_ok=True)


def settle_restored(file: Path, *, at: float, message: str) -> Settled:
    """Of a copy that is up to date: what lived in it is lost, and says why. `at` in seconds since 1970. Blocks.

    Raises InvalidArgument for a file that is damaged.
    """
    try:
        with contextlib.closing(sqlite3.connect(file)) as store, store:
            if (said := store.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise InvalidArgument(f"the store in the backup is damaged: {said}")
            # A create that was under way may be asked for again with its key.
            store.execute(
                "DELETE FROM idempotency WHERE sandbox IN "
                "(SELECT id FROM sandboxes WHERE ended_at IS NULL AND status = 'creating')"
            )
            lost = store.execute(
                "UPDATE sandboxes SET status = 'lost', ended_at = ?, ended_reason = 'restored', ended_message = ? "
                "WHERE ended_at IS NULL RETURNING workspace, id, name",
                (at, message),
            ).fetchall()
            for workspace, id, name in lost:
                store.execute(_LOST, (f"ev{id[2:]}e", at, message, workspace, id, name))
            return Settled(
                _count(store, "workspaces WHERE ended IS NULL"),
                _count(store, "keys WHERE revoked IS NULL"),
                _count(store, "snapshots WHERE state = 'ready' AND ended_at IS NULL"),
                _count(store, "templates WHERE snapshot IS NOT NULL"),
                len(lost),
            )
    except sqlite3.DatabaseError as error:
        raise InvalidArgument(f"the store in the backup cannot be read: {error}") from error


def _count(store: sqlite3.Connection, what: str) -> int:
    return int(store.execute(f"SELECT count(*) FROM {what}").fetchone()[0])


def _target(file: Path) -> Path:
    return file.with_name(f".{file.name}.copy")
