"""What the server itself must know of processes: which outputs are being read through it."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass

from belljar.model.errors import Conflict, Error
from belljar.model.process import Exit, Output, ProcessInfo, Stream
from belljar.node.api import GuestApi

__all__ = ("Readers", "Tail", "tail_of", "tails")

_NEWEST = 10
_SECONDS = 2.0


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


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of what a process wrote. `attached`: somebody reads it, so it was left alone."""

    process: ProcessInfo
    attached: bool
    stdout: bytes = b""
    stderr: bytes = b""


async def tails(guest: GuestApi, sandbox: str, readers: Readers, *, limit: int) -> list[Tail]:
    """At most `limit` bytes of each stream of the newest processes, oldest process first."""
    newest = sorted(await guest.processes(), key=lambda process: process.id)[-_NEWEST:]
    found: list[Tail] = []
    for process in newest:
        if readers.has(sandbox, process.id):
            found.append(Tail(process, attached=True))
        else:
            try:
                output = await _tail(guest, process, limit)
            except Conflict:  # the kernel of a context, whose output is the node's to read
                found.append(Tail(process, attached=True))
                continue
            found.append(Tail(process, False, bytes(output[Stream.STDOUT]), bytes(output[Stream.STDERR])))
    return found


async def tail_of(guest: GuestApi, process: ProcessInfo, limit: int) -> tuple[bytes, bytes]:
    """At most `limit` bytes of each stream of one that nobody else reads."""
    output = await _tail(guest, process, limit)
    return bytes(output[Stream.STDOUT]), bytes(output[Stream.STDERR])


async def _tail(guest: GuestApi, process: ProcessInfo, limit: int) -> dict[Stream, bytearray]:
    states = {Stream.STDOUT: process.stdout, Stream.STDERR: process.stderr}
    wanted = {
        stream: max(state.start, state.end - limit) for stream, state in states.items() if state.end > state.start
    }
    got = {stream: bytearray() for stream in Stream}
    missing = {stream: states[stream].end for stream in wanted}
    if not wanted:
        return got
    events = guest.output(process.id, wanted)
    try:
        async with asyncio.timeout(_SECONDS):
            async for event in events:
                match event:
                    case Output(stream, offset, data):
                        got[stream] += data
                        if offset + len(data) >= states[stream].end:
                            missing.pop(stream, None)
                    case Exit():
                        break
                if not missing:
                    break
    except (TimeoutError, Error):
        pass  # what came so far is a tail too
    finally:
        if (close := getattr(events, "aclose", None)) is not None:
            await close()
    return {stream: data[-limit:] for stream, data in got.items()}
