"""The seam between a kernel and what runs its cells: IPython in this process, or a Jupyter kernel beside it.

Lines, queue, keys, pieces, `hello` and `state` are the kernel's (`kernel.py`). A backend runs one cell at a time on the main
thread and tells of it through the `Cell` that it is given.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from belljar_kernel.limits import MAX_EVENT, MAX_NAME, OUTPUT_CHARACTERS, clip
from belljar_kernel.lines import TooBig, Writer, encode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from belljar_kernel.renewal import Renewal

__all__ = ("ERROR", "INTERRUPTED", "OK", "Backend", "Cell", "Outcome", "Refused", "Unheard")

_FRAME = 64 << 10
"""Bytes left for what stands around the kinds."""
_SMALL = 64 << 10
OK, ERROR, INTERRUPTED = "ok", "error", "interrupted"


class Refused(Exception):
    """This kernel cannot work here. `code` is one of Belljar's error codes."""

    def __init__(self, message: str, *, hint: str | None = None, code: str = "not_supported") -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


class Outcome(NamedTuple):
    """How a cell ended. `number`: its own, or that of the cell before where it has none."""

    status: str
    number: int


class Backend(Protocol):
    """Made once, in a process whose descriptors 0 to 2 are not the protocol's. Raises Refused where it cannot work."""

    @property
    def language(self) -> str: ...

    @property
    def language_version(self) -> str: ...

    def execute(self, cell: Cell) -> Outcome:
        """Runs it on the main thread; has told all of its output when it returns. Does not send `done`. Raises nothing."""
        ...

    def interrupt(self, cell: Cell) -> None:
        """Called on another thread, shortly, while `execute(cell)` runs or is about to: makes it end soon.

        `cell.interrupted` was set before: a backend that has not begun to run the code looks there.
        """
        ...

    def renew(self, renewal: Renewal) -> None:
        """The sandbox has become another one. On the main thread, between two cells. Raises OSError (no such directory),
        and Unfit for what this language cannot change while it runs; the rest is done then too."""
        ...

    def warm(self, modules: Sequence[str]) -> None:
        """Does now what the first cell would wait for, without a trace for the code to find. On the main thread."""
        ...

    def close(self) -> None:
        """The kernel is about to end: what the backend started outside this process has to go."""
        ...


class Cell:
    """One execution: what to run, and the events that tell of it. Any thread may send; after the last event nothing is sent."""

    def __init__(
        self, writer: Writer, key: str, code: str, *, env: Mapping[str, str] | None = None, silent: bool = False
    ) -> None:
        self.key, self.code, self.silent = key, code, silent
        self.env: Mapping[str, str] = dict(env or {})
        self.interrupted = False
        self.timed_out: str | None = None
        """Set beside `interrupted` when a limit of time was the reason: what the error should say."""
        self._writer = writer
        self._lock = threading.Lock()
        self._seq = 0
        self._closed = False

    def write(self, stream: str, text: str) -> bool:
        """Output; `stream` is ``stdout`` or ``stderr``. Tells whether the cell still took it."""
        for start in range(0, len(text), OUTPUT_CHARACTERS):
            if not self._send({"kind": stream, "text": text[start : start + OUTPUT_CHARACTERS]}):
                return False
        return True

    def show(self, data: Mapping[str, Any], *, main: bool = False, extra: Mapping[str, Any] | None = None) -> bool:
        """Something shown, by MIME kind: text as it is, binary as base64 text, JSON kinds as JSON values.

        Kinds that make the event longer than 16 MiB are left out, the longest first, and a note says so.
        """
        kinds = {name[:MAX_NAME]: value for name, value in data.items()}
        if isinstance(text := kinds.get("text/plain"), str):
            kinds["text/plain"] = clip(text)
        event: dict[str, Any] = {"kind": "result", "main": main, "data": kinds}
        if extra:
            event["extra"] = dict(extra)
        sizes = {name: _size(value) for name, value in kinds.items()}
        while sum(sizes.values()) + _size(extra) > MAX_EVENT - _FRAME and sizes:
            longest = max(sizes, key=lambda name: sizes[name])
            del kinds[longest], sizes[longest]
            note = f"[{longest} left out: all of it is more than {MAX_EVENT >> 20} MiB]"
            kinds["text/plain"] = clip(f"{kinds.get('text/plain', '')}\n{note}".strip())
        return self._send(event)

    def error(self, name: str, value: str, traceback: str) -> bool:
        """What the code raised. `value` is whole up to 1 MiB: people send data in it."""
        return self._send(
            {"kind": "error", "name": name[:MAX_NAME], "value": clip(value), "traceback": clip(traceback)}
        )

    def call(self, call: str, name: str, payload: str) -> bool:
        """The code waits for the host. Raises TooBig."""
        return self._send({"kind": "call", "call": call, "name": name, "payload": payload})

    def done(self, outcome: Outcome) -> None:
        """The last event; the kernel sends it."""
        self._send({"kind": "done", "status": outcome.status, "count": outcome.number}, last=True)

    def _send(self, event: dict[str, Any], *, last: bool = False) -> bool:
        if self._writer.silent:
            return False  # before the lock, which a thread may have held when it forked
        with self._lock:
            if self._closed:
                return False
            data = encode({"key": self.key, "seq": self._seq + 1, **event})
            self._seq += 1
            self._closed = last
            self._writer.send(data)
            return True


class Unheard(Cell):
    """A cell of our own: nobody is told of it."""

    def __init__(self, code: str = "", *, silent: bool = True) -> None:
        super().__init__(cast("Writer", None), "", code, silent=silent)

    def _send(self, event: dict[str, Any], *, last: bool = False) -> bool:
        return True


def _size(value: Any) -> int:
    """Bytes of its JSON; most are text of ASCII alone, which need not be encoded to be measured."""
    if isinstance(value, str) and len(value) < _SMALL:
        return 6 * len(value)
    try:
        return len(encode({"": value}))
    except TooBig:
        return MAX_EVENT
