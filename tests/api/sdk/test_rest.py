"""Pause, standby and stop through SDK and command, on the fake engine: what each leaves, and what wakes it."""

import json
import time

import pytest
from tests.api.sdk.belljar_command import Command

import belljar

VERBS = {"pause": "paused", "standby": "standby", "stop": "stopped"}


@pytest.mark.parametrize(("verb", "status"), VERBS.items())
def test_one_rests_and_the_next_call_wakes_it(sandbox: belljar.Sandbox, verb: str, status: str) -> None:
    sandbox.path("note").write_text("kept")
    for _ in range(2):  # again is fine
        getattr(sandbox, verb)()
        assert sandbox.status == status
    info = sandbox.info()
    assert (info.status, info.expires) == (status, None), "its time stands still"
    assert sandbox.id in [one.id for one in belljar.Sandbox.list()], "it lives"
    assert sandbox.stats().memory_limit == info.memory, "looking at it does not wake it"
    assert sandbox.info().status == status
    assert sandbox.path("note").read_text() == "kept"
    assert sandbox.refresh().status == "running"
    assert (sandbox.info().expires or 0) > time.time()
    getattr(sandbox, verb)()
    sandbox.resume()
    assert sandbox.status == "running"
    sandbox.start()


def test_what_happened_is_told(sandbox: belljar.Sandbox) -> None:
    sandbox.pause()
    sandbox.standby()
    sandbox.resume()
    kinds = [event.kind.value for event in sandbox.logs().events]
    assert kinds[-3:] == ["sandbox.paused", "sandbox.standby", "sandbox.resumed"]


def test_one_that_rests_deeper_says_so(sandbox: belljar.Sandbox) -> None:
    sandbox.standby()
    with pytest.raises(belljar.Conflict, match="standby already"):
        sandbox.pause()
    sandbox.terminate()
    with pytest.raises(belljar.SandboxGone):
        sandbox.standby()
    with pytest.raises(belljar.SandboxGone):
        sandbox.resume()


@pytest.mark.parametrize("action", ["pause", "standby", "stop", "terminate"])
def test_timers_do_what_was_asked_for(home: object, action: str) -> None:
    with belljar.Sandbox.create(idle=1, on_idle=action) as sandbox:
        assert sandbox.info().on_idle == action
        deadline = time.monotonic() + 30
        while (status := sandbox.info().status) == "running" and time.monotonic() < deadline:
            time.sleep(0.1)
        assert status == (VERBS | {"terminate": "terminated"})[action]
        if action != "terminate":
            assert sandbox.run(["true"]).returncode == 0


def test_an_action_that_there_is_not_is_refused(home: object) -> None:
    with pytest.raises(belljar.InvalidArgument):
        belljar.Sandbox.create(on_idle="explode")


async def test_the_async_side_does_the_same(home: object) -> None:
    async with await belljar.AsyncSandbox.create(lifetime=None, on_lifetime="stop") as sandbox:
        await sandbox.stop()
        assert sandbox.status == "stopped"
        assert (await sandbox.run("echo awake")).stdout == "awake\n"


def test_the_command_has_the_same_verbs(command: Command, sandbox: belljar.Sandbox) -> None:
    for verb, status in VERBS.items():
        assert f"{sandbox.id}: {status}" in command("sandbox", verb, sandbox.id).stderr.decode()
        assert command("sandbox", "exec", sandbox.id, "--", "echo", "awake").stdout == b"awake\n"
    command("sandbox", "standby", sandbox.id)
    shown = json.loads(command("sandbox", "resume", sandbox.id, "--json").stdout)
    assert (shown["id"], shown["status"]) == (sandbox.id, "running")
