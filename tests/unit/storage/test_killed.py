import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("stride", "times"),
    [pytest.param(9, 8, id="some steps"), pytest.param(1, 100, id="every step", marks=pytest.mark.long)],
)
@pytest.mark.timeout(300)
def test_whenever_a_store_is_killed_the_next_one_has_what_was_acknowledged_and_nothing_else(
    tmp_path: Path, stride: int, times: int, report_line: Callable[[str], None]
) -> None:
    # In a namespace of its own: what a killed one has mounted goes with it.
    own = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    words = [*own, sys.executable, str(Path(__file__).with_name("killed.py")), str(tmp_path), str(stride), str(times)]
    done = subprocess.run(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    kills, runs = map(int, done.stdout.split()[-2:])
    assert kills > 2 * times * 0.5 + 150 / stride
    report_line(f"a snapshot store was killed {kills} times in {runs} runs: nothing acknowledged was lost")
