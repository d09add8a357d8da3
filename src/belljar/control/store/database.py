"""Opens the database, brings its tables up to date, and gives out transactions."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeAlias

from sqlalchemy import URL, Connection, Engine, Executable, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from belljar.base.tasks import TaskSet, in_thread
from belljar.control.store.copying import sweep
from belljar.control.store.tables import HEAD
from belljar.model.errors import DiskFull, Internal

__all__ = ("Change", "Database", "upgrade")

_BUSY_SECONDS = 10.0
Change: TypeAlias = tuple[Executable, Sequence[Mapping[str, Any]] | Mapping[str, Any]]
"""A statement and its values; several sets of values make several rows."""
_MIGRATIONS = Path(__file__).with_name("migrations")


class Database:
    """A SQLite file in WAL mode, with one writer at a time: one server holds the state directory's lock.

    Own this as an async context manager. Never wait for a node or a network inside `reading`.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._engine: AsyncEngine = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(file)), connect_args={"timeout": _BUSY_SECONDS}, pool_size=5
        )
        event.listen(self._engine.sync_engine, "connect", _set_up_connection)
        self._turn = asyncio.Lock()
        self._writer: _Writer | None = None
        self._tasks = TaskSet(lambda name, error: None)  # whoever asked for the write is told

    async def __aenter__(self) -> Self:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        sweep(self._file)
        try:
            version = await self._version()
            if version != HEAD:
                await in_thread(upgrade, self._file)
            self._file.chmod(0o600)
            self._writer = await in_thread(_Writer, self._file)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        async with self._turn:
            await self._close()

    async def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await in_thread(writer.close)
        await self._engine.dispose()

    async def _version(self) -> str | None:
        """None for a new one."""
        try:
            async with self._engine.connect() as connection:
                return await connection.scalar(text("SELECT version_num FROM alembic_version"))
        except OperationalError as error:
            if "no such table" in str(error.orig):
                return None
            raise Internal(f"the store {self._file} cannot be opened: {error.orig}") from error
        except DBAPIError as error:
            raise Internal(f"the store {self._file} cannot be read: {error.orig}") from error

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncSession]:
        async with AsyncSession(self._engine, expire_on_commit=False, autoflush=False) as session:
            # One that is cut while it opens would leave its thread behind, which outlives the loop.
            opening = self._tasks.start(session.connection(), name="open")
            try:
                await asyncio.shield(opening)
            except asyncio.CancelledError:
                await asyncio.wait([opening])
                raise
            yield session

    async def write(self, *changes: Change, durable: bool = True) -> None:
        """All changes in one transaction. It goes on when the caller leaves: a connection is not cut in the middle.

        `durable`: on the disk before this returns (one fsync); else after a power cut the newest of these may be missing,
        never half there. Raises DiskFull, and IntegrityError for what a constraint forbids; then nothing was written.
        """
        await asyncio.shield(self._tasks.start(self._write(changes, durable), name="write"))

    @property
    def file(self) -> Path:
        return self._file

    async def settled(self) -> None:
        """Returns when every write that was asked for before is there to be read."""
        if self._tasks:
            async with self._turn:
                pass

    async def _write(self, changes: tuple[Change, ...], durable: bool) -> None:
        async with self._turn:
            if self._writer is None:
                raise Internal("the store is closed")
            try:
                await self._writer.write(changes, durable=durable)
            except OperationalError as error:
                if "disk is full" in str(error.orig):
                    raise DiskFull(f"the disk of the server is full: {self._file}") from error
                raise


class _Writer:
    """A thread of its own, which does a whole transaction at one request: a busy event loop has its turn once, and not at each
    statement (with thirty clients at once that was half a second a change)."""

    def __init__(self, file: Path) -> None:
        """Blocking. Raises DBAPIError."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._connections: dict[bool, tuple[Engine, Connection]] = {}
        """One that flushes and one that does not: switching a single one took a millisecond of each change."""
        try:
            self._thread.submit(self._open, file).result()
        except BaseException:
            self.close()
            raise

    def _open(self, file: Path) -> None:
        for durable in (True, False):
            engine = create_engine(
                URL.create("sqlite", database=str(file)),
                connect_args={"timeout": _BUSY_SECONDS},
                poolclass=NullPool,
            )
            event.listen(engine, "connect", _set_up_connection)
            self._connections[durable] = engine, engine.connect()
        without = self._connections[False][1]
        without.exec_driver_sql("PRAGMA synchronous=NORMAL")
        without.commit()

    async def write(self, changes: Sequence[Change], *, durable: bool) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._write, changes, durable)

    def _write(self, changes: Sequence[Change], durable: bool) -> None:
        _, connection = self._connections[durable]
        try:
            for statement, values in changes:
                connection.execute(statement, values)
            connection.commit()
        except BaseException:
            connection.rollback()
            raise

    def close(self) -> None:
        """Blocking; what was asked for before is written."""
        self._thread.submit(self._close).result()
        self._thread.shutdown()

    def _close(self) -> None:
        for engine, connection in self._connections.values():
            connection.close()
            engine.dispose()
        self._connections.clear()


def upgrade(file: Path, *, to: str = HEAD) -> None:
    """Brings the tables to a step, the newest one. Blocking. Raises Internal when a newer Belljar made them."""
    # Not at the top: needed once per release, and 300 ms.
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    engine = create_engine(URL.create("sqlite", database=str(file)))
    event.listen(engine, "connect", _set_up_connection)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, to)
            _check(connection, to)
    except CommandError as error:
        raise Internal(
            f"the store {file} was made by a newer Belljar ({error})",
            hint="upgrade Belljar, or use another BELLJAR_HOME",
        ) from error
    except DBAPIError as error:
        raise Internal(f"the store {file} cannot be brought up to date: {error.orig}") from error
    finally:
        engine.dispose()


def _check(connection: Connection, expected: str) -> None:
    version = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if version != expected:
        raise Internal(f"the newest step of the store is {version}, the code expects {expected}")


def _set_up_connection(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
