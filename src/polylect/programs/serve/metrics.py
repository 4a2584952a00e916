"""What a server counts, for Prometheus."""

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from polylect.run.text_settings import has_named_adapters
from polylect.strategies.base import TranslationModule

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server, which share nothing with those of another in the same process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self._registry}
        self.requests = Counter(
            "polylect_requests", "Requests answered.", ["route", "status"], **own
        )
        self.request_seconds = Histogram(
            "polylect_request_seconds",
            "From a request's first byte to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            **own,
        )
        self.first_token = Histogram(
            "polylect_first_token_seconds",
            "From a request to the first token of its translations.",
            buckets=_SECONDS,
            **own,
        )
        self._batch_rows = Histogram(
            "polylect_batch_rows",
            "Texts of a batch, and of those that joined it.",
            buckets=_ROWS,
            **own,
        )
        self._batch_seconds = Histogram(
            "polylect_batch_seconds", "Decoding of a batch.", buckets=_SECONDS, **own
        )
        self._texts = Counter("polylect_texts", "Texts translated.", **own)
        self._tokens = Counter("polylect_tokens", "Tokens of the translations.", **own)

    def batch(self, rows: int, seconds: float) -> None:
        """Count a batch that has ended, with all that joined it."""
        self._batch_rows.observe(rows)
        self._batch_seconds.observe(seconds)

    def text(self, tokens: int) -> None:
        """Count a translation of so many tokens."""
        self._texts.inc()
        self._tokens.inc(tokens)

    def watch(self, module: TranslationModule, queued: Callable[[], int]) -> None:
        """Show also how many texts wait, and the adapters in memory where there are such."""
        self._registry.register(_State(module, queued))

    def page(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self._registry)


class _State:
    """What is read when it is asked for."""

    def __init__(self, module: TranslationModule, queued: Callable[[], int]) -> None:
        self._module, self._queued = module, queued

    def collect(self) -> Iterator[Any]:
        yield GaugeMetricFamily("polylect_queue_texts", "Texts that wait.", self._queued())
        if not has_named_adapters(self._module):
            return
        store = self._module.named_adapters().store
        gauges = {
            "polylect_resident_adapters": ("Adapters in memory.", len(store.resident)),
            "polylect_resident_adapter_bytes": ("Their bytes.", store.bytes),
        }
        counters = {
            "polylect_adapter_loads": ("Adapters read from disk.", store.loads),
            "polylect_adapter_hits": ("Adapters that were in memory when needed.", store.hits),
            "polylect_adapter_evictions": ("Adapters let go for others.", store.evictions),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value)
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(name, text, value)
