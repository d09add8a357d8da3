import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_a_disk_that_is_full_fails_what_needs_room_and_harms_nothing(tmp_path: Path) -> None:
    own = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    words = [*own, sys.executable, str(Path(__file__).with_name("full.py")), str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) == 2 * 6 * 3 + 4
