"""One kernel: a process of the sandbox whose stdin takes requests and whose stdout gives events."""

import asyncio
import contextlib
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from belljar.model.code import ContextSpec
from belljar.model.errors import Conflict, DeadlineExceeded, Error, NotFound, NotSupported, SandboxGone
from belljar.model.process import Exit, Output, OutputEvent, ProcessInfo, ProcessSpec, Stream
from belljar.node.guest.contexts.lines import KernelFault, Lines, encode_line
from belljar.node.guest.contexts.renewal import Renewal

__all__ = ("EVENTS", "KERNEL", "Kernel", "KernelProcesses", "context_of")

KERNEL = "/.belljar/run/kernel/start.py"
"""Its program, as a sandbox sees it."""
EVENTS = 20 << 20
"""Bytes of events that can be read again after a crash of the server: one that is as big as may be, and what surrounds it."""
_TAKE_SECONDS = 30.0
_PYTHONS = ("python3", "python")
_LAST_WORDS = 2000
_Event = Callable[[Mapping[str, Any], int], Awaitable[None]]
_End = Callable[[str], Awaitable[None]]


class KernelProcesses(Protocol):
    """What of the sandbox's processes a kernel needs."""

    def start_attached(self, spec: ProcessSpec, input: bytes | None) -> AsyncIterator[ProcessInfo | OutputEvent]: ...
    def output(self, ref: int, offsets: Mapping[Stream, int]) -> AsyncIterator[OutputEvent]: ...
    async def process(self, ref: int, *, by_pid: bool) -> ProcessInfo: ...
    async def processes(self) -> list[ProcessInfo]: ...
    async def signal(self, ref: int, number: int, *, group: bool) -> None: ...
    async def write_stdin(self, ref: int, offset: int, data: bytes, *, eof: bool, timeout: float) -> int: ...


def context_of(argv: tuple[str, ...], landmark: str) -> ContextSpec | None:
    """The context whose kernel was started with these words, if that is one. Raises InvalidArgument for impossible names."""
    if len(argv) != 6 or argv[1] != landmark or argv[2] != "--context" or argv[4] != "--language":
        return None
    return ContextSpec(argv[3], argv[5])


class Kernel:
    """Owned by its context. `read` is its life: it returns when the process has ended or said what no kernel says."""

    def __init__(
        self, processes: KernelProcesses, info: ProcessInfo, events: AsyncIterator[Any], *, whole: bool
    ) -> None:
        self.info = info
        self._processes = processes
        self._events = events
        self._lines = Lines(whole=whole)
        self._offset = info.stdin
        self._sending = asyncio.Lock()
        self._torn = False
        """A request got only half of its line out."""
        self._words = bytearray()
        self._answers: dict[str, asyncio.Future[Mapping[str, Any]]] = {}
        """By the name that the answer will have."""
        self.unfit = False
        """It could not become what it was asked to."""

    @classmethod
    async def start(cls, processes: KernelProcesses, spec: ContextSpec, landmark: str) -> "Kernel":
        """Raises NotSupported (no Python in the image), NotFound (no such cwd), InvalidArgument (no such user)."""
        for python in _PYTHONS:
            events = processes.start_attached(_process_spec(spec, python, landmark), None)
            try:
                info = await anext(events, None)
                assert isinstance(info, ProcessInfo)
                return cls(processes, info, events, whole=True)
            except NotFound as error:
                await _close(events)
                if python not in error.message:  # the directory is not there
                    raise
            except BaseException:
                await _close(events)
                raise
        raise NotSupported("the image has no Python, so no code can run with its state kept", hint='use image="code"')

    @classmethod
    def adopt(cls, processes: KernelProcesses, info: ProcessInfo) -> "Kernel":
        """One that an earlier server started: its events come again from the oldest that is kept."""
        events = processes.output(info.id, {Stream.STDOUT: 0, Stream.STDERR: 0})
        kernel = cls(processes, info, events, whole=info.stdout.start == 0)
        kernel._torn = True  # maybe: whoever was here before us may have died over a line
        return kernel

    async def read(self, on_event: _Event) -> str:
        """Gives every event on, and returns why there will be no more, in words for people."""
        try:
            async for piece in self._events:
                match piece:
                    case Output(Stream.STDOUT, _, data):
                        for event, size in self._lines.feed(data):
                            await on_event(event, size)
                    case Output(Stream.STDERR, _, data):
                        self._words = (self._words + data)[-_LAST_WORDS:]
                    case Exit():
                        return self._exit_words(piece)
                    case _:
                        pass
            return "its output ended"
        except KernelFault as fault:
            await self.kill()
            return f"it broke the protocol: {fault}"
        except Conflict as conflict:
            await self.kill()
            return f"its output was lost: {conflict.message}"
        finally:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(Conflict("the kernel has ended"))
            self._answers.clear()
            await _close(self._events)

    async def hello(self, session: str, own: Iterable[str] = ()) -> None:
        """Begins a session, whose name the kernel's `state` will have. `own`: variables that its context has of its own."""
        names = list(own)
        await self.send({"op": "hello", "session": session, **({"own": names} if names else {})})

    async def send(self, request: Mapping[str, Any]) -> None:
        """Raises Conflict when it takes no input (any more), DeadlineExceeded when it does not read."""
        line = encode_line(request)
        async with self._sending:
            await self._write(line)

    async def ask(self, request: Mapping[str, Any]) -> "asyncio.Future[Mapping[str, Any]]":
        """Sends what is answered by name: the future of its answer, which fails when the kernel ends. Raises as `send`."""
        name = secrets.token_hex(8)
        answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda future: future.cancelled() or future.exception())  # maybe nobody waits for it
        self._answers[name] = answer
        try:
            await self.send({**request, "name": name})
        except BaseException:
            self._answers.pop(name, None)
            raise
        return answer

    def answered(self, event: Mapping[str, Any]) -> None:
        """It says that it has done what was asked, or not."""
        answer = self._answers.pop(str(event.get("name")), None)
        if answer is not None and not answer.done():
            self.unfit = self.unfit or "error" in event
            answer.set_result(event)

    async def become(self, spec: ContextSpec, *, timeout: float) -> bool:
        """Makes a warm one the kernel of `spec`; False when it cannot be that, or does not say so in `timeout` seconds. Raises
        SandboxGone."""
        if spec.user not in (None, self.info.user):
            return False
        before = set(self._answers.values())
        try:
            async with asyncio.timeout(timeout):
                taken = await self.ask(Renewal(env=spec.env, cwd=spec.cwd, taken=True).request())
                # Without wishes of the caller's it fits, if it did not refuse what the sandbox wishes.
                waiting = {*before, taken} if spec.env or spec.cwd else before
                if waiting:
                    await asyncio.wait(waiting)
                for answer in waiting:
                    answer.result()
        except SandboxGone:
            raise
        except (Error, TimeoutError):
            return False
        return not self.unfit

    async def kill(self) -> None:
        """It and its whole process group. One that has ended is fine."""
        with contextlib.suppress(Error):
            await self._processes.signal(self.info.id, signal.SIGKILL, group=True)

    async def _write(self, data: bytes) -> None:
        if self._torn:
            # An empty line ends what was left half written.
            data = b"\n" + data
        start, end, self._torn = self._offset, self._offset + len(data), True
        while self._offset < end:
            rest = data[self._offset - start :]
            taken = await self._processes.write_stdin(
                self.info.id, self._offset, rest, eof=False, timeout=_TAKE_SECONDS
            )
            if taken <= self._offset:
                raise DeadlineExceeded("the kernel reads no requests")
            self._offset = taken
        self._torn = False

    def _exit_words(self, end: Exit) -> str:
        if end.out_of_memory:
            return "it was ended at the sandbox's memory limit"
        how = f"exit status {end.returncode}" if end.returncode >= 0 else f"signal {-end.returncode}"
        words = self._words.decode(errors="replace").strip()
        return f"it ended with {how}" + (f": {words}" if words else "")


def _process_spec(spec: ContextSpec, python: str, landmark: str) -> ProcessSpec:
    return ProcessSpec(
        key=f"kernel-{secrets.token_hex(12)}",
        argv=(python, landmark, "--context", spec.id, "--language", spec.language),
        env=spec.env,
        cwd=spec.cwd,
        user=spec.user,
        history=EVENTS,
    )


async def _close(events: AsyncIterator[Any]) -> None:
    if (close := getattr(events, "aclose", None)) is not None:
        await close()
