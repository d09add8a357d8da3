"""Bytes on a connection to a server, and what it says to them: what no well-behaved client sends."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ("SECONDS", "Answer", "Door", "Talk")

SECONDS = 20.0
"""Whatever is sent, the server says something or hangs up in this time."""


@dataclass(frozen=True)
class Answer:
    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.decode("latin-1").lower() == name:
                return value.strip().decode("latin-1")
        return None

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> str:
        """The code of an error in the form of the API."""
        assert self.header("content-type") == "application/json", self
        error = self.json()["error"]
        assert isinstance(error["message"], str), self
        assert isinstance(error["retryable"], bool), self
        assert error["request_id"] == self.header("x-request-id"), self
        return error["code"]


class Talk:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, *pieces: bytes, pause: float = 0.0) -> bool:
        """Whether all of it was taken: the server may hang up in the middle."""
        try:
            async with asyncio.timeout(SECONDS):
                for piece in pieces:
                    self.writer.write(piece)
                    await self.writer.drain()
                    if pause:
                        await asyncio.sleep(pause)
        except ConnectionError:
            return False
        return True

    async def answer(self) -> Answer | None:
        """The next one; None when the server has hung up."""
        try:
            async with asyncio.timeout(SECONDS):
                head = await self.reader.readuntil(b"\r\n\r\n")
                answer = Answer(int(head.split(b" ", 2)[1]), head[:-4], b"")
                length = answer.header("content-length")
                assert length is not None, head
                return Answer(answer.status, answer.head, await self.reader.readexactly(int(length)))
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            assert not getattr(error, "partial", b""), "half an answer"
            return None

    async def ended(self) -> bytes:
        """What else comes before the server hangs up."""
        try:
            async with asyncio.timeout(SECONDS):
                return await self.reader.read()
        except ConnectionError:
            return b""


@dataclass(frozen=True)
class Door:
    """A listener: the unix socket at `path`, or the TCP port, which needs the key."""

    path: Path | None
    port: int = 0
    key: str = ""

    def head(self, line: str, *fields: str) -> bytes:
        own = ("host: belljar", *((f"authorization: Bearer {self.key}",) if self.key else ()))
        return "\r\n".join([line, *own, *fields, "", ""]).encode("latin-1")

    def post(self, body: bytes, at: str = "/v1/sandboxes", *fields: str) -> bytes:
        fields = fields or ("content-type: application/json",)
        return self.head(f"POST {at} HTTP/1.1", *fields, f"content-length: {len(body)}") + body

    @contextlib.asynccontextmanager
    async def talk(self) -> AsyncIterator[Talk]:
        if self.path is not None:
            reader, writer = await asyncio.open_unix_connection(str(self.path), limit=1 << 20)
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        try:
            yield Talk(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def ask(self, *pieces: bytes) -> Answer | None:
        """The first answer to these bytes on a connection of their own."""
        async with self.talk() as talk:
            await talk.say(*pieces)
            return await talk.answer()

    async def is_well(self) -> bool:
        answer = await self.ask(self.head("GET /health HTTP/1.1"))
        return answer is not None and answer.status == 200
