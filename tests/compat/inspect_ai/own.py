"""What Inspect's own check leaves out: how an evaluation begins and ends, bounds, and a sandbox that is gone."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from inspect_ai.util import OutputLimitExceededError
from inspect_ai.util._sandbox.environment import SandboxUnavailableError
from inspect_ai.util._sandbox.events import SandboxEnvironmentProxy
from inspect_ai.util._sandbox.limits import override_max_exec_output_size
from inspect_ai.util._sandbox.registry import registry_find_sandboxenv

from belljar import AsyncSandbox, Sandbox
from belljar.integrations.inspect_ai import BelljarConfig, BelljarSandboxEnvironment


async def begin(config: BelljarConfig | str | None = None) -> BelljarSandboxEnvironment:
    environments = await BelljarSandboxEnvironment.sample_init("own", config, {})
    return environments["default"].as_type(BelljarSandboxEnvironment)


async def end(environment: BelljarSandboxEnvironment, *, interrupted: bool = False) -> None:
    await BelljarSandboxEnvironment.sample_cleanup("own", None, {"default": environment}, interrupted)


@pytest.fixture
async def box() -> AsyncIterator[BelljarSandboxEnvironment]:
    environment = await begin()
    yield environment
    await end(environment)


def test_the_entry_point_leads_to_the_provider() -> None:
    code = "from inspect_ai.util._sandbox.registry import registry_find_sandboxenv as f; print(f('belljar').__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "belljar.integrations.inspect_ai\n"
    assert registry_find_sandboxenv("belljar") is BelljarSandboxEnvironment


async def test_a_flood_of_output_is_ended_and_its_beginning_is_kept(box: BelljarSandboxEnvironment) -> None:
    with override_max_exec_output_size(1 << 20), pytest.raises(OutputLimitExceededError) as caught:
        await box.exec(["sh", "-c", "exec yes flood >&2"])
    assert caught.value.truncated_output is not None
    assert len(caught.value.truncated_output) == 1 << 20
    assert not (await box.exec(["pgrep", "-x", "yes"])).success


async def test_an_ended_command_tells_what_it_had_printed(box: BelljarSandboxEnvironment) -> None:
    with pytest.raises(TimeoutError) as caught:
        await box.exec(["sh", "-c", "echo so far; sleep 60"], timeout=1)
    assert getattr(caught.value, "truncated_output", None) == "so far\n"


async def test_what_cannot_be_started_is_a_result(box: BelljarSandboxEnvironment) -> None:
    missing = await box.exec(["no-such-program"])
    assert (missing.success, missing.returncode) == (False, 127)
    assert "no-such-program" in missing.stderr
    await box.write_file("broken", b"\x7fELF broken")
    await box.exec(["chmod", "+x", "broken"])
    assert (await box.exec(["./broken"])).returncode == 126
    assert (await box.exec(["true"], cwd="/nowhere")).returncode == 127


async def test_output_that_is_no_text_and_signals_come_through(box: BelljarSandboxEnvironment) -> None:
    assert (await box.exec(["printf", "a\\377b"])).stdout == "a\ufffdb"
    assert (await box.exec(["sh", "-c", "kill -9 $$"])).returncode == 137


async def test_a_sandbox_that_is_gone_is_unavailable() -> None:
    box = await begin()
    command = asyncio.create_task(box.exec(["sleep", "60"]))
    await asyncio.sleep(1)
    await box.sandbox.terminate()
    with pytest.raises(SandboxUnavailableError):
        await command
    for call in (box.exec(["true"]), box.read_file("/etc/hostname"), box.write_file("/tmp/x", "x")):
        with pytest.raises(SandboxUnavailableError):
            await call
    with pytest.raises(ConnectionError):
        await box.connection()
    await end(box)


@pytest.mark.parametrize("interrupted", [False, True])
async def test_a_sample_leaves_no_sandbox(interrupted: bool) -> None:
    box = await begin()
    await end(box, interrupted=interrupted)
    assert (await AsyncSandbox.get(box.sandbox.id)).ended is not None


async def test_a_sample_that_cannot_begin_leaves_no_sandbox() -> None:
    before = {sandbox.id async for sandbox in AsyncSandbox.list()}
    with pytest.raises(Exception, match="nobody-of-this-name"):
        await begin(BelljarConfig(user="nobody-of-this-name"))
    assert {sandbox.id async for sandbox in AsyncSandbox.list()} == before


async def test_the_config_may_be_a_file_or_the_name_of_an_image(tmp_path: Path) -> None:
    file = tmp_path / "box.yaml"
    file.write_text("memory: 256MiB\nenv: {COLOUR: green}\nworkdir: /srv\n")
    box = await begin(str(file))
    try:
        assert box.sandbox.last_info.memory == 256 << 20
        assert (await box.exec(["sh", "-c", "echo $COLOUR; pwd"])).stdout == "green\n/srv\n"
    finally:
        await end(box)
    box = await begin("base")
    await end(box)
    with pytest.raises(ValueError, match="colour"):
        file.write_text("colour: green")
        await BelljarSandboxEnvironment.task_init("own", str(file))


async def test_a_config_survives_the_log_of_an_evaluation() -> None:
    config = BelljarConfig(network="none", cpu=0.5)
    said = json.loads(config.model_dump_json())
    assert BelljarSandboxEnvironment.config_deserialize(said) == config


async def test_the_connection_is_a_command_that_works(box: BelljarSandboxEnvironment) -> None:
    connection = await box.connection(user="user")
    assert connection.command == f"belljar sandbox shell --user user {box.sandbox.id}"
    code = "from belljar.cli.main import main; main()"
    words = [sys.executable, "-c", code, "sandbox", "exec", "--user", "user", box.sandbox.id, "--", "id", "-un"]
    done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, check=True)
    assert done.stdout == "user\n"


async def test_what_killed_evaluations_left_is_cleaned_up() -> None:
    left, own = await begin(), Sandbox.create()
    await BelljarSandboxEnvironment.cli_cleanup(None)
    assert (await AsyncSandbox.get(left.sandbox.id)).ended is not None
    assert own.refresh().ended is None
    own.terminate()


async def test_a_command_can_be_started_and_followed(box: BelljarSandboxEnvironment) -> None:
    """By the tools that Inspect puts into a sandbox, as its own shell and editor tools do."""
    result = await SandboxEnvironmentProxy(box).exec_remote(["sh", "-c", "echo here; id -un"], stream=False)
    assert (result.success, result.stdout) == (True, "here\nroot\n")
