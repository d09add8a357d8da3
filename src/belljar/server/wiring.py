"""The only place that builds objects and ties them together."""

import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from belljar.control.audit import Audit
from belljar.control.backup import DATABASE, Backups
from belljar.control.branches import Branches
from belljar.control.eventlog import EventLog
from belljar.control.events import Events
from belljar.control.index import Index
from belljar.control.keys import Keys
from belljar.control.lineage import Lineage
from belljar.control.meters import Meters
from belljar.control.origins import Origins
from belljar.control.processes import Readers
from belljar.control.product import Product
from belljar.control.quotas import Quotas
from belljar.control.reconcile import Reconciler
from belljar.control.sandboxes import Sandboxes
from belljar.control.snapshots import Snapshots
from belljar.control.store.audit import AuditStore
from belljar.control.store.copying import sweep
from belljar.control.store.database import Database
from belljar.control.store.events import EventStore
from belljar.control.store.keys import KeyStore
from belljar.control.store.lineage import LineageStore
from belljar.control.store.sandboxes import SandboxStore
from belljar.control.store.snapshots import SnapshotStore
from belljar.control.store.templates import TemplateStore
from belljar.control.store.usage import UsageStore
from belljar.control.store.workspaces import WorkspaceStore
from belljar.control.templates import Templates
from belljar.control.usage import Usage
from belljar.control.workspaces import Workspaces
from belljar.node.api import NodeApi
from belljar.node.instance import Instance
from belljar.server.settings import Settings
from belljar.server.state_files import state_files
from belljar.server.stores import store_of

__all__ = ("DATABASE", "OpenNode", "wired")

OpenNode = Callable[[Settings, Instance], AbstractAsyncContextManager[NodeApi]]


@contextlib.asynccontextmanager
async def wired(
    settings: Settings, instance: Instance, open_node: OpenNode
) -> AsyncGenerator[tuple[Product, Callable[[], int]]]:
    """The product on this state directory, and a function that counts its live sandboxes. Leaving ends no sandbox."""
    told = EventLog()
    index = Index(told.followed)
    sweep(instance.home / DATABASE)
    async with (
        Database(store_of(settings, instance.home)) as database,
        Audit(AuditStore(database), days=settings.audit_days) as audit,
        Meters(used := UsageStore(database), index) as meters,
        SandboxStore(database, meters, told) as store,
        open_node(settings, instance) as node,
        Keys(KeyStore(database)) as keys,
        Workspaces(WorkspaceStore(database), keys) as workspaces,
        Reconciler(node, store, index, told) as reconciler,
        Events(told, EventStore(database), store, days=settings.events_days, most=settings.events_most) as events,
        Usage(node, meters, used, store, every=settings.usage_every, days=settings.usage_days) as usage,
        Sandboxes(
            node,
            store,
            index,
            origins := Origins(kept := SnapshotStore(database)),
            quotas := Quotas(index, workspaces, keys),
            told,
        ) as sandboxes,
        Snapshots(node, kept, sandboxes, origins, told, limit=settings.max_snapshots) as snapshots,
        Branches(node, sandboxes, origins) as branches,
        Templates(TemplateStore(database), sandboxes, snapshots, origins, told) as templates,
    ):
        lineage = Lineage(LineageStore(database, store), sandboxes, origins)
        backups = Backups(database, node, audit, partial(state_files, instance.home, settings), instance.home)
        product = Product(
            *(sandboxes, reconciler, Readers(), keys, workspaces, quotas, snapshots, branches, templates, lineage),
            *(audit, usage, backups, events),
        )
        yield product, lambda: len(index)
