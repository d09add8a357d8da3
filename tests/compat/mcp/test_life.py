"""Sandboxes end with the server that made them, however it ends."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.api.sdk.belljar_command import Command
from tests.compat.mcp.clients import Lines, http_client, http_server

pytestmark = pytest.mark.node


def living(belljar: Command) -> list[str]:
    return [one["id"] for one in json.loads(belljar("sandbox", "ls", "--json").stdout)]


def made(lines: Lines, **arguments: object) -> str:
    return lines.call("create_sandbox", **arguments)["structuredContent"]["sandbox_id"]


def test_the_end_of_stdin_ends_the_sandboxes(environ: dict[str, str], belljar: Command) -> None:
    with Lines(environ) as lines:
        boxes = [made(lines) for _ in range(3)]
        assert set(boxes) <= set(living(belljar))
        lines.start("tools/call", {"name": "run_command", "arguments": {"command": "sleep 100"}})
        time.sleep(0.5)
        status, seconds = lines.end()
    assert status == 0
    assert seconds < 4, "clients kill after some seconds"
    assert not set(boxes) & set(living(belljar))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_sandboxes_while_a_call_runs(
    number: signal.Signals, environ: dict[str, str], belljar: Command
) -> None:
    with Lines(environ) as lines:
        box = made(lines)
        lines.start("tools/call", {"name": "run_command", "arguments": {"command": "sleep 100", "sandbox_id": box}})
        time.sleep(0.5)
        lines.process.send_signal(number)
        assert lines.process.wait(10) == (130 if number == signal.SIGINT else 0)
        assert box not in living(belljar)


def test_a_client_that_reads_nothing_does_not_keep_the_server(environ: dict[str, str], belljar: Command) -> None:
    with Lines(environ) as lines:
        box = made(lines)
        for _ in range(40):
            lines.start("tools/call", {"name": "run_command", "arguments": {"command": "seq 20000", "sandbox_id": box}})
        time.sleep(3)
        lines.process.terminate()
        assert lines.process.wait(20) == 0
        assert box not in living(belljar)


def test_a_sandbox_that_is_being_made_ends_too(environ: dict[str, str], belljar: Command) -> None:
    with Lines(environ) as lines:
        lines.start("tools/call", {"name": "create_sandbox", "arguments": {}})
        lines.start("tools/call", {"name": "run_command", "arguments": {"command": "true"}})
        lines.end()
    assert living(belljar) == []


def test_after_kill_9_the_lease_ends_the_sandbox(environ: dict[str, str], belljar: Command) -> None:
    with Lines(environ) as lines:
        box = made(lines)
        lines.process.kill()
        lines.process.wait(10)
    shown = json.loads(belljar("sandbox", "show", box, "--json").stdout)
    assert shown["status"] == "running"
    assert 0 < shown["expires"] - time.time() <= 900
    belljar("sandbox", "rm", "--yes", box)


def test_a_lease_is_renewed_and_an_idle_sandbox_ends(environ: dict[str, str], belljar: Command) -> None:
    with Lines(environ, "--idle", "6s") as lines:
        box = made(lines)
        first = json.loads(belljar("sandbox", "show", box, "--json").stdout)["expires"]
        busy = lines.start(
            "tools/call", {"name": "run_command", "arguments": {"command": "sleep 9", "sandbox_id": box}}
        )
        assert lines.answer()["id"] == busy, "a call in it is use"
        later = json.loads(belljar("sandbox", "show", box, "--json").stdout)
        assert later["status"] == "running"
        assert later["expires"] > first + 5
        deadline = time.monotonic() + 20
        while box in living(belljar):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        gone = lines.call("run_command", command="true", sandbox_id=box)
        assert gone["isError"] is True
        assert "nobody used it" in gone["content"][0]["text"]


def test_the_default_sandbox_is_made_anew_when_it_has_ended_and_that_is_said(
    environ: dict[str, str], belljar: Command
) -> None:
    with Lines(environ) as lines:
        first = lines.call("run_command", command="touch /tmp/kept")["structuredContent"]["sandbox_id"]
        belljar("sandbox", "rm", "--yes", first)
        gone = lines.call("run_command", command="ls /tmp")
        assert gone["isError"] is True
        again = lines.call("run_command", command="echo on")
        assert again["content"][0]["text"].startswith("[a new sandbox: ")
        assert again["content"][0]["text"].endswith("on")
        assert again["structuredContent"]["sandbox_id"] != first
        assert lines.call("run_command", command="echo on")["content"][0]["text"] == "on"


def test_calls_go_on_when_the_server_of_the_sandboxes_is_killed(environ: dict[str, str]) -> None:
    with Lines(environ) as lines:
        made(lines)
        asked = {"name": "run_command", "arguments": {"command": "echo before; sleep 3; echo after"}}
        number = lines.start("tools/call", asked)
        time.sleep(1.5)
        server = json.loads((Path(environ["BELLJAR_HOME"]) / "server.json").read_text())
        subprocess.run(["kill", "-9", str(server["pid"])], check=True)
        answer = lines.answer()
        assert answer["id"] == number
        assert answer["result"].get("structuredContent", {}).get("stdout") == "before\nafter\n", answer


async def test_an_http_server_ends_its_sandboxes_with_sigterm(environ: dict[str, str], belljar: Command) -> None:
    with http_server(environ) as server:
        async with http_client(server) as client:
            box = (await client.call_tool("create_sandbox", {})).structured_content["sandbox_id"]
        assert box in living(belljar), "the end of a session is not the end of its sandboxes"
        server.process.terminate()
        assert server.process.wait(15) == 0
    assert box not in living(belljar)
