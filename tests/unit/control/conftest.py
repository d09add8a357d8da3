"""The control plane over a store of each kind and a scripted node."""

import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.api.scripted_node import ScriptedNode

from belljar.base.clock import SystemClock
from belljar.base.log import set_up_logging
from belljar.control.branches import Branches
from belljar.control.eventlog import EventLog
from belljar.control.events import Events
from belljar.control.index import Index
from belljar.control.keys import Keys
from belljar.control.lineage import Lineage
from belljar.control.origins import Origins
from belljar.control.quotas import Quotas
from belljar.control.reconcile import Reconciler
from belljar.control.sandboxes import Sandboxes
from belljar.control.snapshots import Snapshots
from belljar.control.store.database import Database
from belljar.control.store.events import EventStore
from belljar.control.store.keys import KeyStore
from belljar.control.store.lineage import LineageStore
from belljar.control.store.place import Place
from belljar.control.store.places import place_at
from belljar.control.store.sandboxes import SandboxStore
from belljar.control.store.snapshots import SnapshotStore
from belljar.control.store.sqlite import Sqlite
from belljar.control.store.steps import upgrade
from belljar.control.store.templates import TemplateStore
from belljar.control.store.workspaces import WorkspaceStore
from belljar.control.templates import Templates
from belljar.control.workspaces import Workspaces

__all__ = ("Control", "Plant", "database", "empty_store", "fresh", "place", "plant")


@dataclass
class Control:
    """One server's time on the store and the node."""

    sandboxes: Sandboxes
    reconciler: Reconciler
    index: Index
    store: SandboxStore
    snapshots: Snapshots
    branches: Branches
    templates: Templates
    lineage: Lineage
    keys: Keys
    workspaces: Workspaces
    quotas: Quotas
    events: Events


class LateClock(SystemClock):
    late = 0.0

    def now(self) -> float:
        return super().now() + self.late


class Plant:
    def __init__(self, store: SandboxStore, database: Database, log: EventLog) -> None:
        self.log = log
        self.node = ScriptedNode()
        self.clock = LateClock()
        self.store = store
        self.database = database
        self.snapshots = SnapshotStore(database)
        self.templates = TemplateStore(database)
        self.limit = 10

    @contextlib.asynccontextmanager
    async def control(self, *, boot: str = "boot-1") -> AsyncGenerator[Control]:
        index = Index(self.log.followed)
        clock = self.clock
        origins = Origins(self.snapshots, clock=clock)
        async with (
            Reconciler(self.node, self.store, index, self.log, clock=clock, boot=boot) as reconciler,
            Events(self.log, EventStore(self.database), self.store, clock=clock) as events,
            Keys(KeyStore(self.database), clock=clock) as keys,
            Workspaces(WorkspaceStore(self.database), keys, clock=clock) as workspaces,
            Sandboxes(
                self.node,
                self.store,
                index,
                origins,
                quotas := Quotas(index, workspaces, keys, clock=clock),
                self.log,
                clock=clock,
                boot=boot,
            ) as sandboxes,
            Snapshots(
                self.node, self.snapshots, sandboxes, origins, self.log, limit=self.limit, clock=clock
            ) as snapshots,
            Branches(self.node, sandboxes, origins, clock=clock) as branches,
            Templates(self.templates, sandboxes, snapshots, origins, self.log, clock=clock) as templates,
        ):
            lineage = Lineage(LineageStore(self.database, self.store), sandboxes, origins)
            yield Control(
                *(sandboxes, reconciler, index, self.store, snapshots, branches, templates, lineage),
                *(keys, workspaces, quotas, events),
            )


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    set_up_logging("info", json=True)
    file = tmp_path_factory.mktemp("store") / "belljar.db"
    upgrade(Sqlite(file))
    return file.read_bytes()


@pytest.fixture
def fresh(
    stored: str | None, empty_store: bytes, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[[], Place]:
    """Makes a new store in place of the one before. Whatever has this, `place`, `database` or `plant` runs on each kind."""

    def make() -> Place:
        if stored is None:
            (tmp_path / "belljar.db").unlink(missing_ok=True)
            (tmp_path / "belljar.db").write_bytes(empty_store)
            return place_at(None, tmp_path / "belljar.db")
        return place_at(request.getfixturevalue("cluster").cleaned(), tmp_path)

    return make


@pytest.fixture
def place(fresh: Callable[[], Place]) -> Place:
    return fresh()


@pytest.fixture
async def database(place: Place) -> AsyncGenerator[Database]:
    async with Database(place) as opened:
        yield opened


@pytest.fixture
async def plant(database: Database) -> AsyncGenerator[Plant]:
    log = EventLog()
    async with SandboxStore(database, log) as store:
        yield Plant(store, database, log)
