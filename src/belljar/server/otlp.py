"""What needs OpenTelemetry's packages (the extra `otel`): imported only when traces are collected."""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import AsyncGenerator, Generator, Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import belljar
from belljar.base.log import get_logger
from belljar.base.telemetry import Span, Tracing, Value
from belljar.model.errors import Error

__all__ = ("collected",)

_LAST_SECONDS = 1.5
"""For what was not carried away yet when the server leaves."""
_log = get_logger("server.tracing")


@contextlib.asynccontextmanager
async def collected(endpoint: str | None) -> AsyncGenerator[Tracing]:
    """`endpoint`: the address that takes spans; None: as OpenTelemetry's own variables say."""
    exporter = OTLPSpanExporter(endpoint=endpoint)
    name = os.environ.get("OTEL_SERVICE_NAME") or "belljar"
    resource = Resource.create({"service.name": name, "service.version": belljar.__version__})
    # Not at the interpreter's exit: there a collector that hangs would hold up the end.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    logger, words = logging.getLogger(), _Words(logging.WARNING)
    logger.addHandler(words)
    try:
        yield _Tracing(provider)
    finally:
        await _carried_away(provider)
        logger.removeHandler(words)


async def _carried_away(provider: TracerProvider) -> None:
    """What waits is sent if that works at once. The thread ends with the process, whatever it waits for."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def work() -> None:
        provider.shutdown()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=work, name="last spans", daemon=True).start()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_SECONDS):
            await done.wait()


class _Tracing:
    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("belljar", belljar.__version__)
        self._propagator = TraceContextTextMapPropagator()

    @contextlib.contextmanager
    def span(self, name: str, attributes: Mapping[str, Value], headers: Mapping[str, str] | None) -> Generator[Span]:
        kind = trace.SpanKind.INTERNAL if headers is None else trace.SpanKind.SERVER
        parent = None if headers is None else self._propagator.extract(headers, context=Context())
        # What an exception says may be a command or a path: its code alone is told.
        with self._tracer.start_as_current_span(
            name,
            context=parent,
            kind=kind,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as made:
            span = _Span(made)
            try:
                yield span
            except Error as error:
                span.failed(error.code)
                raise
            except asyncio.CancelledError:
                span.failed("cancelled")
                raise
            except Exception:
                span.failed("internal")
                raise

    def trace_id(self) -> str | None:
        span = trace.get_current_span()
        return trace.format_trace_id(span.get_span_context().trace_id) if span.is_recording() else None


class _Span:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def name(self, name: str) -> None:
        self._span.update_name(name)

    def set(self, key: str, value: Value) -> None:
        self._span.set_attribute(key, value)

    def failed(self, code: str) -> None:
        self._span.set_attribute("error.type", code)
        self._span.set_status(trace.StatusCode.ERROR)


class _Words(logging.Handler):
    """What OpenTelemetry, and what it sends with, complain of: lines of the server's own log."""

    def emit(self, record: logging.LogRecord) -> None:
        _log.warning("of the collector of traces", said=record.getMessage()[:500])
