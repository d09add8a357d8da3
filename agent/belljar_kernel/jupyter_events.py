"""What a Jupyter kernel says while a cell runs, as events of ours."""

from __future__ import annotations

import base64
import re
import subprocess
import time
from typing import TYPE_CHECKING, Any, cast

from belljar_kernel.limits import OUTPUT_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from belljar_kernel.backend import Cell

__all__ = ("Failure", "Telling", "FENCE", "explain", "failure_of", "stream_of")

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_BINARY = re.compile(r"(?:image/(?!svg)|audio/|video/|application/pdf)", re.I)
_MAX_VALUE = 200
_EXPLAIN = 5.0
_ERROR = "error: "
FENCE = "belljar_fence"
"""Kind of a message that comes behind all output of a cell."""
_LONGEST = 0.02
"""Seconds that output waits for more of it."""


class Failure:
    __slots__ = ("name", "traceback", "value")

    def __init__(self, name: str, value: str, traceback: str) -> None:
        self.name, self.value, self.traceback = name, value, traceback


class Telling:
    """Gives one cell what its kernel says. Small pieces of output are put together until `flush`."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self.failure: Failure | None = None
        self.fenced = False
        self._stream = ""
        self._pieces: list[str] = []
        self._size = 0
        self._since = 0.0

    def take(self, kind: str, content: Mapping[str, Any]) -> None:
        """A message of the channel iopub; kinds that say nothing to people are left out."""
        if kind == "stream":
            self.write(*stream_of(content))
            return
        self.flush()
        if kind in ("display_data", "update_display_data", "execute_result"):
            data, extra = _kinds(content.get("data")), content.get("metadata")
            if data:
                self._cell.show(data, main=kind == "execute_result", extra=_object(extra) or None)
        elif kind == "error":
            self.failure = failure_of(content)
        elif kind == FENCE:
            self.fenced = True

    def write(self, stream: str, text: str) -> None:
        if stream != self._stream:
            self.flush()
            self._stream = stream
        self._pieces.append(text)
        self._size += len(text)
        now = time.monotonic()
        if len(self._pieces) == 1:
            self._since = now
        if self._size >= OUTPUT_CHARACTERS or now - self._since > _LONGEST:
            self.flush()

    @property
    def waiting(self) -> bool:
        return bool(self._pieces)

    def flush(self) -> None:
        if self._pieces:
            text = "".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            self._cell.write(self._stream, text)


def stream_of(content: Mapping[str, Any]) -> tuple[str, str]:
    """Which of the two, and what was written."""
    return ("stderr" if content.get("name") == "stderr" else "stdout"), _text(content.get("text"))


def failure_of(content: Mapping[str, Any]) -> Failure:
    """Of an `error` or of a reply that says so."""
    name, value = _text(content.get("ename")), _ANSI.sub("", _text(content.get("evalue")))
    lines = content.get("traceback")
    parts = [_text(line) for line in cast("list[Any]", lines)] if isinstance(lines, list) else []
    # A shell's commands have no exceptions: its kernel says the status alone.
    name = name or ("ExitStatus" if value.isdigit() else "Error")
    traceback = _ANSI.sub("", "\n".join(parts))
    return Failure(name, value, traceback or f"{name}: {value[:_MAX_VALUE]}")


def explain(argv: object, code: str) -> Failure | None:
    """Why a kernel gave no reason for an error: what a program says of the code, if it finds fault with it.

    `argv`: of the kernel's spec. It reads the code, and its last words are ``Name: words`` and lines that show where.
    """
    if not isinstance(argv, list):
        return None
    words = [str(word) for word in cast("list[object]", argv)]
    try:
        done = subprocess.run(
            words, input=code.encode("utf-8", "replace"), capture_output=True, timeout=_EXPLAIN, check=False
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    said = _ANSI.sub("", done.stderr.decode("utf-8", "replace")).strip()
    said = said[len(_ERROR) :] if said.startswith(_ERROR) else said
    name, found, value = said.partition("\n")[0].partition(": ")
    if done.returncode == 0 or not found or not name.isidentifier():
        return None
    # Where the program itself has put the code interests nobody.
    return Failure(name, value, "\n".join(line for line in said.splitlines() if " at file://" not in line))


def _kinds(value: object) -> dict[str, Any]:
    """By MIME kind: what is not JSON is text, and binary kinds are base64 without line ends."""
    data: dict[str, Any] = {}
    for name, content in _object(value).items():
        if name.lower().endswith("json"):
            data[name] = content
        elif _BINARY.match(name):
            packed = "".join(_text(content).split())
            if _is_base64(packed):
                data[name] = packed
        else:
            data[name] = _text(content)
    return data


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_text(item) for item in cast("list[object]", value))
    return "" if value is None else str(value)


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
