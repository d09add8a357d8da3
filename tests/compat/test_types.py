"""The integrations' types hold against the frameworks themselves: each is checked with the packages of its own environment."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.compat.environments import ROOT, Say, environment_of

FOLDER = ROOT / "src" / "belljar" / "integrations"
SHARED = {"__init__.py", "file_commands.py", "mcp", "README.md", "__pycache__"}
"""What needs no package beside our own is checked with everything else."""
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["basedpyright"]


def frameworks() -> list[Path]:
    """Modules and packages of integrations; what is there must have an environment of the same name."""
    return sorted(path for path in FOLDER.iterdir() if path.name not in SHARED)


def test_the_check_of_everything_else_leaves_out_exactly_these() -> None:
    assert sorted(SETTINGS["exclude"]) == [str(path.relative_to(ROOT)) for path in frameworks()]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("module", frameworks(), ids=lambda path: path.stem)
def test_types_hold_against_the_framework(module: Path, tmp_path: Path, say: Say) -> None:
    environment = environment_of(Path(__file__).parent / module.stem / "requirements.txt", say)
    settings = {
        name: value for name, value in SETTINGS.items() if name not in ("venv", "venvPath", "include", "exclude")
    }
    settings |= {"include": [str(module)], "exclude": [], "extraPaths": [str(ROOT / "src")]}
    config = tmp_path / "pyrightconfig.json"
    config.write_text(json.dumps(settings))
    words = [Path(sys.executable).with_name("basedpyright"), "--level", "error", "--project", config]
    done = subprocess.run(
        [*words, "--pythonpath", environment.python], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
