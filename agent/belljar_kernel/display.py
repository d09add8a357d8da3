"""What is shown: IPython's formats of a value, made fit for an event."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import base64
import json
import sys
from typing import TYPE_CHECKING, Any

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.formatters import DisplayFormatter

from belljar_kernel.charts import CHART, figure_chart
from belljar_kernel.frames import DATA, frame_data, is_frame
from belljar_kernel.limits import MAX_EVENT, MAX_NAME
from belljar_kernel.text import PlainText, short_tables

if TYPE_CHECKING:
    from belljar_kernel.backend import Cell

__all__ = ("Formatter", "Hook", "Publisher", "Screen", "bundle")

_JSON_ITEMS = 10_000
_PLAIN = frozenset((int, float, complex, bool, str, bytes, type(None)))


class Screen:
    """Where the shell shows things: the cell that runs."""

    cell: Cell | None = None
    code = ""
    formatting = 0
    """How deep in making formats: what fails there is a note on stderr, not the cell's error."""

    def __init__(self) -> None:
        self.figures: set[int] = set()
        """Ids of those that the cell has displayed."""

    def show(self, data: dict[str, Any], *, main: bool = False, extra: dict[str, Any] | None = None) -> None:
        if self.cell is not None and data:
            self.cell.show(bundle(data), main=main, extra=extra)


class Formatter(DisplayFormatter):
    screen: Any = None

    def __init__(self, screen: Screen, **words: Any) -> None:
        super().__init__(**words)
        self.screen = screen
        self.formatters["text/plain"] = PlainText(parent=self.parent)

    def format(self, obj: Any, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        plain = self.formatters["text/plain"]
        if type(obj) in _PLAIN and include is None and exclude is None:
            return {"text/plain": plain(obj)}, {}
        self.screen.formatting += 1
        try:
            with short_tables():
                data, metadata = super().format(obj, include=include, exclude=exclude)
            if not data or include is not None:
                return data, metadata
            if is_frame(obj):
                known = _quietly(frame_data, obj)
                if known is not None:
                    data[DATA] = known
            elif "image/png" in data and _is_figure(obj):
                self.screen.figures.add(id(obj))
                known = _quietly(figure_chart, obj)
                if known is not None:
                    data[CHART] = known
            elif type(obj) in (list, dict) and _is_json(obj):
                data.setdefault("application/json", obj)
            return data, metadata
        finally:
            self.screen.formatting -= 1


class Hook(DisplayHook):
    """The value of the last expression."""

    def quiet(self) -> bool:
        code = self.shell.screen.code
        return ";" in code[-200:] and self.semicolon_at_end_of_expression(code)

    def start_displayhook(self) -> None:
        self._is_active = True

    def write_output_prompt(self) -> None:
        """No prompt."""

    def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
        self.shell.screen.show(format_dict, main=True, extra=_extra(md_dict, None, update=False))

    def log_output(self, format_dict: Any) -> None:
        """Not kept: it would grow with every cell."""

    def finish_displayhook(self) -> None:
        self._is_active = False


class Publisher(DisplayPublisher):
    """`display()`."""

    def publish(
        self, data: Any, metadata: Any = None, *_: Any, transient: Any = None, update: bool = False, **__: Any
    ) -> None:
        self.shell.screen.show(data, extra=_extra(metadata, transient, update=update))

    def clear_output(self, wait: bool = False) -> None:
        """What was said stays said."""


def bundle(data: dict[str, Any]) -> dict[str, Any]:
    """Text as text, bytes as base64, JSON kinds as JSON; what is none of it is left out."""
    fit: dict[str, Any] = {}
    for name, value in data.items():
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or value is None:
            continue
        if name.endswith("json"):
            if (known := _quietly(_as_json, value)) is not None:
                fit[name] = known
        elif isinstance(value, (bytes, bytearray, memoryview)):
            if len(value) <= MAX_EVENT:
                fit[name] = base64.b64encode(value).decode()
            else:
                fit[name] = " " * MAX_EVENT  # is left out with a note
        elif isinstance(value, str):
            fit[name] = value
        elif isinstance(value, (list, tuple)) and all(isinstance(line, str) for line in value):
            fit[name] = "".join(value)
        else:
            fit[name] = str(value)
    return fit


def _extra(metadata: Any, transient: Any, *, update: bool) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if metadata and (known := _quietly(_as_json, metadata)):
        extra["metadata"] = known
    if transient and isinstance(transient, dict) and "display_id" in transient:
        extra["display_id"] = str(transient["display_id"])[:MAX_NAME]
        extra["update"] = update
    return extra


def _is_figure(obj: object) -> bool:
    figure = getattr(sys.modules.get("matplotlib.figure"), "Figure", None)
    return isinstance(figure, type) and isinstance(obj, figure)


def _as_json(value: Any) -> Any:
    """What it says in JSON, of an object that others changed meanwhile too."""
    return json.loads(json.dumps(value, default=_listed))


def _listed(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError


def _is_json(value: Any) -> bool:
    """Whether a list or dict is small and JSON can say exactly what it says."""
    left = _JSON_ITEMS
    waiting = [value]
    while waiting:
        item = waiting.pop()
        kind = type(item)
        left -= 1 + (len(item) >> 6 if kind is str else 0)
        if left < 0:
            return False
        if kind is dict:
            if len(item) > left or any(type(key) is not str for key in item):
                return False
            waiting.extend(item.values())
        elif kind is list:
            if len(item) > left:
                return False
            waiting.extend(item)
        elif kind is float:
            if item - item != 0:
                return False
        elif kind not in (str, int, bool, type(None)) or (kind is int and item.bit_length() > 63):
            return False
    return True


def _quietly(function: Any, value: Any) -> Any:
    try:
        return function(value)
    except Exception:  # noqa: BLE001 - an object of the code's own: it has no such format then
        return None
