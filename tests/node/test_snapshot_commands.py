"""Snapshots, forks and templates from the command line and the SDK, in front of real sandboxes."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.api.sdk.belljar_command import BELLJAR, Command

import belljar
from belljar.base.home import read_server_file

pytestmark = pytest.mark.node

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    """A state directory of this module; at the end nothing of it may be left on the host."""
    with tempfile.TemporaryDirectory(prefix="belljar-tests-") as folder, pytest.MonkeyPatch.context() as patch:
        search = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        own = {"BELLJAR_HOME": f"{folder}/state", "PYTHONPATH": search, "BELLJAR_IDLE_EXIT": "10m"}
        for name, value in own.items():
            patch.setenv(name, value)
        for name in ("BELLJAR_URL", "BELLJAR_API_KEY", "BELLJAR_ENGINE"):
            patch.delenv(name, raising=False)
        state = dict(os.environ)
        yield state
        for words in (["down"], ["doctor", "--leaks"], ["down", "--purge", "--yes"]):
            done = subprocess.run([*BELLJAR, *words], env=state, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (words, done.stdout, done.stderr)
        assert not Path(state["BELLJAR_HOME"]).exists()


@pytest.fixture
def command(environ: dict[str, str], tmp_path: Path) -> Command:
    return Command(environ, tmp_path)


def said(command: Command, *words: str) -> str:
    return command(*words).stdout.decode().strip()


def left() -> tuple[list[belljar.Template], list[belljar.Sandbox]]:
    return belljar.Template.list(), list(belljar.Sandbox.list())


def run(box: str, line: str) -> str:
    return belljar.Sandbox.get(box).run(line, check=True).stdout.strip()


def beats(box: str) -> bool:
    return len(set(run(box, "cat /root/beat; sleep 0.5; cat /root/beat").split())) == 2


def test_a_sandbox_is_kept_forked_and_taken_back(command: Command) -> None:
    command("sandbox", "create", "-i", "base", "--name", "origin", "--env", "WHO=origin")
    heart = "while :; do date +%s%N > /root/.beat; mv /root/.beat /root/beat; sleep 0.1; done"
    run("origin", f"echo 1 > /root/x; (echo > /root/beat; {heart}) > /dev/null 2>&1 &")
    command("snapshot", "create", "origin", "moment", "--memory")
    children = said(command, "sandbox", "fork", "origin", "-n", "2", "--name", "kid", "-e", "WHO=kid").split()
    assert len(children) == 2
    for name in ("kid-1", "kid-2"):
        assert run(name, "hostname; echo $WHO; cat /root/x").split() == [name, "kid", "1"]
        assert beats(name)
    run("origin", "echo 2 > /root/x")
    command("sandbox", "rollback", "origin", "moment", "--yes")
    assert run("origin", "hostname; echo $WHO; cat /root/x").split() == ["origin", "origin", "1"]
    assert beats("origin")
    (tree,) = json.loads(command("snapshot", "tree", "origin", "--json").stdout)
    assert [child["name"] for child in tree["children"]] == ["moment", "kid-1", "kid-2"]
    assert said(command, "run", "--snapshot", "moment", "--", "cat", "/root/x") == "1"
    command("sandbox", "rm", "origin", "kid-1", "kid-2", "--yes")
    command("snapshot", "rm", "moment", "--yes")


@pytest.mark.parametrize(
    ("ready", "line", "look"),
    [
        (
            belljar.Ready(port=8000),
            "exec python3 -m http.server 8000 --bind ::",
            "exec 3<>/dev/tcp/localhost/8000",
        ),
        (
            belljar.Ready(url="http://localhost:8000/"),
            "exec python3 -m http.server 8000",
            "curl -sf -o /dev/null localhost:8000",
        ),
        (
            belljar.Ready(file="/run/ready"),
            "sleep 0.3; touch /run/ready; exec sleep 1000",
            "pgrep -x sleep > /dev/null",
        ),
        (belljar.Ready(process="sleep"), "exec sleep 1000", "pgrep -x sleep > /dev/null"),
        (
            belljar.Ready(command="test -e /run/ready"),
            "sleep 0.3; touch /run/ready; exec sleep 1000",
            "test -e /run/ready",
        ),
        (None, "echo made > /run/ready", "test -e /run/ready"),
    ],
    ids=["port", "url", "file", "process", "command", "its-own-end"],
)
def test_a_template_goes_on_with_what_ran_in_it(
    environ: dict[str, str], ready: belljar.Ready | None, line: str, look: str
) -> None:
    made = belljar.Template.create("made", image="base", command=line, ready=ready)
    with belljar.Sandbox.create(made) as box:
        box.run(["bash", "-c", look], check=True)
    made.delete()
    assert list(belljar.Snapshot.list()) == []


def test_a_template_is_made_listed_run_and_removed_by_commands(command: Command) -> None:
    words = ("-i", "base", "--port", "8000", "--", "python3", "-m", "http.server", "8000")
    assert said(command, "template", "create", "web", *words) == "web"
    assert said(command, "template", "ls").split("\t")[:3] == ["web", "base", "exec python3 -m http.server 8000"]
    command("run", "-i", "web", "--", "curl", "-sf", "-o", "/dev/null", "localhost:8000")
    command("template", "rm", "web", "--yes")


def test_one_that_does_not_become_ready_shows_the_last_words_and_leaves_nothing(command: Command) -> None:
    words = ("-i", "base", "--port", "1", "--timeout", "2s", "--run", "echo no config found >&2; exec sleep 1000")
    failed = command("template", "create", "late", *words, status=1).stderr.decode()
    assert "no port 1 within 2 s" in failed
    assert "no config found" in failed
    assert left() == ([], [])


def test_ctrl_c_gives_a_template_up(command: Command) -> None:
    making = command.start("template", "create", "never", "-i", "base", "--port", "1", "--run", "exec sleep 1000")
    _wait_for("waiting for port 1")
    making.send_signal(signal.SIGINT)
    _, stderr = making.communicate(timeout=30)
    assert making.returncode == 130
    assert b"giving up template never" in stderr
    assert left() == ([], [])


def test_one_that_its_server_did_not_survive_leaves_nothing(command: Command, environ: dict[str, str]) -> None:
    making = command.start("template", "create", "killed", "-i", "base", "--port", "1", "--run", "exec sleep 1000")
    _wait_for("waiting for port 1")
    server = read_server_file(Path(environ["BELLJAR_HOME"]))
    assert server is not None
    making.kill()
    making.communicate()
    os.kill(server.pid, signal.SIGKILL)
    assert left() == ([], [])


def _wait_for(step: str) -> None:
    deadline = time.monotonic() + 60
    while step not in [one.last_info.step for one in belljar.Template.list()]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
