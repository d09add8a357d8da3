"""OpenTelemetry: spans are carried to a collector over OTLP/HTTP, by a thread that nobody waits for."""

import contextlib
import os
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

from belljar.base.log import get_logger
from belljar.base.telemetry import trace_with
from belljar.model.errors import InvalidArgument
from belljar.server.settings import Settings

__all__ = ("traced",)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TRACES = "/v1/traces"
_HINT = "pip install 'belljar[otel]'"
_log = get_logger("server.tracing")


@contextlib.asynccontextmanager
async def traced(settings: Settings) -> AsyncGenerator[None]:
    """Spans are collected until the end of the context, if the settings or OpenTelemetry's own variables name a collector.

    At most 2048 spans wait (OTEL_BSP_MAX_QUEUE_SIZE): of more the oldest are lost, and a collector that hangs holds up nobody.
    Raises InvalidArgument for an address that is none, or when the settings name one and the packages are missing.
    """
    if not _wanted(settings):
        yield
        return
    try:
        from belljar.server import otlp  # half a second, and an extra
    except ImportError as error:
        why = f"traces cannot be collected: OpenTelemetry's packages are not installed ({error.name})"
        if settings.otel_endpoint is not None:
            raise InvalidArgument(why, hint=_HINT) from None
        # The variable may be meant for the program that started this server.
        _log.warning(why, hint=_HINT)
        yield
        return
    async with otlp.collected(_address(settings.otel_endpoint)) as tracing:
        trace_with(tracing)
        try:
            yield
        finally:
            trace_with(None)


def _wanted(settings: Settings) -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    return settings.otel_endpoint is not None or any(os.environ.get(name) for name in _ENDPOINTS)


def _address(endpoint: str | None) -> str | None:
    """None: OpenTelemetry's own variables say it."""
    if endpoint is None:
        return None
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidArgument(f"otel_endpoint is an address such as http://localhost:4318, not {endpoint[:80]!r}")
    return endpoint.rstrip("/") + _TRACES
