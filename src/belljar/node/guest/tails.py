"""The end of what processes wrote: as it passed through here, or as the agent still has it."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from belljar.model.errors import Conflict, Error
from belljar.model.process import Exit, Output, ProcessInfo, Stream, Tail
from belljar.node.guest.api import GuestApi

__all__ = ("NEWEST", "TAIL", "Tails", "last_words", "tail_of")

NEWEST = 10
"""Processes of a sandbox."""
TAIL = 32 << 10
"""Bytes of each stream."""
_SLACK = TAIL // 2
"""Cutting at each piece would move the whole tail each time."""
_SECONDS = 2.0
_WORDS = 4096
"""Characters of a command that are kept."""


@dataclass(slots=True)
class _Tail:
    """`end`: the bytes that the process had written when the newest of these came."""

    data: bytearray = field(default_factory=bytearray)
    end: int = 0

    def add(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if end <= self.end:
            return  # read a second time
        if offset > self.end:
            self.data.clear()  # there was more in between
        self.data += data[max(self.end - offset, 0) :][-TAIL:]
        self.end = end
        if len(self.data) > TAIL + _SLACK:
            del self.data[:-TAIL]


@dataclass(slots=True)
class _Known:
    process: ProcessInfo
    tails: dict[Stream, _Tail] = field(default_factory=lambda: {stream: _Tail() for stream in Stream})


class Tails:
    """Of the newest processes of one guest. What nobody read has not passed through here."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, _Known] = OrderedDict()

    def know(self, process: ProcessInfo) -> None:
        """It was started, or has ended; of a short one the end may be told first."""
        if (known := self._known.get(process.id)) is not None:
            if process.returncode is not None or known.process.returncode is None:
                known.process = process
            return
        self._known[process.id] = _Known(process)
        while len(self._known) > NEWEST:
            self._known.popitem(last=False)

    def wrote(self, process: int, piece: Output) -> None:
        if (known := self._known.get(process)) is not None:
            known.tails[piece.stream].add(piece.offset, piece.data)

    def all(self) -> list[Tail]:
        """The oldest process first."""
        return [_told(known) for known in self._known.values()]

    def whole(self, process: ProcessInfo) -> Tail | None:
        """None where the agent has something newer."""
        known = self._known.get(process.id)
        if known is None:
            return None
        known.process = process
        ends = (known.tails[Stream.STDOUT].end, known.tails[Stream.STDERR].end)
        return _told(known) if ends == (process.stdout.end, process.stderr.end) else None


async def last_words(
    guest: GuestApi, passed: Tails, is_read: Callable[[int], bool], *, ask: bool, seconds: float
) -> list[Tail]:
    """Of a guest that is about to end, the oldest process first. `ask` its agent for what did not pass through here, for so many
    `seconds` at most; not for what somebody reads right now (`is_read`), for an output has one reader. Never raises.
    """
    found = {tail.process.id: tail for tail in passed.all()}
    if ask:
        with contextlib.suppress(Error, TimeoutError):
            async with asyncio.timeout(seconds):
                processes = await guest.processes()
                for process in sorted(processes, key=lambda one: one.id)[-NEWEST:]:
                    whole = passed.whole(process)
                    if whole is None and not is_read(process.id):
                        with contextlib.suppress(Conflict):
                            whole = Tail(process, False, *await tail_of(guest, process, TAIL))
                    if whole is not None:
                        found[process.id] = whole
    newest = sorted(found.values(), key=lambda tail: tail.process.id)[-NEWEST:]
    return [replace(tail, process=_short(tail.process)) for tail in newest]


async def tail_of(guest: GuestApi, process: ProcessInfo, limit: int) -> tuple[bytes, bytes]:
    """At most `limit` bytes of each stream. Raises Conflict for a kernel of a context, and for what somebody else reads."""
    states = {Stream.STDOUT: process.stdout, Stream.STDERR: process.stderr}
    wanted = {
        stream: max(state.start, state.end - limit) for stream, state in states.items() if state.end > state.start
    }
    got = {stream: bytearray() for stream in Stream}
    missing = {stream: states[stream].end for stream in wanted}
    if not wanted:
        return b"", b""
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
    except Conflict:
        raise
    except (TimeoutError, Error):
        pass  # what came so far is a tail too
    finally:
        if (close := getattr(events, "aclose", None)) is not None:
            await close()
    return bytes(got[Stream.STDOUT][-limit:]), bytes(got[Stream.STDERR][-limit:])


def _told(known: _Known) -> Tail:
    return Tail(known.process, False, *(bytes(known.tails[stream].data[-TAIL:]) for stream in Stream))


def _short(process: ProcessInfo) -> ProcessInfo:
    """A command may have megabytes of words."""
    words: list[str] = []
    left = _WORDS
    for word in process.argv:
        if left <= 0:
            break
        words.append(word[:left])
        left -= len(word) + 1
    return replace(process, argv=tuple(words))
