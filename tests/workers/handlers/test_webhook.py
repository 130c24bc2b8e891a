"""The webhook handler against a real HTTP server, checked with the standards' own libraries."""

import base64
import json
import os
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs
from xml.etree import ElementTree

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from offhook import Party, PermanentError, TemporaryError
from offhook.errors import ConfigError
from offhook.http import Http, is_private
from offhook.testing import configured, deliver, sample_event, sample_events
from tests.http_target import HttpTarget
from workers.handlers.webhook import Webhook


def new_secret(size: int = 32) -> str:
    return "whsec_" + base64.b64encode(os.urandom(size)).decode()


def webhook(**options: Any) -> Webhook:
    """A webhook that may send to the target, which is on this machine."""
    return configured(Webhook, private_networks=True, **options)


def test_the_body_is_the_event(target: HttpTarget) -> None:
    event = sample_event("answer-in", caller=sample_event().caller)
    deliver(webhook(url=f"{target.url}/hook?k=1"), event)
    (request,) = target.requests
    assert (request.method, request.path) == ("POST", "/hook?k=1")
    assert request.headers["content-type"] == "application/json"
    assert request.json() == event.as_dict()


def test_without_a_secret_there_is_an_id_but_no_signature(target: HttpTarget) -> None:
    event = sample_event()
    deliver(webhook(url=target.url), event)
    assert target.requests[0].headers["webhook-id"] == event.id
    assert "webhook-signature" not in target.requests[0].headers


@pytest.mark.parametrize("mode", ["off", "structured", "binary"])
def test_the_signature_is_valid(target: HttpTarget, mode: str) -> None:
    secret = new_secret()
    event = sample_event("hangup", call_id="ünï-☎")
    deliver(webhook(url=target.url, secret=secret, cloudevents=mode), event)
    (request,) = target.requests
    Verifier(secret).verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(secret).verify(request.body + b" ", request.headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(new_secret()).verify(request.body, request.headers)


def test_while_a_secret_is_replaced_both_are_valid(target: HttpTarget) -> None:
    new, old = new_secret(), new_secret()
    deliver(webhook(url=target.url, secret=new, previous_secret=old), sample_event())
    (request,) = target.requests
    Verifier(new).verify(request.body, request.headers)
    Verifier(old).verify(request.body, request.headers)


def test_a_redelivery_has_the_same_id_and_a_new_timestamp(target: HttpTarget) -> None:
    secret = new_secret()
    handler, event = webhook(url=target.url, secret=secret), sample_event()
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
def test_a_cloud_event_can_be_read(target: HttpTarget, mode: str) -> None:
    handler = webhook(url=target.url, cloudevents=mode)
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


def test_more_headers_are_sent(target: HttpTarget) -> None:
    headers = {"Authorization": "Bearer hush", "X-Team": "sales"}
    handler = webhook(url=target.url, headers=headers)
    deliver(handler, sample_event())
    assert target.requests[0].headers["authorization"] == "Bearer hush"
    assert target.requests[0].headers["x-team"] == "sales"
    assert "hush" not in repr(handler)


def test_these_responses_are_temporary(target: HttpTarget) -> None:
    for status in (401, 408, 425, 429, 500, 502, 503):
        target.plan(status)
        with pytest.raises(TemporaryError, match=str(status)) as raised:
            deliver(webhook(url=target.url), sample_event())
        assert raised.value.retry_after is None


def test_these_responses_are_permanent(target: HttpTarget) -> None:
    statuses = (301, 400, 403, 404, 410, 422)
    for status in statuses:
        target.plan(status, headers={"Location": target.url})
        with pytest.raises(PermanentError, match=str(status)):
            deliver(webhook(url=target.url), sample_event())
    assert len(target.requests) == len(statuses)


def test_retry_after_is_obeyed(target: HttpTarget) -> None:
    target.plan(429, headers={"Retry-After": "17"})
    with pytest.raises(TemporaryError) as raised:
        deliver(webhook(url=target.url), sample_event())
    assert raised.value.retry_after == 17


def test_a_slow_response_is_temporary(target: HttpTarget) -> None:
    target.plan(200, delay=1.0)
    with pytest.raises(TemporaryError, match=r"did not answer within 0\.2 s"):
        deliver(webhook(url=target.url, timeout=0.2), sample_event())


def test_a_dropped_connection_is_temporary(target: HttpTarget) -> None:
    target.plan(drop=True)
    with pytest.raises(TemporaryError, match=r"from 127\.0\.0\.1:\d+ \(it closed the connection"):
        deliver(webhook(url=target.url), sample_event())


def test_a_refused_connection_is_temporary(target: HttpTarget) -> None:
    target.close()
    with pytest.raises(TemporaryError) as raised:
        deliver(webhook(url=f"{target.url}/hush"), sample_event())
    assert "hush" not in str(raised.value)
    assert "(connection refused)" in str(raised.value)


def test_an_unknown_host_name_is_temporary() -> None:
    with pytest.raises(
        TemporaryError, match=r"no answer from nobody\.invalid \(its name is not kn"
    ):
        deliver(webhook(url="https://nobody.invalid/"), sample_event())


def test_a_server_that_does_not_speak_tls_is_temporary(target: HttpTarget) -> None:
    with pytest.raises(TemporaryError, match=r"\(TLS: [A-Z_]+\)"):
        deliver(webhook(url=target.url.replace("http:", "https:")), sample_event())


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
        ({"content_type": "hush"}, "content_type"),
        ({"content_type": "text/plain\r\nX-Hush: hush"}, "content_type"),
        ({"body": "{% if %}"}, "body"),
        ({"body": "{{ event.colour | tojson }}"}, "body"),
        ({"body": "{{ event.as_dict | tojson }}"}, "body"),
        ({"body": "{{ event.type }}"}, "body"),
        ({"body": '{"id": {{ event.call_id }}}'}, "body"),
        ({"body": "<call id={{ event.call_id }}/>", "content_type": "text/xml"}, "body"),
        ({"private_networks": "maybe"}, "private_networks"),
        ({"headers": {"webhook-id": "hush"}}, "headers"),
        ({"headers": {"Content-Type": "hush"}}, "headers"),
        ({"headers": {"X-Two": "hush\r\nX-Three: hush"}}, "headers"),
        ({"headers": {"X Two": "hush"}}, "headers"),
    ],
)
def test_an_error_names_a_wrong_option_and_hides_its_value(
    options: dict[str, Any], name: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        configured(Webhook, **{"url": "https://crm.example.com"} | options)
    (problem,) = raised.value.problems
    assert problem.startswith(f"options.{name}: ")
    assert "hush" not in problem


def test_secrets_of_the_standard_are_accepted(target: HttpTarget) -> None:
    for size in (24, 64):
        secret = new_secret(size).rstrip("=")
        deliver(webhook(url=target.url, secret=secret), sample_event())
        Verifier(secret).verify(target.requests[-1].body, target.requests[-1].headers)


def test_the_body_may_be_a_template(target: HttpTarget) -> None:
    secret = new_secret()
    template = """{"text": {{ ("Call from " ~ event.caller.name) | tojson }},
        "name": {{ event.called.name | tojson }}, "at": {{ event.received | tojson }},
        "how": {{ call.outcome | tojson }}, "legs": {{ call.legs | tojson }}}"""
    caller = Party(name='Jane "</script>" \n Doë')
    event = sample_event("call-ended", caller=caller)
    deliver(webhook(url=target.url, body=template, secret=secret), event)
    (request,) = target.requests
    assert request.headers["content-type"] == "application/json"
    assert request.json() == {
        "text": 'Call from Jane "</script>" \n Doë',
        "name": None,
        "at": "2026-11-21T19:30:53.250000Z",
        "how": "answered",
        "legs": event.as_dict()["summary"]["legs"],
    }
    Verifier(secret).verify(request.body, request.headers)


def test_a_body_need_not_be_json(target: HttpTarget) -> None:
    handler = webhook(
        url=target.url, body="<call>{{ event.call_id }}</call>", content_type="text/xml"
    )
    deliver(handler, sample_event("hangup"))
    (request,) = target.requests
    assert request.headers["content-type"] == "text/xml"
    assert request.body == b"<call>1795289400.101</call>"


HOSTILE = '"}, {"admin": 1, "x": "\\ &admin=1 <admin/> \x07 \n\' {{ 7 * 7 }}'


def read_xml(body: bytes) -> tuple[str | None, int]:
    root = ElementTree.fromstring(body)  # noqa: S314 - made by the test
    return root.text, len(root.attrib)


@pytest.mark.parametrize(
    ("content_type", "body", "read"),
    [
        (
            "application/json",
            '{"name": "{{ event.caller.name }}", "vip": {{ event.bridged }}, "n": {{ 2 + 2 }}}',
            lambda body: (json.loads(body)["name"], len(json.loads(body))),
        ),
        (
            "application/x-www-form-urlencoded",
            "name={{ event.caller.name }}&vip={{ event.bridged }}&n={{ 2 + 2 }}",
            lambda body: (
                parse_qs(body.decode(), keep_blank_values=True)["name"][0],
                len(parse_qs(body.decode(), keep_blank_values=True)),
            ),
        ),
        (
            "text/xml; charset=utf-8",
            '<call name="{{ event.caller.name }}" vip="" n="4">{{ event.caller.name }}</call>',
            read_xml,
        ),
    ],
)
def test_a_callers_name_stays_a_value_of_the_body(
    target: HttpTarget, content_type: str, body: str, read: Callable[[bytes], tuple[str, int]]
) -> None:
    handler = webhook(url=target.url, body=body, content_type=content_type)
    for name in ("Jane", '"', HOSTILE):
        deliver(handler, sample_event("hangup", caller=Party(name=name)))
        expected = name.replace("\x07", "\ufffd") if "xml" in content_type else name
        assert read(target.requests[-1].body) == (expected, 3)


def test_a_template_escapes_a_value_once(target: HttpTarget) -> None:
    name = sample_event(caller=Party(name='A "B" & C'))
    for body, sent in (
        ('{"n": {{ event.caller.name | tojson }}}', '{"n": "A \\"B\\" & C"}'),
        ('{"n": "{{ event.caller.name | e }}"}', '{"n": "A \\"B\\" & C"}'),
        ('{"n": {{ "a & b" | tojson }}, "m": "{{ "a & b" }}"}', '{"n": "a & b", "m": "a & b"}'),
        (
            '{% macro party(p) %}{"n": "{{ p.name }}"}{% endmacro %}{{ party(event.caller) }}',
            '{"n": "A \\"B\\" & C"}',
        ),
        ('{% set n %}"{{ event.caller.name }}"{% endset %}[{{ n }}]', '["A \\"B\\" & C"]'),
    ):
        deliver(webhook(url=target.url, body=body), name)
        assert target.requests[-1].body.decode().replace(":", ": ").replace(":  ", ": ") == sent
    form = webhook(
        url=target.url,
        body="event={{ event.caller | tojson }}",
        content_type="application/x-www-form-urlencoded",
    )
    deliver(form, name)
    sent = parse_qs(target.requests[-1].body.decode())["event"][0]
    assert json.loads(sent)["name"] == 'A "B" & C'


@pytest.mark.parametrize("mode", ["structured", "binary"])
@pytest.mark.parametrize(
    ("body", "content_type", "data"),
    [
        ('{"type": {{ event.type | tojson }}}', "application/json", {"type": "hangup"}),
        ("{{ event.type }}", "text/plain", "hangup"),
    ],
)
def test_a_template_is_the_data_of_a_cloud_event(
    target: HttpTarget, mode: str, body: str, content_type: str, data: object
) -> None:
    handler = webhook(url=target.url, body=body, content_type=content_type, cloudevents=mode)
    deliver(handler, sample_event("hangup"))
    (request,) = target.requests
    read = from_http_event(HTTPMessage(request.headers, request.body))
    assert read.get_datacontenttype() == content_type
    found = read.get_data()
    assert (found.decode() if isinstance(found, bytes) else found) == data


def test_an_event_that_does_not_fit_the_template_is_permanent(target: HttpTarget) -> None:
    handler = webhook(url=target.url, body='{"outcome": {{ call.outcome | tojson }}}')
    with pytest.raises(PermanentError, match="does not fit the template in body"):
        deliver(handler, sample_event("hangup"))
    handler = webhook(url=target.url, body='{"name": "{{ event.caller.name | safe }}"}')
    with pytest.raises(PermanentError, match="does not give JSON"):
        deliver(handler, sample_event("hangup", caller=Party(name='"')))
    assert target.requests == []


PRIVATE = [
    "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "100.100.100.200", "0.0.0.1", "192.0.0.192", "168.63.129.16", "192.88.99.1",
    "::ffff:168.63.129.16", "2002:a83f:8110::",
    "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254",
    "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1",
    "2002:7f00:1::", "::7f00:1", "2001::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


def test_a_private_address_requires_an_option() -> None:
    for address in (*PRIVATE, "localhost", "LocalHost.", "crm.localhost"):
        if "%" in address:
            assert is_private(address)
            continue
        host = f"[{address}]" if ":" in address else address
        with pytest.raises(ConfigError) as raised:
            configured(Webhook, url=f"http://user:hush@{host}:8000/hush")
        (problem,) = raised.value.problems
        assert problem.startswith("options.private_networks: must be true for ")
        assert "hush" not in problem
        webhook(url=f"http://{host}:8000/")


def test_a_public_address_requires_no_option() -> None:
    for address in (*PUBLIC, "crm.example.com", "localhost.example.com", "10.example"):
        configured(Webhook, url=f"https://{f'[{address}]' if ':' in address else address}/")


def test_a_name_of_a_private_address_is_not_connected_to(
    target: HttpTarget, names: dict[str, list[str]]
) -> None:
    handler = configured(Webhook, url=f"http://user:hush@crm.example.com:{target.port}/hush")
    for addresses in (*([each] for each in PRIVATE if "%" not in each), ["127.0.0.1", "::1"]):
        names["crm.example.com"] = addresses
        with pytest.raises(
            TemporaryError, match=r"crm\.example\.com:\d+ leads to this machine"
        ) as raised:
            deliver(handler, sample_event())
        assert "private_networks = true" in str(raised.value)
        assert "hush" not in str(raised.value)
    assert target.requests == []


def test_a_name_of_a_private_address_is_connected_to_if_allowed(
    target: HttpTarget, names: dict[str, list[str]]
) -> None:
    names["crm.example.com"] = ["127.0.0.1"]
    deliver(webhook(url=f"http://crm.example.com:{target.port}/"), sample_event())
    assert len(target.requests) == 1


async def test_a_name_that_changes_its_address_gains_nothing(
    target: HttpTarget, names: dict[str, list[str]]
) -> None:
    """The check uses the address of the connection, not an earlier look-up."""
    names["crm.example.com"] = ["127.0.0.1"]
    async with Http() as http:
        url = f"http://crm.example.com:{target.port}/"
        await http.post(url)
        with pytest.raises(TemporaryError, match="leads to this machine"):
            await http.post(url, public=True)
        await http.post(url)
    assert len(target.requests) == 2


def test_other_notations_of_a_private_address_are_refused(target: HttpTarget) -> None:
    for host in ("2130706433", "127.1", "0x7f.0.0.1"):
        handler = configured(Webhook, url=f"http://{host}:{target.port}/")
        with pytest.raises((TemporaryError, PermanentError)):
            deliver(handler, sample_event())
    assert target.requests == []
