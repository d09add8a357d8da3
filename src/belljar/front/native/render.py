"""Values of the model as JSON. By hand: a process is described in 5 µs, and names that are no UTF-8 survive as escapes."""

import json
from typing import Any

from starlette.responses import Response

from belljar.model.code import ContextInfo
from belljar.model.file import Change, FileInfo
from belljar.model.process import ProcessInfo, StreamState, Tail
from belljar.model.sandbox import Sandbox
from belljar.node.api import SandboxUsage

__all__ = (
    "change_json",
    "context_json",
    "file_json",
    "process_json",
    "reply",
    "sandbox_json",
    "tail_json",
    "usage_json",
)


def reply(value: Any, status: int = 200, *, made: str | None = None) -> Response:
    """`made`: the address of what was made, for `Location`; the audit log names it."""
    headers = None if made is None else {"location": made}
    return Response(json.dumps(value, separators=(",", ":")), status, headers, media_type="application/json")


def sandbox_json(sandbox: Sandbox) -> dict[str, Any]:
    spec, ended = sandbox.spec, sandbox.ended
    return {
        "id": sandbox.id,
        "name": spec.name,
        "image": spec.image,
        "status": sandbox.status.value,
        "created": sandbox.created,
        "started": sandbox.started,
        "expires": sandbox.expires,
        "ended": None if ended is None else {"reason": ended.reason, "at": ended.at, "message": ended.message},
        "cpu": spec.limits.cpus,
        "memory": spec.limits.memory,
        "disk": spec.limits.disk,
        "pids": spec.limits.pids,
        "env": dict(spec.env),
        "labels": dict(spec.labels),
        "workdir": spec.workdir,
        "user": spec.user,
        "network": spec.network.value,
        "lifetime": spec.lifetime,
        "idle": spec.idle,
        "on_lifetime": spec.on_lifetime.value,
        "on_idle": spec.on_idle.value,
        "snapshot": spec.snapshot,
        "parent": sandbox.parent,
    }


def usage_json(usage: SandboxUsage) -> dict[str, Any]:
    return {
        "memory": usage.memory,
        "memory_limit": usage.memory_limit,
        "cpu_seconds": usage.cpu_seconds,
        "cpus": usage.cpus,
        "processes": usage.processes,
        "disk": usage.disk,
    }


def process_json(process: ProcessInfo) -> dict[str, Any]:
    return {
        "id": process.id,
        "pid": process.pid,
        "argv": list(process.argv),
        "user": process.user,
        "started": process.started,
        "pty": process.pty,
        "keep_alive": process.keep_alive,
        "returncode": process.returncode,
        "ended": process.ended,
        "out_of_memory": process.out_of_memory,
        "stdin": process.stdin,
        "stdout": _stream_json(process.stdout),
        "stderr": _stream_json(process.stderr),
    }


def _stream_json(state: StreamState) -> dict[str, Any]:
    return {"start": state.start, "end": state.end, "dropped": state.dropped, "closed": state.closed}


def context_json(context: ContextInfo) -> dict[str, Any]:
    return {
        "id": context.id,
        "language": context.language,
        "state": context.state.value,
        "count": context.count,
        "restarts": context.restarts,
        "pid": context.pid,
        "cwd": context.cwd,
        "user": context.user,
    }


def file_json(file: FileInfo) -> dict[str, Any]:
    return {
        "path": file.path,
        "kind": file.kind.value,
        "size": file.size,
        "mode": file.mode,
        "uid": file.uid,
        "gid": file.gid,
        "user": file.user,
        "group": file.group,
        "mtime": file.mtime,
        "target": file.target,
    }


def change_json(change: Change) -> dict[str, Any]:
    return {"kind": change.kind.value, "path": change.path, "source": change.source}


def tail_json(tail: Tail, limit: int | None = None) -> dict[str, Any]:
    """`limit`: bytes of each output."""
    last = slice(None if limit is None else -limit, None)
    return {
        "process": process_json(tail.process),
        "attached": tail.attached,
        "stdout": tail.stdout[last].decode(errors="replace"),
        "stderr": tail.stderr[last].decode(errors="replace"),
    }
