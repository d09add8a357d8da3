"""All verbs in one hand: what a front is given."""

from dataclasses import dataclass

from belljar.control.audit import Audit
from belljar.control.backup import Backups
from belljar.control.branches import Branches
from belljar.control.events import Events
from belljar.control.keys import Keys
from belljar.control.lineage import Lineage
from belljar.control.processes import Readers
from belljar.control.quotas import Quotas
from belljar.control.reconcile import Reconciler
from belljar.control.sandboxes import Sandboxes
from belljar.control.snapshots import Snapshots
from belljar.control.templates import Templates
from belljar.control.usage import Usage
from belljar.control.workspaces import Workspaces

__all__ = ("Product",)


@dataclass(frozen=True, slots=True)
class Product:
    sandboxes: Sandboxes
    reconciler: Reconciler
    readers: Readers
    keys: Keys
    workspaces: Workspaces
    quotas: Quotas
    snapshots: Snapshots
    branches: Branches
    templates: Templates
    lineage: Lineage
    audit: Audit
    usage: Usage
    backups: Backups
    events: Events
