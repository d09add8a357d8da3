"""Debian's Postgres for the tests: one cluster for a test process, in a temporary folder, and a database for each test."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from belljar.control.store.postgres import Postgres
from belljar.control.store.steps import upgrade
from belljar.control.store.tables import HEAD, Base

__all__ = ("ONLY_POSTGRES", "ONLY_SQLITE", "Cluster", "running_cluster")

ONLY_SQLITE = pytest.mark.parametrize("stored", ["sqlite"], indirect=True)
ONLY_POSTGRES = pytest.mark.parametrize("stored", ["postgres"], indirect=True)
"""For tests of what only one kind of store has."""

_USER = "belljar"
_TEMPLATE = "template_belljar"
_SHARED = "shared"
_ALONE = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""
_QUICK = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "16MB", "max_connections": "60"}
_READY_SECONDS = 60.0


class Cluster:
    """`start` and `kill` may be called again and again: the data stays, and so does the address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._names = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._user = "postgres" if os.geteuid() == 0 else None  # it does not run as root
        if self._user:
            shutil.chown(folder, self._user)
        data = str(folder / "data")
        subprocess.run(
            [_bin("initdb"), "-D", data, "-U", _USER, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"],
            check=True,
            stdout=subprocess.DEVNULL,
            user=self._user,
            cwd="/",
        )

    def url(self, name: str, *, password: str | None = None) -> str:
        return f"postgresql://{_USER}{f':{password}' if password else ''}@127.0.0.1:{self.port}/{name}"

    def start(self, **settings: str) -> None:
        said = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": str(self.folder)}
        words = [word for name, value in (said | _QUICK | settings).items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [_bin("postgres"), "-D", str(self.folder / "data"), *words],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd="/",
            )
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.02)
            else:
                return

    def send(self, number: signal.Signals) -> None:
        """To the server's first process: SIGQUIT ends it as a crash does, SIGINT in order."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGQUIT) -> None:
        if self._process is not None:
            self.send(number)
            self._process.wait(30)
            self._process = None

    def admin(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def make_template(self) -> None:
        self.admin(f"CREATE DATABASE {_TEMPLATE}")
        upgrade(Postgres(self.url(_TEMPLATE)))
        self.admin(f"CREATE DATABASE {_SHARED} TEMPLATE {_TEMPLATE}")

    def cleaned(self) -> str:
        """The address of a database as a new one, for a test that leaves the tables as they are: one of its own takes 200 ms."""
        tables = [*reversed(Base.metadata.sorted_tables)]
        with psycopg.connect(self.url(_SHARED), autocommit=True) as connection:
            connection.execute(_ALONE)
            connection.execute(";".join(f"DELETE FROM {table.name}" for table in tables).encode())
            connection.execute("DROP TABLE IF EXISTS belljar_turn; INSERT INTO workspaces VALUES ('default', 1.0)")
            connection.execute("UPDATE alembic_version SET version_num = %s", (HEAD,))
        return self.url(_SHARED)

    @contextlib.contextmanager
    def database(self, *, empty: bool = False) -> Generator[str]:
        """Its address. It has the newest tables, unless it is to be empty."""
        name = f"test{next(self._names)}"
        self.admin(f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else _TEMPLATE} STRATEGY FILE_COPY")
        try:
            yield self.url(name)
        finally:
            self.admin(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def running_cluster() -> Generator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="bj-pg-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster = Cluster(Path(folder))
        try:
            cluster.start()
            cluster.make_template()
            yield cluster
        finally:
            cluster.stop()


def _bin(name: str) -> str:
    """Debian has them beside each other, by version, and not in the path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    path = str(found[-1]) if found else shutil.which(name)
    assert path is not None, "the tests need Postgres: apt-get install postgresql"
    return path
