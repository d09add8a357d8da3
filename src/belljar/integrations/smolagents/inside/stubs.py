# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportMissingTypeStubs=false, reportMissingModuleSource=false
"""The inside's end: functions in the agent's namespace that stand for the host's tools, and the agent's variables.

Loaded into a kernel as text. `belljar_host.call` carries a call out and its answer in.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import importlib.util
import inspect
import json
import os
import pathlib
import secrets
import site
import sys
import tempfile
from types import FrameType
from typing import Any, Callable

from .codec import Decoder, Encoder, Handles, Limits

__all__ = ("FinalAnswer", "Inside", "ToolError")

_OPTIONAL = ("numpy", "pandas", "PIL", "torch")
_MAX_ARTEFACTS = 2000
_PLAIN = {"__module__": "builtins"}
"""So that a traceback names an error of the host by its name alone."""


class ToolError(RuntimeError):
    """What a tool on the host raised, unless Python itself has an error of that name."""


class FinalAnswer(BaseException):
    """Ends the cell: the host has the answer. No error, so that no ``except Exception`` takes it for one."""


class Inside:
    """One per kernel. `space` is the namespace in which the agent's code runs."""

    def __init__(self, space: dict[str, Any], call: Callable[[str, str], str], limits: Limits) -> None:
        self._space = space
        self._call = call
        self._limits = limits
        self._handles = Handles("inside")
        self._peer: frozenset[str] = frozenset()
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="belljar-values-"))
        self._begun_in = os.getcwd()
        self._stubs: dict[str, Any] = {}

    def greet(self, peer: list[str], imports: list[str]) -> str:
        """What the host must know of this side. Also makes packages visible that were installed since the kernel began."""
        self._peer = frozenset(peer)
        importlib.invalidate_caches()
        _show_own_packages()
        return json.dumps(
            {
                "has": [name for name in _OPTIONAL if _importable(name)],
                "missing": [name for name in imports if not _importable(name)],
                "folder": str(self._folder),
                "python": sys.executable,
                "version": list(sys.version_info[:3]),
                "user_site": sys.prefix == sys.base_prefix,
                "cwd": self._begun_in,
            }
        )

    def receive(self, text: str) -> None:
        """Variables of the agent, by name."""
        self._space.update(self._decode(text))

    def define(self, tools: list[dict[str, str]]) -> None:
        """Replaces the tools of the run before by these."""
        for name, stub in self._stubs.items():
            if self._space.get(name) is stub:
                del self._space[name]
        self._stubs = {tool["name"]: self._stub(tool["name"], tool["doc"]) for tool in tools}
        self._space.update(self._stubs)

    def artefacts(self) -> str:
        """Path, size and time of what lies in the folder where the kernel began; nothing that is hidden."""
        found: list[Any] = []
        for folder, folders, names in os.walk(self._begun_in):
            folders[:] = sorted(one for one in folders if not one.startswith("."))
            for name in sorted(names):
                path = os.path.join(folder, name)
                if not name.startswith(".") and os.path.lexists(path):
                    status = os.lstat(path)
                    found.append([path, status.st_size, status.st_mtime])
            if len(found) >= _MAX_ARTEFACTS:
                break
        return json.dumps(found[:_MAX_ARTEFACTS])

    def decoded(self, text: str) -> Any:
        """The value of a message of the host."""
        return self._decode(text)

    def send(self, name: str, value: Any) -> None:
        """Tells the host a value, outside of any tool."""
        self._call(name, self._encode(value))

    def _stub(self, name: str, doc: str) -> Callable[..., Any]:
        def tool(*args: Any, **kwargs: Any) -> Any:
            return self._ask(name, args, kwargs, inspect.currentframe())

        tool.__name__ = tool.__qualname__ = name
        tool.__doc__ = doc
        return tool

    def _ask(self, name: str, args: Any, kwargs: dict[str, Any], frame: FrameType | None) -> Any:
        reply = self._decode(self._call(name, self._encode({"args": list(args), "kwargs": kwargs})))
        if "final" in reply:
            if not _end_cell(frame and frame.f_back, self._space, force=reply["final"] > 1):
                raise SystemExit  # a thread of the agent's, which ends without a word
            raise FinalAnswer("the host has the answer")
        if "error" in reply:
            raise _error(reply["error"]["name"], reply["error"]["message"])
        return reply.get("value")

    def _encode(self, value: Any) -> str:
        return Encoder(self._handles, self._peer, self._spill, self._limits).dumps(value)

    def _decode(self, text: str) -> Any:
        return Decoder(self._handles, self._fetch, self._limits).loads(text)

    def _spill(self, data: bytes) -> str:
        name = secrets.token_hex(16)
        (self._folder / name).write_bytes(data)
        return name

    def _fetch(self, name: str, most: int) -> bytes:
        path = self._folder / name
        data = path.read_bytes()
        path.unlink()
        return data


def _show_own_packages() -> None:
    """Where pip installs for a user: Python looks there only if it was there when it began."""
    own = site.getusersitepackages()
    if sys.prefix != sys.base_prefix or os.geteuid() == 0:
        return
    with contextlib.suppress(OSError):
        os.makedirs(own, exist_ok=True)
        site.addsitedir(own)


def _importable(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _error(name: str, message: str) -> Exception:
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError):
        return kind(message)
    return type(name if name.isidentifier() else "ToolError", (ToolError,), _PLAIN)(message)


def _end_cell(frame: FrameType | None, space: dict[str, Any], *, force: bool) -> bool:
    """A bare ``except:`` may swallow FinalAnswer; then it is raised again, at the next line, up to the end of the cell.

    False when no cell is below this frame. At first it is raised only where it was swallowed (no longer in flight), so that
    ``finally`` and ``with`` do their work; with `force` at any line. Each call can do this once: Python drops a trace function
    that raises. Code that swallows it again and again is ended by the host.
    """
    begins: FrameType | None = None

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal begins
        if event == "exception":
            begins = frame  # its next line is the handler's first, where the error is not yet seen as in flight
        elif event == "return" and frame is outermost and begins is frame:
            sys.settrace(None)  # it left the cell
        elif event == "line":
            first, begins = begins is frame, None
            if force or not (first or _in_flight()):
                raise FinalAnswer("the host has the answer")
        return trace

    outermost = frame
    traced: list[FrameType] = []
    while frame is not None:
        traced.append(frame)
        outermost = frame
        if _is_cell(frame, space):
            break
        frame = frame.f_back
    else:
        return False
    for one in traced:
        one.f_trace = trace
    cell = outermost.f_code.co_filename

    def entered(frame: FrameType, event: str, arg: Any) -> None:
        # A cell's statements are run one by one: after the one that swallowed it comes the next, or another cell.
        if _is_cell(frame, space):
            if frame.f_code.co_filename == cell:
                raise FinalAnswer("the host has the answer")
            sys.settrace(None)

    sys.settrace(entered)
    return True


def _is_cell(frame: FrameType, space: dict[str, Any]) -> bool:
    return frame.f_globals is space and frame.f_code.co_name.startswith(("<module>", "<cell"))


def _in_flight() -> bool:
    error: BaseException | None = sys.exc_info()[1]
    for _ in range(100):
        if error is None or isinstance(error, FinalAnswer):
            break
        error = error.__context__
    return isinstance(error, FinalAnswer)
