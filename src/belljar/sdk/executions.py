"""What `run_code` returns: plain values, and how they grow out of events."""

import base64
import binascii
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from belljar.model.code import Done, Raised, Shown, Status
from belljar.model.process import Stream

__all__ = ("Execution", "ExecutionError", "Gathering", "Result", "result_of")

_KEPT_TEXT = 16 << 20
"""Characters of each stream."""
_KEPT_RESULTS = 1000
_KEPT_RESULT_BYTES = 64 << 20
_NAMES = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/pdf": "pdf",
    "text/latex": "latex",
    "application/json": "json",
    "application/javascript": "javascript",
    "application/vnd.belljar.data+json": "data",
    "application/vnd.belljar.chart+json": "chart",
}
_BINARY = frozenset(("png", "jpeg", "pdf"))


@dataclass(frozen=True, slots=True)
class Result:
    """Something the code showed, in each form it has. `main`: the value of its last expression.

    `data` is a DataFrame's (columns, index, rows of values), `chart` a figure's, `json` what was shown as JSON; `extra` has the
    forms that have no name here, by MIME kind.
    """

    text: str | None = None
    html: str | None = None
    markdown: str | None = None
    svg: str | None = None
    png: bytes | None = field(default=None, repr=False)
    jpeg: bytes | None = field(default=None, repr=False)
    pdf: bytes | None = field(default=None, repr=False)
    latex: str | None = None
    json: Any = None
    javascript: str | None = None
    data: Mapping[str, Any] | None = field(default=None, repr=False)
    chart: Mapping[str, Any] | None = field(default=None, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    main: bool = False

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """So that a notebook shows it as the sandbox would."""
        bundle = {mime: getattr(self, name) for mime, name in _NAMES.items() if getattr(self, name) is not None}
        return bundle | dict(self.extra)


@dataclass(frozen=True, slots=True)
class ExecutionError:
    """What the code raised. Beside Python's own: ``TimeoutError`` (`run_code`'s limit), ``KernelDied`` (the state is lost)."""

    name: str
    value: str
    traceback: str = field(repr=False)

    def __str__(self) -> str:
        return self.traceback or f"{self.name}: {self.value}"


@dataclass(frozen=True, slots=True)
class Execution:
    """What `run_code` returns. `error` None: the code ran to its end; `count`: the number of the cell in its context.

    Of each stream the newest 16 Mi characters are kept, of results 1,000 and 64 MiB; `dropped` counts the characters that are
    not.
    """

    results: list[Result]
    stdout: str
    stderr: str
    error: ExecutionError | None
    count: int
    status: Status
    dropped: int = 0

    @property
    def text(self) -> str | None:
        """The text of the last expression's value; None when there was none."""
        return next((result.text for result in reversed(self.results) if result.main), None)


class Gathering:
    """An execution on its way."""

    def __init__(self) -> None:
        self._texts = {stream: _Text() for stream in Stream}
        self._results: list[Result] = []
        self._size = 0
        self._error: ExecutionError | None = None

    def print(self, stream: Stream, text: str) -> None:
        self._texts[stream].add(text)

    def show(self, event: Shown) -> Result:
        result = result_of(event)
        size = sum(len(value) for value in event.data.values() if isinstance(value, str))
        fits = len(self._results) < _KEPT_RESULTS and self._size + size <= _KEPT_RESULT_BYTES
        if fits or event.main:
            self._results.append(result)
            self._size += size
        return result

    def fail(self, event: Raised) -> None:
        self._error = ExecutionError(event.name, event.value, event.traceback)

    def finish(self, done: Done) -> Execution:
        out, err = self._texts[Stream.STDOUT], self._texts[Stream.STDERR]
        return Execution(
            self._results, out.text, err.text, self._error, done.count, done.status, out.dropped + err.dropped
        )


class _Text:
    def __init__(self) -> None:
        self._pieces: deque[str] = deque()
        self._size = 0
        self.dropped = 0

    def add(self, text: str) -> None:
        self._pieces.append(text)
        self._size += len(text)
        while self._size > _KEPT_TEXT:
            gone = len(self._pieces.popleft())
            self._size -= gone
            self.dropped += gone

    @property
    def text(self) -> str:
        return "".join(self._pieces)


def result_of(event: Shown) -> Result:
    """A form that is not what its kind says is left out."""
    known: dict[str, Any] = {}
    extra = dict(event.extra)
    for mime, value in event.data.items():
        name = _NAMES.get(mime)
        if name is None:
            extra[mime] = value
        elif name not in _BINARY:
            known[name] = value
        elif (content := _binary(value)) is not None:
            known[name] = content
    return Result(**known, extra=extra, main=event.main)


def _binary(value: str) -> bytes | None:
    try:
        return base64.b64decode(value)
    except (binascii.Error, ValueError):
        return None
