"""A DataFrame as data: names, index, rows and dtypes, of bounded size."""
# pyright: basic

from __future__ import annotations

import json
import math
import reprlib
import sys
from typing import Any

__all__ = ("DATA", "frame_data", "is_frame")

DATA = "application/vnd.belljar.data+json"
_ROWS = 1000
_COLUMNS = 1000
_BYTES = 1 << 20
_CELL = 4096
_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 100
_SHORT.maxstring = _SHORT.maxother = _CELL


def is_frame(obj: object) -> bool:
    pandas = sys.modules.get("pandas")
    frame = getattr(pandas, "DataFrame", None)
    return isinstance(frame, type) and isinstance(obj, frame)


def frame_data(frame: Any) -> dict[str, Any] | None:
    """At most 1,000 rows and 1 MiB of JSON, from the top; None for one whose names alone are more."""
    rows, columns = frame.shape
    part = frame.iloc[: min(rows, _ROWS), : min(columns, _COLUMNS)]
    value = {
        "columns": [_plain(name) for name in part.columns],
        "index": [_plain(label) for label in part.index],
        # Column by column keeps each one's own kind: rows would make all numbers of a row floats.
        "data": [list(row) for row in zip(*(_column(part.iloc[:, n]) for n in range(part.shape[1])))],
        "dtypes": [str(kind) for kind in part.dtypes],
        "rows": int(rows),
        "truncated": part.shape != frame.shape,
    }
    while len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")) > _BYTES:
        keep = len(value["data"]) // 2
        if not keep:
            return None
        value["data"], value["index"], value["truncated"] = value["data"][:keep], value["index"][:keep], True
    return value


def _column(series: Any) -> list[Any]:
    return [_plain(item) for item in series.tolist()]


def _plain(item: Any) -> Any:
    """As JSON has it: times in ISO 8601, what is missing null, what JSON lacks as its text."""
    if item is None or isinstance(item, bool):
        return item
    if isinstance(item, str):
        return item[:_CELL]
    if isinstance(item, int):
        return int(item) if abs(item) < 1 << 63 else str(item)
    if isinstance(item, float):
        return float(item) if math.isfinite(item) else None
    pandas = sys.modules.get("pandas")
    if pandas is not None and (item is pandas.NaT or item is getattr(pandas, "NA", None)):
        return None
    if isinstance(item, (list, tuple)) and len(item) <= 100:
        return [_plain(one) for one in item]
    for method in ("isoformat", "item"):
        known = getattr(item, method, None)
        if callable(known):
            try:
                found = known()
            except Exception:  # noqa: BLE001 - any object may stand in a frame
                continue
            return _plain(found) if method == "item" and type(found) is not type(item) else str(found)[:_CELL]
    return _SHORT.repr(item) if isinstance(item, (list, tuple, dict, set, frozenset, bytes)) else str(item)[:_CELL]
