"""`Metrics`: the figures of an installation in the text format of Prometheus.

prometheus-client counts in a process, or in files of many, which forked jobs leak. Our counters are
in Redis, so its registry is filled anew for each scrape.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import accumulate, chain

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from offhook.connection import connect
from offhook.errors import LaterLayout
from offhook.inbox import Inbox
from offhook.inbox.latency import BOUNDS
from offhook.inbox.refused import CallbackOutcome, Cause
from offhook.operations.figures import Figures, HandlerFigures, read_figures
from offhook.operations.last_diagnosis import LastDiagnosis
from offhook.settings import Settings

CONTENT_TYPE = CONTENT_TYPE_LATEST
_FRESH = 1.0  # seconds in which the next scrape gets the same text
_PATIENCE = 8.0  # seconds for all figures; Prometheus waits 10 s

_SAMPLES_AT_ONCE = 500  # two milliseconds

_REFUSED = (*Cause, CallbackOutcome.QUARANTINED)
_ANSWERED = (CallbackOutcome.ACCEPTED, CallbackOutcome.REPEATED, CallbackOutcome.UNAVAILABLE)


class Metrics:
    """Makes the text, once at a time and at most once a second.

    Args:
        journal: the bytes in the journals of this machine.
    """

    def __init__(self, settings: Settings, journal: Callable[[], int]) -> None:
        self._settings = settings
        self._journal = journal
        # Connections of their own: those of callbacks never wait for a scrape.
        self._redis = connect(settings.redis_url, tries=0)
        self._rq = connect(settings.jobs_url, tries=0)
        self._inbox = Inbox(self._redis, settings.partitions)
        self._making = asyncio.Lock()
        self._text = b""
        self._made_at = -_FRESH

    async def text(self) -> bytes:
        """The metrics. While Redis does not answer, only what is known without it."""
        async with self._making:
            if time.monotonic() - self._made_at >= _FRESH:
                self._text = await self._make()
                self._made_at = time.monotonic()
            return self._text

    def take(self, settings: Settings) -> None:
        """Read the figures of other settings, of the same inbox, from the next time on."""
        self._settings = settings

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
        await self._rq.aclose()

    async def _make(self) -> bytes:
        began = time.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE):
                figures = await read_figures(self._inbox, self._rq, self._settings)
        except (RedisError, OSError, LaterLayout):
            figures = None  # the receiver and the workers log why
        journal = await asyncio.to_thread(self._journal)  # a disk may hang
        families = chain(
            _local(figures, journal, self._settings.journal_size, began),
            _families(figures) if figures else (),
        )
        parts = []
        for family in families:
            for part in _text(family):
                parts.append(part)
                await asyncio.sleep(0)  # callbacks go first
        return b"".join(parts)


def _local(
    figures: Figures | None, journal: int, journal_size: int, began: float
) -> Iterator[Metric]:
    yield _gauge("redis_up", "Whether Redis answers.", figures is not None)
    yield _gauge("journal_bytes", "Events on disk, because Redis could not take them.", journal)
    yield _gauge("journal_limit_bytes", "Maximum size of a receiver's journal.", journal_size)
    yield _gauge("scrape_seconds", "Time to read these figures.", time.monotonic() - began)


def _families(figures: Figures) -> Iterator[Metric]:
    received = figures.received
    callbacks = _counter("callbacks", "Callbacks with a valid token and content.", "outcome")
    for outcome in _ANSWERED:
        callbacks.add_metric([outcome], received[outcome])
    yield callbacks
    refused = _counter("callbacks_refused", "Callbacks and connections refused.", "reason")
    for cause in _REFUSED:
        refused.add_metric([cause], received[cause])
    yield refused
    yield CounterMetricFamily(
        "offhook_events", "Events appended to the inbox, our own among them.", figures.events
    )
    yield CounterMetricFamily(
        "offhook_events_journaled",
        "Events that were kept on disk first, because Redis did not take them.",
        received[CallbackOutcome.JOURNALED],
    )
    yield _gauge("inbox_events", "Events that the inbox keeps.", figures.kept)
    yield _gauge("quarantine_entries", "Refused callbacks that are kept.", figures.quarantined)
    yield _gauge("live_calls", "Calls that are not closed.", figures.live)
    yield _gauge("parked_calls", "Calls that wait for a redelivery.", figures.parked)
    yield _gauge("extensions", "Extensions that are set up.", figures.extensions)
    yield _gauge("scheduler_up", "Whether a scheduler runs.", figures.scheduler)
    yield _gauge(
        "redis_memory_bytes",
        "Memory that Redis, or the fullest primary of a cluster, uses.",
        figures.memory[0],
    )
    yield _gauge(
        "redis_memory_limit_bytes", "The maxmemory of that server; 0: no limit.", figures.memory[1]
    )
    phones = GaugeMetricFamily(
        "offhook_phones", "Extensions, by whether a phone is registered.", labels=["pbx", "state"]
    )
    for pbx, counts in figures.phones.items():
        for state, count in zip(("registered", "unregistered"), counts, strict=True):
            phones.add_metric([pbx, state], count)
    yield phones
    if figures.diagnosis is not None:
        yield from _diagnosis(figures.diagnosis, figures.now)
    yield from _by_queue(figures)
    yield from _by_handler(figures)
    yield _latency(figures)


def _diagnosis(last: LastDiagnosis, now: float) -> Iterator[Metric]:
    findings = _labelled("doctor_findings", "What `offhook doctor` found last.", "verdict")
    for verdict, count in last.counts.items():
        findings.add_metric([verdict], count)
    yield findings
    age = max(0.0, now - last.at.timestamp())
    yield _gauge("doctor_age_seconds", "Time since the workers last ran `offhook doctor`.", age)


def _by_queue(figures: Figures) -> Iterator[Metric]:
    for name, text, counts in (
        ("serving_processes", "Processes that serve handlers.", figures.serving),
        ("unserved_partitions", "Partitions that no process serves.", figures.unserved),
    ):
        family = _labelled(name, text, "queue")
        for queue, count in counts.items():
            family.add_metric([queue], count)
        yield family


def _by_handler(figures: Figures) -> Iterator[Metric]:
    handlers = figures.handlers.items()
    gauges: list[tuple[str, str, Callable[[HandlerFigures], float]]] = [
        ("handler_lag_events", "Events that it has not read.", lambda one: one.lag),
        (
            "handler_lag_seconds",
            "Age of the first event that it has not finished.",
            lambda one: one.lag_seconds(figures.now),
        ),
        ("handler_in_flight", "Events read and not finished.", lambda one: one.in_flight),
        ("circuit_open", "Whether its circuit is open.", lambda one: one.circuit_open),
        ("handler_paused", "Whether a person paused it.", lambda one: one.paused),
        ("dead_letters", "Dead letters that are kept.", lambda one: one.dead_letters),
    ]
    for name, text, value in gauges:
        family = _labelled(name, text, "handler")
        for handler, one in handlers:
            family.add_metric([handler], float(value(one)))
        yield family
    attempts = CounterMetricFamily(
        "offhook_attempts", "Attempts at deliveries.", labels=["handler", "outcome"]
    )
    for handler, one in handlers:
        for outcome in ("delivered", "failed", "dead"):
            attempts.add_metric([handler, outcome], getattr(one, outcome))
    yield attempts


def _latency(figures: Figures) -> Metric:
    bounds = [*(f"{bound / 1000:g}" for bound in BOUNDS), "+Inf"]
    return HistogramMetricFamily(
        "offhook_delivery_latency_seconds",
        "From the acceptance of an event to its delivery.",
        buckets=list(zip(bounds, accumulate(figures.latency.buckets), strict=True)),
        sum_value=figures.latency.seconds,
    )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"offhook_{name}", text, float(value))


def _labelled(name: str, text: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"offhook_{name}", text, labels=[label])


def _counter(name: str, text: str, label: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"offhook_{name}", text, labels=[label])


class _One(Collector):
    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> list[Metric]:
        return [self._family]


def _text(family: Metric) -> Iterator[bytes]:
    """Write a family, in small parts."""
    samples, header = family.samples, 2  # lines
    for at in range(0, max(1, len(samples)), _SAMPLES_AT_ONCE):
        family.samples = samples[at : at + _SAMPLES_AT_ONCE]
        registry = CollectorRegistry()
        registry.register(_One(family))
        text = generate_latest(registry)
        yield text if at == 0 else text.split(b"\n", header)[header]
