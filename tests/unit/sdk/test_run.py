"""`run` and `popen` on whole and on broken connections."""

import threading
import time

import pytest
from tests.unit.sdk.scripted import ScriptedProcess, ScriptedServer

import belljar
from belljar.sdk._sync import running

LINES = b"".join(b"line %d\n" % number for number in range(2000))


@pytest.fixture
def sandbox(server: ScriptedServer) -> belljar.Sandbox:
    return belljar.Sandbox.create()


def test_output_and_status_are_those_of_the_command(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    server.next_processes = [ScriptedProcess(b"out\r\n", b"err\xff", 3)]
    done = sandbox.run(["x"])
    assert (done.returncode, done.stdout, done.stderr, done.args) == (3, "out\n", "err\N{REPLACEMENT CHARACTER}", ["x"])


def test_bytes_come_as_they_are_without_text(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    server.next_processes = [ScriptedProcess(b"\r\n\xff")]
    assert sandbox.run("x", text=False).stdout == b"\r\n\xff"


def test_a_string_is_a_command_of_the_shell_and_a_list_is_not(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    sandbox.run("a b")
    sandbox.run(["a", "b"])
    first, second = server.processes.values()
    assert first.request["command"] == "a b"
    assert second.request["argv"] == ["a", "b"]


def test_a_failure_raises_only_with_check(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    server.next_processes = [ScriptedProcess(b"", b"bad thing", 3)]
    with pytest.raises(belljar.ProcessFailed) as caught:
        sandbox.run("x", check=True)
    assert caught.value.returncode == 3
    assert caught.value.stderr == "bad thing"
    assert "bad thing" in str(caught.value)


def test_small_input_travels_with_the_start(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    server.next_processes = [ScriptedProcess(b"ok", reads=True)]
    server.next_processes[0].ends.set()
    assert sandbox.run("cat", input="é").stdout == "ok"
    (process,) = server.processes.values()
    assert bytes(process.stdin) == "é".encode()
    assert [path for _, path, _ in server.requests if path.endswith("stdin")] == []


def test_large_input_is_given_while_output_is_read(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    data = bytes(range(256)) * 20_000
    server.next_processes = [ScriptedProcess(LINES, reads=True)]
    server.next_processes[0].ends.set()
    assert sandbox.run("cat", input=data, text=False).stdout == LINES
    (process,) = server.processes.values()
    assert bytes(process.stdin) == data
    assert process.eof


def test_a_command_need_not_read_its_input(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    server.next_processes = [ScriptedProcess(b"done", closes_stdin=True)]
    assert sandbox.run("true", input=bytes(3 << 20)).stdout == "done"


def test_output_goes_on_behind_a_broken_connection(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    server.cuts = [7, 300, 5000, 9000, 1]
    server.next_processes = [ScriptedProcess(LINES, LINES[::-1], 5)]
    done = sandbox.run("x", text=False)
    assert (done.stdout, done.stderr, done.returncode, done.dropped) == (LINES, LINES[::-1], 5, 0)
    assert len(server.processes) == 1


# The HTTP client of the sync side leaves closing a socket that could not connect to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_output_goes_on_behind_a_killed_server(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    process = ScriptedProcess(LINES, reads=True)
    server.next_processes = [process]

    def crash() -> None:
        time.sleep(0.1)
        server.restart_after(0.3).join()
        process.reads = False
        process.ends.set()

    thread = threading.Thread(target=crash)
    thread.start()
    assert sandbox.run("x", text=False).stdout == LINES
    thread.join()
    assert len(server.processes) == 1


def test_a_lost_start_is_repeated_with_the_same_key(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    server.cuts = [0, 3]
    server.next_processes = [ScriptedProcess(b"once")]
    assert sandbox.run("x").stdout == "once"
    assert len(server.processes) == 1


def test_input_goes_on_where_it_was_taken(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    data = bytes(range(256)) * 20_000
    server.next_processes = [ScriptedProcess(b"", reads=True)]
    server.next_processes[0].ends.set()
    # The start is whole; the parts of the input break off in the middle.
    server.cut_requests = [None, 100_000, 5]
    assert sandbox.run("cat", input=data).returncode == 0
    (process,) = server.processes.values()
    assert bytes(process.stdin) == data


def test_a_timeout_kills_the_group_and_keeps_the_output(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    process = ScriptedProcess(b"so far", reads=True)
    server.next_processes = [process]
    started = time.monotonic()
    with pytest.raises(belljar.ProcessTimeout) as caught:
        sandbox.run("sleep", timeout=0.2)
    assert caught.value.stdout == "so far"
    assert isinstance(caught.value, TimeoutError)
    assert process.signals == [(9, True)]
    assert time.monotonic() - started < 1.5


def test_a_timeout_does_not_wait_for_a_daemon_that_holds_the_output(
    server: ScriptedServer, sandbox: belljar.Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_GRACE_SECONDS", 0.2)
    server.next_processes = [ScriptedProcess(b"so far", reads=True)]
    where = f"/v1/sandboxes/{sandbox.id}/processes/1/signal"
    server.answers["POST", where] = lambda: (200, {})
    with pytest.raises(belljar.ProcessTimeout) as caught:
        sandbox.run("sleep", timeout=0.1)
    assert caught.value.stdout == "so far"


def test_a_callback_that_raises_ends_the_command(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    process = ScriptedProcess(b"x", reads=True)
    server.next_processes = [process]

    def refuse(text: str) -> None:
        raise RuntimeError(text)

    with pytest.raises(RuntimeError, match="x"):
        sandbox.run("x", on_stdout=refuse)
    assert process.signals == [(9, True)]


def test_callbacks_get_whole_characters(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    text = "é" * 1500  # the pieces of the scripted server are cut at 1000 bytes, and an offset of one byte splits one
    server.next_processes = [ScriptedProcess(b"x" + text.encode())]
    heard: list[str] = []
    done = sandbox.run("x", on_stdout=heard.append)
    assert "".join(heard) == "x" + text == done.stdout
    assert len(heard) > 1


def test_streams_of_a_process_are_read_apart(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    server.next_processes = [ScriptedProcess(LINES, b"err", 4)]
    process = sandbox.popen("x")
    assert process.stderr is not None
    assert process.stderr.read() == b"err"
    assert process.stdout.readline() == b"line 0\n"
    assert process.stdout.read(3) == b"lin"
    assert process.stdout.read1(2) == b"e "
    assert b"".join(process.stdout) == LINES[len(b"line 0\nline ") :]
    assert process.stdout.read() == b""
    assert process.returncode == 4


def test_a_reader_goes_on_behind_broken_connections(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    server.next_processes = [ScriptedProcess(LINES)]
    process = sandbox.popen("x")
    server.cuts = [500, 8000]
    assert process.stdout.read() == LINES


def test_dropped_output_is_told_and_reading_goes_on(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    scripted = ScriptedProcess(LINES)
    server.next_processes = [scripted]
    process = sandbox.popen("x")
    scripted.kept_from = 5000
    with pytest.raises(belljar.OutputLost) as caught:
        process.stdout.read()
    assert caught.value.dropped == process.stdout.dropped == 5000
    assert process.stdout.read() == LINES[5000:]


def test_a_later_reader_starts_at_the_oldest_kept_byte(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    server.next_processes = [ScriptedProcess(LINES, kept_from=5000)]
    started = sandbox.popen("x")
    process = sandbox.process(started.pid)
    assert process.stdout.read() == LINES[5000:]
    assert process.stdout.dropped == 5000
    assert sandbox.process(started.pid, from_offset=7000).stdout.read() == LINES[7000:]


def test_both_streams_come_as_pieces(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    server.next_processes = [ScriptedProcess(b"out", b"err", 2)]
    process = sandbox.popen("x")
    pieces = [(piece.stream.value, piece.data) for piece in process.output()]
    assert pieces == [("stdout", b"out"), ("stderr", b"err")]
    assert process.returncode == 2


def test_writing_to_a_closed_input_is_a_broken_pipe(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    server.next_processes = [ScriptedProcess(closes_stdin=True)]
    process = sandbox.popen("true")
    assert process.stdin is not None
    with pytest.raises(BrokenPipeError):
        process.stdin.write(b"x")
    process.stdin.close()
    with pytest.raises(ValueError, match="closed"):
        process.stdin.write(b"x")


def test_wait_gives_up_in_time_and_poll_does_not_wait(server: ScriptedServer, sandbox: belljar.Sandbox) -> None:
    server.next_processes = [ScriptedProcess(reads=True)]
    process = sandbox.popen("cat")
    assert process.poll() is None
    with pytest.raises(belljar.ProcessTimeout):
        process.wait(timeout=0.1)
    process.kill()
    assert process.wait() == -9
    assert process.poll() == -9
