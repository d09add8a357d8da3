"""A server with real sandboxes is backed up while it works, and restored beside itself: what it kept starts there."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.api.sdk.belljar_command import BELLJAR, Command

pytestmark = pytest.mark.node

ROOT = Path(__file__).parents[2]


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[tuple[Command, Command]]:
    """The old server's and the restored one's; at the end nothing of either may be left on the host."""
    search = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    own = {
        name: value for name, value in os.environ.items() if not name.startswith("BELLJAR_") or name == "BELLJAR_CACHE"
    }
    own |= {"PYTHONPATH": search, "BELLJAR_POOL": "0", "BELLJAR_IDLE_EXIT": "10m"}
    with tempfile.TemporaryDirectory(prefix="belljar-tests-") as folder:
        environs = [own | {"BELLJAR_HOME": f"{folder}/{name}"} for name in ("old", "new")]
        yield Command(environs[0], tmp_path), Command(environs[1], tmp_path)
        for environ in environs:
            for words in (["down"], ["doctor", "--leaks"], ["down", "--purge", "--yes"]):
                done = subprocess.run([*BELLJAR, *words], env=environ, capture_output=True, text=True, check=False)
                assert done.returncode == 0, (words, done.stdout, done.stderr)
            assert not Path(environ["BELLJAR_HOME"]).exists()


def said(command: Command, *words: str) -> str:
    return command(*words).stdout.decode().strip()


def test_what_was_kept_starts_on_the_restored_server_beside_the_old_one(homes: tuple[Command, Command]) -> None:
    old, new = homes
    old("sandbox", "create", "-i", "base", "--memory", "256MiB", "--disk", "1GiB", "--name", "origin")
    beat = "while :; do date +%s%N > /root/.beat; mv /root/.beat /root/beat; sleep 0.1; done"
    old(
        "sandbox",
        "exec",
        "origin",
        "--",
        "sh",
        "-c",
        f"echo kept > /root/x; (echo > /root/beat; {beat}) > /dev/null 2>&1 &",
    )
    old("snapshot", "create", "origin", "moment", "--memory")
    old("snapshot", "create", "origin", "files")
    old("template", "create", "ready", "--image", "base", "--memory", "256MiB", "--run", "echo made > /root/made")
    file = str(old.cwd / "belljar.tar.zst")
    made = json.loads(said(old, "backup", file, "--json"))
    assert made["left_out"] == {}
    done = json.loads(said(new, "restore", file, "--home", new.environ["BELLJAR_HOME"], "--json"))
    assert (done["found"]["snapshots"], done["found"]["templates"], done["found"]["lost"]) == (3, 1, 1)
    # Both are at work on one machine, each under its own name.
    assert said(new, "run", "--snapshot", "files", "--", "cat", "/root/x") == "kept"
    assert said(new, "run", "--image", "ready", "--", "cat", "/root/made") == "made"
    new("sandbox", "create", "--snapshot", "moment", "--name", "again")
    beats = "cat /root/x; cat /root/beat; sleep 0.5; cat /root/beat"
    for command, name in ((new, "again"), (old, "origin")):
        kept, *times = said(command, "sandbox", "exec", name, "--", "sh", "-c", beats).split()
        assert kept == "kept"
        assert len(set(times)) == 2, "what ran when the snapshot was taken goes on"
    lost = new("sandbox", "show", "origin", status=1).stderr.decode()
    assert "lost at" in lost
    assert "a backup has snapshots, not running sandboxes" in lost
    assert json.loads(said(old, "sandbox", "show", "origin", "--json"))["status"] == "running"
    names = {(Path(one.environ["BELLJAR_HOME"]) / "instance").read_text() for one in homes}
    assert len(names) == 2
