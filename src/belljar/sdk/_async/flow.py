"""What the async SDK does otherwise than its sync twin. The twin of this module is written by hand, with the same names."""

import asyncio
import contextlib
import inspect
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, BinaryIO, TypeVar

from belljar.sdk.feed import ChunkFile

__all__ = (
    "Lock",
    "Shared",
    "Worker",
    "at_end",
    "call",
    "consume",
    "in_thread",
    "in_threads",
    "outcomes",
    "shielded",
    "sleep",
)

T = TypeVar("T")

Lock = asyncio.Lock
sleep = asyncio.sleep


class Worker:
    """One piece of work beside the caller's, `delay` seconds from now; its owner ends it with `stop`."""

    def __init__(self, work: Callable[..., Awaitable[None]], *args: Any, delay: float = 0.0) -> None:
        self._task = asyncio.create_task(self._run(work, args, delay))

    @staticmethod
    async def _run(work: Callable[..., Awaitable[None]], args: tuple[Any, ...], delay: float) -> None:
        if delay > 0:
            await asyncio.sleep(delay)
        await work(*args)

    async def stop(self) -> None:
        """Cancels it if it still runs, and waits for its end."""
        self._task.cancel()
        await asyncio.wait([self._task])


class Shared:
    """Things that live as long as the event loop they were made in."""

    def __init__(self) -> None:
        self._of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Any, Any]] = (
            weakref.WeakKeyDictionary()
        )

    def here(self) -> dict[Any, Any]:
        return self._of_loop.setdefault(asyncio.get_running_loop(), {})


async def at_end(close: Callable[[], Awaitable[None]]) -> None:
    """Has `close` awaited when the event loop ends: `asyncio.run` closes the async generators that are still open."""
    waiting = _until_closed(close)
    await anext(waiting)
    _open_until_end.setdefault(asyncio.get_running_loop(), []).append(waiting)


_open_until_end: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, list[AsyncIterator[None]]] = (
    weakref.WeakKeyDictionary()
)


async def _until_closed(close: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await close()


async def call(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function of the user's, and returns its result; that of a coroutine function is awaited."""
    result = function(*args)
    return await result if inspect.isawaitable(result) else result


async def in_thread(function: Callable[..., T], *args: Any, **keywords: Any) -> T:
    """Runs a blocking call without blocking the loop."""
    return await asyncio.to_thread(function, *args, **keywords)


async def in_threads(blocking: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks of an iterator that blocks."""
    while (chunk := await asyncio.to_thread(next, blocking, None)) is not None:
        yield chunk


async def consume(chunks: AsyncIterator[bytes], consumer: Callable[[BinaryIO], T]) -> T:
    """Gives `consumer`, in a thread, the chunks as a file."""
    loop = asyncio.get_running_loop()

    async def pull() -> bytes:
        return await anext(chunks, b"")

    def pull_in_thread() -> bytes:
        return asyncio.run_coroutine_threadsafe(pull(), loop).result()

    return await asyncio.to_thread(consumer, ChunkFile(pull_in_thread))  # pyright: ignore[reportArgumentType]


async def shielded(work: Callable[[], Awaitable[None]], *, timeout: float) -> None:
    """Does `work` within `timeout` seconds also while the caller is being cancelled; its failure is no news then."""
    with contextlib.suppress(Exception):
        await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(work())), timeout)


async def outcomes(work: Sequence[Callable[[], Awaitable[T]]]) -> list[T | BaseException]:
    """What became of each, all done at the same time."""
    return await asyncio.gather(*(one() for one in work), return_exceptions=True)
