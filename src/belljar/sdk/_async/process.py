"""A process in a sandbox, as `subprocess.Popen` shows one of this machine."""

import signal as signals
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from belljar.base.units import Duration
from belljar.model.process import Exit, Output, ProcessInfo, PtySize, Stream
from belljar.sdk._async.attachment import AsyncAttachment
from belljar.sdk._async.link import AsyncLink
from belljar.sdk._async.reader import AsyncReader
from belljar.sdk._async.stdin import AsyncWriter
from belljar.sdk.answers import process_of
from belljar.sdk.asking import duration_of, url
from belljar.sdk.errors import ProcessTimeout
from belljar.sdk.values import Command

__all__ = ("AsyncProcess",)

_WAIT_SECONDS = 50.0


class AsyncProcess:
    """A running (or ended) process. Get one from `AsyncSandbox.popen` or `AsyncSandbox.process`.

    As with pipes of this machine, the process waits when its output is not read (after 1 MiB or so), and nothing is lost. `wait`
    and `detach` say that nobody reads: then it runs freely, and the newest 16 MiB of each stream are kept for a later reader.
    `stdout` and `stderr` are read each on its own, `output` gives both as they come. With a terminal all is `stdout`, and
    `stderr` is None.

    >>> proc = await sandbox.popen(["sort"])
    >>> await proc.stdin.write(b"b\\na\\n")
    4
    >>> await proc.stdin.close()
    >>> await proc.stdout.read()
    b'a\\nb\\n'
    >>> await proc.wait()
    0
    """

    def __init__(
        self,
        link: AsyncLink,
        sandbox: str,
        info: ProcessInfo,
        *,
        args: Command | None = None,
        joint: AsyncAttachment | None = None,
        from_offset: int = 0,
        stdin: bool = True,
    ) -> None:
        self._link = link
        self._sandbox = sandbox
        self._info = info
        self._joint = joint
        self.args: Command = args if args is not None else list(info.argv)
        self.stdin: AsyncWriter | None = None
        """Its input: `write` and `close`. None when it was started without one."""
        if stdin:
            self.stdin = AsyncWriter(link, sandbox, info.id, 0 if joint is not None else None)
        self.stdout = AsyncReader(self._attach, self._ended, Stream.STDOUT, from_offset, from_oldest=joint is None)
        """`read`, `read1`, `readline`, and iteration over lines."""
        self.stderr = (
            None
            if info.pty
            else AsyncReader(self._attach, self._ended, Stream.STDERR, from_offset, from_oldest=joint is None)
        )

    @property
    def id(self) -> int:
        """The sandbox's own number for it, never used twice."""
        return self._info.id

    @property
    def pid(self) -> int:
        """What `ps` shows inside."""
        return self._info.pid

    @property
    def pty(self) -> bool:
        return self._info.pty

    @property
    def returncode(self) -> int | None:
        """As last seen by `poll`, `wait` or a reader at the end; None while it runs, negative for a signal."""
        return self._info.returncode

    @property
    def out_of_memory(self) -> bool:
        """Whether it was ended at the sandbox's memory limit (as last seen)."""
        return self._info.out_of_memory

    async def info(self) -> ProcessInfo:
        """What is known of it now. Raises NotFound when the sandbox has forgotten it, SandboxGone."""
        self._info = process_of(await self._link.call("GET", self._url()))
        return self._info

    async def poll(self) -> int | None:
        """The return code, or None while it runs."""
        if self._info.returncode is None:
            await self.info()
        return self._info.returncode

    async def wait(self, timeout: Duration | None = None) -> int:
        """Waits for the end and returns the return code. Raises ProcessTimeout after `timeout`; the process goes on.

        Output that nobody has begun to read does not hold the process up meanwhile.
        """
        seconds = duration_of(timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        await self._release()
        while self._info.returncode is None:
            step = _WAIT_SECONDS if deadline is None else min(_WAIT_SECONDS, max(0.0, deadline - time.monotonic()))
            answer = await self._link.call("GET", self._url("wait", timeout=f"{step:.3f}"), timeout=step + 30)
            self._info = process_of(answer)
            if self._info.returncode is None and deadline is not None and time.monotonic() >= deadline:
                raise ProcessTimeout(self.args, seconds or 0.0)
        return self._info.returncode

    async def output(self) -> AsyncIterator[Output]:
        """Pieces of both streams as they come, to the end of the process; each has `stream`, `offset` and `data`.

        A jump in `offset` means that bytes were dropped before they could be read.
        """
        joint = await self._take_joint()
        try:
            while (event := await joint.next()) is not None:
                match event:
                    case Output():
                        yield event
                    case Exit():
                        self._ended(event)
        finally:
            await joint.aclose()

    async def send_signal(self, signal: int | str, *, group: bool = False) -> None:
        """Sends a signal (``signal.SIGINT`` or ``"INT"``) to it, or to its whole process group. Fine when it has ended."""
        said = signal if isinstance(signal, str) else int(signal)
        await self._link.call("POST", self._url("signal"), json={"signal": said, "group": group})

    async def terminate(self) -> None:
        """Sends SIGTERM."""
        await self.send_signal(signals.SIGTERM)

    async def kill(self) -> None:
        """Sends SIGKILL."""
        await self.send_signal(signals.SIGKILL)

    async def resize(self, cols: int, rows: int) -> None:
        """Gives its terminal another size. Raises Conflict when it has none."""
        size = PtySize(cols, rows)
        await self._link.call("POST", self._url("resize"), json={"cols": size.cols, "rows": size.rows})

    async def detach(self) -> None:
        """Nobody reads from here any more: the process never waits for a reader. `AsyncSandbox.process` attaches again."""
        await self.aclose()
        await self._link.call("POST", self._url("detach"), json={})

    async def aclose(self) -> None:
        """Ends the reading; the process goes on, also with its input open."""
        await self._release()
        await self.stdout.aclose()
        if self.stderr is not None:
            await self.stderr.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As subprocess: closes the streams and waits for the end; after an exception it does not wait."""
        await self.aclose()
        if self.stdin is not None:
            await self.stdin.close()
        if error is None:
            await self.wait()

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else f"returncode={self.returncode}"
        return f"<{type(self).__name__} pid={self.pid} {state} args={self.args!r}>"

    def _url(self, *verb: str, **query: Any) -> str:
        return url("sandboxes", self._sandbox, "processes", self._info.id, *verb, **query)

    async def _release(self) -> None:
        """Lets go of the stream that has been open since the start, if nobody reads it."""
        joint, self._joint = self._joint, None
        if joint is not None:
            await joint.aclose()

    async def _take_joint(self) -> AsyncAttachment:
        joint, self._joint = self._joint, None
        if joint is not None:
            return joint
        offsets = {Stream.STDOUT: self.stdout.offset}
        if self.stderr is not None:
            offsets[Stream.STDERR] = self.stderr.offset
        return AsyncAttachment(self._link, self._sandbox, process=self._info, offsets=offsets)

    async def _attach(self, stream: Stream, offset: int) -> AsyncAttachment:
        """A reader's own connection: a slow reader of one stream must not hold up the other."""
        await self._release()
        return AsyncAttachment(self._link, self._sandbox, process=self._info, offsets={stream: offset})

    def _ended(self, event: Exit) -> None:
        self._info = replace(self._info, returncode=event.returncode, out_of_memory=event.out_of_memory)
