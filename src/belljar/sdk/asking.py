"""What callers say, as the server wants it. Raises InvalidArgument for what cannot be said."""

import base64
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict
from urllib.parse import quote, urlencode

from belljar.base.units import Duration, Size, parse_duration, parse_size
from belljar.model.errors import InvalidArgument
from belljar.model.process import PtySize
from belljar.model.sandbox import Network, OnTimer
from belljar.sdk.kept import Quota, Ready
from belljar.sdk.pure import PathLike, path_text
from belljar.sdk.values import Command

__all__ = (
    "INLINE_INPUT",
    "KEEP",
    "SandboxOptions",
    "change_body",
    "context_body",
    "duration_of",
    "fork_body",
    "new_key",
    "process_body",
    "quota_of",
    "sandbox_body",
    "size_of",
    "snapshot_body",
    "template_body",
    "url",
)

KEEP: Any = object()
"""Tells "leave it as it is" from None, which is unlimited."""


class SandboxOptions(TypedDict, total=False):
    """What `Sandbox.create` takes beside the image."""

    name: str | None
    cpu: float | None
    memory: Size | None
    disk: Size | None
    pids: int | None
    env: Mapping[str, str] | None
    labels: Mapping[str, str] | None
    workdir: str | None
    user: str | None
    network: str | Network
    lifetime: Duration | None
    idle: Duration | None
    on_lifetime: str | OnTimer
    on_idle: str | OnTimer
    pool: bool
    reseed: bool
    idempotency_key: str | None


INLINE_INPUT = 1 << 20
"""Bytes of input that travel with the start of a process."""


def url(*parts: str | int, **query: Any) -> str:
    """``/v1/a/b?key=value``; None is left out, a bool becomes true or false, a list repeats its key."""
    path = "/v1/" + "/".join(quote(str(part), safe="") for part in parts)
    pairs = [
        (key, _query_word(word))
        for key, value in query.items()
        for word in (value if isinstance(value, list) else [value])  # pyright: ignore[reportUnknownVariableType]
        if word is not None
    ]
    return f"{path}?{urlencode(pairs, errors='surrogateescape')}" if pairs else path


def _query_word(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def quota_of(quota: Quota | None) -> dict[str, Any]:
    """Raises InvalidArgument for sizes that are none."""
    said = {name: getattr(quota, name) for name in Quota.__slots__} if quota is not None else {}
    sizes = {name: size_of(said[name]) for name in ("memory", "disk") if said.get(name) is not None}
    return said | sizes


def new_key() -> str:
    """A key that makes a call repeatable: the same again means the same thing."""
    return secrets.token_hex(16)


def size_of(value: Size) -> int:
    try:
        return parse_size(value)
    except ValueError as error:
        raise InvalidArgument(str(error)) from None


def duration_of(value: Duration | None) -> float | None:
    """Seconds; None stays None (unlimited)."""
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise InvalidArgument(str(error)) from None


def sandbox_body(
    *,
    image: str | None,
    snapshot: str | None,
    name: str | None,
    cpu: float | None,
    memory: Size | None,
    disk: Size | None,
    pids: int | None,
    env: Mapping[str, str] | None,
    labels: Mapping[str, str] | None,
    workdir: str | None,
    user: str | None,
    network: str | Network,
    lifetime: Duration | None,
    idle: Duration | None,
    on_lifetime: str | OnTimer,
    on_idle: str | OnTimer,
    pool: bool,
    reseed: bool,
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "env": _pairs("env", env),
        "labels": _pairs("labels", labels),
        "network": str(network),
        "lifetime": duration_of(lifetime),
    }
    if on_lifetime != OnTimer.TERMINATE:
        body["on_lifetime"] = str(on_lifetime)
    if on_idle != OnTimer.PAUSE:
        body["on_idle"] = str(on_idle)
    if not pool:
        body["pool"] = False
    if not reseed:
        body["reseed"] = False
    optional = {
        "image": image,
        "snapshot": snapshot,
        "name": name,
        "cpu": cpu,
        "memory": None if memory is None else size_of(memory),
        "disk": None if disk is None else size_of(disk),
        "pids": pids,
        "workdir": workdir,
        "user": user,
        "idle": duration_of(idle),
    }
    return body | {key: value for key, value in optional.items() if value is not None}


def change_body(
    *,
    labels: Mapping[str, str] | None,
    lifetime: Duration | None,
    idle: Duration | None,
    cpu: float | None,
    memory: Size | None,
    disk: Size | None,
    pids: int | None,
) -> dict[str, Any]:
    """Of what is named alone. KEEP: `lifetime` or `idle` is not."""
    optional = {
        "labels": None if labels is None else _pairs("labels", labels),
        "cpu": cpu,
        "memory": None if memory is None else size_of(memory),
        "disk": None if disk is None else size_of(disk),
        "pids": pids,
    }
    times = {"lifetime": lifetime, "idle": idle}
    named = {key: duration_of(value) for key, value in times.items() if value is not KEEP}
    return named | {key: value for key, value in optional.items() if value is not None}


def snapshot_body(
    id: str,
    *,
    memory: bool,
    path: PathLike | None,
    name: str | None,
    ttl: Duration | None,
    labels: Mapping[str, str] | None,
) -> dict[str, Any]:
    body: dict[str, Any] = {"id": id, "memory": memory, "labels": _pairs("labels", labels)}
    optional = {"path": None if path is None else path_text(path), "name": name, "ttl": duration_of(ttl)}
    return body | {key: value for key, value in optional.items() if value is not None}


def fork_body(
    ids: Sequence[str],
    *,
    name: str | None,
    env: Mapping[str, str] | None,
    labels: Mapping[str, str] | None,
    network: str | Network | None,
    lifetime: Duration | None,
    cpu: float | None,
    memory: Size | None,
    pids: int | None,
    reseed: bool,
) -> dict[str, Any]:
    body: dict[str, Any] = {"ids": list(ids), "count": len(ids), "env": _pairs("env", env)}
    if labels is not None:
        body["labels"] = _pairs("labels", labels)
    if lifetime is not KEEP:
        body["lifetime"] = duration_of(lifetime)
    if not reseed:
        body["reseed"] = False
    optional = {
        "name": name,
        "network": None if network is None else str(network),
        "cpu": cpu,
        "memory": None if memory is None else size_of(memory),
        "pids": pids,
    }
    return body | {key: value for key, value in optional.items() if value is not None}


def template_body(
    *,
    name: str,
    image: str,
    command: str | None,
    ready: Ready | None,
    cpu: float,
    memory: Size,
    disk: Size,
    pids: int,
    env: Mapping[str, str] | None,
    labels: Mapping[str, str] | None,
    workdir: str | None,
    user: str | None,
    replace: bool,
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": name,
        "image": image,
        "cpu": cpu,
        "memory": size_of(memory),
        "disk": size_of(disk),
        "pids": pids,
        "env": _pairs("env", env),
        "labels": _pairs("labels", labels),
        "replace": replace,
    }
    if ready is not None:
        said = {key: getattr(ready, key) for key in ("port", "url", "file", "process", "command")}
        said |= {"timeout": duration_of(ready.timeout), "interval": duration_of(ready.interval)}
        body["ready"] = {key: value for key, value in said.items() if value is not None}
    optional = {"command": command, "workdir": workdir, "user": user}
    return body | {key: value for key, value in optional.items() if value is not None}


def process_body(
    command: Command,
    *,
    key: str,
    stdin: bool,
    input: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: PathLike | None = None,
    user: str | None = None,
    pty: PtySize | None = None,
    keep_alive: bool = False,
) -> dict[str, Any]:
    """The start of a process; `input` only up to INLINE_INPUT bytes."""
    body: dict[str, Any] = {"key": key, "stdin": stdin, "env": _pairs("env", env)}
    if isinstance(command, str):
        body["command"] = command
    else:
        body["argv"] = [os.fspath(word) for word in command]
        if not body["argv"]:
            raise InvalidArgument("a command has at least one word")
    if cwd is not None:
        body["cwd"] = path_text(cwd)
    if user is not None:
        body["user"] = user
    if pty is not None:
        body["pty"] = {"cols": pty.cols, "rows": pty.rows}
    if keep_alive:
        body["keep_alive"] = True
    if input:
        body["input"] = base64.b64encode(input).decode("ascii")
    return body


def context_body(
    id: str,
    language: str,
    *,
    cwd: PathLike | None = None,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
) -> dict[str, Any]:
    body: dict[str, Any] = {"id": id, "language": language, "env": _pairs("env", env)}
    if cwd is not None:
        body["cwd"] = path_text(cwd)
    if user is not None:
        body["user"] = user
    return body


def _pairs(what: str, pairs: Mapping[str, str] | None) -> dict[str, str]:
    for key, value in (pairs or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"{what} maps text to text, not {key!r} to {value!r}")
    return dict(pairs or {})
