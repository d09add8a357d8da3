"""Spans of traces, for rooms that have no word of who collects them. Without a collector one costs half a microsecond."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, TypeAlias

__all__ = ("Span", "Tracing", "Value", "serving", "span", "trace_id", "trace_with")

Value: TypeAlias = str | int | float | bool
"""Never a secret, a command, a variable, a path inside or a content: what a span says leaves the machine."""


class Span(Protocol):
    def name(self, name: str) -> None: ...
    def set(self, key: str, value: Value) -> None: ...
    def failed(self, code: str) -> None:
        """With the code of an error; never its message."""
        ...


class Tracing(Protocol):
    """Who makes spans and carries them away."""

    def span(
        self, name: str, attributes: Mapping[str, Value], headers: Mapping[str, str] | None
    ) -> AbstractContextManager[Span]:
        """`headers`: those of a request that begins here; its `traceparent` is gone on with."""
        ...

    def trace_id(self) -> str | None:
        """Of the span that is open here and is kept."""
        ...


class _Nothing:
    """A span when nobody collects them."""

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def name(self, name: str) -> None:
        pass

    def set(self, key: str, value: Value) -> None:
        pass

    def failed(self, code: str) -> None:
        pass


_NOTHING = _Nothing()
_tracing: Tracing | None = None
_CARRIED = (b"traceparent", b"tracestate")


def trace_with(tracing: Tracing | None) -> None:
    """From now on, in the whole process."""
    global _tracing
    _tracing = tracing


def span(name: str, attributes: Mapping[str, Value] | None = None) -> AbstractContextManager[Span]:
    """A step of what is being done here: a child of the span that is open. An Error that leaves it is noted by its code."""
    return _NOTHING if _tracing is None else _tracing.span(name, attributes or {}, None)


def serving(name: str, headers: Mapping[bytes, bytes]) -> AbstractContextManager[Span]:
    """The whole of a request, in the trace that its sender began where it names one (W3C trace context)."""
    if _tracing is None:
        return _NOTHING
    carried = {key.decode(): value.decode("latin-1") for key in _CARRIED if (value := headers.get(key)) is not None}
    return _tracing.span(name, {}, carried)


def trace_id() -> str | None:
    """32 hexadecimal digits; None where no span is open, or nobody keeps it."""
    return None if _tracing is None else _tracing.trace_id()
