"""Snapshots, templates and lineage as JSON."""

from typing import Any

from belljar.control.lineage import Node
from belljar.control.store.snapshots import SnapshotRecord
from belljar.model.snapshot import PathChange
from belljar.model.template import Template

__all__ = ("node_json", "path_change_json", "snapshot_json", "template_json")


def snapshot_json(record: SnapshotRecord) -> dict[str, Any]:
    snapshot = record.snapshot
    return {
        "id": snapshot.id,
        "name": record.name,
        "kind": snapshot.kind.value,
        "sandbox": snapshot.sandbox,
        "image": snapshot.image,
        "parent": snapshot.parent,
        "path": snapshot.path,
        "size": snapshot.size,
        "stored": snapshot.stored,
        "created": snapshot.created,
        "expires": record.expires,
        "labels": dict(record.labels),
        "cpu": snapshot.cpus,
        "memory": snapshot.memory,
        "disk": snapshot.disk,
        "paused": snapshot.paused,
        "template": snapshot.template,
    }


def path_change_json(change: PathChange) -> dict[str, Any]:
    return {"path": change.path, "change": change.change.value, "kind": change.kind.value, "size": change.size}


def template_json(template: Template) -> dict[str, Any]:
    spec, ready = template.spec, template.spec.ready
    return {
        "name": spec.name,
        "image": spec.image,
        "command": spec.command,
        "ready": {
            "port": ready.port,
            "url": ready.url,
            "file": ready.file,
            "process": ready.process,
            "command": ready.command,
            "timeout": ready.timeout,
            "interval": ready.interval,
        },
        "cpu": spec.limits.cpus,
        "memory": spec.limits.memory,
        "disk": spec.limits.disk,
        "pids": spec.limits.pids,
        "env": dict(spec.env),
        "labels": dict(spec.labels),
        "workdir": spec.workdir,
        "user": spec.user,
        "created": template.created,
        "snapshot": template.snapshot,
        "size": template.size,
        "stored": template.stored,
        "step": template.step,
        "output": template.output,
    }


def node_json(node: Node) -> dict[str, Any]:
    """The two kinds have the same fields; what one has not is null."""
    said: dict[str, Any] = {"id": node.id, "parent": node.parent}
    if isinstance(node.of, SnapshotRecord):
        record, snapshot = node.of, node.of.snapshot
        return said | {
            "type": "snapshot",
            "name": record.name,
            "kind": snapshot.kind.value,
            "status": None,
            "image": snapshot.image,
            "created": snapshot.created,
            "ended": record.gone.at if record.gone else None,
            "reason": record.gone.reason if record.gone else None,
            "size": snapshot.size,
            "stored": snapshot.stored,
            "template": snapshot.template,
        }
    sandbox = node.of
    return said | {
        "type": "sandbox",
        "name": sandbox.spec.name,
        "kind": None,
        "status": sandbox.status.value,
        "image": sandbox.spec.image,
        "created": sandbox.created,
        "ended": sandbox.ended.at if sandbox.ended else None,
        "reason": sandbox.ended.reason if sandbox.ended else None,
        "size": None,
        "stored": None,
        "template": False,
    }
