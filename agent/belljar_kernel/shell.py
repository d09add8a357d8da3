"""IPython's shell without a terminal, a history file or a completer, on the streams and the screen of a kernel."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import IPython.core.interactiveshell as _module
from IPython.core.compilerop import CachingCompiler
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.profiledir import ProfileDir
from IPython.utils.text import SList

from belljar_kernel.display import Formatter, Hook, Publisher, Screen
from belljar_kernel.failures import describe

__all__ = ("Shell", "make_shell")

_SOURCES = 32 << 20
"""Characters of cells' sources that are kept for tracebacks and `inspect`."""
_INPUTS = 1000
_GRACE = 2.0
"""Seconds that an interrupted command has before it is ended."""
_NOBODY = "input() has nobody who could answer here: put the value into the code, or into a file"


class _Compiler(CachingCompiler):
    """Forgets the oldest sources."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, int] = {}
        self._size = 0

    def cache(self, transformed_code: str, number: int = 0, raw_code: str | None = None) -> str:
        name = super().cache(transformed_code, number, raw_code)
        self._size += len(transformed_code) - self.kept.pop(name, 0)
        self.kept[name] = len(transformed_code)
        while self._size > _SOURCES and len(self.kept) > 1:
            oldest = next(iter(self.kept))
            self._size -= self.kept.pop(oldest)
            linecache = sys.modules["linecache"]
            for known in (
                linecache.cache,
                getattr(linecache, "_ipython_cache", {}),
                getattr(self, "_filename_map", {}),
            ):
                known.pop(oldest, None)
        return name


class Shell(InteractiveShell):
    displayhook_class = Hook
    display_pub_class = Publisher
    screen: Any = None
    failed: Any = None
    """What IPython showed as an error, besides what it reports in its result: a failed %run or %time."""

    def __init__(self, **words: Any) -> None:
        self.screen = Screen()
        self._memory: dict[str, Any] = {}
        super().__init__(**words)
        # `_`, `__` and `___` hold the newest three values; `Out` would hold every DataFrame that was ever shown.
        self.displayhook.do_full_cache, self.displayhook.cache_size = 0, 3
        self.set_hook("show_in_pager", lambda _, data, start=0, screen_lines=0: _page(data))

    @property
    def db(self) -> Any:
        """In memory: IPython's own lies in the user's home."""
        return self._memory

    @db.setter
    def db(self, value: Any) -> None:
        """Not taken."""

    def init_ipython_dir(self, ipython_dir: Any) -> None:
        # Without its checks, which make the folder.
        self._trait_values["ipython_dir"] = os.path.expanduser("~/.ipython")

    def init_profile_dir(self, profile_dir: Any) -> None:
        self.profile_dir = ProfileDir(parent=self)  # of no place, so nothing is written

    def init_virtualenv(self) -> None:
        """The image's Python runs as it is."""

    def init_completer(self) -> None:
        self.Completer = None

    def init_display_formatter(self) -> None:
        self.display_formatter = Formatter(self.screen, parent=self)
        self.configurables.append(self.display_formatter)

    def init_user_ns(self) -> None:
        super().init_user_ns()
        self.user_ns["exit"] = self.user_ns["quit"] = _exit

    def ask_exit(self) -> None:
        raise SystemExit

    def enable_gui(self, gui: Any = None) -> None:
        """There is none."""

    def enable_matplotlib(self, gui: Any = None) -> tuple[Any, Any]:
        """Figures are always shown in place."""
        return "inline", "inline"

    def showtraceback(self, exc_tuple: Any = None, *_: Any, **__: Any) -> None:
        error = exc_tuple[1] if exc_tuple else sys.exc_info()[1]
        result = self.displayhook.exec_result
        if error is None or result is None or result.error_in_exec is error:
            return  # told by who ran the cell
        if self.screen.formatting:
            sys.stderr.write(describe(error).traceback)
        else:
            self.failed = error

    def showsyntaxerror(self, *_: Any, **__: Any) -> None:
        self.showtraceback()

    def showindentationerror(self) -> None:
        """Told by who ran the cell."""

    def show_usage_error(self, exc: Any) -> None:
        self.failed = exc

    def _format_exception_for_storage(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}

    def system(self, cmd: str) -> None:
        """`!cmd`: on the kernel's own descriptors, so its output streams."""
        self.user_ns["_exit_code"], _ = _run(self.var_expand(cmd, depth=1))
        importlib.invalidate_caches()  # it may have installed something

    system_piped = system_raw = system

    def getoutput(self, cmd: str, split: bool = True, depth: int = 0) -> Any:
        """`x = !cmd`. IPython's own swallows an interrupt."""
        _, said = _run(self.var_expand(cmd, depth=depth + 1), subprocess.PIPE)
        text = said.decode("utf-8", "replace")
        return SList(text.splitlines()) if split else text

    def forget(self) -> None:
        """What would grow with every cell."""
        history = self.history_manager
        oldest = len(history.input_hist_raw) - 1 - _INPUTS
        if oldest > 0:
            history.input_hist_raw[oldest] = history.input_hist_parsed[oldest] = ""
            self.user_ns.pop(f"_i{oldest}", None)
        for name in ("outputs", "exceptions", "output_hist_reprs"):
            getattr(history, name, {}).clear()


def make_shell() -> Shell:
    """The one of this process. It becomes `__main__`, with a `sys.path` as if Python had been started without a script."""
    if hasattr(_module, "PickleShareDB"):
        _module.PickleShareDB = lambda root: {}
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.compiler_class = _Compiler
    config.InteractiveShell.autocall = 0
    config.InteractiveShell.colors = "nocolor" if _version() >= 9 else "NoColor"
    main = ModuleType("__main__", "The code's own names.")
    shell = Shell.instance(config=config, user_module=main)
    import builtins
    import getpass

    builtins.input, getpass.getpass = _no_input, _no_input
    return shell


def _version() -> int:
    return int(sys.modules["IPython.core.release"].version.partition(".")[0])


def _no_input(prompt: object = "", stream: object = None, **_: object) -> str:
    raise EOFError(_NOBODY)


def _exit(code: Any = None) -> None:
    raise SystemExit(code)


def _page(data: Any) -> None:
    print(data.get("text/plain", "") if isinstance(data, dict) else data)  # noqa: T201


def _run(command: str, output: int | None = None) -> tuple[int, bytes]:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    shell = os.environ.get("SHELL")
    process = subprocess.Popen(
        command,
        shell=True,
        executable=shell if shell and os.access(shell, os.X_OK) else None,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
    )
    try:
        said = process.communicate()[0]
    except KeyboardInterrupt:
        # The interrupt went to it too.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        process.kill()
        process.wait()
        raise
    return process.returncode, said or b""
