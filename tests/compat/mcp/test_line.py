"""The command line of `belljar mcp`, which needs no server yet."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.api.sdk.belljar_command import BELLJAR


def belljar(*words: str, status: int = 0, **environ: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [*BELLJAR, "mcp", *words],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, (done.stdout, done.stderr)
    return done


def test_help_names_each_option_and_shows_examples() -> None:
    said = belljar("--help").stdout
    for word in ("--network", "--memory", "--idle", "--lifetime", "--max-sandboxes", "--all-sandboxes", "--http"):
        assert word in said
    assert "belljar mcp --print-config claude" in " ".join(said.split())


@pytest.mark.parametrize(("client", "top"), [("claude", "mcpServers"), ("cursor", "mcpServers"), ("vscode", "servers")])
def test_a_configuration_has_this_command_line_and_where_the_server_is(client: str, top: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("belljar"), "mcp", "--network", "none", "--print-config", client, "--idle=5m"],
        env={"PATH": "/usr/bin:/bin", "BELLJAR_HOME": "/srv/jar", "SECRET": "hush"},
        capture_output=True,
        text=True,
        check=True,
    )
    entry = json.loads(done.stdout)[top]["belljar"]
    assert entry["args"] == ["mcp", "--network", "none", "--idle=5m"]
    assert entry["env"] == {"BELLJAR_HOME": "/srv/jar"}
    assert Path(entry["command"]).is_absolute()
    assert ("type" in entry) == (client == "vscode")


def test_a_missing_package_is_said_with_what_to_install() -> None:
    code = "import sys; sys.modules['mcp'] = None; from belljar.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "mcp"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'belljar[mcp]'" in done.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--memory", "lots"], 2, "size"),
        (["--idle", "soon"], 2, "duration"),
        (["--network", "everything"], 1, "network is open or none"),
        (["--max-sandboxes", "0"], 1, "between 1 and 1000"),
        (["--output", "5"], 1, "output"),
        (["--timeout", "3d"], 1, "timeout"),
        (["--idle", "0s"], 1, "idle"),
        (["--http", "--tls-cert", "x", "--token-env", "T"], 1, "--tls-key"),
        (["--http", "--token-env", "NOT_SET"], 1, "NOT_SET"),
        (["--http", "--token-env", "T", "--token-file", "x"], 2, "not both"),
        (["--http", "--port", "99999"], 2, "port"),
        (["--print-config", "emacs"], 2, "emacs"),
        (["--nosuch"], 2, "nosuch"),
    ],
)
def test_what_cannot_be_set_is_said(words: list[str], status: int, said: str) -> None:
    done = belljar(*words, status=status, T="0123456789abcdef")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
