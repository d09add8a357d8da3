"""Belljar beside plain runsc and beside the `gvisor` package, in one run on one machine. See README.md."""

import argparse
import asyncio
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from belljar.base.home import cache_home
from belljar.node.progress import PlainProgress
from belljar.node.setup import set_up
from gvisor_package import VERSION, measure_package
from plain_runsc import measure_runsc
from report import markdown
from through_belljar import measure_belljar

__all__ = ("machine", "main")

RESULTS = Path(__file__).with_name("results")
Side = dict[str, object]


def main() -> None:
    options = _options()
    if os.geteuid() != 0:
        sys.exit("bench/compare.py makes sandboxes directly: run it as root")
    home = Path(tempfile.mkdtemp(prefix="belljar-bench-"))
    made = asyncio.run(set_up(home / "plain", PlainProgress()))  # Belljar purges its own at the end
    runsc, image = made.engine.folder / "runsc", made.images.get("base").path
    blob = Path("/dev/shm") / f"belljar-bench-{os.getpid()}.bin"
    blob.write_bytes(os.urandom(100_000_000))
    sides: dict[str, Callable[[], Side]] = {
        "belljar": lambda: measure_belljar(home / "belljar", options.rounds, blob),
        "runsc": lambda: measure_runsc(runsc, image, options.rounds, blob),
        "gvisor package": lambda: measure_package(runsc, cache_home(), options.rounds),
    }
    found: dict[str, Side] = {}
    try:
        for name, measure in sides.items():
            if options.only and name not in options.only:
                continue
            print(f"measuring {name} …", file=sys.stderr)
            started = time.monotonic()
            found[name] = measure()
            print(f"  {time.monotonic() - started:.0f} s", file=sys.stderr)
    finally:
        shutil.rmtree(home, ignore_errors=True)
        blob.unlink()
        blob.with_suffix(".back").unlink(missing_ok=True)
    result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rounds": options.rounds,
        **found,
    }
    target = options.output or RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(markdown(result))
    print(f"written to {target}", file=sys.stderr)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="creates of each kind; execs are three times as many")
    parser.add_argument("--only", action="append", choices=["belljar", "runsc", "gvisor package"])
    parser.add_argument("--output", type=Path, help="a JSON file; default: a new one in bench/results/")
    return parser.parse_args()


def machine() -> dict[str, object]:
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": os.cpu_count(),
        "memory GiB": round(int(memory) / 2**20),
        "kernel": platform.release(),
        "kvm": Path("/dev/kvm").exists(),
        "python": platform.python_version(),
        "gvisor package": VERSION,
    }


if __name__ == "__main__":
    main()
