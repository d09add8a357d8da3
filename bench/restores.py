"""Everything that starts is a restore: Belljar's creates, snapshots, restores and forks beside plain runsc and Ray, in one run.

See README.md. Ends with status 1 when a candidate failed where it should not.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from belljar.base.home import cache_home
from belljar.model.errors import Error
from belljar.node.progress import PlainProgress
from belljar.node.setup import Installation, set_up
from belljar_side import belljar_side
from compare import machine
from erofs_tools import erofs_tools
from plain_side import OWN, STOCK, plain_side
from ray_side import VERSION, ray_side
from restores_report import markdown
from rounds import Found, Side, measure
from stock_runsc import stock_runsc

__all__ = ("main",)

SIDES = ("belljar", "stock", "own", "ray")
PLAN = {
    "hit": 30,
    "echo": 15,
    "node": 10,
    "odd": 8,
    "exec": 60,
    "code": 12,
    "memory": 8,
    "files": 3,
    "grown": 3,
    "fork": 3,
    "disk 0.1": 2,
    "disk 1": 1,
    "burst": 2,
    "idle": 2,
    "disk 4": 1,
}
QUICK = {
    "hit": 5,
    "echo": 3,
    "exec": 10,
    "code": 2,
    "memory": 2,
    "files": 1,
    "fork": 1,
    "disk 0.1": 1,
    "burst": 1,
    "idle": 1,
}


def main() -> int:
    options = _options()
    if os.geteuid() != 0:
        sys.exit("bench/restores.py makes sandboxes directly: run it as root")
    plan = dict(QUICK if options.quick else PLAN)
    if options.case:
        plan = {case: rounds for case, rounds in PLAN.items() if case in options.case}
    if options.rounds:
        plan = dict.fromkeys(plan, options.rounds)
    # Not in /tmp, which may be memory: what sandboxes write has to go to the disk.
    with tempfile.TemporaryDirectory(prefix="belljar-bench-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        result = _run(Path(folder), plan, options.only or SIDES)
    text = json.dumps(result, indent=1) + "\n"
    if options.output:
        options.output.write_text(text)
    print(text if options.json else markdown(result))
    return int(any(result["failed"].values()))


def _run(folder: Path, plan: Mapping[str, int], wanted: tuple[str, ...]) -> dict[str, Any]:
    cache = cache_home()
    made = asyncio.run(set_up(folder / "plain", PlainProgress()))
    versions = {"ray": VERSION, "engine": made.engine.version}
    missing: dict[str, str] = {}
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        sides: list[Side] = []
        for name in wanted:
            try:
                sides.append(stack.enter_context(_side(name, made, cache, folder)))
            except (Error, OSError, subprocess.CalledProcessError, RuntimeError) as error:
                missing[name] = f"{type(error).__name__}: {error}"
                print(f"no {name}: {missing[name]}", file=sys.stderr)
        found = measure(sides, plan)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine() | {"load before": load} | versions,
        "plan": dict(plan),
        "rows": _summary(found),
        "absent": found.absent,
        "failed": found.failed | {name: {"all": why} for name, why in missing.items()},
    }


def _side(name: str, made: Installation, cache: Path, folder: Path) -> Any:
    image = made.images.get("base").path
    match name:
        case "belljar":
            return belljar_side(folder / "home")
        case "stock":
            return plain_side(STOCK, asyncio.run(stock_runsc(cache)), image, folder)
        case "own":
            return plain_side(OWN, made.engine.runsc, image, folder)
        case _:
            runsc, tools = asyncio.run(stock_runsc(cache)), asyncio.run(erofs_tools(cache))
            return ray_side("Ray", runsc, tools, image, cache)


def _summary(found: Found) -> dict[str, dict[str, dict[str, float]]]:
    """Side → row → numbers, as measured: seconds, or what the row's unit is."""
    return {
        side: {
            row: {
                "p50": statistics.median(values),
                # The nearest rank: of fewer than 100 values it is the largest.
                "p99": sorted(values)[min(len(values) - 1, int(len(values) * 0.99))],
                "min": min(values),
                "n": len(values),
            }
            for row, values in rows.items()
        }
        for side, rows in found.values.items()
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds and no big disks: a look, not a result")
    parser.add_argument("--json", action="store_true", help="the result as JSON instead of a table")
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    parser.add_argument("--only", action="append", choices=SIDES, help="candidates; default: all")
    parser.add_argument("--case", action="append", choices=PLAN, help="groups of rows; default: all")
    parser.add_argument("--rounds", type=int, help="as many samples of each instead")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
