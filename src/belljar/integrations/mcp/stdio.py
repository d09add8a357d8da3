"""MCP over this process's stdin and stdout."""

import asyncio
import contextlib
import json
import os
import queue
import sys
import threading
from collections.abc import Generator
from typing import Any, cast

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR, jsonrpc_message_adapter
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from belljar.integrations.mcp.policy import MAX_REQUEST
from belljar.integrations.mcp.server import McpServer

__all__ = ("serve_stdio",)

_CHUNK = 1 << 20
_AHEAD = 8


async def serve_stdio(server: McpServer) -> None:
    """Until stdin ends. While it runs, what else this process prints goes to stderr."""
    to_server, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, from_server = anyio.create_memory_object_stream[SessionMessage](0)
    with _own_streams() as (stdin, stdout):
        # Threads of our own: one that waits for a line must not hold up the end of the process, as those of a pool do.
        writer = _Writer(stdout)
        reader = _Reader(stdin, writer)
        async with anyio.create_task_group() as group:
            group.start_soon(_listen, reader, writer, to_server)
            group.start_soon(_speak, writer, from_server)
            await server.run(incoming, outgoing, server.create_initialization_options())
        await writer.flushed()


async def _listen(
    reader: "_Reader", writer: "_Writer", messages: MemoryObjectSendStream[SessionMessage | Exception]
) -> None:
    async with messages:
        while (line := await reader.line()) is not None:
            try:
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValidationError:
                if line.strip():
                    writer.put(_refusal(line))
                continue
            with contextlib.suppress(anyio.BrokenResourceError):  # the server has ended
                await messages.send(SessionMessage(message))


async def _speak(writer: "_Writer", messages: MemoryObjectReceiveStream[SessionMessage]) -> None:
    async with messages:
        async for sent in messages:
            try:
                line = sent.message.model_dump_json(by_alias=True, exclude_unset=True) + "\n"
            except PydanticSerializationError:  # one answer that no JSON can carry must not take the others with it
                line = _error(getattr(sent.message, "id", None), INTERNAL_ERROR, "the answer is no text")
            await writer.write(line)


def _refusal(line: str) -> str:
    """Whoever asked must not wait for an answer for ever: the id is taken from what can be read of the line."""
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        return _error(None, PARSE_ERROR, "this is no JSON")
    asked = cast(dict[str, Any], found).get("id") if isinstance(found, dict) else None
    known = asked if isinstance(asked, int | str) and not isinstance(asked, bool) else None
    return _error(known, INVALID_REQUEST, "this is no JSON-RPC message, or it has half a surrogate pair in its text")


def _error(asked: int | str | None, code: int, message: str) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": asked, "error": {"code": code, "message": message}}) + "\n"


@contextlib.contextmanager
def _own_streams() -> Generator[tuple[int, int]]:
    """Descriptors of the client; 0 and 1 are empty and stderr meanwhile."""
    sys.stdout.flush()
    stdin, stdout = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    try:
        yield stdin, stdout
    finally:
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        # The duplicates stay open: a thread may still wait on one of them.


class _Reader:
    """Lines, at most MAX_REQUEST long; a longer one is answered as an error and dropped."""

    def __init__(self, descriptor: int, writer: "_Writer") -> None:
        self._descriptor = descriptor
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._room = threading.Semaphore(_AHEAD)
        threading.Thread(target=self._read, name="mcp-stdin", daemon=True).start()

    async def line(self) -> str | None:
        """None at the end."""
        line = await self._lines.get()
        if line is not None:
            self._room.release()
        return line

    def _read(self) -> None:
        buffer = bytearray()
        skipping = False
        while True:
            try:
                data = os.read(self._descriptor, _CHUNK)
            except OSError:
                data = b""
            if not data:
                break
            *lines, rest = data.split(b"\n")
            for line in lines:
                buffer += line
                if not skipping and len(buffer) <= MAX_REQUEST:
                    self._give(buffer.decode(errors="replace"))
                elif not skipping:
                    self._writer.put(_error(None, INVALID_REQUEST, f"a message has at most {MAX_REQUEST >> 20} MiB"))
                buffer.clear()
                skipping = False
            if not skipping:
                buffer += rest
            if len(buffer) > MAX_REQUEST:
                self._writer.put(_error(None, INVALID_REQUEST, f"a message has at most {MAX_REQUEST >> 20} MiB"))
                buffer.clear()
                skipping = True
        self._give(None)

    def _give(self, line: str | None) -> None:
        if line is not None:
            self._room.acquire()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._lines.put_nowait, line)


class _Writer:
    """Text to a descriptor. A client that does not read makes `write` wait, and nothing else."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._texts: queue.SimpleQueue[tuple[str, asyncio.Future[None] | None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="mcp-stdout", daemon=True).start()

    def put(self, text: str) -> None:
        """From any thread."""
        self._texts.put((text, None))

    async def write(self, text: str) -> None:
        """Returns when it is written, or when nobody reads any more."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._texts.put((text, done))
        await done

    async def flushed(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self.write("")

    def _work(self) -> None:
        broken = False
        while True:
            text, done = self._texts.get()
            try:
                data = memoryview(text.encode())
                while data and not broken:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                broken = True  # the end of stdin says so too, and ends us
            if done is not None:
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(_settle, done)


def _settle(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)
