"""Numbers for Prometheus: of this server since its start, and of what lives now."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Self

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.types import Scope

import belljar
from belljar.base.tasks import in_thread
from belljar.control.product import Product
from belljar.model.usage import UsageEntry

__all__ = ("CONTENT_TYPE", "Metrics")

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LAG_EACH = 0.25
"""Seconds between two looks at how late the event loop is."""
_OF = ("workspace", "of")
_HELD = ("cpus", "memory", "disk")
_NO_ROUTE = "none"
"""Of an address that is no route's: a client must not choose how many series there are."""


class Metrics:
    """Own it as an async context manager, in the event loop that it looks at."""

    def __init__(self, product: Product) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "belljar_requests", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "belljar_request_seconds",
            "Until the first byte of the answer.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._lag = _Lag()
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        self._registry.register(_Now(product, self._lag))

    async def __aenter__(self) -> Self:
        self._lag.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._lag.end()

    def answered(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _NO_ROUTE)
        method = scope["method"] if route != _NO_ROUTE else _NO_ROUTE
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    async def text(self) -> bytes:
        """In Prometheus' text format 0.0.4."""
        return generate_latest(self._registry) + await in_thread(generate_latest, self._process)  # which reads files


class _Lag:
    """The longest time for which the event loop did nothing else, since it was last asked."""

    def __init__(self) -> None:
        self._longest = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        self._due = time.monotonic() + _LAG_EACH
        self._timer = asyncio.get_running_loop().call_later(_LAG_EACH, self._look)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take(self) -> float:
        longest, self._longest = self._longest, 0.0
        return longest

    def _look(self) -> None:
        self._longest = max(self._longest, time.monotonic() - self._due)
        self.begin()


class _Now(Collector):
    """What is counted when somebody asks."""

    def __init__(self, product: Product, lag: _Lag) -> None:
        self._product = product
        self._lag = lag

    def collect(self) -> Iterator[Metric]:
        product = self._product
        yield _gauge("belljar_build_info", "The version that runs.", ("version",), {(belljar.__version__,): 1})
        yield _gauge(
            "belljar_event_loop_lag_seconds",
            "How late the event loop was at most since this was last asked.",
            (),
            {(): self._lag.take()},
        )
        yield _gauge("belljar_keys", "API keys that are valid.", (), {(): len(product.keys)})
        yield _gauge("belljar_sandboxes", "Sandboxes that live.", ("workspace", "status"), product.sandboxes.counts())
        uses = product.quotas.uses()
        held = {(id, name): getattr(use, name) for id, use in uses.items() for name in _HELD}
        yield _gauge("belljar_promised", "What live sandboxes were promised: cores, and bytes.", _OF, held)
        bounds = {
            (workspace.id, name): value
            for workspace in product.workspaces.list()
            for name, value in workspace.quota.said().items()
        }
        yield _used(product)
        yield _gauge("belljar_quota", "The bound, where there is one; of creates and requests per second.", _OF, bounds)


def _used(product: Product) -> Metric:
    family = CounterMetricFamily(
        "belljar_used", "What sandboxes used since the server started: seconds, GiB-seconds, bytes.", labels=_OF
    )
    for workspace, amounts in product.usage.meters.totals().items():
        used = UsageEntry(**asdict(amounts))
        values = {
            "running_seconds": used.running_seconds,
            "cpu_seconds": used.cpu_seconds,
            "memory_gib_seconds": used.memory_gib_seconds,
            "disk_gib_seconds": used.disk_gib_seconds,
            "received_bytes": used.received_bytes,
            "sent_bytes": used.sent_bytes,
        }
        for name, value in values.items():
            family.add_metric((workspace, name), value)
    return family


def _gauge(name: str, about: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
