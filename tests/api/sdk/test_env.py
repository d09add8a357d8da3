"""`belljar env`: variables that a shell takes, and a server that listens where they point, from a state directory of its own."""

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.api.sdk.belljar_command import BELLJAR, Command

from belljar.base.home import read_server_file


@pytest.fixture
def alone(home: Path, tmp_path: Path) -> Iterator[Command]:
    """On a state directory of its own: the server stays once it listens. `home`: for what it sets besides."""
    with tempfile.TemporaryDirectory(prefix="bj-env-") as folder:
        state = Path(folder) / "state"
        environ = dict(os.environ) | {"BELLJAR_HOME": str(state), "BELLJAR_IDLE_EXIT": "1s", "BELLJAR_PORT": "0"}
        yield Command(environ, tmp_path)
        done = subprocess.run([*BELLJAR, "down", "--purge", "--yes"], env=environ, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def exports(lines: bytes) -> dict[str, str]:
    """As a shell reads them."""
    script = lines.decode() + "\nenv -0"
    done = subprocess.run(["/bin/sh", "-eu", "-c", script], env={}, capture_output=True, check=True)
    found = dict(pair.split("=", 1) for pair in done.stdout.decode().split("\0") if pair)
    return {name: value for name, value in found.items() if name not in ("PWD", "SHLVL", "_", "OLDPWD")}


def test_a_shell_that_takes_the_lines_reaches_the_server_over_tcp(alone: Command) -> None:
    done = alone("env", "native")
    said = exports(done.stdout)
    assert set(said) == {"BELLJAR_URL", "BELLJAR_API_KEY"}
    assert said["BELLJAR_URL"].startswith("http://127.0.0.1:")
    assert b"stays until: belljar down" in done.stderr
    made = alone("sandbox", "create", "--name", "there").stdout.decode().strip()
    nowhere = said | {"BELLJAR_HOME": "/nowhere"}
    assert alone("sandbox", "ls", "-q", **nowhere).stdout.decode().split() == [made]
    alone("sandbox", "rm", "there", "--yes", **nowhere)


def test_the_second_time_nothing_is_opened_and_json_says_the_same(alone: Command) -> None:
    first = exports(alone("env", "native").stdout)
    again = alone("env", "native", "--json")
    assert json.loads(again.stdout) == first
    assert again.stderr == b""
    server = read_server_file(Path(alone.environ["BELLJAR_HOME"]))
    assert server is not None
    assert (server.url, server.embedded) == (first["BELLJAR_URL"], True)


def test_a_server_that_listens_does_not_leave_when_it_is_idle(alone: Command) -> None:
    said = exports(alone("env", "native").stdout)
    pid = read_server_file(Path(alone.environ["BELLJAR_HOME"]))
    assert pid is not None
    subprocess.run(["sleep", "4"], check=True)  # four times as long as an idle one stays
    assert alone("sandbox", "ls", "--json", **said).stdout.strip() == b"[]"
    assert read_server_file(Path(alone.environ["BELLJAR_HOME"])) == pid


def test_a_server_that_is_named_is_only_told(command: Command) -> None:
    named = {"BELLJAR_URL": "https://x.example/", "BELLJAR_API_KEY": "a'b $(c)\\", "SSL_CERT_FILE": "/c a.pem"}
    assert exports(command("env", "native", **named).stdout) == named | {"BELLJAR_URL": "https://x.example"}
    assert b"BELLJAR_API_KEY is not" in command("env", "native", status=1, BELLJAR_URL="http://x.example").stderr


def test_a_key_that_may_not_be_read_is_told_with_what_helps(alone: Command) -> None:
    alone("env", "native")
    file = Path(alone.environ["BELLJAR_HOME"]) / "key"
    file.unlink()
    assert b"belljar key create" in alone("env", "native", status=1).stderr
    assert exports(alone("env", "native", BELLJAR_API_KEY="mine").stdout)["BELLJAR_API_KEY"] == "mine"


def test_unset_takes_all_of_them_away_and_asks_nobody(command: Command) -> None:
    lines = command("env", "native", "--unset", BELLJAR_URL="http://127.0.0.1:1").stdout.decode().splitlines()
    assert [shlex.split(line)[0] for line in lines] == ["unset"] * 3
    assert json.loads(command("env", "native", "--unset", "--json").stdout) == [
        "BELLJAR_URL",
        "BELLJAR_API_KEY",
        "SSL_CERT_FILE",
    ]


@pytest.mark.parametrize("word", ["nativ", "nothing", "", "../x"])
def test_a_vendor_that_is_none_is_told_with_those_that_are(command: Command, word: str) -> None:
    done = command("env", word, status=2)
    assert b"native" in done.stderr
    assert done.stdout == b""
