"""The MCP server: one call from its validation to its answer."""

import asyncio
import contextlib
import traceback
from collections.abc import AsyncGenerator
from typing import Any

import anyio
from mcp.server import Server, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
)

import belljar
from belljar.base.log import get_logger
from belljar.integrations.mcp.arguments import Arguments, parsed
from belljar.integrations.mcp.boxes import Boxes
from belljar.integrations.mcp.policy import MAX_WAITING, Policy
from belljar.integrations.mcp.results import failed
from belljar.integrations.mcp.told import Told
from belljar.integrations.mcp.tools import INSTRUCTIONS, TOOLS, ToolKind, described
from belljar.model.errors import DeadlineExceeded, Error, Internal, LimitExceeded

__all__ = ("McpServer", "opened")

McpServer = Server[Any]
_CANCEL_SECONDS = 30.0
_log = get_logger("mcp")


@contextlib.asynccontextmanager
async def opened(policy: Policy) -> AsyncGenerator[McpServer]:
    """A server for one transport. At the end all sandboxes that it made are ended."""
    boxes = Boxes(policy)
    calls = _Calls(boxes)
    server: McpServer = Server(
        "belljar",
        title="Belljar sandboxes",
        version=belljar.__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=calls.list_tools,
        on_call_tool=calls.call_tool,
    )
    watching = asyncio.create_task(boxes.watch(), name="leases of sandboxes")
    try:
        yield server
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        with anyio.CancelScope(shield=True):
            await boxes.aclose()


class _Calls:
    """`slots` run at once, the others wait for one."""

    def __init__(self, boxes: Boxes) -> None:
        self._boxes = boxes
        self._slots = asyncio.Semaphore(boxes.policy.calls)
        self._waiting = 0

    async def list_tools(
        self, context: ServerRequestContext[Any, Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(tools=[described(tool, self._boxes.policy) for tool in TOOLS.values()])

    async def call_tool(self, context: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> CallToolResult:
        """What goes wrong in the tool is its result; only an unknown tool is an error of the protocol."""
        tool = TOOLS.get(params.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"no tool {params.name[:80]!r}; there are {', '.join(TOOLS)}")
        try:
            said = parsed(tool.takes, params.arguments or {})
        except Error as error:
            return failed(error)
        # In a task of its own: a cancellation reaches it once, so that it can still end what it started.
        call = asyncio.create_task(self._answered(tool, said, context), name=f"mcp {tool.name}")
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            call.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([call], timeout=_CANCEL_SECONDS)
            raise

    async def _answered(
        self, tool: ToolKind, said: Arguments, context: ServerRequestContext[Any, Any]
    ) -> CallToolResult:
        told = Told()
        wants_word = context.meta is not None and context.meta.get("progress_token") is not None
        telling = asyncio.create_task(told.report(_reporter(context))) if wants_word else None
        try:
            return await self._in_slot(tool, said, told)
        except Error as error:
            return failed(error)
        except Exception as error:  # noqa: BLE001 - one call's fault is not the server's end
            _log.error("a tool failed", tool=tool.name, error="".join(traceback.format_exception(error)))
            return failed(Internal(f"{tool.name} failed in this server: {type(error).__name__}"))
        finally:
            if telling is not None:
                telling.cancel()
                await asyncio.wait([telling])

    async def _in_slot(self, tool: ToolKind, said: Arguments, told: Told) -> CallToolResult:
        if self._waiting >= MAX_WAITING:
            raise LimitExceeded("too many calls at once", hint="wait for the answers to some of them")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        seconds = tool.seconds + (getattr(said, "timeout", None) or self._boxes.policy.timeout)
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                answer, word = await tool.work(self._boxes, said, told)
            return answer.result(word)
        except TimeoutError as error:
            if isinstance(error, Error) or not deadline.expired():
                raise
            raise DeadlineExceeded(f"{tool.name} did not end within {seconds:g} s") from error
        finally:
            self._slots.release()


def _reporter(context: ServerRequestContext[Any, Any]) -> Any:
    async def report(seconds: float, line: str | None) -> None:
        await context.session.report_progress(seconds, message=line)

    return report
