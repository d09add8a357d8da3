"""Long listings, read a page at a time: each page goes on where the one before it ended."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from belljar.base.tasks import TaskSet

__all__ = ("Pages",)

T = TypeVar("T")


@dataclass(slots=True)
class _Reading(Generic[T]):
    items: AsyncGenerator[T]
    ahead: list[T]
    """At most one, which tells that there is a next page."""
    expiry: "asyncio.Task[None] | None" = None

    async def close(self) -> None:
        if self.expiry is not None:
            self.expiry.cancel()
        await self.items.aclose()


class Pages(Generic[T]):
    """Readings that wait between two pages: `most` of them, each for `seconds`. A page whose reading is gone, or was never
    there, is found by reading from the start; so what is listed must not change.

    `close` ends what still waits.
    """

    def __init__(
        self, on_error: Callable[[str, BaseException], None], *, most: int = 16, seconds: float = 30.0
    ) -> None:
        self._most = most
        self._seconds = seconds
        self._waiting: dict[tuple[str, int], _Reading[T]] = {}
        self._tasks = TaskSet(on_error)

    async def close(self) -> None:
        await self._tasks.close()
        for at in tuple(self._waiting):
            await self._waiting.pop(at).close()

    async def page(
        self, name: str, start: int, limit: int, begin: Callable[[], AsyncGenerator[T]]
    ) -> tuple[list[T], int | None]:
        """Items from number `start` on, at most `limit`, and the number that the next page starts with, None after the last.
        `begin` reads what `name` means from its first item; what it raises is raised here.
        """
        reading = self._waiting.pop((name, start), None)
        skipped = start
        if reading is None:
            reading, skipped = _Reading(begin(), []), 0
        elif reading.expiry is not None:
            reading.expiry.cancel()
        async with contextlib.AsyncExitStack() as ending:
            ending.push_async_callback(reading.items.aclose)
            items = reading.ahead
            async for item in reading.items:
                if skipped < start:
                    skipped += 1
                elif len(items) < limit:
                    items.append(item)
                else:
                    reading.ahead = [item]
                    ending.pop_all()
                    await self._keep((name, start + limit), reading)
                    return items, start + limit
        return items, None

    async def _keep(self, at: tuple[str, int], reading: _Reading[T]) -> None:
        # Of two who read the same, and of too many, the older gives way.
        older = at if at in self._waiting else next(iter(self._waiting)) if len(self._waiting) >= self._most else None
        given_up = self._waiting.pop(older) if older is not None else None
        self._waiting[at] = reading
        reading.expiry = self._tasks.start(self._expire(at), name=f"a page of {at[0]}")
        if given_up is not None:
            await given_up.close()

    async def _expire(self, at: tuple[str, int]) -> None:
        await asyncio.sleep(self._seconds)
        await self._waiting.pop(at).items.aclose()
