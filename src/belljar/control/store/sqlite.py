"""A store in a SQLite file, in WAL mode: whoever reads never waits for who writes."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from belljar.control.store.place import BUSY_SECONDS, Change, Link, Question, T, apply, explained
from belljar.model.errors import DeadlineExceeded, DiskFull, Error, Internal, Starting

__all__ = ("Sqlite",)


class Sqlite:
    """The lock on the state directory sees to it that one server uses it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __str__(self) -> str:
        return str(self.file)

    def engine(self) -> Engine:
        engine = create_engine(
            URL.create("sqlite", database=str(self.file)),
            # A connection belongs to one thread at a time, not to the same one forever.
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
            poolclass=NullPool,
            hide_parameters=True,
        )
        event.listen(engine, "connect", _set_up)
        return engine

    def writer(self) -> Link:
        self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with explained(self._cannot_open):
            link = _SqliteLink(self, (True, False))
        self.file.chmod(0o600)
        return link

    def reader(self) -> Link:
        return _SqliteLink(self)

    def drop(self) -> None:
        for end in ("", "-wal", "-shm"):
            self.file.with_name(f"{self.file.name}{end}").unlink(missing_ok=True)

    def explain(self, error: DBAPIError) -> Error | None:
        said = str(error.orig)
        if "disk is full" in said:
            return DiskFull(f"the disk of the server is full: {self.file}")
        if "is locked" in said:
            return Starting(f"another process keeps the store {self.file} locked", retry_after=1.0)
        if "interrupted" in said:
            return DeadlineExceeded("the store took too long")
        return None

    def _cannot_open(self, error: DBAPIError) -> Error:
        return self.explain(error) or Internal(f"the store {self.file} cannot be opened: {error.orig}")


class _SqliteLink:
    def __init__(self, place: Sqlite, writes: Sequence[bool] = ()) -> None:
        """`writes`: a connection for each, of which the first flushes and the second does not: switching a single one took a
        millisecond of each change."""
        self._explain = place.explain
        self._engine = place.engine()
        self._open: dict[bool | None, Connection] = {}
        try:
            for durable in writes:
                self._open[durable] = self._engine.connect()
                if not durable:
                    self._pragma(durable, "synchronous=NORMAL")
        except BaseException:
            self.close()
            raise

    def write(self, changes: Sequence[Change], *, durable: bool) -> None:
        connection = self._open[durable]
        with explained(self._explain):
            try:
                apply(connection, changes)
                connection.commit()
            except BaseException:
                connection.rollback()
                raise

    def read(self, question: Question[T]) -> T:
        with explained(self._explain):
            if None not in self._open:
                self._open[None] = self._engine.connect()
                self._pragma(None, "query_only=ON")
            connection = self._open[None]
            try:
                return question(connection)
            finally:
                connection.rollback()

    def _pragma(self, which: bool | None, what: str) -> None:
        self._open[which].exec_driver_sql(f"PRAGMA {what}")
        self._open[which].commit()

    def cut(self) -> None:
        for connection in tuple(self._open.values()):
            with contextlib.suppress(Exception):  # it may be closing
                raw: Any = connection.connection.dbapi_connection
                raw.interrupt()

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()
        self._open.clear()
        self._engine.dispose()


def _set_up(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
