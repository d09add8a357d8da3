"""The examples that need nothing but Belljar itself; those of frameworks run beside their suites."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from tests.compat.environments import ROOT


@pytest.mark.node
@pytest.mark.timeout(120)
def test_the_search_by_forks_finds_a_good_way_and_shows_its_tree(
    server: dict[str, str], report_line: Callable[[str], None]
) -> None:
    started = time.monotonic()
    done = run(server, str(ROOT / "examples" / "search_tree" / "search.py"))
    report_line(f"search by forks: {time.monotonic() - started:.1f} s")
    assert done.returncode == 0, done.stderr
    *tree, _, result, answer = done.stdout.splitlines()
    scores = [float(score) for score in re.findall(r"loss (\d+\.\d+)", "\n".join(tree))]
    assert len(scores) == 16, "one sandbox to begin with, and five times three forks"
    assert len([line for line in tree if "memory snapshot" in line]) == 6
    assert len([line for line in tree if line.endswith("<- best")]) == 1
    assert f"loss {min(scores):.5f}" in result
    assert min(scores) < scores[0] / 50
    assert max(line.find("sb") for line in tree if "memory snapshot" not in line) == 9, "forks of forks of forks"
    assert re.fullmatch(r"from its snapshot: sin\(3 \* 0\.5\) = (0\.9\d+|1\.0\d+)", answer)
    left = "import belljar; print([*belljar.Sandbox.list(labels={'search': 'rates'}), *belljar.Snapshot.list()])"
    assert run(server, "-c", left).stdout.strip() == "[]"


def run(server: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    environ = os.environ | server
    return subprocess.run(
        [sys.executable, *words], env=environ, capture_output=True, text=True, timeout=100, check=False
    )
