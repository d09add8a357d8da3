"""The server's JSON as values, and its errors as exceptions."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from belljar.model.audit import AuditEntry, entry_of
from belljar.model.code import ContextInfo, ContextState
from belljar.model.errors import Error, Internal, error_from_code
from belljar.model.events import Event
from belljar.model.events import event_of as event
from belljar.model.file import Change, ChangeKind, FileInfo, FileKind
from belljar.model.process import ProcessInfo, StreamState
from belljar.model.sandbox import Ended, Status
from belljar.model.snapshot import ChangeKind as PathChangeKind
from belljar.model.snapshot import PathChange, PathKind, SnapshotKind
from belljar.model.stats import StatsPoint
from belljar.model.usage import UsageEntry
from belljar.model.usage import entry_of as usage_entry
from belljar.sdk.kept import KeyInfo, LineageNode, Quota, Ready, SnapshotInfo, TemplateInfo, WorkspaceInfo
from belljar.sdk.values import SandboxInfo, SandboxLogs, SandboxStats

__all__ = (
    "audit_entry_of",
    "change_of",
    "context_of",
    "error_of_body",
    "error_of_object",
    "event_of",
    "file_of",
    "key_of",
    "logs_of",
    "path_change_of",
    "process_of",
    "sandbox_of",
    "snapshot_of",
    "stats_of",
    "stats_point_of",
    "template_of",
    "trees_of",
    "usage_entry_of",
    "workspace_of",
)

Json = Mapping[str, Any]


def sandbox_of(value: Json) -> SandboxInfo:
    ended = value.get("ended")
    return SandboxInfo(
        id=value["id"],
        name=value.get("name"),
        image=value["image"],
        status=Status(value["status"]),
        created=value["created"],
        started=value.get("started"),
        expires=value.get("expires"),
        ended=Ended(ended["reason"], ended["at"], ended.get("message") or "") if ended else None,
        cpu=value["cpu"],
        memory=value["memory"],
        disk=value["disk"],
        pids=value["pids"],
        env=value.get("env") or {},
        labels=value.get("labels") or {},
        workdir=value.get("workdir"),
        user=value.get("user"),
        network=value["network"],
        lifetime=value.get("lifetime"),
        idle=value.get("idle"),
        on_lifetime=value.get("on_lifetime", "terminate"),
        on_idle=value.get("on_idle", "terminate"),
        snapshot=value.get("snapshot"),
        parent=value.get("parent"),
    )


def process_of(value: Json) -> ProcessInfo:
    return ProcessInfo(
        id=value["id"],
        pid=value["pid"],
        argv=tuple(value["argv"]),
        user=value["user"],
        started=value["started"],
        pty=value.get("pty", False),
        keep_alive=value.get("keep_alive", False),
        returncode=value.get("returncode"),
        ended=value.get("ended"),
        out_of_memory=value.get("out_of_memory", False),
        stdin=value.get("stdin", 0),
        stdout=_stream_of(value.get("stdout") or {}),
        stderr=_stream_of(value.get("stderr") or {}),
    )


def _stream_of(value: Json) -> StreamState:
    return StreamState(value.get("start", 0), value.get("end", 0), value.get("dropped", 0), value.get("closed", False))


def file_of(value: Json) -> FileInfo:
    return FileInfo(
        path=value["path"],
        kind=FileKind(value["kind"]),
        size=value["size"],
        mode=value["mode"],
        uid=value["uid"],
        gid=value["gid"],
        user=value["user"],
        group=value["group"],
        mtime=value["mtime"],
        target=value.get("target"),
    )


def change_of(value: Json) -> Change:
    return Change(ChangeKind(value["kind"]), value["path"], value.get("source"))


def context_of(value: Json) -> ContextInfo:
    return ContextInfo(
        id=value["id"],
        language=value["language"],
        state=ContextState(value["state"]),
        count=value.get("count", 0),
        restarts=value.get("restarts", 0),
        pid=value.get("pid"),
        cwd=value.get("cwd"),
        user=value.get("user"),
    )


def stats_of(value: Json) -> SandboxStats:
    return SandboxStats(
        memory=value["memory"],
        memory_limit=value["memory_limit"],
        cpu_seconds=value["cpu_seconds"],
        cpus=value["cpus"],
        processes=value["processes"],
        disk=value["disk"],
    )


def stats_point_of(value: Json) -> StatsPoint:
    return StatsPoint(**{name: value[name] for name in StatsPoint.__slots__})


def logs_of(value: Json) -> SandboxLogs:
    return SandboxLogs(tuple(map(event_of, value["events"])), tuple(value.get("processes") or ()))


def snapshot_of(value: Json) -> SnapshotInfo:
    return SnapshotInfo(
        id=value["id"],
        name=value.get("name"),
        kind=SnapshotKind(value["kind"]),
        sandbox=value["sandbox"],
        image=value["image"],
        parent=value.get("parent"),
        path=value.get("path"),
        size=value["size"],
        stored=value["stored"],
        created=value["created"],
        expires=value.get("expires"),
        labels=value.get("labels") or {},
        cpu=value["cpu"],
        memory=value["memory"],
        disk=value["disk"],
        paused=value["paused"],
        template=value["template"],
    )


def path_change_of(value: Json) -> PathChange:
    return PathChange(value["path"], PathChangeKind(value["change"]), PathKind(value["kind"]), value["size"])


def audit_entry_of(value: Json) -> AuditEntry:
    """What a newer server says beyond it is left out."""
    return entry_of({name: value.get(name) for name in AuditEntry.__dataclass_fields__})


def event_of(value: Json) -> Event:
    return event(value)


def usage_entry_of(value: Json) -> UsageEntry:
    return usage_entry(value)


def key_of(value: Json) -> KeyInfo:
    times = {name: value.get(name) for name in ("expires", "used", "revoked")}
    return KeyInfo(
        id=value["id"],
        name=value["name"],
        scope=value["scope"],
        created=value["created"],
        workspace=value["workspace"],
        quota=quota_of(value["quota"]),
        **times,
    )


def quota_of(value: Json) -> Quota:
    return Quota(**{name: value.get(name) for name in Quota.__slots__})


def workspace_of(value: Json) -> WorkspaceInfo:
    return WorkspaceInfo(
        value["id"], value["created"], value.get("ended"), quota_of(value["quota"]), dict(value["use"])
    )


def template_of(value: Json) -> TemplateInfo:
    return TemplateInfo(
        name=value["name"],
        image=value["image"],
        command=value.get("command"),
        ready=Ready(**{name: value["ready"].get(name) for name in Ready.__slots__}),
        cpu=value["cpu"],
        memory=value["memory"],
        disk=value["disk"],
        pids=value["pids"],
        created=value["created"],
        snapshot=value.get("snapshot"),
        size=value["size"],
        stored=value["stored"],
        env=value.get("env") or {},
        labels=value.get("labels") or {},
        workdir=value.get("workdir"),
        user=value.get("user"),
        step=value.get("step") or "",
        output=value.get("output") or "",
    )


def trees_of(items: Sequence[Json]) -> tuple[LineageNode, ...]:
    """The roots. Parents come before their children, so that the last can be finished first."""
    children: dict[str | None, list[LineageNode]] = {}
    for item in reversed(items):
        kind = item.get("kind")
        node = LineageNode(
            id=item["id"],
            type=item["type"],
            name=item.get("name"),
            kind=SnapshotKind(kind) if kind else None,
            status=item.get("status"),
            image=item["image"],
            created=item["created"],
            ended=item.get("ended"),
            reason=item.get("reason"),
            size=item.get("size"),
            stored=item.get("stored"),
            template=item["template"],
            children=tuple(reversed(children.pop(item["id"], []))),
        )
        children.setdefault(item.get("parent"), []).append(node)
    return tuple(reversed(children.get(None, [])))


def error_of_body(status: int, body: bytes) -> Error:
    """The error that an answer with this status and body describes; Internal for what is no answer of ours."""
    try:
        value: Any = json.loads(body)
        return error_of_object(value["error"])
    except (ValueError, KeyError, TypeError):
        said = body[:200].decode(errors="replace")
        return Internal(f"the server answered {status} with something that is no error of Belljar's: {said!r}")


def error_of_object(value: Json) -> Error:
    return error_from_code(
        str(value["code"]),
        str(value["message"]),
        hint=value.get("hint"),
        request_id=value.get("request_id"),
        retry_after=_seconds(value.get("retry_after")),
    )


_LONGEST = 1e9
"""Seconds; whatever says more, or infinity, or NaN, means nothing."""


def _seconds(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= _LONGEST else None
