"""`Traces`: a span for each callback and each attempt, sent to a collector by OTLP over HTTP.

Ready-made instrumentation of web servers and clients records URLs, so our tokens and phone
numbers; these spans have ids and names only. The id of an event is the id of its trace, and its
last half that of the callback's span. So the context is in every event, at no cost, through the
journal and a replay.

Imports OpenTelemetry when it is used, an extra that few install.
"""

import logging
import random
from typing import TYPE_CHECKING, Literal

from offhook.event import CallEvent
from offhook.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext, SpanKind

log = logging.getLogger("offhook.traces")

Service = Literal["offhook-receiver", "offhook-worker"]

_HALF = 1 << 64
_AT_ONCE = 2048  # spans; more wait nowhere: they are dropped
_PATIENCE = 2.0  # seconds for a request to the collector, and at the end of a process


def open_traces(settings: Settings, service: Service) -> "Traces | None":
    """Begin to send traces; None if the settings do not ask for them, or a package is missing."""
    if settings.traces_url is None:
        return None
    try:
        return Traces(settings.traces_url, settings.traces_share, service)
    except ModuleNotFoundError as error:
        log.error("no traces are sent: pip install 'offhook[otel]' (%s is missing)", error.name)
        return None


class Traces:
    """Sends spans in batches, from a thread. It drops what a collector does not take in time.

    Args:
        url: the collector's, without `/v1/traces`.
        share: the part of events to trace. All processes choose the same ones.
        service: the name of this process among others.
    """

    def __init__(self, url: str, share: float, service: Service) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        self._span, self._context, self._kind = ReadableSpan, SpanContext, SpanKind
        self._failed = Status(StatusCode.ERROR)
        self._unset = Status()
        self._sampled = TraceFlags(TraceFlags.SAMPLED)
        self._resource = Resource.create({"service.name": service})
        exporter = OTLPSpanExporter(f"{url.rstrip('/')}/v1/traces", timeout=_PATIENCE)
        # In one request, so that the end of a process waits for one.
        self._processor = BatchSpanProcessor(
            exporter, max_queue_size=_AT_ONCE, max_export_batch_size=_AT_ONCE
        )
        self._below = int(share * _HALF)

    def callback(self, event: CallEvent, outcome: str, ended: float) -> None:
        """Add the span of a callback, from its acceptance on.

        Args:
            outcome: such as `accepted`.
            ended: when it was answered, in seconds since 1970.
        """
        root = self._root(event)
        if root is not None:
            failed = outcome == "unavailable"
            said = {"offhook.outcome": outcome}
            kind = self._kind.SERVER
            began = event.received.timestamp()
            self._add("callback", root, None, event, said, kind, began, ended, failed=failed)

    def attempt(
        self,
        event: CallEvent,
        handler: str,
        number: int,
        outcome: str,
        began: float,
        ended: float,
    ) -> None:
        """Add the span of an attempt; with the first one, that of the event's time in the inbox.

        Args:
            began, ended: in seconds since 1970.
        """
        root = self._root(event)
        if root is None:
            return
        said: dict[str, str | int] = {"offhook.handler": handler}
        if number == 1:
            received = event.received.timestamp()
            kind = self._kind.INTERNAL
            self._add("inbox", self._child(root), root, event, said, kind, received, began)
        said |= {"offhook.attempt": number, "offhook.outcome": outcome}
        kind, failed = self._kind.CONSUMER, outcome != "delivered"
        child = self._child(root)
        self._add("attempt", child, root, event, said, kind, began, ended, failed=failed)

    def close(self) -> None:
        """Send what is left, and end. Blocks for seconds if the collector does not answer."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _root(self, event: CallEvent) -> "SpanContext | None":
        """The callback's span; None if the event is not traced."""
        try:
            trace = int(event.id, 16)
        except ValueError:  # an id from elsewhere
            return None
        half = trace % _HALF
        if half >= self._below or not half or trace >= _HALF * _HALF:
            return None
        return self._context(trace, half, is_remote=False, trace_flags=self._sampled)

    def _child(self, root: "SpanContext") -> "SpanContext":
        own = random.getrandbits(64) or 1
        return self._context(root.trace_id, own, is_remote=False, trace_flags=self._sampled)

    def _add(
        self,
        name: str,
        context: "SpanContext",
        parent: "SpanContext | None",
        event: CallEvent,
        said: dict[str, str] | dict[str, str | int],
        kind: "SpanKind",
        began: float,
        ended: float,
        *,
        failed: bool = False,
    ) -> None:
        attributes: dict[str, str | int] = {
            "offhook.type": event.type.value,
            "offhook.call": event.call,
            "offhook.extension": event.extension,
            **said,
        }
        if event.tenant:
            attributes["offhook.tenant"] = event.tenant
        span = self._span(
            name,
            context=context,
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            kind=kind,
            status=self._failed if failed else self._unset,
            start_time=int(began * 1e9),
            end_time=max(int(began * 1e9), int(ended * 1e9)),
        )
        self._processor.on_end(span)
