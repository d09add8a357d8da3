"""What Pydantic AI's suite leaves out: bounds, event loops, a caller that leaves, and an agent whose runs share a workspace."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic_ai import Agent, ModelMessage, ModelResponse, RunContext, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.workspaces import (
    WorkspaceOutputLimitError,
    WorkspaceRef,
    WorkspaceTimeoutError,
    WorkspaceUnavailableError,
)

from belljar import AsyncSandbox, Sandbox
from belljar.integrations.pydantic_ai import PROVIDER, BelljarOptions, BelljarWorkspace, BelljarWorkspaceBackend

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def backend() -> AsyncIterator[BelljarWorkspaceBackend]:
    made = BelljarWorkspaceBackend()
    yield made
    await made.terminate()


async def test_a_flood_of_output_is_ended_with_an_error_that_has_its_beginning(
    backend: BelljarWorkspaceBackend,
) -> None:
    with pytest.raises(WorkspaceOutputLimitError) as caught:
        await backend.run("echo first; exec yes flood", shell=True)
    assert (caught.value.limit, caught.value.stdout[:6]) == (10 << 20, "first\n")
    assert (await backend.run(["pgrep", "-x", "yes"])).exit_code == 1


async def test_a_timeout_tells_what_was_printed(backend: BelljarWorkspaceBackend) -> None:
    with pytest.raises(WorkspaceTimeoutError) as caught:
        await backend.run("echo so far; echo oh >&2; sleep 60", shell=True, timeout=1)
    assert (caught.value.stdout, caught.value.stderr) == ("so far\n", "oh\n")


async def test_what_cannot_be_executed_and_signals_are_results(backend: BelljarWorkspaceBackend) -> None:
    assert (await backend.run(["/etc/passwd"])).exit_code == 126
    assert (await backend.run("kill -9 $$", shell=True)).exit_code == 137


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
async def test_a_timeout_is_a_positive_finite_number(timeout: float, backend: BelljarWorkspaceBackend) -> None:
    with pytest.raises(ValueError, match="timeout"):
        await backend.run(["true"], timeout=timeout)


async def test_paths_that_are_none_are_refused(backend: BelljarWorkspaceBackend) -> None:
    with pytest.raises(ValueError, match="absolute"):
        await backend.read_bytes("relative")
    with pytest.raises(OSError, match="NUL"):
        await backend.read_bytes("/a\0b")
    with pytest.raises(ValueError, match="empty"):
        await backend.run([])


async def test_names_of_any_bytes_come_and_go(backend: BelljarWorkspaceBackend) -> None:
    await backend.run("mkdir -p /srv/names; cd /srv/names; touch \"$(printf 'a\\377b')\" 'line\nend' ' '", shell=True)
    entries = await backend.list_dir("/srv/names")
    assert [entry.name for entry in entries] == [" ", "a\udcffb", "line\nend"]
    for entry in entries:
        await backend.write_bytes(entry.path, b"x")
        assert await backend.read_bytes(entry.path) == b"x"
        await backend.remove(entry.path)
    assert await backend.list_dir("/srv/names") == []


async def test_a_caller_that_leaves_while_the_sandbox_is_made_does_not_lose_it() -> None:
    backend = BelljarWorkspaceBackend(options=BelljarOptions(labels={"test": "leaves"}))
    first = asyncio.create_task(backend.working_dir())
    await asyncio.sleep(0.002)  # a sandbox that waits is there in ten
    assert backend.ref is None, "the sandbox was made before the caller could leave"
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await backend.working_dir()
    assert backend.ref is not None
    assert [sandbox.id async for sandbox in AsyncSandbox.list(labels={"test": "leaves"})] == [backend.ref.id]
    await backend.terminate()


def test_one_backend_serves_one_event_loop_after_the_other() -> None:
    backend = BelljarWorkspaceBackend()
    asyncio.run(backend.write_bytes("/srv/kept", b"kept"))
    assert asyncio.run(backend.read_bytes("/srv/kept")) == b"kept"
    asyncio.run(backend.terminate())


async def test_nothing_is_asked_before_the_first_use() -> None:
    before = {sandbox.id for sandbox in Sandbox.list()}
    assert BelljarWorkspaceBackend().ref is None
    await BelljarWorkspaceBackend().terminate()
    assert {sandbox.id for sandbox in Sandbox.list()} == before


async def test_a_ref_that_leads_nowhere_is_unavailable() -> None:
    with pytest.raises(WorkspaceUnavailableError):
        await BelljarWorkspaceBackend(WorkspaceRef(provider=PROVIDER, id="sb0000000000000000000")).working_dir()
    with pytest.raises(ValueError, match="elsewhere"):
        BelljarWorkspaceBackend(WorkspaceRef(provider="elsewhere", id="1"))


async def test_runs_of_an_agent_share_the_workspace_that_its_messages_name() -> None:
    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        turn = len([message for message in messages if isinstance(message, ModelResponse)])
        commands = ["echo one >> /srv/log", None, "echo two >> /srv/log; cat /srv/log", None]
        command = commands[turn]
        return ModelResponse([TextPart("done") if command is None else ToolCallPart("shell", {"command": command})])

    agent = Agent(FunctionModel(model), capabilities=[BelljarWorkspace(BelljarOptions(memory="512MiB"))])
    said: list[str] = []

    @agent.tool
    async def shell(ctx: RunContext, command: str) -> str:
        said.append((await ctx.workspace.run(command, shell=True)).stdout)
        return said[-1]

    first = await agent.run("go")
    second = await agent.run("on", message_history=first.all_messages())
    assert said == ["", "one\ntwo\n"]
    response = second.all_messages()[-1]
    assert isinstance(response, ModelResponse)
    assert response.workspace_ref is not None
    assert (await AsyncSandbox.get(response.workspace_ref.id)).last_info.memory == 512 << 20
    await BelljarWorkspaceBackend(response.workspace_ref).terminate()
