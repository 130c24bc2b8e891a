"""The whole sandbox PBX: events registered through the API lead to callbacks of placed calls."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from offhook.http.callbacks import callbacks
from tests.unifiedapi.serving import read, serve
from unifiedapi.client import UnifiedApi
from unifiedapi.oauth import BearerToken
from unifiedapi.resources import Disposition, EventMethod, EventStatus, EventType
from unifiedapi.sandbox.control import create_exchange
from unifiedapi.sandbox.scenarios import Scenario, make_call
from unifiedapi.sandbox.store import Store
from unifiedapi.sandbox.tls import Certificate

PHONE = "0003*210"


class Listener:
    """Counts callbacks by name in the URL and method."""

    def __init__(self) -> None:
        self.received: Counter[tuple[str, str]] = Counter()
        self.calls: set[str] = set()

    async def __call__(self, request: Request) -> Response:
        body = (await request.body()).decode()
        query = parse_qs(urlsplit(str(request.url)).query if request.method == "GET" else body)
        self.received[request.path_params["name"], request.method] += 1
        self.calls.add(query["CallID"][0])
        return Response()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def callback_url(listener: Listener) -> Iterator[str]:
    async def endpoint(request: Request) -> Response:
        return await listener(request)

    with serve(Starlette(routes=[Route("/{name}", endpoint, methods=["GET", "POST"])])) as url:
        yield url


@dataclass
class Running:
    """A sandbox PBX over TLS, and a client for it."""

    url: str
    api: UnifiedApi

    async def register(self, type_: EventType, url: str, **options: Any) -> None:
        await self.api.phone_call_events.create(PHONE, type=type_, url=url, **options)

    def order(self, what: str, **fields: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/sandbox/{what}", json=fields)

    def settled(self) -> dict[str, Any]:
        """Wait until all calls are over. Return the tally."""
        deadline = time.monotonic() + 20
        while True:
            tally: dict[str, Any] = httpx.get(f"{self.url}/sandbox/tally").json()
            if not tally["running"]:
                return tally
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
async def pbx(
    store: Store, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.ca_file))
    token = BearerToken(store.issue(next(iter(store.apps.values()))).access_token)
    with serve(create_exchange(store, callbacks, speed=100), certificate) as url:
        async with UnifiedApi(url, token, ca_file=certificate.ca_file) as api:
            yield Running(url, api)


async def test_call_makes_the_callbacks_that_are_registered_and_enabled(
    pbx: Running, listener: Listener, callback_url: str
) -> None:
    await pbx.register(EventType.DIAL_IN, f"{callback_url}/a", method=EventMethod.GET)
    await pbx.register(EventType.DIAL_IN, f"{callback_url}/b", method=EventMethod.POST)
    await pbx.register(EventType.HANGUP, f"{callback_url}/c", method=EventMethod.POST)
    await pbx.register(EventType.ANSWER_IN, f"{callback_url}/disabled", status=EventStatus.DISABLED)
    answer = pbx.order("calls", scenario="answered", phones=[PHONE], speed=100)
    assert answer.status_code == 202
    tally = pbx.settled()
    assert (tally["calls"], tally["sent"], tally["accepted"]) == (1, 3, 3)
    assert listener.received == {("a", "GET"): 1, ("b", "POST"): 1, ("c", "POST"): 1}
    assert listener.calls == {answer.json()["id"]}


async def test_a_call_ordered_through_the_api_is_placed(
    pbx: Running, listener: Listener, callback_url: str
) -> None:
    for type_ in (EventType.DIAL_OUT, EventType.ANSWER_OUT, EventType.HANGUP):
        await pbx.register(type_, f"{callback_url}/{type_.label}")
    made = await pbx.api.phone_calls.create(PHONE, "+442079460100")
    assert pbx.settled()["accepted"] == 3
    assert {name for name, _ in listener.received} == {"dial-out", "answer-out", "hangup"}
    [record] = await read(pbx.api.call_records.list())
    assert record.id == made.id
    assert (record.legs[0].source, record.legs[0].destination) == ((PHONE,), ("+442079460100",))


async def test_an_internal_call_rings_at_the_colleague(
    pbx: Running, listener: Listener, callback_url: str
) -> None:
    colleague, dial_in = "0003*211", EventType.DIAL_IN
    await pbx.api.phone_call_events.create(colleague, type=dial_in, url=f"{callback_url}/rang")
    await pbx.api.phone_calls.create(PHONE, "211", source="210")
    assert pbx.settled()["accepted"] == 1
    assert listener.received == {("rang", "POST"): 1}


async def test_load_places_the_ordered_number_of_calls(
    pbx: Running, listener: Listener, callback_url: str
) -> None:
    await pbx.register(EventType.HANGUP, f"{callback_url}/h")
    fields = {"calls": 20, "rate": 200, "scenarios": ["missed"], "phones": [PHONE], "speed": 500}
    assert pbx.order("load", **fields).status_code == 202
    assert pbx.settled()["calls"] == 20
    assert len(listener.calls) == 20


@pytest.mark.parametrize("what", ["calls", "load"])
async def test_dropped_callbacks_are_not_made_but_the_call_is_recorded(
    what: str, pbx: Running, listener: Listener, callback_url: str
) -> None:
    await pbx.register(EventType.DIAL_IN, f"{callback_url}/dial")
    await pbx.register(EventType.ANSWER_IN, f"{callback_url}/answer")
    await pbx.register(EventType.HANGUP, f"{callback_url}/hangup")
    many = {"calls": 1, "scenarios": ["answered"]} if what == "load" else {"scenario": "answered"}
    sent = 0
    for calls, (drop, made) in enumerate(
        {"none": {"dial", "answer", "hangup"}, "hangup": {"dial", "answer"}, "all": set()}.items(),
        1,
    ):
        listener.received.clear()
        began = time.monotonic()
        pbx.order(what, **many, phones=[PHONE], speed=200, seed=calls, drop=drop)
        tally = pbx.settled()
        script = make_call(Scenario.ANSWERED, Random(calls), [PHONE])
        if what == "calls":  # it lasts as long without its callbacks
            assert time.monotonic() - began > script.callbacks[-1].at / 200
        assert listener.received == {(name, "POST"): 1 for name in made}
        sent += len(made)
        assert (tally["calls"], tally["sent"]) == (calls, sent)
        records = await read(pbx.api.call_records.list())
        assert len(records) == calls
        assert records[-1].answered is not None
        assert records[-1].legs[0].disposition == Disposition.ANSWERED


async def test_call_is_recorded_if_its_callbacks_fail(pbx: Running) -> None:
    await pbx.register(EventType.HANGUP, "http://127.0.0.1:9/h")
    pbx.order("calls", scenario="busy", phones=[PHONE], speed=100)
    assert pbx.settled()["failed"] == {"no connection": 1}
    [record] = await read(pbx.api.call_records.list())
    assert record.legs[0].disposition == Disposition.BUSY


async def test_invalid_order_is_refused_with_a_reason(pbx: Running) -> None:
    for fields, reason in (
        ({}, "scenario"),
        ({"scenario": "no-such-thing"}, "no-such-thing"),
        ({"scenario": "missed", "phones": ["0003*999"]}, "this PBX has no extension 0003*999"),
        ({"scenario": "ring-group", "phones": [PHONE]}, "needs 3 phones"),
        ({"scenario": "missed", "speed": 0}, "speed"),
        ({"scenario": "missed", "sped": 1}, "sped"),
        ({"scenario": "missed", "drop": "some"}, "some"),
    ):
        answer = pbx.order("calls", **fields)
        assert answer.status_code == 400
        assert reason in answer.json()["error"]["message"]


def test_api_still_needs_a_token(store: Store) -> None:
    with serve(create_exchange(store, callbacks)) as url:
        answer = httpx.get(f"{url}/uapi/extensions/@me/{PHONE}/phoneCallEvents")
    assert answer.status_code == 401
