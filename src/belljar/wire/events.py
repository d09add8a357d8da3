"""What a session tells its owner. Plain slotted classes: the agent must start fast, and dataclasses import half a compiler."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from belljar.wire.messages import Message

__all__ = (
    "AgentEvent",
    "Cancelled",
    "Credited",
    "Data",
    "Ended",
    "Happened",
    "Hello",
    "Request",
    "Response",
    "ServerEvent",
    "Welcomed",
)


class _Event:
    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]


class Welcomed(_Event):
    """The agent answered: requests may be sent. `version` 0: it speaks none of ours."""

    __slots__ = ("agent", "features", "started", "version")

    def __init__(self, version: int, agent: str, features: frozenset[str], started: float) -> None:
        self.version = version
        self.agent = agent
        self.features = features
        self.started = started


class Response(_Event):
    """The answer to `request`: `ok`, or `error` (then `ok` is None) as ``(code, message)``."""

    __slots__ = ("error", "ok", "request")

    def __init__(self, request: int, ok: Message | None, error: tuple[str, str] | None) -> None:
        self.request = request
        self.ok = ok
        self.error = error


class Data(_Event):
    """New bytes of an incoming stream; call its `consumed` when they are taken."""

    __slots__ = ("data", "offset", "stream")

    def __init__(self, stream: int, offset: int, data: bytes) -> None:
        self.stream = stream
        self.offset = offset
        self.data = data


class Credited(_Event):
    """The peer takes more bytes of an outgoing stream."""

    __slots__ = ("credit", "stream")

    def __init__(self, stream: int, credit: int) -> None:
        self.stream = stream
        self.credit = credit


class Ended(_Event):
    """The peer ended its half of `stream` at `offset`, with a result or an error ``(code, message)``."""

    __slots__ = ("error", "offset", "result", "stream")

    def __init__(self, stream: int, offset: int, result: Message, error: tuple[str, str] | None) -> None:
        self.stream = stream
        self.offset = offset
        self.result = result
        self.error = error


class Happened(_Event):
    """An event of the agent, as it came."""

    __slots__ = ("event",)

    def __init__(self, event: Message) -> None:
        self.event = event


class Hello(_Event):
    """A server begins a session: everything of the one before is forgotten. `time` is its clock, seconds since 1970."""

    __slots__ = ("time",)

    def __init__(self, time: float) -> None:
        self.time = time


class Request(_Event):
    """The server wants `op`."""

    __slots__ = ("args", "id", "op")

    def __init__(self, id: int, op: str, args: Message) -> None:
        self.id = id
        self.op = op
        self.args = args


class Cancelled(_Event):
    """The server wants no more of this request or stream."""

    __slots__ = ("id",)

    def __init__(self, id: int) -> None:
        self.id = id


ServerEvent = Welcomed | Response | Data | Credited | Ended | Happened
AgentEvent = Hello | Request | Data | Credited | Ended | Cancelled
