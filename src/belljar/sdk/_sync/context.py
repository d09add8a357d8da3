# Made by scripts/make_sync.py from _async/context.py: do not edit.
"""A context: where code runs with its state kept."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from belljar.base.units import Duration
from belljar.model.code import ContextInfo
from belljar.sdk._sync.code import CodeRun
from belljar.sdk._sync.link import Link
from belljar.sdk.answers import context_of
from belljar.sdk.asking import duration_of, url
from belljar.sdk.executions import Execution, Result

__all__ = ("Context",)
_START_SECONDS = 120.0


class Context:
    """Get one from `Sandbox.create_context`. Leaving it as a context manager closes it.

    >>> with sandbox.create_context(cwd="/data", env={"MODE": "fast"}) as context:
    ...     context.run_code("x = 20")
    ...     print(context.run_code("x + 1").text)
    21
    """

    def __init__(self, link: Link, sandbox: str, info: ContextInfo) -> None:
        self._link = link
        self._sandbox = sandbox
        self._info = info

    @property
    def id(self) -> str:
        return self._info.id

    @property
    def language(self) -> str:
        return self._info.language

    def info(self) -> ContextInfo:
        """What it does now: state, cells run, restarts. Raises NotFound when it was closed."""
        self._info = context_of(self._link.call("GET", self._url()))
        return self._info

    def run_code(
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
        """Runs code here: see `Sandbox.run_code`."""
        run = CodeRun(
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
        return run.result()

    def interrupt(self) -> None:
        """Interrupts what runs; the state stays. Fine when nothing does."""
        self._link.call("POST", self._url("interrupt"), json={})

    def restart(self) -> None:
        """Gives it a new kernel: the state is gone, and what runs ends with the error ``KernelDied``."""
        self._info = context_of(self._link.call("POST", self._url("restart"), timeout=_START_SECONDS))

    def close(self) -> None:
        """Ends its kernel. Idempotent."""
        self._link.call("DELETE", self._url())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.language}>"

    def _url(self, *verb: str) -> str:
        return url("sandboxes", self._sandbox, "contexts", self.id, *verb)
