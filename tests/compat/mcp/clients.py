"""Clients of `belljar mcp`: the official one over both transports, and raw lines for what it would never do."""

import contextlib
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult
from tests.api.sdk.belljar_command import BELLJAR

__all__ = ("ERAS", "TOKEN", "HttpServer", "Lines", "connected", "http_client", "http_server", "stdio", "text_of")

ERAS = {"handshake": "legacy", "2026-07-28": "2026-07-28"}
TOKEN = "token-of-the-tests"


@contextlib.asynccontextmanager
async def stdio(environ: dict[str, str], *words: str, era: str = "2026-07-28") -> AsyncIterator[Client]:
    parameters = StdioServerParameters(command=BELLJAR[0], args=[*BELLJAR[1:], "mcp", *words], env=environ)
    async with Client(stdio_client(parameters), mode=ERAS[era]) as client:
        yield client


class HttpServer:
    def __init__(self, url: str, process: "subprocess.Popen[str]") -> None:
        self.url = url
        self.process = process


@contextlib.contextmanager
def http_server(environ: dict[str, str], *words: str) -> Iterator[HttpServer]:
    line = [*BELLJAR, "mcp", "--http", "--port", "0", "--json", "--token-env", "TOKEN", *words]
    process = subprocess.Popen(
        line, env=environ | {"TOKEN": TOKEN}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield HttpServer(json.loads(process.stdout.readline())["url"], process)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@contextlib.asynccontextmanager
async def http_client(server: HttpServer, era: str = "2026-07-28") -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(server.url, http_client=http), mode=ERAS[era]) as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def connected(environ: dict[str, str], transport: str, *words: str, era: str) -> AsyncIterator[Client]:
    """Over stdio or http."""
    if transport == "stdio":
        async with stdio(environ, *words, era=era) as client:
            yield client
    else:
        with http_server(environ, *words) as server:
            async with http_client(server, era) as client:
                yield client


def text_of(result: CallToolResult) -> str:
    return "\n".join(one.text for one in result.content if one.type == "text")


class Lines:
    """A client that writes lines as it likes."""

    def __init__(self, environ: dict[str, str], *words: str) -> None:
        self.process = subprocess.Popen(
            [*BELLJAR, "mcp", *words],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._number = 0

    def __enter__(self) -> "Lines":
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "lines", "version": "1"}}
        try:
            self.ask("initialize", hello)
        except BaseException:
            self.end()
            raise
        self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def say(self, message: object) -> None:
        self.write(json.dumps(message).encode() + b"\n")

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def start(self, method: str, params: dict[str, Any]) -> int:
        self._number += 1
        self.say({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        return self._number

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self.start(method, params)
        return self.answer()

    def call(self, tool: str, **arguments: object) -> dict[str, Any]:
        return self.ask("tools/call", {"name": tool, "arguments": arguments})["result"]

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def end(self) -> tuple[int, float]:
        """Closes stdin; the exit status and how many seconds the end took."""
        assert self.process.stdin is not None
        started = time.monotonic()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        status = self.process.wait(30)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return status, time.monotonic() - started

    def memory(self) -> int:
        """Bytes it has had at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10
