"""Code that runs with its state kept: contexts, executions and what they say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias, cast

from belljar.model.errors import InvalidArgument
from belljar.model.process import Stream
from belljar.model.sandbox import check_env

__all__ = (
    "MAX_CODE",
    "MAX_EVENT",
    "CodeEvent",
    "CodeSpec",
    "ContextInfo",
    "ContextSpec",
    "ContextState",
    "Done",
    "HostCall",
    "Printed",
    "Raised",
    "Shown",
    "Status",
    "decode_event",
    "encode_event",
)

MAX_CODE = 8 << 20
"""Bytes of one cell, and of the payload of one call or its answer."""
MAX_EVENT = 16 << 20
"""Bytes of one event's JSON."""
_MAX_NAME = 128
_MAX_DEPTH = 64


class ContextState(StrEnum):
    """`dead`: its kernel ended; the next execution starts a new one, without the state."""

    IDLE = "idle"
    BUSY = "busy"
    DEAD = "dead"


class Status(StrEnum):
    OK = "ok"
    ERROR = "error"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class ContextSpec:
    """`id` is chosen by the caller: a second call with the same one gives the context that is there.

    `cwd` and `user` default to the sandbox's; `env` is added to the sandbox's.
    """

    id: str
    language: str = "python"
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    user: str | None = None

    def __post_init__(self) -> None:
        check_name("a context's id", self.id)
        check_name("a language", self.language)
        check_env(self.env, raw=True)


@dataclass(frozen=True, slots=True)
class ContextInfo:
    """`count`: cells run by this kernel. `restarts`: kernels lost or restarted. `pid`: of the kernel, while it lives."""

    id: str
    language: str
    state: ContextState
    count: int = 0
    restarts: int = 0
    pid: int | None = None
    cwd: str | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class CodeSpec:
    """One execution. `key` is chosen by the caller: repeated with the same one, it is followed, not run again.

    `timeout`: seconds of its own running, None for no limit. `env`: variables for this cell.
    """

    key: str
    code: str
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout: float | None = None
    silent: bool = False

    def __post_init__(self) -> None:
        check_name("an execution's key", self.key)
        if len(self.code.encode(errors="surrogatepass")) > MAX_CODE:
            raise InvalidArgument(f"code has at most {MAX_CODE >> 20} MiB", hint="put data into a file of the sandbox")
        check_env(self.env, raw=True)


@dataclass(frozen=True, slots=True)
class Printed:
    """Text that was written to a stream."""

    seq: int
    stream: Stream
    text: str


@dataclass(frozen=True, slots=True)
class Shown:
    """Something shown: by MIME kind, text as it is, binary as base64, JSON kinds as JSON. `main`: the last expression's value."""

    seq: int
    main: bool
    data: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class HostCall:
    """The code waits for an answer of the host to `call`."""

    seq: int
    call: str
    name: str
    payload: str


@dataclass(frozen=True, slots=True)
class Raised:
    """What the code raised; or of ours: `TimeoutError` (its limit), `KernelDied`."""

    seq: int
    name: str
    value: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Done:
    """The last event of an execution."""

    seq: int
    status: Status
    count: int


CodeEvent: TypeAlias = Printed | Shown | HostCall | Raised | Done


def encode_event(event: CodeEvent) -> dict[str, Any]:
    match event:
        case Printed(seq, stream, text):
            return {"seq": seq, "kind": stream.value, "text": text}
        case Shown(seq, main, data, extra):
            return {"seq": seq, "kind": "result", "main": main, "data": dict(data), "extra": dict(extra)}
        case HostCall(seq, call, name, payload):
            return {"seq": seq, "kind": "call", "call": call, "name": name, "payload": payload}
        case Raised(seq, name, value, traceback):
            return {"seq": seq, "kind": "error", "name": name, "value": value, "traceback": traceback}
        case Done(seq, status, count):
            return {"seq": seq, "kind": "done", "status": status.value, "count": count}


def decode_event(value: Mapping[str, Any]) -> CodeEvent:
    """Raises ValueError for what is no event; nothing of it is taken on trust."""
    seq = _number(value, "seq")
    match value.get("kind"):
        case "stdout" | "stderr" as stream:
            return Printed(seq, Stream(stream), _text(value, "text"))
        case "result":
            return Shown(
                seq, value.get("main") is True, _mimes(value.get("data")), _shallow(_object(value.get("extra")))
            )
        case "call":
            return HostCall(seq, _name(value, "call"), _name(value, "name"), _text(value, "payload"))
        case "error":
            return Raised(seq, _text(value, "name"), _text(value, "value"), _text(value, "traceback"))
        case "done":
            return Done(seq, Status(_text(value, "status")), _number(value, "count"))
        case other:
            raise ValueError(f"no such event: {str(other)[:40]!r}")


def check_name(what: str, name: str) -> None:
    """Raises InvalidArgument for what cannot be an id, a key or a language."""
    if not (0 < len(name) <= 64 and name.isascii() and all(c.isalnum() or c in "-_+." for c in name)):
        raise InvalidArgument(f"{what} has 1 to 64 ASCII letters, digits, '-', '_', '+' and '.'")


def _text(value: Mapping[str, Any], name: str) -> str:
    if not isinstance(found := value.get(name), str):
        raise ValueError(f"{name} is no text")
    return found


def _name(value: Mapping[str, Any], name: str) -> str:
    if not 0 < len(found := _text(value, name)) <= _MAX_NAME:
        raise ValueError(f"{name} has 1 to {_MAX_NAME} characters")
    return found


def _number(value: Mapping[str, Any], name: str) -> int:
    found = value.get(name)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1 << 53:
        raise ValueError(f"{name} is no count")
    return found


def _object(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return cast(dict[str, Any], value)


def _mimes(value: object) -> dict[str, Any]:
    data = _shallow(_object(value))
    for mime, content in data.items():
        if len(mime) > _MAX_NAME:
            raise ValueError("no MIME kind is that long")
        if not mime.endswith("json") and not isinstance(content, str):
            raise ValueError(f"{mime} is no text")
    return data


def _shallow(value: dict[str, Any]) -> dict[str, Any]:
    """Without the members that are nested so deep that a reader's stack could overflow: nobody shows that to anybody."""
    return {name: content for name, content in value.items() if not _is_deep(content)}


def _is_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(_MAX_DEPTH):
        level = [item for one in level for item in _items(one)]
        if not level:
            return False
    return True


def _items(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(cast(dict[str, Any], value).values())
    return cast(list[Any], value) if isinstance(value, list) else []
