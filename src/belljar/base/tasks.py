"""Background work with one owner who awaits its end."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ("TaskSet", "in_thread", "opened_in_thread", "to_the_end", "wait_until")

T = TypeVar("T")


class TaskSet:
    """Tasks that live as long as their owner: leaving the context cancels the rest and awaits all of them.

    Unlike asyncio.TaskGroup one failed task does not end the others: its exception goes to `on_error`.
    """

    def __init__(self, on_error: Callable[[str, BaseException], None]) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_error = on_error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(task.get_name(), error)

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))
            await asyncio.sleep(0)  # let the callbacks run

    def __len__(self) -> int:
        return len(self._tasks)


async def in_thread(function: Callable[..., T], *args: Any, **keywords: Any) -> T:
    """Runs a blocking call in a worker thread; on cancellation the call itself still runs to its end."""
    return await asyncio.to_thread(function, *args, **keywords)


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """When the caller is cancelled meanwhile, waits for the end of the work, and only then lets the cancellation through."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await asyncio.shield(task)
        if not task.cancelled():
            task.exception()
        raise


async def opened_in_thread(close: Callable[[T], object], open: Callable[..., T], *args: Any) -> T:
    """As `in_thread`, for what somebody has to close: when its caller was cancelled meanwhile, `close` gets it."""
    task = asyncio.ensure_future(asyncio.to_thread(open, *args))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(lambda done: done.cancelled() or done.exception() or close(done.result()))
        raise


async def wait_until(ready: Callable[[], Awaitable[bool]], *, timeout: float, every: float = 0.02) -> bool:
    """Polls until `ready` says so; False when `timeout` seconds passed first."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        if await ready():
            return True
        if asyncio.get_running_loop().time() >= deadline:
            return False
        await asyncio.sleep(every)
