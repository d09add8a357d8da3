# Made by scripts/make_sync.py from _async/running.py: do not edit.
"""`run`: a command from its start to its end, with its input, its output and its deadline."""

import signal
import time
from collections.abc import Callable
from typing import Any

from belljar.model.errors import Conflict, Error
from belljar.model.process import Exit, Output, ProcessInfo, Stream
from belljar.sdk._sync import flow
from belljar.sdk._sync.attachment import Attachment
from belljar.sdk._sync.link import Link
from belljar.sdk._sync.stdin import Writer
from belljar.sdk.asking import INLINE_INPUT, new_key, process_body, url
from belljar.sdk.errors import ProcessTimeout
from belljar.sdk.patience import Patience
from belljar.sdk.pure import PathLike
from belljar.sdk.text import TextDecoder, plain_bytes
from belljar.sdk.values import Command, CompletedProcess

__all__ = ("Run",)
_KILL_SECONDS = 5.0
_GRACE_SECONDS = 2.0
"After the kill, for the rest of the output: a daemon outside of the process group may hold it open."


class Run:
    """One call of `run`. Output is kept and, if wanted, told piece by piece."""

    def __init__(
        self,
        link: Link,
        sandbox: str,
        command: Command,
        *,
        input: bytes | None,
        timeout: float | None,
        text: bool,
        env: dict[str, str] | None,
        cwd: PathLike | None,
        user: str | None,
        on_stdout: Callable[[Any], Any] | None,
        on_stderr: Callable[[Any], Any] | None,
    ) -> None:
        self._link = link
        self._sandbox = sandbox
        self._command = command
        self._input = input
        self._timeout = timeout
        inline = input is not None and 0 < len(input) <= INLINE_INPUT
        start = process_body(
            command,
            key=new_key(),
            stdin=bool(input),
            input=input if inline and input else b"",
            env=env,
            cwd=cwd,
            user=user,
        )
        self._inline = inline
        self._output = Attachment(link, sandbox, start=start, offsets={Stream.STDOUT: 0, Stream.STDERR: 0})
        self._sinks = {Stream.STDOUT: _Sink(text, on_stdout), Stream.STDERR: _Sink(text, on_stderr)}
        self._timed_out = False
        self._feed_error: Error | None = None
        self._workers: list[flow.Worker] = []

    def result(self) -> CompletedProcess[Any]:
        """Raises ProcessTimeout with the output so far. Whatever else ends it early, the process group is killed too."""
        started = time.monotonic()
        if self._timeout is not None:
            self._workers.append(flow.Worker(self._expire, delay=max(self._timeout, 0.0)))
        try:
            ended = self._follow()
        except BaseException:
            flow.shielded(self._kill, timeout=_KILL_SECONDS)
            raise
        finally:
            for worker in self._workers:
                worker.stop()
            self._output.close()
        if self._feed_error is not None and ended is None:
            raise self._feed_error
        stdout = self._sinks[Stream.STDOUT].finish()
        stderr = self._sinks[Stream.STDERR].finish()
        if self._timed_out or ended is None:
            raise ProcessTimeout(self._command, self._timeout or 0.0, stdout, stderr)
        return CompletedProcess(
            args=self._command,
            returncode=ended.returncode,
            stdout=stdout,
            stderr=stderr,
            duration=time.monotonic() - started,
            out_of_memory=ended.out_of_memory,
            dropped=sum(self._output.dropped.values()),
        )

    def _follow(self) -> Exit | None:
        """Reads to the end; None when it was cut short."""
        feeding = False
        while (event := self._next(feeding)) is not None:
            feeding = True
            match event:
                case Output(stream, _, data):
                    self._sinks[stream].take(data)
                case Exit():
                    return event
                case ProcessInfo():
                    pass
        return None

    def _next(self, feeding: bool) -> Output | Exit | ProcessInfo | None:
        if not feeding and self._input and (not self._inline):
            process = self._output.open()
            self._workers.append(flow.Worker(self._feed, process.id, 0))
            return process
        reconnected = self._output.reconnected
        event = self._output.next()
        if self._inline and self._output.reconnected > reconnected and self._output.process and (not self._output.exit):
            self._inline = False
            self._workers.append(flow.Worker(self._feed, self._output.process.id, None))
        return event

    def _feed(self, process: int, offset: int | None) -> None:
        """Gives the input; `offset` None: goes on behind what the process's side has taken."""
        writer = Writer(self._link, self._sandbox, process, offset)
        try:
            writer.write_from(self._input or b"")
            writer.close()
        except (BrokenPipeError, Conflict):
            pass
        except Error as error:
            self._feed_error = error
            self._output.abort()

    def _expire(self) -> None:
        self._timed_out = True
        if self._output.process is not None:
            flow.shielded(self._kill, timeout=_KILL_SECONDS)
            self._workers.append(flow.Worker(self._abort, delay=_GRACE_SECONDS))
        else:
            self._abort()

    def _abort(self) -> None:
        self._output.abort()

    def _kill(self) -> None:
        process = self._output.process
        if process is not None and self._output.exit is None:
            where = url("sandboxes", self._sandbox, "processes", process.id, "signal")
            self._link.call(
                "POST",
                where,
                json={"signal": int(signal.SIGKILL), "group": True},
                timeout=_KILL_SECONDS,
                patience=Patience(_KILL_SECONDS),
            )


class _Sink:
    """Where the bytes of one stream go."""

    def __init__(self, text: bool, callback: Callable[[Any], Any] | None) -> None:
        self._decode = TextDecoder() if text else plain_bytes
        self._text = text
        self._callback = callback
        self._pieces: list[Any] = []

    def take(self, data: bytes) -> None:
        self._tell(self._decode(data))

    def finish(self) -> Any:
        """All of it, text or bytes."""
        self._tell(self._decode(b"", final=True))
        return ("" if self._text else b"").join(self._pieces)

    def _tell(self, piece: str | bytes) -> None:
        if piece:
            self._pieces.append(piece)
            if self._callback is not None:
                flow.call(self._callback, piece)
