"""A context: where code runs with its state kept."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from belljar.base.units import Duration
from belljar.model.code import ContextInfo
from belljar.sdk._async.code import AsyncCodeRun
from belljar.sdk._async.link import AsyncLink
from belljar.sdk.answers import context_of
from belljar.sdk.asking import duration_of, url
from belljar.sdk.executions import Execution, Result

__all__ = ("AsyncContext",)

_START_SECONDS = 120.0


class AsyncContext:
    """Get one from `AsyncSandbox.create_context`. Leaving it as a context manager closes it.

    >>> async with await sandbox.create_context(cwd="/data", env={"MODE": "fast"}) as context:
    ...     await context.run_code("x = 20")
    ...     print((await context.run_code("x + 1")).text)
    21
    """

    def __init__(self, link: AsyncLink, sandbox: str, info: ContextInfo) -> None:
        self._link = link
        self._sandbox = sandbox
        self._info = info

    @property
    def id(self) -> str:
        return self._info.id

    @property
    def language(self) -> str:
        return self._info.language

    async def info(self) -> ContextInfo:
        """What it does now: state, cells run, restarts. Raises NotFound when it was closed."""
        self._info = context_of(await self._link.call("GET", self._url()))
        return self._info

    async def run_code(
        self,
        code: str,
        *,
        timeout: Duration | None = None,
        env: Mapping[str, str] | None = None,
        silent: bool = False,
        on_stdout: Callable[[str], Any] | None = None,
        on_stderr: Callable[[str], Any] | None = None,
        on_result: Callable[[Result], Any] | None = None,
        on_call: Callable[[str, str], Any] | None = None,
    ) -> Execution:
        """Runs code here: see `AsyncSandbox.run_code`."""
        run = AsyncCodeRun(
            self._link,
            self._sandbox,
            self.id,
            code,
            create=None,
            timeout=duration_of(timeout),
            env=env,
            silent=silent,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
            on_result=on_result,
            on_call=on_call,
        )
        return await run.result()

    async def interrupt(self) -> None:
        """Interrupts what runs; the state stays. Fine when nothing does."""
        await self._link.call("POST", self._url("interrupt"), json={})

    async def restart(self) -> None:
        """Gives it a new kernel: the state is gone, and what runs ends with the error ``KernelDied``."""
        self._info = context_of(await self._link.call("POST", self._url("restart"), timeout=_START_SECONDS))

    async def close(self) -> None:
        """Ends its kernel. Idempotent."""
        await self._link.call("DELETE", self._url())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.language}>"

    def _url(self, *verb: str) -> str:
        return url("sandboxes", self._sandbox, "contexts", self.id, *verb)
