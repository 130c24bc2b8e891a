"""The whole sandbox PBX: who registers a phone call event through the API hears of the calls."""

import time
from collections import Counter
from collections.abc import Iterator
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
from tests.unifiedapi.serving import serve
from unifiedapi.blocking import BlockingUnifiedApi
from unifiedapi.oauth import BearerToken
from unifiedapi.resources import Disposition, EventMethod, EventStatus, EventType
from unifiedapi.sandbox.control import create_exchange
from unifiedapi.sandbox.scenarios import Scenario, make_call
from unifiedapi.sandbox.store import Store
from unifiedapi.sandbox.tls import Certificate

PHONE = "0003*210"


class Listener:
    """Counts the callbacks that come in, by what the URL says."""

    def __init__(self) -> None:
        self.heard: Counter[tuple[str, str]] = Counter()
        self.calls: set[str] = set()

    async def __call__(self, request: Request) -> Response:
        body = (await request.body()).decode()
        query = parse_qs(urlsplit(str(request.url)).query if request.method == "GET" else body)
        self.heard[request.path_params["name"], request.method] += 1
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


Started = tuple[str, BlockingUnifiedApi]


@pytest.fixture
def pbx(
    store: Store, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Started]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.ca_file))
    token = store.issue(next(iter(store.apps.values()))).access_token
    with (
        serve(create_exchange(store, callbacks), certificate) as url,
        BlockingUnifiedApi(url, BearerToken(token), ca_file=certificate.ca_file) as api,
    ):
        yield url, api


def order(url: str, what: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{url}/sandbox/{what}", json=fields)


def settled(url: str) -> dict[str, Any]:
    """The tally, when all calls are over."""
    deadline = time.monotonic() + 20
    while True:
        tally: dict[str, Any] = httpx.get(f"{url}/sandbox/tally").json()
        if not tally["running"] or time.monotonic() > deadline:
            return tally
        time.sleep(0.05)


def test_a_call_is_told_to_all_who_are_registered_and_enabled(
    pbx: Started, listener: Listener, callback_url: str
) -> None:
    url, api = pbx
    events = api.phone_call_events
    events.create(PHONE, type=EventType.DIAL_IN, url=f"{callback_url}/a", method=EventMethod.GET)
    events.create(PHONE, type=EventType.DIAL_IN, url=f"{callback_url}/b", method=EventMethod.POST)
    events.create(PHONE, type=EventType.HANGUP, url=f"{callback_url}/c", method=EventMethod.POST)
    events.create(
        PHONE,
        type=EventType.ANSWER_IN,
        url=f"{callback_url}/disabled",
        status=EventStatus.DISABLED,
    )
    answer = order(url, "calls", scenario="answered", phones=[PHONE], speed=100)
    assert answer.status_code == 202
    tally = settled(url)
    assert (tally["calls"], tally["sent"], tally["accepted"]) == (1, 3, 3)
    assert listener.heard == {("a", "GET"): 1, ("b", "POST"): 1, ("c", "POST"): 1}
    assert listener.calls == {answer.json()["id"]}


def test_a_load_places_as_many_calls_as_ordered(
    pbx: Started, listener: Listener, callback_url: str
) -> None:
    url, api = pbx
    api.phone_call_events.create(PHONE, type=EventType.HANGUP, url=f"{callback_url}/h")
    fields = {"calls": 20, "rate": 200, "scenarios": ["missed"], "phones": [PHONE], "speed": 500}
    assert order(url, "load", **fields).status_code == 202
    assert settled(url)["calls"] == 20
    assert len(listener.calls) == 20


@pytest.mark.parametrize(
    ("drop", "made"),
    [("none", {"dial", "answer", "hangup"}), ("hangup", {"dial", "answer"}), ("all", set())],
)
@pytest.mark.parametrize("what", ["calls", "load"])
def test_callbacks_that_are_dropped_are_never_made_and_the_call_is_recorded(
    what: str, drop: str, made: set[str], pbx: Started, listener: Listener, callback_url: str
) -> None:
    url, api = pbx
    named = {"dial": EventType.DIAL_IN, "answer": EventType.ANSWER_IN, "hangup": EventType.HANGUP}
    for name, type_ in named.items():
        api.phone_call_events.create(PHONE, type=type_, url=f"{callback_url}/{name}")
    many = {"calls": 1, "scenarios": ["answered"]} if what == "load" else {"scenario": "answered"}
    began = time.monotonic()
    order(url, what, **many, phones=[PHONE], speed=50, seed=2, drop=drop)
    tally = settled(url)
    script = make_call(Scenario.ANSWERED, Random(2), [PHONE])
    if what == "calls":  # a call whose callbacks are lost lasts as long
        assert time.monotonic() - began > script.callbacks[-1].at / 50
    assert listener.heard == {(name, "POST"): 1 for name in made}
    assert (tally["calls"], tally["sent"]) == (1, len(made))
    [record] = api.call_records.list()
    assert record.answered is not None
    assert record.legs[0].disposition == Disposition.ANSWERED


def test_a_call_is_recorded_when_nobody_takes_its_callbacks(pbx: Started) -> None:
    url, api = pbx
    api.phone_call_events.create(PHONE, type=EventType.HANGUP, url="http://127.0.0.1:9/h")
    order(url, "calls", scenario="busy", phones=[PHONE], speed=100)
    assert settled(url)["failed"] == {"no connection": 1}
    [record] = api.call_records.list()
    assert record.legs[0].disposition == Disposition.BUSY


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"scenario": "no-such-thing"},
        {"scenario": "missed", "phones": ["0003*999"]},
        {"scenario": "ring-group", "phones": [PHONE]},
        {"scenario": "missed", "speed": 0},
        {"scenario": "missed", "sped": 1},
        {"scenario": "missed", "drop": "some"},
    ],
)
def test_an_order_that_makes_no_sense_is_refused_with_a_reason(
    pbx: Started, fields: dict[str, Any]
) -> None:
    answer = order(pbx[0], "calls", **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_the_api_still_wants_a_token(pbx: Started) -> None:
    answer = httpx.get(f"{pbx[0]}/uapi/extensions/@me/{PHONE}/phoneCallEvents")
    assert answer.status_code == 401
