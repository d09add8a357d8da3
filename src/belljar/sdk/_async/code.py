"""`run_code`: code from its start to its end, with its output, its results, its calls to here, and its deadline."""

import contextlib
import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from belljar.model.code import CodeEvent, Done, HostCall, Printed, Raised, Shown, decode_event
from belljar.model.errors import Internal, NotFound
from belljar.model.process import Stream
from belljar.sdk._async import flow
from belljar.sdk._async.link import AsyncBody, AsyncLink, Lost
from belljar.sdk.answers import error_of_object
from belljar.sdk.asking import new_key, url
from belljar.sdk.executions import Execution, Gathering, Result
from belljar.sdk.patience import Patience

__all__ = ("AsyncCodeRun",)

_INTERRUPT_SECONDS = 5.0
_LONGEST_LINE = 24 << 20
_MAX_MESSAGE = 64 << 10


class AsyncCodeRun:
    """One execution, followed across lost connections by its key and the number of its last event."""

    def __init__(
        self,
        link: AsyncLink,
        sandbox: str,
        context: str,
        code: str,
        *,
        create: Mapping[str, Any] | None,
        timeout: float | None,
        env: Mapping[str, str] | None,
        silent: bool,
        on_stdout: Callable[[str], Any] | None,
        on_stderr: Callable[[str], Any] | None,
        on_result: Callable[[Result], Any] | None,
        on_call: Callable[[str, str], Any] | None,
    ) -> None:
        self._link = link
        self._path = ("sandboxes", sandbox, "contexts", context)
        self._key = new_key()
        self._body: dict[str, Any] = {"key": self._key, "code": code}
        optional = {"create": create, "timeout": timeout, "env": dict(env) if env else None, "silent": silent or None}
        self._body |= {name: value for name, value in optional.items() if value is not None}
        self._on_printed = {Stream.STDOUT: on_stdout, Stream.STDERR: on_stderr}
        self._on_result = on_result
        self._on_call = on_call
        self._answer: AsyncBody | None = None
        self._rest = b""
        self._waiting: deque[CodeEvent] = deque()
        self._after = 0
        self._patience = Patience()

    async def result(self) -> Execution:
        """Whatever ends it early (also Ctrl-C) interrupts the code."""
        gathering = Gathering()
        try:
            while True:
                match await self._next():
                    case Printed(_, stream, text):
                        gathering.print(stream, text)
                        if (tell := self._on_printed[stream]) is not None:
                            await flow.call(tell, text)
                    case Shown() as shown:
                        result = gathering.show(shown)
                        if self._on_result is not None:
                            await flow.call(self._on_result, result)
                    case HostCall(_, call, name, payload):
                        await self._answer_call(call, name, payload)
                    case Raised() as raised:
                        gathering.fail(raised)
                    case Done() as done:
                        await self._finish()
                        return gathering.finish(done)
        except BaseException:
            await flow.shielded(self._interrupt, timeout=_INTERRUPT_SECONDS)
            raise
        finally:
            await self._disconnect()

    async def _answer_call(self, call: str, name: str, payload: str) -> None:
        """What the user's function raises is raised in the sandbox, by name and text alone."""
        try:
            if self._on_call is None:
                raise RuntimeError("nobody answers calls of this code")
            said = {"value": str(await flow.call(self._on_call, name, payload))}
        except Exception as error:  # noqa: BLE001 (of the user's function, for the code in the sandbox)
            said = {"error": {"name": type(error).__name__[:128], "message": str(error)[:_MAX_MESSAGE]}}
        where = url(*self._path, "calls", call)
        with contextlib.suppress(NotFound):  # it waits no longer: it was interrupted, or an earlier attempt told it
            await self._link.call("POST", where, json={"key": self._key} | said)

    async def _next(self) -> CodeEvent:
        while not self._waiting:
            try:
                body = await self._connected()
                data = await body.read()
                if not data:
                    raise Lost("the answer broke off")
                self._take(data)
            except Lost as lost:
                await self._disconnect()
                await self._link.recover(self._patience, lost)
        return self._waiting.popleft()

    async def _connected(self) -> AsyncBody:
        if self._answer is None:
            self._rest = b""
            where = url(*self._path, "execute")
            self._answer = await self._link.open("POST", where, json=self._body | {"after": self._after})
        return self._answer

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            raise Internal("the server's answer is no list of events")
        for line in lines:
            if line:
                self._take_event(line)

    def _take_event(self, line: bytes) -> None:
        try:
            value = json.loads(line)
            if "error" in value and "kind" not in value:
                raise error_of_object(value["error"])
            event = decode_event(value)
        except (ValueError, TypeError, KeyError) as error:
            raise Internal(f"the server's answer is no list of events: {error}") from error
        if event.seq > self._after:
            self._after = event.seq
            self._patience.reset()
            self._waiting.append(event)

    async def _finish(self) -> None:
        """Reads the end of the body, so that its connection is used again: a new one costs a millisecond."""
        if self._answer is not None:
            with contextlib.suppress(Lost):
                while await self._answer.read():
                    pass

    async def _interrupt(self) -> None:
        where = url(*self._path, "interrupt")
        await self._link.call(
            "POST", where, json={"key": self._key}, timeout=_INTERRUPT_SECONDS, patience=Patience(_INTERRUPT_SECONDS)
        )

    async def _disconnect(self) -> None:
        body, self._answer = self._answer, None
        if body is not None:
            await body.aclose()
