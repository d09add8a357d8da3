"""One kernel of one sandbox with the inside's end of the bridge loaded into it."""

import json
import secrets
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import asdict
from importlib.resources import files
from typing import Any, cast

import belljar
from belljar.integrations.smolagents.exchange import PACKAGES, PEER, Exchange
from belljar.integrations.smolagents.inside import MODULES
from belljar.integrations.smolagents.inside.codec import Limits

__all__ = ("Session", "SessionFailed")

_SETUP_SECONDS = 120.0
_LOADER = """
def load(space, parts, limits):
    import contextlib, sys, types
    from belljar_host import call
    before = sys.modules.get("belljar_inside")
    if before is not None:
        if getattr(before, "made_of", None) == (parts, limits):
            return
        with contextlib.suppress(Exception):
            before.inside.define([])
    package = types.ModuleType("belljar_inside")
    package.made_of = parts, limits
    package.__path__ = []
    sys.modules["belljar_inside"] = package
    for name, text in parts:
        module = types.ModuleType("belljar_inside." + name)
        module.__package__ = "belljar_inside"
        sys.modules[module.__name__] = module
        setattr(package, name, module)
        exec(compile(text, "<belljar " + name + ">", "exec"), module.__dict__)
    package.inside = package.stubs.Inside(space, call, package.codec.Limits(**limits))
load(space, parts, limits)
"""
_INSIDE = "__import__('sys').modules['belljar_inside'].inside"


class SessionFailed(Exception):
    """The kernel does not do what a fresh one would."""


class Session:
    """Made for one kernel: when that is gone (`lives` says so), so are its variables, and another session is needed."""

    def __init__(
        self, sandbox: "belljar.Sandbox", context: "belljar.Context", imports: list[str], limits: Limits
    ) -> None:
        """Loads the bridge, unless the kernel has it from an earlier time. Raises SessionFailed, belljar.Error."""
        self.sandbox = sandbox
        self.context = context
        self._imports = imports
        self._limits = limits
        self._restarts = context.info().restarts
        self._load()
        said = self.greet()
        self.cwd = _text(said, "cwd")
        self.python = _text(said, "python")
        self.exchange = Exchange(sandbox, _text(said, "folder"), frozenset(), limits)
        self._learn(said)

    @property
    def lives(self) -> bool:
        info = self.context.info()
        return info.restarts == self._restarts and info.state != "dead"

    def moved(self, sandbox: "belljar.Sandbox", context: "belljar.Context") -> "Session":
        """The same in another sandbox, which goes on from a moment of this one's."""
        moved = copy(self)
        moved.sandbox, moved.context = sandbox, context
        moved.exchange = self.exchange.moved(sandbox)
        return moved

    def greet(self) -> dict[str, Any]:
        """What the kernel says of itself now. Raises SessionFailed."""
        said = self.ask(f"{_INSIDE}.greet({PEER!r}, {self._imports!r})")
        if not isinstance(said, dict):
            raise SessionFailed("the kernel's greeting is none")
        return cast(dict[str, Any], said)

    def renew(self) -> None:
        """Looks again at what is installed inside."""
        self._learn(self.greet())

    def send(
        self, variables: Mapping[str, Any] | None, tools: Mapping[str, Any] | None, before: Callable[[Any], Any]
    ) -> None:
        """Sets variables, and replaces the tools. Raises SessionFailed, CodecError."""
        steps: list[str] = []
        if variables:
            steps.append(f"{_INSIDE}.receive({self.exchange.encode(dict(variables), before)!r})")
        if tools is not None:
            stubs = [{"name": name, "doc": str(getattr(tool, "description", "") or "")} for name, tool in tools.items()]
            steps.append(f"{_INSIDE}.define({stubs!r})")
        if steps:
            self._quietly("; ".join(steps), None)

    def artefacts(self) -> Any:
        """What the kernel says lies in the working folder. Raises SessionFailed."""
        return self.ask(f"{_INSIDE}.artefacts()")

    def ask(self, expression: str) -> Any:
        """The value of an expression inside that is a text of JSON."""
        heard: list[str] = []
        nonce = secrets.token_hex(8)

        def hear(name: str, payload: str) -> str:
            if name == nonce and len(payload) < 1 << 20:
                heard.append(payload)
            return ""

        self._quietly(f"__import__('belljar_host').call({nonce!r}, {expression})", hear)
        try:
            return json.loads(heard[0])
        except (ValueError, IndexError, RecursionError):
            raise SessionFailed("the kernel gives no sensible answer") from None

    def run(self, code: str, **options: Any) -> "belljar.Execution":
        """As `Context.run_code`."""
        return self.context.run_code(code, **options)

    def _load(self) -> None:
        folder = files("belljar.integrations.smolagents.inside")
        parts = [(name, folder.joinpath(f"{name}.py").read_text(encoding="utf-8")) for name in MODULES]
        values = f"{{'space': globals(), 'parts': {parts!r}, 'limits': {asdict(self._limits)!r}}}"
        self._quietly(f"exec({_LOADER!r}, {values})", None)

    def _quietly(self, code: str, hear: Callable[[str, str], str] | None) -> None:
        done = self.context.run_code(code, silent=True, timeout=_SETUP_SECONDS, on_call=hear)
        if done.error is not None:
            raise SessionFailed(f"{done.error.name}: {done.error.value}"[:2000])

    def _learn(self, said: Mapping[str, Any]) -> None:
        has, missing = said.get("has"), said.get("missing")
        self.exchange.has = frozenset(name for name in PACKAGES if isinstance(has, list) and name in has)
        self.missing = [name for name in self._imports if isinstance(missing, list) and name in missing]
        self.user_site = said.get("user_site") is True


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    if not isinstance(value, str) or not 0 < len(value) < 4096:
        raise SessionFailed(f"the kernel says no {name}")
    return value
