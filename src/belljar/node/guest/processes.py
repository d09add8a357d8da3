"""Processes inside, and their output and input, on a session."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from belljar.base.telemetry import span
from belljar.model.errors import Conflict, Error
from belljar.model.process import Exit, Output, OutputEvent, ProcessInfo, ProcessSpec, PtySize, Stream
from belljar.node.guest.facts import listing, process_of
from belljar.node.guest.inputs import Inputs
from belljar.node.guest.session import Session
from belljar.node.guest.streams import Incoming
from belljar.node.guest.tails import Tails
from belljar.wire.faults import WireFault
from belljar.wire.inflow import MAX_WINDOW

__all__ = ("Processes",)

_CALL = 10.0
_START = 30.0
_LONG = 3600.0
_LOOK_AGAIN = 5.0
"""Seconds after which we ask for the state of a process whose end nobody has told."""
_MAX_PROCESSES = 4096
_MAX_ENDS = 512
_PRIMING = 2
_PRIMER = ("/bin/sh", "-c", "/bin/true; echo")
_TAKEN_OVER = "another reader took over this output"


class Processes:
    """What the session knows beside the agent: who reads which output, which ends were told, which inputs are open."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._inputs: Inputs | None = None
        self._readers: dict[tuple[int, Stream], Incoming] = {}
        self._ends: OrderedDict[int, Exit] = OrderedDict()
        self._waiting: dict[int, set[asyncio.Future[ProcessInfo]]] = {}
        self.tails = Tails()

    def bind(self, session: Session) -> None:
        self._session = session
        self._inputs = Inputs(session, self._taken)

    def exited(self, event: Mapping[str, Any]) -> None:
        """The agent says that a process has ended. Raises WireFault when it says it badly."""
        info = process_of(event.get("process"))
        if info.returncode is None:
            raise WireFault("a process ended without a status")
        self._ends[info.id] = Exit(info.returncode, info.out_of_memory)
        self.tails.know(info)
        while len(self._ends) > _MAX_ENDS:
            self._ends.popitem(last=False)
        for future in self._waiting.pop(info.id, ()):
            if not future.done():
                future.set_result(info)
        if self._inputs is not None:
            self._inputs.close(info.id)

    async def start(self, spec: ProcessSpec) -> ProcessInfo:
        with span("guest.start"):
            info = await self._info("start", {**_spec_args(spec), "window": MAX_WINDOW}, timeout=_START)
        self.tails.know(info)
        return info

    def is_read(self, ref: int) -> bool:
        """Whether somebody reads an output of it."""
        return any((ref, stream) in self._readers for stream in Stream)

    async def start_attached(
        self, spec: ProcessSpec, input: bytes | None
    ) -> AsyncGenerator[ProcessInfo | OutputEvent, None]:
        args = _spec_args(spec)
        if spec.pty is None and input is not None and not input:
            args["stdin"] = False  # an empty input that is closed at once is none, and saves a request
        incoming = self._live.incoming()
        writing: asyncio.Task[int] | None = None
        try:
            streams = _open_streams(incoming, args, {Stream.STDOUT: 0} if spec.pty else dict.fromkeys(Stream, 0))
            with span("guest.start"):
                info = await self._info("start", args, timeout=_START)
            self.tails.know(info)
            self._take_over(info.id, streams, incoming)
            if spec.stdin and input:
                writing = asyncio.create_task(self._input.feed(info.id, input), name=f"input of process {info.id}")
            yield info
            async with contextlib.aclosing(self._events(info, incoming, streams)) as events:
                async for event in events:
                    yield event
        finally:
            self._leave(incoming)
            if writing is not None:
                writing.cancel()
                await asyncio.wait([writing])

    async def output(self, ref: int, offsets: Mapping[Stream, int]) -> AsyncGenerator[OutputEvent, None]:
        incoming = self._live.incoming()
        try:
            args: dict[str, Any] = {"id": ref}
            for stream in offsets:
                if (reader := self._readers.get((ref, stream))) is not None:
                    self._push_out(reader, _TAKEN_OVER)
            streams = _open_streams(incoming, args, offsets, ranges=True)
            self._take_over(ref, streams, incoming)
            info = await self._info("attach", args, timeout=_CALL)
            self.tails.know(info)
            async with contextlib.aclosing(self._events(info, incoming, streams)) as events:
                async for event in events:
                    yield event
        finally:
            self._leave(incoming)

    async def prime(self, *, timeout: float) -> None:
        """Runs commands that nobody knows of afterwards: the guest's kernel then has a host process for the first one that
        somebody asks for, and its agent the memory. What does not go is left to the first caller."""
        with contextlib.suppress(Error, TimeoutError):
            await self._forget()  # an older agent cannot, and would show them for ever
            try:
                async with asyncio.timeout(timeout):
                    await asyncio.gather(*(self._run(f"prime-{number}") for number in range(_PRIMING)))
            finally:
                await self._forget()

    async def _run(self, key: str) -> None:
        async with contextlib.aclosing(self.start_attached(ProcessSpec(key, _PRIMER, stdin=False), None)) as events:
            async for _ in events:
                pass

    async def _forget(self) -> None:
        await self._live.call("forget", {}, timeout=_CALL)
        self._ends.clear()
        self.tails = Tails()  # the numbers of processes begin anew

    async def processes(self) -> list[ProcessInfo]:
        answer = await self._live.call("processes", {}, timeout=_CALL)
        with self._trusting():
            return [process_of(value) for value in listing(answer, "processes", most=_MAX_PROCESSES)]

    async def process(self, ref: int, *, by_pid: bool) -> ProcessInfo:
        return await self._info("process", {"pid" if by_pid else "id": ref}, timeout=_CALL)

    async def wait(self, ref: int, *, timeout: float) -> ProcessInfo:
        """Its info when it has ended, or after `timeout` seconds."""
        deadline = self._live.loop.time() + timeout
        while True:
            told: asyncio.Future[ProcessInfo] = self._live.future()
            self._waiting.setdefault(ref, set()).add(told)
            try:
                info = await self.process(ref, by_pid=False)
                left = deadline - self._live.loop.time()
                if info.returncode is not None or left <= 0:
                    return info
                await asyncio.wait([told], timeout=min(left, _LOOK_AGAIN))
                if told.done():
                    return told.result()
            finally:
                self._stop_waiting(ref, told)

    async def signal(self, ref: int, number: int, *, group: bool) -> None:
        await self._live.call("signal", {"id": ref, "signal": number, "group": group}, timeout=_CALL)

    async def resize(self, ref: int, size: PtySize) -> None:
        await self._live.call("resize", {"id": ref, "cols": size.cols, "rows": size.rows}, timeout=_CALL)

    async def write_stdin(self, ref: int, offset: int, data: bytes, *, eof: bool, timeout: float) -> int:
        return await self._input.write(ref, offset, data, eof=eof, timeout=timeout)

    async def detach(self, ref: int) -> None:
        for stream in Stream:
            if (reader := self._readers.get((ref, stream))) is not None:
                self._push_out(reader, "somebody detached this output")
        await self._live.call("detach", {"id": ref}, timeout=_CALL)

    # output ------------------------------------------------------------------------------------------------------------

    async def _events(
        self, info: ProcessInfo, incoming: Incoming, streams: "dict[int, Stream]"
    ) -> AsyncGenerator[OutputEvent, None]:
        while (piece := await incoming.take()) is not None:
            stream, offset, data = piece
            output = Output(streams[stream.id], offset, data)
            self.tails.wrote(info.id, output)
            yield output
        yield await self._end_of(info)

    async def _end_of(self, info: ProcessInfo) -> Exit:
        """Waits for it as long as it takes; the caller may leave."""
        while info.returncode is None:
            if (end := self._ends.get(info.id)) is not None:
                return end
            info = await self.wait(info.id, timeout=_LONG)
        return Exit(info.returncode, info.out_of_memory)

    def _take_over(self, ref: int, streams: "dict[int, Stream]", incoming: Incoming) -> None:
        for stream in streams.values():
            reader = self._readers.get((ref, stream))
            if reader is not None and reader is not incoming:
                self._push_out(reader, _TAKEN_OVER)
            self._readers[ref, stream] = incoming

    def _push_out(self, reader: Incoming, why: str) -> None:
        self._forget_reader(reader)
        reader.fail(Conflict(why))

    def _leave(self, incoming: Incoming) -> None:
        incoming.close()
        self._forget_reader(incoming)

    def _forget_reader(self, reader: Incoming) -> None:
        for key in [key for key, known in self._readers.items() if known is reader]:
            del self._readers[key]

    def _stop_waiting(self, ref: int, told: "asyncio.Future[ProcessInfo]") -> None:
        waiting = self._waiting.get(ref)
        if waiting is not None:
            waiting.discard(told)
            if not waiting:
                del self._waiting[ref]

    # ---------------------------------------------------------------------------------------------------------------------

    async def _taken(self, ref: int) -> int:
        return (await self.process(ref, by_pid=False)).stdin

    @property
    def _input(self) -> Inputs:
        assert self._inputs is not None
        return self._inputs

    @property
    def _live(self) -> Session:
        assert self._session is not None
        return self._session

    async def _info(self, op: str, args: dict[str, Any], *, timeout: float) -> ProcessInfo:
        answer = await self._live.call(op, args, timeout=timeout)
        with self._trusting():
            return process_of(answer)

    @contextlib.contextmanager
    def _trusting(self) -> Any:
        try:
            yield
        except WireFault as fault:
            raise self._live.distrust(fault) from None


def _spec_args(spec: ProcessSpec) -> dict[str, Any]:
    args: dict[str, Any] = {
        "key": spec.key,
        "argv": list(spec.argv),
        "env": dict(spec.env),
        "cwd": spec.cwd,
        "user": spec.user,
        "stdin": spec.stdin,
        "history": spec.history,
        "keep_alive": spec.keep_alive or None,
    }
    if spec.pty is not None:
        args["pty"] = {"cols": spec.pty.cols, "rows": spec.pty.rows}
    return {name: value for name, value in args.items() if value is not None}


def _open_streams(
    incoming: Incoming, args: dict[str, Any], offsets: Mapping[Stream, int], *, ranges: bool = False
) -> dict[int, Stream]:
    """Opens the streams and names them in `args`."""
    streams: dict[int, Stream] = {}
    args["window"] = MAX_WINDOW
    for stream, offset in offsets.items():
        opened = incoming.open(offset=offset, floating=True)
        streams[opened.id] = stream
        args[stream.value] = {"stream": opened.id, "from": offset} if ranges else opened.id
    return streams
