"""Callbacks of placed calls, against a real HTTP server."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import count, groupby, islice
from math import inf
from random import Random
from typing import Literal
from urllib.parse import parse_qsl

import pytest
from aiohttp import web

from offhook.http.callbacks import callbacks
from unifiedapi.resources import EventType
from unifiedapi.sandbox.pbx import Pbx, Registration, registered_in
from unifiedapi.sandbox.scenarios import (
    QUEUE,
    Callback,
    Scenario,
    ScriptedCall,
    make_call,
    random_calls,
)

PHONES = ["0003*210", "0003*211", "0003*212"]
Registrations = dict[tuple[str, EventType], Registration]
Answer = Callable[[web.Request], Awaitable[web.Response]]


@dataclass
class Seen:
    """One received request. The target is not decoded."""

    method: str
    target: str
    content_type: str
    body: str
    began: float  # monotonic seconds
    ended: float = inf


class Server:
    """Records requests in the order of arrival. Tests may replace `answer`."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[Seen] = []
        self.answer: Answer = self.accept

    async def accept(self, request: web.Request) -> web.Response:
        return web.Response()

    async def handle(self, request: web.Request) -> web.Response:
        seen = Seen(
            method=request.method,
            target=request.raw_path,
            content_type=request.headers.get("Content-Type", ""),
            body=await request.text(),
            began=time.monotonic(),
        )
        self.seen.append(seen)
        answer = await self.answer(request)
        seen.ended = time.monotonic()
        return answer

    def registrations(
        self, method: Literal["GET", "POST"] = "GET", query: str = ""
    ) -> Registrations:
        return {
            (extension, type_): Registration(f"{self.url}/{extension}/{type_.label}{query}", method)
            for extension in (*PHONES, QUEUE)
            for type_ in EventType
        }


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def call(*moments: float, said: str = "1.1") -> ScriptedCall:
    """Return a call of one leg with callbacks at these seconds."""
    types = (EventType.DIAL_IN, EventType.ANSWER_IN, EventType.HANGUP)
    callbacks = zip(moments, types, strict=False)
    parameters = {"CallID": said, "CallerIDName": "Müller & Söhne 100%+"}
    return ScriptedCall(
        said,
        Scenario.ANSWERED,
        tuple(Callback(at, PHONES[0], type_, parameters) for at, type_ in callbacks),
    )


async def place(
    registrations: Registrations, placed: ScriptedCall, speed: float = inf, patience: float = 20
) -> Pbx:
    async with Pbx(callbacks, registered_in(registrations), speed=speed, timeout=patience) as pbx:
        await pbx.place(placed)
    return pbx


async def test_callbacks_of_every_scenario_arrive_once_and_in_order(server: Server) -> None:
    for scenario in Scenario:
        placed = make_call(scenario, Random(7), PHONES)
        server.seen.clear()
        pbx = await place(server.registrations(), placed)
        assert pbx.tally.calls == 1
        assert pbx.tally.sent == pbx.tally.accepted == len(placed.callbacks) == len(server.seen)
        arrived = iter(server.seen)
        for _, moment in groupby(placed.callbacks, key=lambda callback: callback.at):
            due = [f"/{callback.extension}/{callback.type.label}" for callback in moment]
            came = [next(arrived).target.partition("?")[0] for _ in due]
            assert sorted(came) == sorted(due)


async def test_get_adds_the_parameters_to_the_query_of_the_url(server: Server) -> None:
    placed = call(0)
    await place(server.registrations("GET", "?key=a%2Ab%20c"), placed)
    await place(server.registrations("GET"), placed)
    own, none = server.seen
    assert own.method == "GET"
    assert own.body == own.content_type == ""
    prefix = "/0003*210/dial-in?key=a%2Ab%20c&"
    assert own.target.startswith(prefix)
    assert dict(parse_qsl(own.target.removeprefix(prefix))) == placed.callbacks[0].parameters
    path, _, query = none.target.partition("?")
    assert path == "/0003*210/dial-in"
    assert dict(parse_qsl(query)) == placed.callbacks[0].parameters


async def test_post_sends_a_form_and_does_not_change_the_url(server: Server) -> None:
    placed = call(0)
    await place(server.registrations("POST", "?key=a%2Ab%20c"), placed)
    (seen,) = server.seen
    assert (seen.method, seen.target) == ("POST", "/0003*210/dial-in?key=a%2Ab%20c")
    assert seen.content_type == "application/x-www-form-urlencoded"
    assert dict(parse_qsl(seen.body)) == placed.callbacks[0].parameters


async def test_only_registered_callbacks_are_made(server: Server) -> None:
    registrations = server.registrations()
    del registrations[PHONES[0], EventType.ANSWER_IN]
    pbx = await place(registrations, call(0, 1, 2))
    assert [seen.target.partition("?")[0] for seen in server.seen] == [
        "/0003*210/dial-in",
        "/0003*210/hangup",
    ]
    assert pbx.tally.sent == pbx.tally.accepted == 2


async def test_responses_are_counted_by_status_and_redirects_not_followed(server: Server) -> None:
    for status in (204, 301, 302, 404, 503):

        async def answer(request: web.Request, status: int = status) -> web.Response:
            return web.Response(status=status, headers={"Location": "/elsewhere"})

        server.answer = answer
        server.seen.clear()
        pbx = await place(server.registrations(), call(0))
        assert len(server.seen) == 1
        assert pbx.tally.accepted == (status == 204)
        assert pbx.tally.refused == ({} if status == 204 else {status: 1})
        assert not pbx.tally.failed


async def test_callback_without_a_response_is_not_retried(server: Server) -> None:
    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    server.answer = hang_up
    methods: list[Literal["GET", "POST"]] = ["GET", "POST"]
    for method in methods:
        server.seen.clear()
        pbx = await place(server.registrations(method), call(0))
        assert len(server.seen) == 1
        assert pbx.tally.failed == {"broken off": 1}


async def test_failures_are_counted_by_reason(server: Server) -> None:
    async def oversleep(request: web.Request) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    server.answer = oversleep
    urls = {
        server.url: "timeout",
        "http://127.0.0.1:1": "no connection",
        server.url.replace("http:", "https:"): "TLS",
        "ftp://127.0.0.1/": "not a URL",
        "http://127.0.0.1:port": "not a URL",
    }
    for url, reason in urls.items():
        registered = {(PHONES[0], EventType.DIAL_IN): Registration(url)}
        pbx = await place(registered, call(0), patience=0.3 if reason == "timeout" else 20)
        assert pbx.tally.failed == {reason: 1}, url
        assert (pbx.tally.sent, pbx.tally.accepted) == (1, 0)


async def test_speed_shortens_a_call(server: Server) -> None:
    began = time.monotonic()
    await place(server.registrations(), call(0, 20, 60), speed=200)
    first, second, third = (seen.began - began for seen in server.seen)
    assert 0 < first < second < third
    assert 0.1 <= second < 20
    assert 0.3 <= third < 60


async def _slow(request: web.Request) -> web.Response:
    await asyncio.sleep(0.15)
    return web.Response()


async def test_at_higher_speed_a_callback_waits_for_the_previous_response(server: Server) -> None:
    server.answer = _slow
    await place(server.registrations(), call(0, 0.1, 0.2), speed=100)
    first, second, third = server.seen
    assert first.ended <= second.began
    assert second.ended <= third.began


def _once_there_are(most: int) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a server's answer, which the first ones get once there are so many."""
    came, enough = count(1), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if next(came) == most:
            enough.set()
        await enough.wait()
        return web.Response()

    return answer


async def test_in_real_time_a_callback_does_not_wait_for_responses(server: Server) -> None:
    server.answer = _once_there_are(3)
    await place(server.registrations(), call(0, 0.02, 0.04), speed=1)
    assert max(seen.began for seen in server.seen) < min(seen.ended for seen in server.seen)


async def test_callbacks_due_at_the_same_time_are_sent_together(server: Server) -> None:
    server.answer = _once_there_are(3)
    await place(server.registrations(), make_call(Scenario.RING_GROUP, Random(7), PHONES))
    ringing = server.seen[:3]
    assert all("/dial-in?" in seen.target for seen in ringing)
    assert max(seen.began for seen in ringing) < min(seen.ended for seen in ringing)


async def test_load_starts_calls_at_its_rate_and_keeps_the_order_in_each(server: Server) -> None:
    calls = list(islice(random_calls(Random(7), PHONES), 60))
    async with Pbx(callbacks, registered_in(server.registrations("POST")), speed=inf) as pbx:
        began = time.monotonic()
        await pbx.load(calls, rate=200)
        seconds = time.monotonic() - began
    assert 59 / 200 <= seconds < 30
    assert pbx.tally.calls == 60
    assert pbx.tally.accepted == sum(len(placed.callbacks) for placed in calls)
    arrived: dict[str, list[str]] = {}
    for seen in server.seen:
        parameters = dict(parse_qsl(seen.body))
        arrived.setdefault(parameters["CallID"], []).append(parameters["CallStatus"])
    for placed in calls:
        statuses = [callback.parameters["CallStatus"] for callback in placed.callbacks]
        assert arrived[placed.id] == statuses


async def test_load_ends_after_its_duration(server: Server) -> None:
    async with Pbx(callbacks, registered_in(server.registrations()), speed=inf) as pbx:
        await pbx.load(random_calls(Random(7), PHONES), rate=50, duration=0.2)
    assert 1 <= pbx.tally.calls <= 10


async def test_concurrency_limits_callbacks_in_flight_and_loses_none(server: Server) -> None:
    now = most = 0

    async def count(request: web.Request) -> web.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return web.Response()

    server.answer = count
    registered = registered_in(server.registrations())
    async with Pbx(callbacks, registered, speed=inf, concurrency=4) as pbx:
        await pbx.load((call(0, 1, 2, said=f"1.{n}") for n in range(40)), rate=inf)
    assert pbx.tally.accepted == 120
    assert most == 4
