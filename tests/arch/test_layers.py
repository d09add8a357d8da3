"""Imports point down. The rules are import-linter's, in pyproject.toml; here they run, and prove that they bite."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .tree import ROOT

PLANTED = {
    "a floor looks up": ("base/clock.py", "import belljar.model.errors", "Imports point down"),
    "the node knows the control plane": ("node/api.py", "import belljar.control", "Imports point down"),
    "the wire knows the node": ("wire/__init__.py", "import belljar.node.api", "Imports point down"),
    "an import hides in a function": (
        "model/errors.py",
        "def hidden() -> None:\n    import belljar.server",
        "Imports point down",
    ),
    "the SDK uses the server's parts": (
        "sdk/__init__.py",
        "import belljar.wire",
        "The SDK stands on model and base alone",
    ),
    "the server uses the SDK": (
        "server/__init__.py",
        "import belljar.sdk",
        "Only the command line and the integrations",
    ),
    "the control plane goes round the door": (
        "control/__init__.py",
        "import belljar.node.engine.api",
        "What stands above a node knows it by its door alone",
    ),
    "a front knows another front": ("front/native/__init__.py", "import belljar.front.other", "Fronts are strangers"),
    "an integration uses the SDK's inside": (
        "integrations/file_commands.py",
        "import belljar.sdk.asking",
        "Integrations use the public face alone",
    ),
    "an integration uses the server's parts": (
        "integrations/file_commands.py",
        "import belljar.node.api",
        "Integrations use the public face alone",
    ),
    "the SDK needs an integration": (
        "sdk/__init__.py",
        "import belljar.integrations.file_commands",
        "Nothing below the command line needs an integration",
    ),
    "a new floor without a place": ("attic/__init__.py", "import belljar.base", "Imports point down"),
}


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    words = [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo", root / "pyproject.toml"]
    return subprocess.run(
        words,
        cwd=root,
        env={"PYTHONPATH": str(root / "src"), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_import_points_down() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_violation_is_found(case: str, tmp_path: Path) -> None:
    file, line, rule = PLANTED[case]
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "src/belljar/front/other").mkdir(exist_ok=True)
    (tmp_path / "src/belljar/front/other/__init__.py").touch()
    target = tmp_path / "src/belljar" / file
    target.parent.mkdir(exist_ok=True)
    with target.open("a") as module:
        module.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode != 0
    broken = [said for said in done.stdout.splitlines() if " BROKEN" in said]
    assert any(rule in said for said in broken), done.stdout + done.stderr
