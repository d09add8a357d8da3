"""The bodies of requests: how much may come, how slowly, how much of all of them at once; and what a big one is made of."""

import asyncio
import os
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import Message, Receive, Scope

from belljar.model.errors import DeadlineExceeded, InvalidArgument, NoCapacity, TooLarge

__all__ = ("Bounded", "Held", "MostlyText", "check_mostly_text")

_PATIENCE_SECONDS = 60.0
_SLOWEST = 1024
"""Bytes of a body that buy one more second of patience."""
_MIB = 1 << 20
_LIMITS = {
    "run": 4 * _MIB,
    "processes": 4 * _MIB,
    "stdin": 8 * _MIB,
    "content": 16 * _MIB,
    "execute": 32 * _MIB,
    "calls": 64 * _MIB,
}
_DEFAULT_LIMIT = _MIB
_UNBOUNDED = frozenset({("PUT", "tree"), ("POST", "import")})
"""Trees and snapshots, which nobody holds in memory."""
_STREAMED = _UNBOUNDED | {("PUT", "content")}
_MOST_HELD = max(512 * _MIB, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8)
"""Of the bodies of all requests at once, those that are streamed aside."""
_SMALL = 1 << 20
_MOST = 64 << 10
"""Bytes outside of strings."""
_MOST_STRINGS = 8192
# Possessive: nothing is kept to go back to, however long the string.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


class Held:
    """Bytes of bodies in memory."""

    size = 0


class Bounded:
    """`receive` that counts bytes, and the time that was spent on waiting for them."""

    def __init__(self, receive: Receive, scope: Scope, declared: bytes | None, held: Held) -> None:
        """`declared`: the request's Content-Length. Raises TooLarge."""
        self._receive = receive
        self._limit = _limit(scope)
        self._seen = 0
        self._more = True
        self._patience = _PATIENCE_SECONDS
        self._held = None if _is_streamed(scope) else held
        if declared is not None and declared.isdigit():
            self._check(int(declared[:20]))

    async def __call__(self) -> Message:
        if not self._more:
            return await self._receive()
        try:
            async with asyncio.timeout(self._patience) as limit:
                message = await self._receive()
        except TimeoutError:
            raise DeadlineExceeded("the body stopped, or comes at less than 1 KiB a second") from None
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self._seen += size
            self._more = message.get("more_body", False)
            self._hold(size)
            self._check(self._seen)
            left = (limit.when() or 0.0) - asyncio.get_running_loop().time()
            self._patience = min(_PATIENCE_SECONDS, left + size / _SLOWEST)
        return message

    def _hold(self, size: int) -> None:
        if self._held is None:
            return
        self._held.size += size
        if self._held.size > _MOST_HELD:
            raise NoCapacity("the server has as many bodies in memory as it may", hint="try again", retry_after=1.0)

    def done(self) -> None:
        """The request is answered, and its body forgotten."""
        if self._held is not None:
            self._held.size -= self._seen

    def _check(self, size: int) -> None:
        if self._limit is not None and size > self._limit:
            raise TooLarge(f"a body at this address has at most {self._limit >> 20} MiB")


def _limit(scope: Scope) -> int | None:
    before, _, last = scope["path"].rpartition("/")
    if before.endswith("/calls"):
        last = "calls"
    if (scope["method"], last) in _UNBOUNDED:
        return None
    return _LIMITS.get(last, _DEFAULT_LIMIT)


def _is_streamed(scope: Scope) -> bool:
    return (scope["method"], scope["path"].rpartition("/")[2]) in _STREAMED


class MostlyText(APIRoute):
    """A `route_class` for big JSON bodies: nearly all of one is text. What is something else is refused before it is taken apart.

    64 MiB of ``[[],[],…`` take seconds, in which nobody else is answered, and 25 times as much memory.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_Checked(request.scope, request.receive))

        return handle


class _Checked(Request):
    async def json(self) -> Any:
        check_mostly_text(await self.body())
        return await super().json()


def check_mostly_text(body: bytes) -> None:
    """Raises InvalidArgument. 60 MiB of text take 10 ms, or 400 where it is full of brackets and commas."""
    if len(body) <= _SMALL or sum(map(body.count, (b"[", b"{", b","))) <= _MOST:
        return
    if len(_STRING.sub(b"", body, count=_MOST_STRINGS)) > _MOST:
        raise InvalidArgument(
            f"a body of more than {_SMALL >> 20} MiB is text in few fields here, with at most {_MOST >> 10} KiB around them"
        )
