"""`belljar serve`: over TCP with a key, beside and instead of an embedded server."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.api.sdk.belljar_command import BELLJAR, Command

import belljar


@pytest.fixture
def other(command: Command) -> Iterator[Command]:
    """The command on a state directory of its own."""
    with tempfile.TemporaryDirectory(prefix="bj-serve-") as folder:
        made = Command(command.environ | {"BELLJAR_HOME": f"{folder}/state"}, Path(folder))
        yield made
        made("down", "--purge", "--yes")


def serve(command: Command, *words: str) -> tuple["subprocess.Popen[bytes]", dict[str, object]]:
    process = command.start("serve", "--port", "0", "--json", *words, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_client_elsewhere_uses_address_and_key(other: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    process, said = serve(other)
    key = (Path(str(said["state"])) / "key").read_text().strip()
    monkeypatch.setenv("BELLJAR_URL", str(said["url"]))
    with pytest.raises(belljar.Unauthenticated):
        belljar.Sandbox.create()
    monkeypatch.setenv("BELLJAR_API_KEY", key)
    with belljar.Sandbox.create() as sandbox:
        assert sandbox.run("cat", input="far away" * 1000).stdout == "far away" * 1000
        sandbox.path("x").write_bytes(bytes(3 << 20))
        assert sandbox.path("x").stat().size == 3 << 20
    done = subprocess.run([*BELLJAR, "sandbox", "ls", "--all", "-q"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sandbox.id
    end(process)


def test_serve_takes_over_from_an_embedded_server_and_its_clients_stay(
    other: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BELLJAR_HOME", other.environ["BELLJAR_HOME"])
    sandbox = belljar.Sandbox.create()
    talk = sandbox.popen(["cat"])
    assert talk.stdin is not None
    talk.stdin.write("before\n")
    assert talk.stdout.readline() == b"before\n"
    process, _ = serve(other)
    talk.stdin.write("after\n")
    assert talk.stdout.readline() == b"after\n"
    assert sandbox.run("echo still here").stdout == "still here\n"
    beside = other("serve", "--port", "0", status=None)
    assert beside.returncode not in (0, 2)
    assert str(process.pid).encode() in beside.stderr
    end(process)
    assert sandbox.refresh().status == "running"  # by an embedded one again
    sandbox.terminate()


def test_the_unit_keeps_the_sandboxes(command: Command) -> None:
    unit = command("serve", "--print-unit").stdout
    assert b"KillMode=process" in unit
    assert b"Delegate=yes" in unit


def test_a_forked_child_uses_connections_of_its_own(sandbox: belljar.Sandbox) -> None:
    assert sandbox.run("echo parent").stdout == "parent\n"
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, sandbox.run("echo child").stdout.encode())
        finally:
            os._exit(0)
    os.close(write)
    for _ in range(20):
        assert sandbox.run("echo parent").stdout == "parent\n"
    with open(read, "rb") as said:
        assert said.read() == b"child\n"
    os.waitpid(child, 0)
