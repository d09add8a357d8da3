"""Who needs which chunk: what decides whether one may be removed. No I/O; all calls from the event loop.

A chunk is *referred to* by recipes that are durable, *held* by those who are about to write one, and *going* while it is
removed. Holding comes before looking whether a chunk is there, and going is decided in one step together with "neither referred
to nor held", so the two can never both believe they were first.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterable, Set
from itertools import islice

from belljar.base.tasks import to_the_end

__all__ = ("Hold", "References")

_SLICE = 8192


class Hold:
    """Chunks that somebody is about to refer to."""

    def __init__(self, references: "References") -> None:
        self._references = references
        self.names: set[bytes] = set()

    async def take(self, names: Iterable[bytes]) -> set[bytes]:
        """Holds them. Those that the store is not known to have, and which the caller therefore puts, are returned.

        Waits for those that are being removed.
        """
        wanted = set(names)
        new = wanted - self.names
        self.names |= new
        return await self._references.hold(wanted, new)


class References:
    def __init__(self) -> None:
        self._referred: Counter[bytes] = Counter()
        self._held: Counter[bytes] = Counter()
        self._going: set[bytes] = set()
        self._gone = asyncio.Event()

    def __contains__(self, name: bytes) -> bool:
        return name in self._referred

    def __len__(self) -> int:
        return len(self._referred)

    async def add(self, names: Set[bytes]) -> None:
        """A recipe with these is durable. Whole when it returns, also to one who is cancelled meanwhile."""
        await to_the_end(_in_slices(names, self._referred.update))

    async def discard(self, names: Set[bytes]) -> None:
        """A recipe with these, which was added, is gone."""
        await to_the_end(_in_slices(names, lambda part: _take_from(self._referred, part)))

    @contextlib.asynccontextmanager
    async def holding(self) -> AsyncGenerator[Hold]:
        """Until the recipe that refers to them is added."""
        hold = Hold(self)
        try:
            yield hold
        finally:
            await to_the_end(_in_slices(hold.names, lambda part: _take_from(self._held, part)))

    async def hold(self, wanted: Collection[bytes], new: Collection[bytes]) -> set[bytes]:
        self._held.update(set(new))
        while self._going & set(wanted):
            self._gone.clear()
            await self._gone.wait()
        return {name for name in wanted if name not in self._referred}

    @contextlib.contextmanager
    def going(self, candidates: Iterable[bytes]) -> Generator[set[bytes]]:
        """Those of the candidates that nobody needs: they may be removed until this ends, and nobody begins to need them."""
        free = {name for name in candidates if name not in self._referred and name not in self._held}
        free -= self._going
        self._going |= free
        try:
            yield free
        finally:
            self._going -= free
            self._gone.set()


async def _in_slices(names: Set[bytes], change: Callable[[Iterable[bytes]], None]) -> None:
    """A snapshot of 100 GB has a million chunks, and everybody else goes on meanwhile. Half of it does no harm: who adds holds
    them already, and who discards needs them no more.
    """
    rest = iter(names)
    while part := tuple(islice(rest, _SLICE)):
        change(part)
        await asyncio.sleep(0)


def _take_from(counter: Counter[bytes], names: Iterable[bytes]) -> None:
    for name in names:
        counter[name] -= 1
        if counter[name] <= 0:
            del counter[name]
