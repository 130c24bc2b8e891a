"""Traces of real processes, as a collector gets them: OTLP over HTTP, decoded."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from offhook.operations.traces import Traces
from offhook.testing import sample_event
from tests.http_target import HttpTarget
from tests.installation import Installation, wait_until
from tests.ports import free_port

HANDLERS = """
[handlers.crm]
use = "tests.recorders:record"
[handlers.down]
use = "tests.recorders:never_now"
retry = [1]
"""


def spans(target: HttpTarget) -> Iterator[tuple[str, Span]]:
    """Yield each span that a collector got, and the service that sent it."""
    for each in [*target.requests]:
        assert (each.method, each.path) == ("POST", "/v1/traces")
        for resource in ExportTraceServiceRequest.FromString(each.body).resource_spans:
            names = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    yield names["service.name"], span


def said(span: Span) -> dict[str, Any]:
    return {
        one.key.removeprefix("offhook."): one.value.string_value or one.value.int_value
        for one in span.attributes
    }


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send spans every 0.2 s."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")


def test_a_trace_goes_from_the_callback_to_each_attempt(
    tmp_path: Path, target: HttpTarget, quick: None
) -> None:
    url = f"http://127.0.0.1:{target.port}"
    with Installation.running(tmp_path, HANDLERS, traces_url=url, processes=1) as offhook:
        outcome = offhook.load(1, per_call=1, name="+40211234567-call")
        assert outcome.refused == 0
        wait_until(lambda: len([*spans(target)]) == 6, "all spans have come")
        found = [*spans(target)]
    [(event_id, _, _)] = offhook.delivered("crm")
    assert {span.trace_id.hex() for _, span in found} == {event_id}
    by_name = {name: [s for _, s in found if s.name == name] for name in ("callback", "inbox")}
    [callback] = by_name["callback"]
    assert not callback.parent_span_id
    assert said(callback)["outcome"] == "accepted"
    others = [span for _, span in found if span is not callback]
    assert {span.parent_span_id for span in others} == {callback.span_id}
    assert len({span.span_id for _, span in found}) == 6
    attempts = sorted(
        (its["handler"], its["attempt"], its["outcome"], span.status.code)
        for _, span in found
        if span.name == "attempt" and (its := said(span))
    )
    assert attempts == [
        ("crm", 1, "delivered", 0),
        ("down", 1, "failed", 2),
        ("down", 2, "dead", 2),
    ]
    assert {service for service, span in found if span.name == "attempt"} == {"offhook-worker"}
    assert [service for service, span in found if span is callback] == ["offhook-receiver"]
    begun = {said(span)["handler"]: span.start_time_unix_nano for span in by_name["inbox"]}
    assert begun == dict.fromkeys(("crm", "down"), callback.start_time_unix_nano)
    sent = b"".join(each.body for each in target.requests)
    assert b"/callback/" not in sent
    assert b"15550" not in sent  # the callback's caller


def test_all_processes_trace_the_same_share(target: HttpTarget) -> None:
    url = f"http://127.0.0.1:{target.port}"
    events = [sample_event() for _ in range(400)]
    traced = []
    for _ in range(2):
        traces = Traces(url, 0.25, "offhook-worker")
        for event in events:
            traces.attempt(event, "crm", 2, "delivered", 0.0, 1.0)
        traces.callback(replace(events[0], id="not an id"), "accepted", 1.0)
        traces.close()
        traced.append({span.trace_id.hex() for _, span in spans(target)})
        target.requests.clear()
    assert traced[0] == traced[1] < {event.id for event in events}
    assert 40 < len(traced[0]) < 180


def test_a_collector_that_is_away_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    traces = Traces(f"http://127.0.0.1:{free_port()}", 1.0, "offhook-worker")
    event = sample_event()
    began = time.monotonic()
    for _ in range(20_000):
        traces.attempt(event, "crm", 2, "delivered", 0.0, 1.0)
    added = time.monotonic() - began
    with caplog.at_level(logging.CRITICAL, "opentelemetry"):
        traces.close()
    assert added < 20
    assert time.monotonic() - began < 40
