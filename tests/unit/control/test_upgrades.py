"""Stores of earlier releases: each is taken through every step that follows, and its rows are read by the stores of now."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from belljar.control.store.audit import AuditStore
from belljar.control.store.database import Database
from belljar.control.store.keys import KeyStore
from belljar.control.store.sandboxes import Filter, SandboxStore
from belljar.control.store.snapshots import SnapshotFilter, SnapshotStore
from belljar.control.store.sqlite import Sqlite
from belljar.control.store.steps import MIGRATIONS, upgrade
from belljar.control.store.tables import HEAD, Base
from belljar.control.store.templates import TemplateStore
from belljar.control.store.workspaces import WorkspaceStore
from belljar.model.audit import verify
from belljar.model.key import Scope
from belljar.model.sandbox import Limits, Network, Status
from belljar.model.snapshot import SnapshotKind
from belljar.model.workspace import Quota

RELEASED = Path(__file__).with_name("released")
FILES = sorted(RELEASED.glob("*.sql"))
EXPECTED = {
    "0001": {"scopes": [Scope.ADMIN, Scope.ADMIN], "quota": Quota(), "made_with": None, "snapshots": 0, "audit": 0},
    "0005": {
        "scopes": [Scope.RUN, Scope.ADMIN],
        "quota": Quota(sandboxes=5),
        "made_with": "key01a0000000000000001",
        "snapshots": 2,
        "audit": 2,
    },
}


def steps() -> list[str]:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    found = [str(step.revision) for step in ScriptDirectory.from_config(config).walk_revisions()]
    return found[::-1]


def load(released: Path, file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as store:
        store.executescript(released.read_text())


def tables(file: Path) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(file)) as store:
        names = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: store.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}


def test_the_oldest_step_and_what_was_released_have_a_store() -> None:
    assert steps()[0] == FILES[0].stem
    assert {file.stem for file in FILES} == set(EXPECTED)


@pytest.mark.parametrize("released", FILES, ids=lambda file: file.stem)
def test_it_has_rows_in_each_table_of_its_time(released: Path, tmp_path: Path) -> None:
    file, made = tmp_path / "old.db", tmp_path / "made.db"
    load(released, file)
    upgrade(Sqlite(made), to=released.stem)
    found = tables(file)
    assert found.keys() == tables(made).keys()
    assert all(count > 0 for count in found.values())


@pytest.mark.parametrize("released", FILES, ids=lambda file: file.stem)
async def test_it_goes_through_each_step_and_its_rows_are_read(released: Path, tmp_path: Path) -> None:
    file = tmp_path / "belljar.db"
    load(released, file)
    before = tables(file)
    for step in [step for step in steps() if step > released.stem]:
        upgrade(Sqlite(file), to=step)
        now = tables(file)
        assert {name: now[name] for name in before} == before, step
    assert tables(file).keys() == {*Base.metadata.tables, "alembic_version"}
    async with Database(Sqlite(file)) as database:
        await read(database, EXPECTED[released.stem])


@pytest.mark.parametrize("released", FILES, ids=lambda file: file.stem)
async def test_a_server_takes_it_up_in_one_go(released: Path, tmp_path: Path) -> None:
    load(released, tmp_path / "belljar.db")
    async with Database(Sqlite(tmp_path / "belljar.db")) as database:
        await read(database, EXPECTED[released.stem])
    with contextlib.closing(sqlite3.connect(tmp_path / "belljar.db")) as store:
        assert store.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]


async def read(database: Database, expected: dict[str, object]) -> None:
    (workspace,) = await WorkspaceStore(database).live()
    assert (workspace.id, workspace.created, workspace.quota) == ("default", 1.7e9, expected["quota"])
    keys = sorted(await KeyStore(database).list("default", after=None, limit=10), key=lambda key: key.id)
    assert [(key.name, key.created, key.revoked) for key in keys] == [
        ("first", 1700000001.0, None),
        ("gone", 1700000002.0, 1700000099.5),
    ]
    assert [key.scope for key in keys] == expected["scopes"]
    async with SandboxStore(database) as store:
        live, ended = sorted(
            await store.page("default", Filter(None), after=None, limit=10), key=lambda one: one.sandbox.id
        )
        spec = live.sandbox.spec
        assert (spec.name, spec.limits) == ("web", Limits(0.5, 1 << 40, 1 << 43, 99))
        assert (dict(spec.env), dict(spec.labels)) == ({"A": "ä\n"}, {"a/b.c": "d"})
        assert (spec.workdir, spec.user, spec.network, spec.lifetime) == ("/w", "u", Network.NONE, 3600.0)
        assert (live.sandbox.status, live.boot, live.key) == (Status.RUNNING, "boot-1", expected["made_with"])
        assert (live.sandbox.started, live.sandbox.expires) == (1700000004.0, 1700003603.0)
        assert ended.sandbox.status is Status.TERMINATED
        assert ended.sandbox.ended is not None
        assert (ended.sandbox.ended.reason, ended.sandbox.ended.message) == ("killed", "as asked")
        assert await store.repeated("default", "once", now=1700000004.0) == ("digest", live.sandbox.id)
    snapshots = SnapshotStore(database)
    found = await snapshots.page("default", SnapshotFilter(), now=1.75e9, after=None, limit=10)
    states = await snapshots.states()
    assert sum(not ended for _, ended, _ in states.values()) == expected["snapshots"]
    if expected["snapshots"]:
        moment = await snapshots.named("default", "moment")
        assert moment is not None and moment in found
        assert (moment.snapshot.kind, moment.snapshot.size, moment.expires) == (SnapshotKind.FILESYSTEM, 1000, 1.8e9)
        assert (dict(moment.source.env), moment.source.pids, dict(moment.labels)) == ({"A": "ä\n"}, 99, {"l": "1"})
        old = await snapshots.named("default", "old")
        assert old is not None and old.gone is not None and old.gone.reason == "deleted"
        (template,) = await TemplateStore(database).all()
        assert (template.spec.name, template.spec.ready.port, template.snapshot) == (
            "ready",
            80,
            "sn01a0000000000000002",
        )
    audit = AuditStore(database)
    entries = await audit.between("default", 0, 100, limit=100)
    assert len(entries) == expected["audit"]
    assert verify(entries).broken is None
