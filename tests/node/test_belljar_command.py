"""The `belljar` command in front of real sandboxes: what the fake engine cannot show."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.api.sdk.belljar_command import BELLJAR, Command
from tests.api.sdk.terminal import Terminal

pytestmark = pytest.mark.node

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    """A state directory of this module; at the end nothing of it may be left on the host."""
    with tempfile.TemporaryDirectory(prefix="belljar-tests-") as folder:
        search = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        state = dict(os.environ) | {"BELLJAR_HOME": f"{folder}/state", "PYTHONPATH": search, "BELLJAR_IDLE_EXIT": "10m"}
        for name in ("BELLJAR_URL", "BELLJAR_API_KEY", "BELLJAR_ENGINE"):
            state.pop(name, None)
        yield state
        for words in (["down"], ["doctor", "--leaks"], ["down", "--purge", "--yes"]):
            done = subprocess.run([*BELLJAR, *words], env=state, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (words, done.stdout, done.stderr)
        assert not Path(state["BELLJAR_HOME"]).exists()


@pytest.fixture
def command(environ: dict[str, str], tmp_path: Path) -> Command:
    return Command(environ, tmp_path)


@pytest.fixture
def shell(command: Command) -> Iterator[Terminal]:
    command("sandbox", "create", "--name", "shell")
    with command.terminal("sandbox", "shell", "shell") as terminal:
        terminal.type(b"PS1='re''ady> '\r")
        terminal.expect(b"ready> ", timeout=60)
        yield terminal
    command("sandbox", "rm", "--yes", "shell")


def test_a_script_runs_with_its_arguments_and_its_result_lands_here(command: Command, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "import platform, struct, sys, zlib\n"
        "print(platform.release(), sys.argv[1:])\n"
        "def chunk(kind, data):\n"
        "    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))\n"
        "rows = b''.join(b'\\0' + bytes([n, 0, 0] * 8) for n in range(8))\n"
        "with open('plot.png', 'wb') as file:\n"
        "    file.write(b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 8, 8, 8, 2, 0, 0, 0))\n"
        "               + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))\n"
        "sys.exit(3)\n"
    )
    done = command("run", "--out", "plot.png", "job.py", "--fast", "é", status=3)
    assert "gvisor" in done.stdout.decode()
    assert "['--fast', 'é']" in done.stdout.decode()
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_every_kind_of_script_runs(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("console.log('node', process.argv.slice(2))")
    assert command("run", "a.js", "x").stdout == b"node [ 'x' ]\n"
    (tmp_path / "b.sh").write_text("echo shell $1")
    assert command("run", "b.sh", "x").stdout == b"shell x\n"
    (tmp_path / "c").write_text("#!/usr/bin/env python3\nprint('shebang')")
    assert command("run", "c").stdout == b"shebang\n"


def test_binary_input_comes_through_and_so_does_a_signal(command: Command, tmp_path: Path) -> None:
    data = os.urandom(5 << 20)
    (tmp_path / "flip.py").write_text("import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])")
    assert command("run", "flip.py", input=data).stdout == data[::-1]
    command("run", "--", "sh", "-c", "kill -SEGV $$", status=139)
    command("run", "--", "nonono", status=127)


def test_the_limit_of_memory_is_said(command: Command) -> None:
    done = command("run", "--memory", "128MiB", "--", "python3", "-c", "x = bytearray(1 << 30)", status=None)
    assert done.returncode in (1, 137)
    assert b"--memory" in done.stderr or b"MemoryError" in done.stderr


def test_control_c_ends_the_run_and_its_sandbox(command: Command) -> None:
    with command.terminal("run", "--name", "interrupted", "--", "sh", "-c", "echo up; sleep 100") as terminal:
        terminal.expect(b"up\r\n", timeout=60)
        terminal.type(b"\x03")
        terminal.expect(b"interrupted: the sandbox sb[a-z0-9]+ ends")
        assert terminal.wait() == 130
    listed = json.loads(command("sandbox", "ls", "--json").stdout)
    assert "interrupted" not in [one["name"] for one in listed]


def test_the_shell_is_a_usable_terminal(shell: Terminal) -> None:
    shell.type(b"tty; stty size; echo $TERM; echo $COLUMNS\r")
    shell.expect(rb"/dev/pts/\d+\r\n25 90\r\nxterm-256color\r\n90\r\n.*ready> ")
    shell.change_size(120, 40)
    time.sleep(0.5)
    shell.type(b"stty size\r")
    shell.expect(rb"40 120\r\n.*ready> ")
    # Ctrl-C, Ctrl-Z and jobs
    shell.type(b"sleep 100\r")
    time.sleep(0.5)
    shell.type(b"\x03")
    shell.expect(b"ready> ")
    shell.type(b"sleep 100\r")
    time.sleep(0.5)
    shell.type(b"\x1a")
    shell.expect(b"Stopped.*ready> ")
    shell.type(b"kill %1; wait %1; echo killed $?\r")
    shell.expect(rb"killed 143\r\n.*ready> ")
    # colours
    shell.type(b"ls --color=always -d /etc\r")
    shell.expect(rb"\x1b\[01;34m/etc.*ready> ")
    # full-screen programs
    shell.type(b"vim -u NONE /tmp/note\r")
    shell.expect(rb"\x1b\[\?1049h.*~")
    time.sleep(0.3)
    shell.type(b"ihello\x1b:wq\r")
    shell.expect(rb"\x1b\[\?1049l.*ready> ")
    shell.type(b"cat /tmp/note\r")
    shell.expect(rb"hello\r\n.*ready> ")
    shell.type(b"seq 1 1000 | less\r")
    shell.expect(rb"38\r\n")
    time.sleep(0.3)
    shell.type(b"Gq")
    shell.expect(rb"1000.*ready> ")
    # a paste
    shell.type(b"stty -echo; cat > /tmp/paste; cksum /tmp/paste\r")
    time.sleep(1)
    for _ in range(1000):
        shell.type(b"0123456789" * 9 + b"012345678\r")
    shell.type(b"\x04")
    shell.expect(rb"1706942820 100000 /tmp/paste", timeout=60)
    shell.type(b"exit 9\r")
    assert shell.wait() == 9
    assert shell.modes_now() == shell.modes


def test_a_closed_window_hangs_up_what_runs_inside(shell: Terminal, command: Command) -> None:
    shell.type(b"sleep 4242\r")
    time.sleep(0.5)
    shell.hang_up()
    shell.process.wait(30)
    deadline = time.monotonic() + 20
    while command("sandbox", "exec", "shell", "pgrep", "-f", "^sleep 4242", status=None).returncode == 0:
        assert time.monotonic() < deadline


def test_trees_are_copied_with_their_links_and_modes(command: Command, tmp_path: Path) -> None:
    command("sandbox", "create", "--name", "copies")
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "tool").write_text("#!/bin/sh\necho tool")
    (tree / "sub" / "tool").chmod(0o755)
    (tree / "link").symlink_to("sub/tool")
    (tree / "big").write_bytes(os.urandom(20 << 20))
    command("sandbox", "cp", "tree", "copies:/srv")
    assert command("sandbox", "exec", "copies", "/srv/tree/link").stdout == b"tool\n"
    command("sandbox", "cp", "copies:/srv/tree", "back")
    assert (tmp_path / "back" / "big").read_bytes() == (tree / "big").read_bytes()
    assert (tmp_path / "back" / "link").is_symlink()
    assert os.access(tmp_path / "back" / "sub" / "tool", os.X_OK)
    command("sandbox", "exec", "copies", "ln", "-s", "/etc/passwd", "/srv/tree/evil")
    assert b"evil" in command("sandbox", "cp", "copies:/srv/tree", "evil", status=1).stderr
    command("sandbox", "rm", "--yes", "copies")
