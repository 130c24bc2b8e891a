"""The webhook handler against a real HTTP server, read with the standards' own libraries."""

import base64
import os
import time
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from offhook import PermanentError, TemporaryError
from offhook.errors import ConfigError
from offhook.testing import configured, deliver, sample_event, sample_events
from tests.http_target import HttpTarget
from workers.handlers.webhook import Webhook


def new_secret(size: int = 32) -> str:
    return "whsec_" + base64.b64encode(os.urandom(size)).decode()


def test_the_body_is_the_event(target: HttpTarget) -> None:
    event = sample_event("answer-in", caller=sample_event().caller)
    deliver(configured(Webhook, url=f"{target.url}/hook?k=1"), event)
    (request,) = target.requests
    assert (request.method, request.path) == ("POST", "/hook?k=1")
    assert request.headers["content-type"] == "application/json"
    assert request.json() == event.as_dict()


def test_without_a_secret_there_is_an_id_but_no_signature(target: HttpTarget) -> None:
    event = sample_event()
    deliver(configured(Webhook, url=target.url), event)
    assert target.requests[0].headers["webhook-id"] == event.id
    assert "webhook-signature" not in target.requests[0].headers


@pytest.mark.parametrize("mode", ["off", "structured", "binary"])
def test_the_signature_is_valid(target: HttpTarget, mode: str) -> None:
    secret = new_secret()
    event = sample_event("hangup", call_id="ünï-☎")
    deliver(configured(Webhook, url=target.url, secret=secret, cloudevents=mode), event)
    (request,) = target.requests
    Verifier(secret).verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(secret).verify(request.body + b" ", request.headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(new_secret()).verify(request.body, request.headers)


def test_while_a_secret_is_replaced_both_are_valid(target: HttpTarget) -> None:
    new, old = new_secret(), new_secret()
    deliver(configured(Webhook, url=target.url, secret=new, previous_secret=old), sample_event())
    (request,) = target.requests
    Verifier(new).verify(request.body, request.headers)
    Verifier(old).verify(request.body, request.headers)


def test_a_redelivery_has_the_same_id_and_a_time_of_its_own(target: HttpTarget) -> None:
    secret = new_secret()
    handler, event = configured(Webhook, url=target.url, secret=secret), sample_event()
    target.plan(503)
    with pytest.raises(TemporaryError):
        deliver(handler, event, attempt=1)
    time.sleep(1.1)
    deliver(handler, event, attempt=2)
    first, second = target.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == event.id
    assert first.headers["webhook-timestamp"] < second.headers["webhook-timestamp"]
    assert first.body == second.body
    Verifier(secret).verify(second.body, second.headers)


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_a_cloud_event_is_read_back(target: HttpTarget, mode: str) -> None:
    handler = configured(Webhook, url=target.url, cloudevents=mode)
    for event in sample_events():
        deliver(handler, event)
        request = target.requests[-1]
        read = from_http_event(HTTPMessage(request.headers, request.body))
        attributes = read.get_attributes()
        assert read.get_data() == event.as_dict()
        assert attributes["id"] == event.id
        assert attributes["type"] == f"offhook.call.{event.type}"
        assert attributes["source"] == "/pbx/main/extensions/0003*210"
        assert attributes["subject"] == event.call_id
        assert attributes["time"] == event.received
    structured = request.headers["content-type"].startswith("application/cloudevents+json")
    assert structured is (mode == "structured")


def test_further_headers_are_sent(target: HttpTarget) -> None:
    headers = {"Authorization": "Bearer hush", "X-Team": "sales"}
    handler = configured(Webhook, url=target.url, headers=headers)
    deliver(handler, sample_event())
    assert target.requests[0].headers["authorization"] == "Bearer hush"
    assert target.requests[0].headers["x-team"] == "sales"
    assert "hush" not in repr(handler)


@pytest.mark.parametrize("status", [401, 408, 425, 429, 500, 502, 503])
def test_these_answers_are_temporary(target: HttpTarget, status: int) -> None:
    target.plan(status)
    with pytest.raises(TemporaryError, match=str(status)) as raised:
        deliver(configured(Webhook, url=target.url), sample_event())
    assert raised.value.retry_after is None


@pytest.mark.parametrize("status", [301, 400, 403, 404, 410, 422])
def test_these_answers_are_permanent(target: HttpTarget, status: int) -> None:
    target.plan(status, headers={"Location": target.url})
    with pytest.raises(PermanentError, match=str(status)):
        deliver(configured(Webhook, url=target.url), sample_event())
    assert len(target.requests) == 1


def test_retry_after_is_obeyed(target: HttpTarget) -> None:
    target.plan(429, headers={"Retry-After": "17"})
    with pytest.raises(TemporaryError) as raised:
        deliver(configured(Webhook, url=target.url), sample_event())
    assert raised.value.retry_after == 17


def test_a_slow_answer_is_temporary(target: HttpTarget) -> None:
    target.plan(200, delay=1.0)
    with pytest.raises(TemporaryError, match=r"did not answer within 0\.2 s"):
        deliver(configured(Webhook, url=target.url, timeout=0.2), sample_event())


def test_a_dropped_connection_is_temporary(target: HttpTarget) -> None:
    target.plan(drop=True)
    with pytest.raises(TemporaryError, match=r"no answer from 127\.0\.0\.1"):
        deliver(configured(Webhook, url=target.url), sample_event())


def test_nobody_listening_is_temporary(target: HttpTarget) -> None:
    target.close()
    with pytest.raises(TemporaryError) as raised:
        deliver(configured(Webhook, url=f"{target.url}/hush"), sample_event())
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"url": "ftp://hush/"}, "url"),
        ({"url": "https:///hush"}, "url"),
        ({"url": "https://[hush"}, "url"),
        ({"secret": "hush"}, "secret"),
        ({"secret": "whsec_hush!"}, "secret"),
        ({"secret": new_secret(23)}, "secret"),
        ({"secret": new_secret(65)}, "secret"),
        ({"secret": new_secret().removeprefix("whsec_")}, "secret"),
        ({"previous_secret": "hush"}, "previous_secret"),
        ({"cloudevents": "batched"}, "cloudevents"),
        ({"timeout": 0}, "timeout"),
        ({"headers": {"webhook-id": "hush"}}, "headers"),
        ({"headers": {"Content-Type": "hush"}}, "headers"),
        ({"headers": {"X-Two": "hush\r\nX-Three: hush"}}, "headers"),
        ({"headers": {"X Two": "hush"}}, "headers"),
    ],
)
def test_a_wrong_option_is_named_and_not_shown(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        configured(Webhook, **{"url": "https://crm.example.com"} | options)
    (problem,) = raised.value.problems
    assert problem.startswith(f"options.{name}: ")
    assert "hush" not in problem


@pytest.mark.parametrize("size", [24, 64])
def test_secrets_of_the_standard_are_taken(target: HttpTarget, size: int) -> None:
    secret = new_secret(size).rstrip("=")
    deliver(configured(Webhook, url=target.url, secret=secret), sample_event())
    Verifier(secret).verify(target.requests[0].body, target.requests[0].headers)
