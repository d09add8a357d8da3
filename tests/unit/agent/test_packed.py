"""The agent as one file, as the guest runtime carries it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    shutil.copyfile(ROOT / "agent/start.py", folder / "start.py")
    packages = [f"belljar_agent={ROOT / 'agent/belljar_agent'}", f"belljar.wire={ROOT / 'src/belljar/wire'}"]
    words = [
        sys.executable,
        "-S",
        "-E",
        "-s",
        "-B",
        str(ROOT / "agent/pack.py"),
        str(folder / "modules.bin"),
        *packages,
    ]
    subprocess.run(words, check=True)
    return folder


def test_the_packed_agent_works_alone(bundle, agent_of):
    words = [sys.executable, "-S", "-E", "-s", "-B", str(bundle / "start.py")]
    client = agent_of(words).connect()
    assert client.run("/bin/echo", "packed")[1] == b"packed\n"
    assert client.ask("stat", path="/", follow=True)["kind"] == "directory"


def test_the_packed_agent_imports_little(bundle):
    """Each of these costs milliseconds at every start."""
    script = "import start, sys; import belljar_agent.service; print(*sys.modules)"
    words = [sys.executable, "-S", "-E", "-s", "-B", "-c", script]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=bundle)
    heavy = {
        "json",
        "re",
        "enum",
        "typing",
        "collections",
        "functools",
        "dataclasses",
        "asyncio",
        "subprocess",
        "ctypes",
    }
    heavy |= {"signal", "socket", "contextlib", "pathlib", "inspect", "logging", "traceback", "belljar_agent.files"}
    assert heavy.isdisjoint(done.stdout.split())
