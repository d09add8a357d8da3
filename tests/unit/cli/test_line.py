"""The command line itself: help, errors, statuses, and how long it takes to start."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from belljar.cli.main import app

BELLJAR = [sys.executable, "-c", "from belljar.cli.main import main; main()"]


def belljar(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*BELLJAR, *words], capture_output=True, text=True, check=False, timeout=30)


def commands() -> list[list[str]]:
    top = typer.main.get_command(app)
    found: list[list[str]] = []
    for name, command in top.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found += [[name, other] for other in inner] if inner else [[name]]
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_each_command_says_what_it_does_and_shows_an_example(words: list[str]) -> None:
    done = CliRunner().invoke(app, [*words, "--help"])
    assert done.exit_code == 0
    assert "Example" in done.output
    assert f"belljar {' '.join(words)}" in " ".join(done.output.split())


def test_all_the_commands_that_are_promised_are_there() -> None:
    said = {" ".join(words) for words in commands()}
    sandbox = (
        "create",
        "ls",
        "show",
        "update",
        "pause",
        "standby",
        "stop",
        "resume",
        "exec",
        "shell",
        "cp",
        "logs",
        "stats",
        "fork",
        "rollback",
        "mount",
        "unmount",
        "rm",
    )
    snapshot = ("create", "ls", "show", "tree", "diff", "export", "import", "rm")
    template, key = ("create", "ls", "show", "rm"), ("create", "ls", "revoke")
    workspace = ("create", "ls", "show", "set", "rm")
    groups = {"sandbox": sandbox, "snapshot": snapshot, "template": template, "key": key, "workspace": workspace}
    groups["audit"] = ("ls", "export", "verify")
    grouped = {f"{group} {verb}" for group, verbs in groups.items() for verb in verbs}
    assert said == {
        "run",
        "serve",
        "down",
        "backup",
        "restore",
        "mcp",
        "setup",
        "doctor",
        "usage",
        "events",
        "env",
        *grouped,
    }


def test_help_starts_fast_and_loads_no_client_and_no_server() -> None:
    code = (
        "import sys; sys.argv = ['belljar', '--help']\n"
        "from belljar.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'httpx2', 'fastapi', 'pydantic', 'rich', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = done.stdout.strip().splitlines()[-1]
    assert heavy == "['asyncio']" or heavy == "[]"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sandbx", "ls"], "belljar sandbox ls"),
        (["sandbox", "crate"], "belljar sandbox create"),
        (["run", "--imag", "x", "--", "ls"], "belljar run --image x -- ls"),
        (["sandbox", "create", "--memmory=2 GiB"], "belljar sandbox create '--memory=2 GiB'"),
        (["sandbox", "ls", "--jsn"], "belljar sandbox ls --json"),
        (["--vesion"], "belljar --version"),
        (["--show-completion", "zhs"], "belljar --show-completion zsh"),
        (["--install-completion", "tcsh"], "bash, fish, zsh"),
        (["run", "no/such/file"], "belljar run -- no/such/file"),
        (["run", "--memory", "lots", "--", "ls"], "not a size"),
        (["sandbox", "cp", "a", "b"], "belljar sandbox cp a SANDBOX:b"),
        (["sandbox", "rm"], "--all"),
        (["doctor", "--leaks", "--engine"], "belljar doctor --leaks"),
        (["sandbox", "show"], "--help"),
    ],
)
def test_a_line_that_cannot_be_understood_is_status_2_with_what_helps(words: list[str], said: str) -> None:
    done = belljar(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("belljar: ")
    assert said in done.stderr


@pytest.mark.parametrize("words", [words for words in commands() if words[-1] == "ls"], ids=" ".join)
def test_each_list_can_be_had_as_json_and_as_ids_alone(words: list[str]) -> None:
    said = CliRunner().invoke(app, [*words, "--help"]).output
    assert "--json" in said
    assert "-q, --quiet" in said


FILES = {
    "bash": ".bash_completions/belljar.sh",
    "fish": ".config/fish/completions/belljar.fish",
    "zsh": ".zfunc/_belljar",
}


@pytest.mark.parametrize("shell", FILES)
def test_completion_is_shown_and_installed_for_the_shell_that_is_named(shell: str, tmp_path: Path) -> None:
    shown = belljar("--show-completion", shell)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"complete_{shell}" in shown.stdout
    environ = os.environ | {"HOME": str(tmp_path)}
    for _ in range(2):  # the second time nothing is added
        done = subprocess.run(
            [*BELLJAR, "--install-completion", shell], env=environ, capture_output=True, text=True, check=True
        )
        assert FILES[shell] in done.stderr
        assert (tmp_path / FILES[shell]).read_text().strip() == shown.stdout.strip()
    for start in tmp_path.glob(".*rc"):
        assert start.read_text().count(".zfunc" if shell == "zsh" else FILES[shell]) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("belljar sand", ["sandbox"]),
        ("belljar sandbox c", ["cp", "create"]),
        ("belljar sandbox create --mem", ["--memory"]),
        ("belljar key ", ["create", "ls", "revoke"]),
        ("belljar nothing sand", ["sandbox"]),
    ],
)
def test_each_shell_is_told_how_a_line_may_go_on(line: str, said: list[str], tmp_path: Path) -> None:
    """bash itself is asked; the others by what their scripts ask."""
    program = tmp_path / "belljar"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(BELLJAR)} "$@"\n')
    program.chmod(0o755)
    words = line.split(" ")
    script = (
        f"{belljar('--show-completion', 'bash').stdout}\nCOMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}\n"
        '_belljar_completion belljar; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == said
    assert done.stderr == ""
    for shell in ("fish", "zsh"):
        asked = {"_BELLJAR_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line}
        asked |= {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        done = subprocess.run(BELLJAR, env=os.environ | asked, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert all(word in done.stdout for word in said)


def test_without_a_command_the_help_is_shown() -> None:
    done = belljar()
    assert done.returncode == 2
    assert "Commands:" in done.stderr


def test_the_version_is_said() -> None:
    assert belljar("--version").stdout.strip()


def test_no_server_is_an_error_with_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BELLJAR_URL", "http://127.0.0.1:9")
    started = time.monotonic()
    done = belljar("sandbox", "ls")
    assert done.returncode == 1
    assert "BELLJAR_URL" in done.stderr
    assert "belljar serve" in done.stderr
    assert time.monotonic() - started < 10
