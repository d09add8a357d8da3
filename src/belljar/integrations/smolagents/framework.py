"""The names of smolagents that the executor builds on, with the types that it relies on. Nothing else here imports it.

The same from 1.24 to 1.27. The package itself comes with ``belljar[smolagents]``.
"""

from typing import TYPE_CHECKING, Any, Protocol

__all__ = ("AgentError", "AgentLogger", "AgentType", "CodeOutput", "LogLevel", "Logger", "PythonExecutor")


class Logger(Protocol):
    """What an agent's logger is asked for."""

    def log(self, *args: Any, level: Any = ..., **kwargs: Any) -> None: ...
    def log_error(self, error_message: str) -> None: ...


if TYPE_CHECKING:
    from abc import ABC, abstractmethod
    from collections.abc import Mapping
    from dataclasses import dataclass
    from enum import IntEnum

    class AgentError(Exception):
        """Its constructor tells the logger."""

        def __init__(self, message: str, logger: Logger) -> None: ...

    class LogLevel(IntEnum):
        OFF = -1
        ERROR = 0
        INFO = 1
        DEBUG = 2

    class AgentLogger:
        def __init__(self, level: LogLevel = ...) -> None: ...
        def log(self, *args: Any, level: Any = ..., **kwargs: Any) -> None: ...
        def log_error(self, error_message: str) -> None: ...

    class AgentType:
        """A text, image or sound in smolagents' own wrapping."""

        def to_raw(self) -> Any: ...

    @dataclass
    class CodeOutput:
        output: Any
        logs: str
        is_final_answer: bool

    class PythonExecutor(ABC):
        @abstractmethod
        def send_tools(self, tools: Mapping[str, Any]) -> None: ...
        @abstractmethod
        def send_variables(self, variables: Mapping[str, Any]) -> None: ...
        @abstractmethod
        def __call__(self, code_action: str) -> CodeOutput: ...

else:
    from smolagents.agent_types import AgentType
    from smolagents.local_python_executor import CodeOutput, PythonExecutor
    from smolagents.monitoring import AgentLogger, LogLevel
    from smolagents.utils import AgentError
