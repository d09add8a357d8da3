"""What goes into the processes: each byte once, by its offset, whoever sends it how often."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from belljar.model.errors import Conflict, DeadlineExceeded, Error
from belljar.node.guest.facts import integer
from belljar.node.guest.session import Session
from belljar.node.guest.streams import Outgoing
from belljar.wire.faults import WireFault
from belljar.wire.inflow import MAX_WINDOW

__all__ = ("Inputs",)

_CALL = 10.0
_LONG = 3600.0
_MAX_KEPT = 256


class _Input:
    """The open stream to a process's standard input, and whoever writes to it, one at a time."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.out: Outgoing | None = None
        self.users = 0


class Inputs:
    """`taken` asks the agent how many bytes of input a process was given so far."""

    def __init__(self, session: Session, taken: Callable[[int], Awaitable[int]]) -> None:
        self._session = session
        self._taken = taken
        self._known: OrderedDict[int, _Input] = OrderedDict()

    async def write(self, ref: int, offset: int, data: bytes, *, eof: bool, timeout: float) -> int:
        deadline = self._session.loop.time() + timeout
        known = self._known.get(ref)
        if known is None:
            known = self._known[ref] = _Input()
        known.users += 1
        try:
            try:
                async with asyncio.timeout_at(deadline):
                    await known.lock.acquire()
            except TimeoutError:
                raise DeadlineExceeded("somebody else's input waits for the process") from None
            try:
                return await self._write(ref, known, offset, data, eof, deadline)
            finally:
                known.lock.release()
        finally:
            known.users -= 1
            self._trim(ref, known)

    async def _write(self, ref: int, known: _Input, offset: int, data: bytes, eof: bool, deadline: float) -> int:
        """The stream to a process stays open between calls, so that a keystroke is one frame and no round trip."""
        left = deadline - self._session.loop.time()
        sent = False
        if known.out is not None and known.out.over:
            known.out = None
        try:
            async with asyncio.timeout_at(deadline):
                out = known.out = known.out or await self._open(ref, offset)
                if offset > out.position:
                    raise Conflict(f"a part of the input is missing: {out.position} bytes were taken")
                if rest := memoryview(data)[out.position - offset :]:
                    await out.send(rest, idle=left)
                    await out.flushed(idle=left)
                if eof and out.position == offset + len(data):
                    await out.finish(idle=left, timeout=left)
                    known.out = None
            sent = True
            return out.position
        except TimeoutError:
            if known.out is None:
                raise DeadlineExceeded("the agent did not take the input in time") from None
            # The process does not read. What is on its way is taken; the rest never leaves.
            return known.out.position - known.out.unsent
        except Conflict:
            end = offset + len(data)
            if eof and await self._taken(ref) >= end:
                return end  # a repeated call: the first one closed it
            raise
        finally:
            if not sent and known.out is not None:
                known.out.close()
                known.out = None

    async def _open(self, ref: int, offset: int) -> Outgoing:
        out = self._session.outgoing()
        try:
            answer = await self._session.call(
                "stdin", {"id": ref, "stream": out.id, "offset": offset, "window": MAX_WINDOW}, timeout=_CALL
            )
            try:
                taken = integer(answer, "offset")
                credit = integer(answer, "credit", least=taken, most=taken + MAX_WINDOW)
            except WireFault as fault:
                raise self._session.distrust(fault) from None
            if answer.get("closed") is True:
                raise Conflict("the process takes no input any more")
            out.begin(taken, credit)
        except BaseException:
            out.close()
            raise
        return out

    async def feed(self, ref: int, input: bytes) -> int:
        """All of the input, however slowly the process reads; one that does not want it is fine."""
        taken = 0
        with contextlib.suppress(Error):  # whoever reads the output is told
            while taken < len(input):
                taken = await self.write(ref, taken, input[taken:], eof=True, timeout=_LONG)
        return taken

    def close(self, ref: int) -> None:
        known = self._known.get(ref)
        if known is not None and not known.users:
            self._known.pop(ref)
            if known.out is not None:
                known.out.close()

    def _trim(self, ref: int, known: _Input) -> None:
        if known.out is None and not known.users:
            if self._known.get(ref) is known:
                del self._known[ref]
            return
        if ref in self._known:
            self._known.move_to_end(ref)
        for old in [old for old, one in self._known.items() if not one.users][: max(0, len(self._known) - _MAX_KEPT)]:
            self.close(old)
