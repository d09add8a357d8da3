"""Structured log lines on stderr: for people on a terminal, JSON elsewhere."""

import logging
import sys

import structlog
from structlog.typing import EventDict

from belljar.base.telemetry import trace_id

__all__ = ("Logger", "get_logger", "set_up_logging")

Logger = structlog.typing.FilteringBoundLogger


def set_up_logging(level: str = "info", *, json: bool | None = None) -> None:
    """Once per process, by whoever owns it. `json`: None decides by whether stderr is a terminal."""
    as_json = not sys.stderr.isatty() if json is None else json
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _with_trace,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _with_trace(logger: object, method: str, event: EventDict) -> EventDict:
    """A line that is written while a span is open names its trace."""
    if (trace := trace_id()) is not None:
        event["trace_id"] = trace
    return event


def get_logger(room: str) -> Logger:
    """The logger of a room, for example ``node.engine``."""
    return structlog.get_logger(room=room)  # lazy: `bind` here would fix the defaults, before set_up_logging
