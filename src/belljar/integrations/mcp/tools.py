"""The tools: what a model reads about each, and what each does."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mcp_types import Tool, ToolAnnotations
from pydantic import BaseModel

from belljar.integrations.mcp import arguments, results
from belljar.integrations.mcp.arguments import Arguments, schema_of
from belljar.integrations.mcp.boxes import Boxes
from belljar.integrations.mcp.code import run_code
from belljar.integrations.mcp.commands import run_command
from belljar.integrations.mcp.files import list_files, read_file, write_file
from belljar.integrations.mcp.policy import Policy
from belljar.integrations.mcp.results import Answer
from belljar.integrations.mcp.told import Told
from belljar.model.errors import InvalidArgument
from belljar.sdk.patience import listen

__all__ = ("INSTRUCTIONS", "TOOLS", "ToolKind", "described")

INSTRUCTIONS = """\
Linux sandboxes, each a machine of its own under gVisor. Nothing in them touches the user's computer: no files, no variables, \
no programs of it are there. run_code keeps Python's state between calls, run_command runs shell commands, and files persist as \
long as the sandbox. Put large output into a file and read parts of it. A sandbox that is idle for long ends, with everything \
in it."""

_CREATE_SECONDS = 3700.0
"""The very first sandbox of a machine has engine and images made: minutes."""
_FILE_SECONDS = 120.0
_BESIDE_SECONDS = 60.0
"""On top of a command's own timeout: for its start and its end."""

Work = Callable[[Boxes, Any, Told], Awaitable[tuple[Answer, str | None]]]
"""The answer, and a line that stands before it."""


@dataclass(frozen=True, slots=True)
class ToolKind:
    """`seconds`: a call's deadline beside the timeout of what it runs."""

    name: str
    title: str
    description: str
    takes: type[Arguments]
    gives: type[BaseModel]
    work: Work
    seconds: float
    reads_only: bool = False
    destroys: bool = False
    idempotent: bool = False
    reaches_out: bool = False


async def _create(boxes: Boxes, said: arguments.CreateSandbox, told: Told) -> tuple[Answer, str | None]:
    deaf = listen(told.say)
    try:
        view = boxes.view(await boxes.create(said.image, said.note))
    finally:
        deaf()
    return Answer(f"sandbox_id: {view.sandbox_id}\nimage: {view.image}, network: {view.network}", view), None


async def _list(boxes: Boxes, said: arguments.ListSandboxes, told: Told) -> tuple[Answer, str | None]:
    views = await boxes.views()
    lines = [
        f"{view.sandbox_id}  {view.status}  {view.image}" + (f"  {view.note}" if view.note else "") for view in views
    ]
    return Answer("\n".join(lines) or "[none]", results.SandboxList(sandboxes=views)), None


async def _end(boxes: Boxes, said: arguments.EndSandbox, told: Told) -> tuple[Answer, str | None]:
    await boxes.end(said.sandbox_id)
    return Answer(f"{said.sandbox_id} has ended", results.EndedSandbox(sandbox_id=said.sandbox_id, ended=True)), None


async def _run_command(boxes: Boxes, said: arguments.RunCommand, told: Told) -> tuple[Answer, str | None]:
    timeout = _timeout(boxes.policy, said.timeout)
    async with boxes.using(said.sandbox_id) as (sandbox, word):
        return await run_command(sandbox, said, timeout, boxes.policy.output, told), word


async def _run_code(boxes: Boxes, said: arguments.RunCode, told: Told) -> tuple[Answer, str | None]:
    timeout = _timeout(boxes.policy, said.timeout)
    async with boxes.using(said.sandbox_id) as (sandbox, word):
        return await run_code(sandbox, said, timeout, boxes.policy.output, told), word


async def _read_file(boxes: Boxes, said: arguments.ReadFile, told: Told) -> tuple[Answer, str | None]:
    async with boxes.using(said.sandbox_id) as (sandbox, word):
        return await read_file(sandbox, said), word


async def _write_file(boxes: Boxes, said: arguments.WriteFile, told: Told) -> tuple[Answer, str | None]:
    async with boxes.using(said.sandbox_id) as (sandbox, word):
        return await write_file(sandbox, said), word


async def _list_files(boxes: Boxes, said: arguments.ListFiles, told: Told) -> tuple[Answer, str | None]:
    async with boxes.using(said.sandbox_id) as (sandbox, word):
        return await list_files(sandbox, said), word


def _timeout(policy: Policy, asked: float | None) -> float:
    if asked is not None and asked > policy.max_timeout:
        raise InvalidArgument(
            f"timeout is at most {policy.max_timeout:g} s here",
            hint="start longer work in the background (nohup … > log 2>&1 &) and look at its log later",
        )
    return asked or policy.timeout


_ALL = (
    ToolKind(
        "create_sandbox",
        "Create a sandbox",
        "Create a new, empty Linux sandbox and get its id for the other tools. Use it for work that must be kept apart; several "
        "may live side by side.",
        arguments.CreateSandbox,
        results.SandboxView,
        _create,
        _CREATE_SECONDS,
    ),
    ToolKind(
        "list_sandboxes",
        "List sandboxes",
        "List the sandboxes that can be used here, newest first, with id, status, image and note.",
        arguments.ListSandboxes,
        results.SandboxList,
        _list,
        _FILE_SECONDS,
        reads_only=True,
        idempotent=True,
    ),
    ToolKind(
        "run_code",
        "Run code",
        "Run Python (or another language) in a sandbox. Variables, imports and functions stay for the next call. The value of "
        "the last expression is the result; printed text and figures (matplotlib, PIL) come back too. !pip install and top-level "
        "await work; input() does not. Use it for analysis and computation; for programs and shell commands use run_command.",
        arguments.RunCode,
        results.CodeResult,
        _run_code,
        _BESIDE_SECONDS,
        destroys=True,
        reaches_out=True,
    ),
    ToolKind(
        "run_command",
        "Run a command",
        "Run a shell command in a sandbox and wait for its end: stdout, stderr and exit code. Each call is a new shell; files "
        "persist, variables and the working directory do not (use cwd and env). It has no terminal and no input. Start servers "
        "in the background: nohup … > log 2>&1 &",
        arguments.RunCommand,
        results.CommandResult,
        _run_command,
        _BESIDE_SECONDS,
        destroys=True,
        reaches_out=True,
    ),
    ToolKind(
        "read_file",
        "Read a file",
        "Read a file of a sandbox: text as text, PNG, JPEG, GIF and WebP as an image, other content as base64. Large files come "
        "in parts: go on at next_offset.",
        arguments.ReadFile,
        results.FileContent,
        _read_file,
        _FILE_SECONDS,
        reads_only=True,
        idempotent=True,
    ),
    ToolKind(
        "write_file",
        "Write a file",
        "Write a file in a sandbox, replacing one that is there, or add to its end. Missing folders are made.",
        arguments.WriteFile,
        results.Written,
        _write_file,
        _FILE_SECONDS,
        destroys=True,
    ),
    ToolKind(
        "list_files",
        "List files",
        "List a directory of a sandbox, or the files below it that match a pattern, with kind, size and time.",
        arguments.ListFiles,
        results.Listing,
        _list_files,
        _FILE_SECONDS,
        reads_only=True,
        idempotent=True,
    ),
    ToolKind(
        "end_sandbox",
        "End a sandbox",
        "End a sandbox and lose everything in it: processes, state and files. Do it when its work is finished.",
        arguments.EndSandbox,
        results.EndedSandbox,
        _end,
        _FILE_SECONDS,
        destroys=True,
    ),
)

TOOLS = {tool.name: tool for tool in _ALL}


def described(tool: ToolKind, policy: Policy) -> Tool:
    """As a client lists it."""
    hints = ToolAnnotations(
        title=tool.title,
        read_only_hint=tool.reads_only,
        destructive_hint=tool.destroys,
        idempotent_hint=tool.idempotent,
        open_world_hint=tool.reaches_out and policy.network != "none",
    )
    schema = schema_of(tool.takes, policy)
    return Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=schema,
        output_schema=schema_of(tool.gives, policy),
        annotations=hints,
    )
