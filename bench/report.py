"""A result as a Markdown table: one row per operation, one column per candidate, and how Belljar compares."""

import argparse
import json
from pathlib import Path
from typing import Any

__all__ = ("markdown",)

SIDES = ("belljar", "runsc", "gvisor package")


def markdown(result: dict[str, Any]) -> str:
    """Times are p50 / p99 in milliseconds, throughput is MB/s, memory is unshared MiB per sandbox."""
    sides = [side for side in SIDES if side in result]
    names = list(dict.fromkeys(name for side in sides for name in result[side]))
    lines = [
        f"| what | {' | '.join(sides)} | Belljar ÷ runsc |",
        "|---|" + "---|" * (len(sides) + 1),
    ]
    for name in names:
        cells = [_cell(result[side].get(name)) for side in sides]
        lines.append(f"| {name} | {' | '.join(cells)} | {_ratio(result, name)} |")
    return "\n".join(lines)


def _cell(value: dict[str, float] | None) -> str:
    if value is None:
        return "-"
    if "MB/s" in value:
        return f"{value['MB/s']:.0f} MB/s"
    if "unshared" in value:
        return f"{value['unshared']:.1f} MiB"
    return f"{value['p50']:.1f} / {value['p99']:.1f}"


def _ratio(result: dict[str, Any], name: str) -> str:
    ours, theirs = (result.get(side, {}).get(name) for side in ("belljar", "runsc"))
    if not ours or not theirs:
        return "-"
    key = next(key for key in ("MB/s", "unshared", "p50") if key in ours)
    return f"{ours[key] / theirs[key]:.2f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Prints a kept result as a table.")
    parser.add_argument("file", type=Path)
    print(markdown(json.loads(parser.parse_args().file.read_text())))
