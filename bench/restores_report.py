"""A result of bench/restores.py as Markdown: one row per operation, one column per candidate, ratios and targets."""

import argparse
import json
from pathlib import Path
from typing import Any

from rows import ROWS, Row, row_named

__all__ = ("markdown",)

_OURS = "Belljar"
_SCALE = {"ms": 1e3, "%": 1.0, "MiB": 1.0}
# Belljar's row → the row of a candidate that has no pool.
_BESIDE = {
    "create + echo, pool hit": "create + echo, pool empty",
    "create + node -v, pool hit": "create + node -v, pool empty",
    "create, pool hit, SDK": "create, pool empty",
}


def markdown(result: dict[str, Any]) -> str:
    """Times are p50 / p99 in milliseconds. A ratio is Belljar's p50 by theirs: under 1, Belljar is faster or smaller."""
    found: dict[str, dict[str, dict[str, float]]] = result["rows"]
    others = [side for side in found if side != _OURS]
    names = list(dict.fromkeys([row.name for row in ROWS] + [name for rows in found.values() for name in rows]))
    sides = [_OURS, *others] if _OURS in found else others
    lines = [
        f"| what | {' | '.join(sides)} | {' | '.join(f'÷ {side}' for side in others)} | G1 | G2 |",
        "|---|" + "---|" * (len(sides) + len(others) + 2),
    ]
    for row in map(row_named, names):
        values = [found[side].get(row.name) for side in sides]
        if not any(values):
            continue
        ours = found.get(_OURS, {}).get(row.name)
        ratios = [_ratio(ours, found[side].get(_BESIDE.get(row.name, row.name))) for side in others]
        cells = [_cell(row, value) for value in values]
        verdicts = [_verdict(row, ours, row.first), _verdict(row, ours, row.second)]
        lines.append(f"| {' | '.join([row.name, *cells, *ratios, *verdicts])} |")
    for what in ("absent", "failed"):
        lines += [
            f"\n{side}, {case}: {'FAILED: ' if what == 'failed' else ''}{why}"
            for side, cases in result[what].items()
            for case, why in cases.items()
        ]
    return "\n".join(lines)


def _cell(row: Row, value: dict[str, float] | None) -> str:
    if value is None:
        return "-"
    scale = _SCALE[row.unit]
    if row.unit != "ms":
        return f"{value['p50']:.1f} {row.unit}" if row.unit != "%" else f"{value['p50']:.0f} %"
    p50, p99 = value["p50"] * scale, value["p99"] * scale
    if value["n"] == 1:
        return f"{p50:.0f}"
    return f"{p50:.1f} / {p99:.1f}" if p50 < 100 else f"{p50:.0f} / {p99:.0f}"


def _ratio(ours: dict[str, float] | None, theirs: dict[str, float] | None) -> str:
    return f"{ours['p50'] / theirs['p50']:.2f}" if ours and theirs and theirs["p50"] > 0 else "-"


def _verdict(row: Row, ours: dict[str, float] | None, target: tuple[float | None, float | None] | None) -> str:
    if target is None:
        return ""
    text = " / ".join(f"{part:g}" for part in target if part is not None)
    if ours is None:
        return text
    scale = _SCALE[row.unit]
    pairs = zip((ours["p50"] * scale, ours["p99"] * scale), target, strict=True)
    reached = all(limit is None or (value >= limit if row.most else value <= limit) for value, limit in pairs)
    return f"{text}: {'yes' if reached else '**no**'}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Prints a kept result as a table.")
    parser.add_argument("file", type=Path)
    print(markdown(json.loads(parser.parse_args().file.read_text())))
