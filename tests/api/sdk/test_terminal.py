"""`belljar sandbox shell`, `exec -t` and Ctrl-C, with a real terminal in front."""

import contextlib
import signal
import time
from collections.abc import Iterator

import pytest
from tests.api.sdk.belljar_command import Command
from tests.api.sdk.terminal import Terminal

import belljar


@pytest.fixture
def shell(command: Command, sandbox: belljar.Sandbox) -> Iterator[Terminal]:
    """A plain shell with a prompt that cannot be mistaken."""
    with command.terminal("sandbox", "exec", "-t", "-e", "PS1=ready> ", sandbox.id, "/bin/sh") as terminal:
        terminal.expect(b"ready> ")
        yield terminal


def test_a_login_shell_answers_and_its_status_comes_through(command: Command, sandbox: belljar.Sandbox) -> None:
    with command.terminal("sandbox", "shell", sandbox.id) as terminal:
        before = terminal.modes
        terminal.type(b"PS1='re''ady> '\r")
        terminal.expect(b"ready> ")
        terminal.type(b"echo $((6*7)) $TERM\r")
        terminal.expect(rb"42 xterm-256color\r\n")
        assert terminal.modes_now() != before
        terminal.type(b"exit 7\r")
        assert terminal.wait() == 7
        assert terminal.modes_now() == before


def test_the_size_is_that_of_the_window_and_follows_it(shell: Terminal) -> None:
    shell.type(b"stty size\r")
    shell.expect(rb"25 90\r\n")
    shell.change_size(120, 40)
    deadline = time.monotonic() + 20
    while True:
        shell.type(b"stty size\r")
        if shell.expect(rb"(\d+ \d+)\r\n")[1] == b"40 120":  # the shell may draw its prompt again before
            break
        assert time.monotonic() < deadline


def test_a_window_that_is_dragged_stops_nothing(shell: Terminal) -> None:
    for step in range(400):
        shell.change_size(90 + step % 7, 25)
    shell.type(b"echo st''ill\r")
    shell.expect(b"still")


def test_control_c_interrupts_what_runs_inside_and_not_the_shell(shell: Terminal) -> None:
    shell.type(b"sleep 100\r")
    time.sleep(0.3)
    shell.type(b"\x03")
    shell.expect(b"ready> ")
    shell.type(b"echo st''ill\r")
    shell.expect(b"still")


def test_a_paste_of_100_kb_arrives_whole(shell: Terminal) -> None:
    line = b"0123456789" * 10 + b"\r"
    shell.type(b"stty -echo\r")
    shell.expect(b"ready> ")
    shell.type(b"head -n 1000 | cksum; echo do''ne\r")
    for _ in range(1000):
        shell.type(line)
    total = shell.expect(rb"(\d+) (\d+)\r\ndone", timeout=60)
    assert int(total[2]) == 101_000


def test_colours_come_as_they_are(shell: Terminal) -> None:
    shell.type(rb"printf '\033[31mred\033[0m\n'" + b"\r")
    shell.expect(b"\x1b\\[31mred\x1b\\[0m")


def test_enter_tilde_dot_leaves_a_shell_that_hangs(shell: Terminal) -> None:
    shell.type(b"trap '' INT; sleep 100\r")
    time.sleep(0.3)
    shell.type(b"\r")
    time.sleep(0.1)
    shell.type(b"~")
    time.sleep(0.1)
    shell.type(b".")
    assert shell.wait() == 143
    assert shell.modes_now() == shell.modes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_put_back_when_the_command_is_ended(shell: Terminal, number: int) -> None:
    shell.process.send_signal(number)
    assert shell.wait() == 128 + number
    assert shell.modes_now() == shell.modes


def test_a_closed_window_hangs_up_inside(shell: Terminal, sandbox: belljar.Sandbox) -> None:
    shell.hang_up()
    shell.process.wait(30)
    deadline = time.monotonic() + 20
    while any(one.returncode is None for one in sandbox.processes()):
        assert time.monotonic() < deadline, sandbox.processes()
        time.sleep(0.05)


def test_without_a_terminal_it_says_what_works(command: Command, sandbox: belljar.Sandbox) -> None:
    done = command("sandbox", "shell", sandbox.id, status=2)
    assert b"belljar sandbox exec" in done.stderr


def test_control_c_ends_the_run_and_its_sandbox_and_says_so(command: Command) -> None:
    with command.terminal("run", "--name", "interrupted", "--", "sh", "-c", "echo up; sleep 100") as terminal:
        terminal.expect(b"up\r\n")
        terminal.type(b"\x03")
        terminal.expect(b"interrupted: the sandbox sb[a-z0-9]+ ends")
        assert terminal.wait() == 130
    assert "interrupted" not in [one.name for one in belljar.Sandbox.list()]


def test_a_run_in_a_terminal_gets_the_lines_that_are_typed(command: Command) -> None:
    with command.terminal("run", "--", "sh", "-c", "echo up; read line; echo got $line") as terminal:
        terminal.expect(b"up\r\n")
        terminal.type(b"hello\r")
        terminal.expect(b"got hello\r\n")
        assert terminal.wait() == 0


def test_a_question_is_asked_before_something_is_ended(command: Command, sandbox: belljar.Sandbox) -> None:
    with command.terminal("sandbox", "rm", sandbox.id) as terminal:
        terminal.expect(rb"End .*\? \[y/N\]")
        terminal.type(b"n\r")
        assert terminal.wait() == 1
    assert sandbox.refresh().status == "running"
    with command.terminal("sandbox", "rm", sandbox.id) as terminal:
        terminal.expect(rb"\[y/N\]")
        terminal.type(b"y\r")
        assert terminal.wait() == 0
    with contextlib.suppress(belljar.NotFound):
        assert sandbox.refresh().status == "terminated"


def test_a_list_is_a_table_on_a_terminal_and_plain_without_colour(command: Command, sandbox: belljar.Sandbox) -> None:
    with command.terminal("sandbox", "ls") as terminal:
        terminal.expect(rb"\x1b\[.*ID.*NAME.*STATUS")
        terminal.expect(sandbox.id.encode())
        assert terminal.wait() == 0
    with command.terminal("sandbox", "ls", NO_COLOR="1") as terminal:
        head = terminal.expect(rb".*STATUS")
        assert b"\x1b[3" not in head[0]
