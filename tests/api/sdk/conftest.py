"""A state directory whose embedded server the SDK starts by itself, and what the tests do with the `belljar` command."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.api.sdk.belljar_command import BELLJAR, Command

import belljar
from belljar.base.home import read_server_file

__all__ = ("command", "home", "sandbox")

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="package")
def home() -> Iterator[Path]:
    """Shared by these tests alone (what it sets would make the tests in real sandboxes run on the host): starting a server
    takes a second or two."""
    with tempfile.TemporaryDirectory(prefix="bj-cli-") as folder, pytest.MonkeyPatch.context() as patch:
        state = Path(folder) / "state"
        for name, value in {
            "BELLJAR_HOME": str(state),
            "BELLJAR_ENGINE": "fake",
            "BELLJAR_DISK_RESERVE": "1MiB",
            "BELLJAR_MEMORY_RESERVE": "1MiB",
            "BELLJAR_IDLE_EXIT": "10m",
        }.items():
            patch.setenv(name, value)
        patch.delenv("BELLJAR_URL", raising=False)
        patch.delenv("BELLJAR_API_KEY", raising=False)
        search = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        patch.setenv("PYTHONPATH", search)
        yield state
        done = subprocess.run([*BELLJAR, "down", "--purge", "--yes"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not state.exists()
        assert read_server_file(state) is None


@pytest.fixture
def command(home: Path, tmp_path: Path) -> Command:
    return Command(dict(os.environ), tmp_path)


@pytest.fixture
def sandbox(home: Path) -> Iterator[belljar.Sandbox]:
    with belljar.Sandbox.create() as made:
        yield made
