"""Python cells, on IPython in this process."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

from belljar_kernel.backend import ERROR, INTERRUPTED, OK, Backend, Outcome, Refused, Unheard
from belljar_kernel.capture import Capture
from belljar_kernel.failures import Failure, describe
from belljar_kernel.hostcalls import HostCalls, install
from belljar_kernel.interrupts import Process, children, interrupt_children, interrupts
from belljar_kernel.renewal import reseed, set_environment

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping, Sequence

    from belljar_kernel.backend import Cell
    from belljar_kernel.renewal import Renewal

__all__ = ("open_backend",)

_DRY = "print(1 + 1)"
_CANCEL = 2.0
"""Seconds that an interrupted coroutine has to end."""


def open_backend(language: str, calls: HostCalls) -> Backend:
    try:
        with _without_terminal():
            from belljar_kernel.shell import make_shell
    except ImportError as error:
        raise Refused(f"this Python cannot load IPython: {error}", hint="pip install ipython in the image") from error
    install(calls)
    interrupts.install()
    shell = make_shell()
    sys.argv = [""]
    warnings.filterwarnings("ignore", message="To exit: use")
    capture = Capture()
    from belljar_kernel.plots import Figures

    return _Python(shell, capture, Figures(shell))


@contextlib.contextmanager
def _without_terminal() -> Iterator[None]:
    """IPython before 9.16 loads its terminal with its first line: half of its time, and packages that nobody needs here."""
    name = "IPython.terminal.embed"
    module: Any = ModuleType(name)
    module.embed = _no_terminal
    sys.modules[name] = module
    try:
        yield
    finally:
        sys.modules.pop(name, None)


def _no_terminal(*_: Any, **__: Any) -> None:
    raise RuntimeError("IPython cannot be embedded here: there is no terminal")


class _Python:
    language = "python"
    language_version = sys.version.split()[0]

    def __init__(self, shell: Any, capture: Capture, figures: Any) -> None:
        self._shell, self._capture, self._figures = shell, capture, figures
        self._older: frozenset[Process] = frozenset()
        self._count = 0
        self._loop: Any = None

    def execute(self, cell: Cell) -> Outcome:
        self._older = children()
        self._capture.begin(cell)
        screen = self._shell.screen
        screen.cell, screen.code = cell, cell.code
        screen.figures.clear()
        self._count += not cell.silent
        error: BaseException | None = None
        try:
            with _environment(cell.env):
                try:
                    interrupts.arm(cell.key)
                    error = self._run(cell)
                    self._figures.show()
                finally:
                    interrupts.disarm()
        except KeyboardInterrupt as interrupt:
            error = error or interrupt
        except BaseException as other:  # noqa: BLE001 - the code's, by whatever way it came here
            error = other
        failure = None if error is None else _describe(error, cell)
        interrupts.over()
        # The code's own objects: a traceback holds the frames and all that is in them.
        # Whatever it became on its way out: a magic makes CalledProcessError of it.
        status = OK if error is None else INTERRUPTED if cell.interrupted else ERROR
        error = None
        with contextlib.suppress(Exception):
            self._figures.close()
            self._shell.forget()
        self._capture.end()
        screen.cell = None
        if failure is not None:
            cell.error(failure.name, failure.value, failure.traceback)
        return Outcome(status, self._count)

    def interrupt(self, cell: Cell) -> None:
        interrupts.ask(cell.key)
        interrupt_children(self._older)

    def renew(self, renewal: Renewal) -> None:
        set_environment(renewal.env)
        if renewal.reseed:
            reseed()
        if renewal.cwd is not None:
            os.chdir(renewal.cwd)

    def warm(self, modules: Sequence[str]) -> None:
        self._capture.begin(Unheard())  # what imports say is not the code's output
        for name in modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        self._capture.end()
        # Also after a restore: what a first cell touches is then in memory already.
        self.execute(Unheard(_DRY))
        self._shell.display_formatter.format([0.5])

    def close(self) -> None:
        self._capture.flush()

    def _run(self, cell: Cell) -> BaseException | None:
        """What IPython's own `run_cell` does, without the copy of all output that it keeps."""
        shell, code = self._shell, cell.code
        shell.failed = None
        refused = None
        try:
            transformed = shell.transform_cell(code)
        except Exception:  # noqa: BLE001
            transformed, refused = code, sys.exc_info()
        shell.execution_count = self._count + cell.silent
        cell_run = shell.run_cell_async(
            code,
            store_history=not cell.silent,
            silent=cell.silent,
            transformed_cell=transformed,
            preprocessing_exc_tuple=refused,
        )
        if shell.should_run_async(code, transformed_cell=transformed, preprocessing_exc_tuple=refused):
            result = self._run_async(cell_run)
        else:
            result = _run_now(cell_run)
        shell.events.trigger("post_execute")
        if not cell.silent:
            shell.events.trigger("post_run_cell", result)
        error = result.error_before_exec or result.error_in_exec or shell.failed
        shell.failed = shell.last_execution_result = None
        return error

    def _run_async(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        import asyncio

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(task)
        except KeyboardInterrupt:
            # Else the next cell's loop would go on with it.
            task.cancel()
            self._loop.run_until_complete(asyncio.wait({task}, timeout=_CANCEL))
            raise


def _run_now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """A cell that awaits nothing, without a loop: its code may then start loops of its own."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("a cell without await waited for something")


def _describe(error: BaseException, cell: Cell) -> Failure:
    """The error's own words may be code that never ends, so this can be interrupted too."""
    try:
        try:
            interrupts.arm(cell.key)
            failure = describe(error)
        finally:
            interrupts.disarm()
    except BaseException:  # noqa: BLE001
        failure = Failure(type.__dict__["__name__"].__get__(type(error)), "", "")
    if cell.timed_out is not None and cell.interrupted:
        return Failure("TimeoutError", cell.timed_out, failure.traceback)
    return failure


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    try:
        for name, value in variables.items():
            os.environ[name] = value
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
