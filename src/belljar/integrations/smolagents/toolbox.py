"""The host's tools, as hostile code may call them: by name only, while a step runs, within bounds, and with checked arguments."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from belljar.integrations.smolagents.arguments import checked
from belljar.integrations.smolagents.exchange import Exchange
from belljar.integrations.smolagents.framework import AgentType
from belljar.integrations.smolagents.inside.codec import CodecError

__all__ = ("FINAL_ANSWER", "Budget", "Toolbox", "unwrapped")

FINAL_ANSWER = "final_answer"
_MAX_MESSAGE = 8 << 10
_INTERRUPT_AFTER = 100
_KILL_AFTER = 1000
"""Calls that were refused because a budget was spent."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one step may use of the host: calls of tools, bytes of arguments and results, seconds in tools."""

    calls: int = 10_000
    bytes: int = 1 << 30
    seconds: float = 3600.0


class Toolbox:
    """Answers the calls of one step at a time. `stop(kill)` interrupts the step, or ends its kernel."""

    def __init__(self, budget: Budget, stop: Callable[[bool], None]) -> None:
        self._budget = budget
        self._stop = stop
        self._tools: Mapping[str, Any] = {}
        self._exchange: Exchange | None = None
        self._on_answer: Callable[[], object] = bool
        self._running = False
        self._calls = self._bytes = self._refused = self._finals = 0
        self._seconds = 0.0
        self.answer: Any = None

    @property
    def answered(self) -> bool:
        """The step has given a final answer: it is `answer`."""
        return self._finals > 0

    @property
    def tools(self) -> Mapping[str, Any]:
        return self._tools

    def fill(self, tools: Mapping[str, Any]) -> None:
        """From now on only these can be called."""
        self._tools = dict(tools)

    def open(self, exchange: Exchange, on_answer: Callable[[], object]) -> None:
        """A step begins: nothing of its budget is spent. `on_answer` is called when it gives its first final answer."""
        self._exchange = exchange
        self._on_answer = on_answer
        self._running = True
        self._calls = self._bytes = self._refused = self._finals = 0
        self._seconds = 0.0
        self.answer = None

    def close(self) -> None:
        self._running = False

    def call(self, name: str, payload: str) -> str:
        """The answer to one call: a message of the codec, whatever was asked and whatever went wrong."""
        if not self._running or self._exchange is None:
            return _error("ToolError", "no step of the agent is running")
        if self._finals:
            return self._final()
        if spent := self._spend(len(payload)):
            return self._refuse(spent)
        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join(sorted(self._tools))
            return _error("NameError", f"there is no tool {name[:80]!r}; there are: {known}"[:_MAX_MESSAGE])
        try:
            args, kwargs = checked(tool, *_arguments(self._exchange.decode(payload)))
        except (CodecError, TypeError) as error:
            kind = "TypeError" if isinstance(error, TypeError) else "ToolError"
            return _error(kind, f"{name}: {error}")
        return self._run(name, tool, args, kwargs, self._exchange)

    def _run(self, name: str, tool: Any, args: list[Any], kwargs: dict[str, Any], exchange: Exchange) -> str:
        started = time.monotonic()
        try:
            value = tool(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 (of the tool, for the code in the sandbox: by name and text alone)
            return _error(type(error).__name__, _text_of(error))
        finally:
            self._seconds += time.monotonic() - started
        if name == FINAL_ANSWER:
            self.answer = value
            said = self._final()
            self._on_answer()
            return said
        try:
            said = exchange.encode({"value": value}, unwrapped)
        except CodecError as error:
            return _error("ToolError", f"the result of {name} cannot be sent: {error}")
        self._bytes += len(said)
        return said

    def _final(self) -> str:
        self._finals += 1
        if self._finals > _INTERRUPT_AFTER:
            self._refuse("")
        return json.dumps({"final": self._finals})

    def _spend(self, size: int) -> str | None:
        """What is spent, if anything is."""
        self._calls += 1
        self._bytes += size
        if self._calls > self._budget.calls:
            return f"{self._budget.calls} calls of tools"
        if self._bytes > self._budget.bytes:
            return f"{self._budget.bytes >> 20} MiB of arguments and results"
        if self._seconds > self._budget.seconds:
            return f"{self._budget.seconds:g} s in tools"
        return None

    def _refuse(self, spent: str) -> str:
        self._refused += 1
        if self._refused == _INTERRUPT_AFTER:
            self._stop(False)
        elif self._refused == _KILL_AFTER:
            self._stop(True)
        return _error("ToolError", f"this step has used up its {spent}")


def unwrapped(value: Any) -> Any:
    """What is in smolagents' own wrapping of texts, images and sounds."""
    return value.to_raw() if isinstance(value, AgentType) else value


def _arguments(said: Any) -> tuple[list[Any], dict[str, Any]]:
    parts = cast(dict[str, Any], said) if isinstance(said, dict) else {}
    args, kwargs = parts.get("args"), parts.get("kwargs")
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise CodecError("no call of a tool")
    if not all(isinstance(name, str) for name in cast(dict[Any, Any], kwargs)):
        raise CodecError("no call of a tool")
    return cast(list[Any], args), cast(dict[str, Any], kwargs)


def _error(name: str, message: str) -> str:
    return json.dumps({"error": {"name": name[:128], "message": message[:_MAX_MESSAGE]}})


def _text_of(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 (the tool's own code)
        return "(it has no text)"
