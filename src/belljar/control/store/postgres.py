"""A store in a Postgres database, from version 13 on: one server holds it, a lost connection is made again, and of a commit that
was cut in the middle it is looked up what became of it."""

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Sequence
from itertools import count
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import StrDumper
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from belljar.control.store.place import BUSY_SECONDS, Change, Link, Question, T, apply, explained
from belljar.control.store.tables import Base
from belljar.model.errors import (
    Conflict,
    DeadlineExceeded,
    DiskFull,
    Error,
    Internal,
    InvalidArgument,
    NotSupported,
    PermissionDenied,
    Starting,
)

__all__ = ("Postgres",)

_OLDEST = 130000
_STATEMENT_SECONDS = 15.0
_CONNECT_SECONDS = 5
_PAUSE_SECONDS = 1.0
"""Between two attempts to connect; whoever asks in between is told the outcome of the last."""
_HOLD_SECONDS = 3.0
"""For the server's own end of a connection that died to be noticed."""
_SETTLE_SECONDS = 10.0
_POLL = 0.1
_LOCK = int.from_bytes(b"belljar")
"""The number of the advisory lock; such numbers belong to one database."""
_KEEPALIVE = "-c tcp_keepalives_idle=20 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
_LOST = ("08", "57P", "53300")
"""SQLSTATEs: no connection, shutting down or starting, too many connections."""
_TURN = """CREATE TABLE IF NOT EXISTS belljar_turn
    (one boolean PRIMARY KEY DEFAULT true CHECK (one), turn bigint NOT NULL, last bigint NOT NULL)"""
_NEXT_TURN = """INSERT INTO belljar_turn (turn, last) VALUES (1, 0)
    ON CONFLICT (one) DO UPDATE SET turn = belljar_turn.turn + 1, last = 0 RETURNING turn"""
_MARK = "UPDATE belljar_turn SET last = :last WHERE turn = :turn RETURNING last"
_MARK_BEHIND = f"{_MARK}, set_config('synchronous_commit', 'off', true)"
_LEFT = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = :name AND datname = current_database() AND pid <> pg_backend_pid()"""


class Postgres:
    """Its writer holds an advisory lock, and a turn: a number in the database that the next server raises. Each transaction
    checks the turn and leaves its own number. So a server that lost lock and connection writes nothing over its successor, and
    after a commit without an answer the number says whether it happened."""

    def __init__(self, url: str) -> None:
        """Connects to nothing. Raises InvalidArgument."""
        try:
            said = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            said = None  # libpq's words may quote a part of the password
        if said is None or url.count("@") > 1:
            raise InvalidArgument(
                "the address of the database is not of the form postgresql://USER:PASSWORD@HOST:PORT/NAME",
                hint="in user and password write letters such as @ : / # as %40 %3A %2F %23",
            )
        self._url = url
        self._options = str(said.get("options") or "")
        self._attributes = str(
            said.get("target_session_attrs") or "primary"
        )  # of several hosts, the one that is written to
        host, port = said.get("host") or "", f":{said['port']}" if "port" in said else ""
        user = f"{said['user']}@" if "user" in said else ""
        self._said = f"postgresql://{user}{host}{port}/{said.get('dbname') or ''}"
        self._refused: tuple[float, Starting] | None = None

    def __str__(self) -> str:
        return self._said

    def engine(self, name: str = "belljar", options: str = "") -> Engine:
        """`name` is shown by the database, `options` are those of a session."""
        options = f"{self._options} {options}".strip()
        return create_engine(
            "postgresql+psycopg://",
            creator=lambda: psycopg.connect(
                self._url,
                connect_timeout=_CONNECT_SECONDS,
                tcp_user_timeout=int(BUSY_SECONDS * 1000),
                application_name=name,
                options=options,
                target_session_attrs=self._attributes,
            ),
            poolclass=NullPool,
            hide_parameters=True,
            use_native_hstore=False,
        )

    def writer(self) -> Link:
        writer = _Writer(self)
        try:
            writer.hold()
        except BaseException:
            writer.close()
            raise
        return writer

    def reader(self) -> Link:
        return _Reader(self)

    def drop(self) -> None:
        writer, engine = self.writer(), self.engine()
        try:
            with explained(self.explain), engine.begin() as connection:
                Base.metadata.drop_all(connection)
                for table in ("alembic_version", "belljar_turn"):
                    connection.execute(text(f"DROP TABLE IF EXISTS {table}"))
                connection.execute(text("DROP FUNCTION IF EXISTS belljar_append_only"))
        finally:
            engine.dispose()
            writer.close()

    def connect(self, engine: Engine) -> Connection:
        """Raises Starting, at once when that was tried just before; NotSupported."""
        if self._refused is not None and time.monotonic() < self._refused[0]:
            raise self._refused[1]
        try:
            connection = engine.connect()
        except DBAPIError as error:
            said = str(error.orig).strip().partition("\n")[0]
            refused = Starting(f"the database {self} cannot be reached: {said}", retry_after=_PAUSE_SECONDS)
            self._refused = time.monotonic() + _PAUSE_SECONDS, refused
            raise refused from error
        self._refused = None
        if (version := raw(connection).info.server_version) < _OLDEST:
            connection.close()
            raise NotSupported(f"the database {self} has version {version // 10000}; Belljar needs 13 or newer")
        return connection

    def explain(self, error: DBAPIError) -> Error | None:
        state = getattr(error.orig, "sqlstate", None) or ""
        said = str(error.orig).strip().partition("\n")[0]
        if is_lost(error):
            return Starting(f"the database {self} does not answer: {said}", retry_after=_PAUSE_SECONDS)
        if state == "53100":
            return DiskFull(f"the disk of the database {self} is full")
        if state == "57014":
            return DeadlineExceeded(f"the database {self} took longer than {_STATEMENT_SECONDS:.0f} s")
        if state == "42501":
            return PermissionDenied(
                f"the database {self} does not allow it: {said}",
                hint="Belljar's user must own the database, or may create tables in its schema",
            )
        if isinstance(error.orig, psycopg.DataError) and "NUL" in said:
            return InvalidArgument("a text has a character with the number 0 in it")
        return None


class _Session:
    """A connection that is made at its first use, and again after it was lost."""

    def __init__(self, place: Postgres, name: str, options: str) -> None:
        self._place = place
        self._name = name
        limited = f"-c statement_timeout={_STATEMENT_SECONDS * 1000:.0f} {_KEEPALIVE} {options}"
        self._engine = place.engine(name, limited)
        self._connection: Connection | None = None
        self._was_cut = False

    def use(self) -> Connection:
        if self._connection is None:
            self._connection = self._place.connect(self._engine)
            self._was_cut = False
        return self._connection

    def drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # whatever is wrong with it, it goes
                connection.invalidate()
            connection.close()

    def drop_if_lost(self, error: BaseException) -> bool:
        """Whether the same may be tried once more, on a new connection."""
        if not (isinstance(error, DBAPIError) and is_lost(error)):
            return False
        self.drop()
        return not self._was_cut

    def cut(self) -> None:
        self._was_cut = True
        with contextlib.suppress(Exception):  # it may be closing
            if (connection := self._connection) is not None:
                with socket.socket(fileno=os.dup(raw(connection).fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.drop()
        self._engine.dispose()


class _Sought(StrDumper):
    """A text with a NUL, which Postgres does not take, is in no row: whoever looks for it finds nothing, as in a file."""

    def dump(self, obj: str) -> "Buffer | None":
        return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}"))


class _Reader(_Session):
    def __init__(self, place: Postgres) -> None:
        super().__init__(place, "belljar", "-c default_transaction_read_only=on")

    def use(self) -> Connection:
        if self._connection is None:
            # Each statement by itself: one trip, not three.
            self._connection = super().use().execution_options(isolation_level="AUTOCOMMIT")
            raw(self._connection).adapters.register_dumper(str, _Sought)
        return self._connection

    def read(self, question: Question[T]) -> T:
        with explained(self._place.explain):
            try:
                return self._read(question)
            except DBAPIError as error:
                if not self.drop_if_lost(error):
                    raise
            return self._read(question)  # it was lost while nobody used it, perhaps

    def _read(self, question: Question[T]) -> T:
        connection = self.use()
        try:
            return question(connection)
        finally:
            if not connection.invalidated:
                connection.rollback()

    def write(self, changes: Sequence[Change], *, durable: bool) -> None:
        raise AssertionError("a reader")


class _Writer(_Session):
    def __init__(self, place: Postgres) -> None:
        super().__init__(place, f"belljar {secrets.token_hex(8)}", "")
        self._turn: int | None = None
        self._numbers = count(1)

    def hold(self) -> None:
        """Raises Conflict while another server has the database."""
        with explained(self._place.explain):
            self.use()

    def use(self) -> Connection:
        if self._connection is None:
            connection = super().use()
            try:
                self._take(connection)
            except BaseException:
                self.drop()
                raise
        return super().use()

    def _take(self, connection: Connection) -> None:
        deadline = time.monotonic() + _HOLD_SECONDS
        while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}):
            if time.monotonic() > deadline:
                raise Conflict(
                    f"another server uses the database {self._place}",
                    hint="end that one, or give this one a database of its own",
                )
            # Of a connection of this server that was lost, the other end may be there still.
            connection.execute(text(_LEFT), {"name": self._name})
            connection.commit()
            time.sleep(_POLL)
        if self._turn is None:
            # Before the steps of the schema, which are taken under the lock; it is Postgres' own and in no step.
            connection.execute(text(_TURN))
            self._turn = connection.scalar(text(_NEXT_TURN))
        connection.commit()

    def write(self, changes: Sequence[Change], *, durable: bool) -> None:
        """Raises Conflict when another server has taken over, and Internal when the database was lost in the middle of the commit
        and stays so: then nobody knows."""
        number = next(self._numbers)
        with explained(self._place.explain):
            try:
                connection = self._written(changes, number, durable)
            except DBAPIError as error:
                if not self.drop_if_lost(error):
                    raise
                connection = self._written(changes, number, durable)  # nothing of it was committed
            try:
                connection.commit()
            except DBAPIError as error:
                if not is_lost(error):
                    connection.rollback()
                    raise
                self.drop()
                if not self._happened(number):
                    raise  # as for any that was lost before its commit

    def _written(self, changes: Sequence[Change], number: int, durable: bool) -> Connection:
        connection = self.use()
        try:
            mark = text(_MARK if durable else _MARK_BEHIND)
            if connection.execute(mark, {"last": number, "turn": self._turn}).first() is None:
                raise Conflict(
                    f"another server has taken the database {self._place} over; this one writes nothing any more",
                    hint="end this server",
                )
            apply(connection, changes)
        except BaseException:
            if not connection.invalidated:
                connection.rollback()
            raise
        return connection

    def _happened(self, number: int) -> bool:
        """The lock is back only when the other end of the lost connection is gone: what it says then is final."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < deadline:
            try:
                last = self.use().scalar(text("SELECT last FROM belljar_turn WHERE turn = :turn"), {"turn": self._turn})
                self.use().commit()
            except (DBAPIError, Error):
                self.drop()
                time.sleep(_POLL)
            else:
                return last == number
        raise Internal(
            f"the database {self._place} was lost in the middle of a commit: it is not known whether the change was made",
            hint="look whether it was before you ask for it again",
        )

    def read(self, question: Question[T]) -> T:
        raise AssertionError("the writer")


def raw(connection: Connection) -> "psycopg.Connection[Any]":
    found: Any = connection.connection.dbapi_connection
    return found


def is_lost(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None) or ""
    return error.connection_invalidated or state.startswith(_LOST)
