"""What the server itself must know of processes: which outputs are being read through it."""

import contextlib
from collections import Counter
from collections.abc import Generator

from belljar.model.errors import Conflict
from belljar.model.process import Tail
from belljar.node.api import GuestApi, tail_of

__all__ = ("Readers", "tails")

_NEWEST = 10


class Readers:
    """Counts readers by sandbox and process: an output has one reader, and looking at a log must not push it away."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, int]] = Counter()

    @contextlib.contextmanager
    def reading(self, sandbox: str, process: int) -> Generator[None]:
        self._counts[sandbox, process] += 1
        try:
            yield
        finally:
            self._counts[sandbox, process] -= 1
            if not self._counts[sandbox, process]:
                del self._counts[sandbox, process]

    def has(self, sandbox: str, process: int) -> bool:
        return (sandbox, process) in self._counts


async def tails(guest: GuestApi, sandbox: str, readers: Readers, *, limit: int) -> list[Tail]:
    """At most `limit` bytes of each stream of the newest processes, oldest process first."""
    newest = sorted(await guest.processes(), key=lambda process: process.id)[-_NEWEST:]
    found: list[Tail] = []
    for process in newest:
        if readers.has(sandbox, process.id):
            found.append(Tail(process, attached=True))
        else:
            try:
                found.append(Tail(process, False, *await tail_of(guest, process, limit)))
            except Conflict:  # the kernel of a context, whose output is the node's to read
                found.append(Tail(process, attached=True))
    return found
