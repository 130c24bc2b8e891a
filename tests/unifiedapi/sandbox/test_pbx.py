"""The sandbox PBX against a real HTTP server."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby, islice
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
    Call,
    Callback,
    Scenario,
    make_call,
    random_calls,
)

PHONES = ["0003*210", "0003*211", "0003*212"]
Registrations = dict[tuple[str, EventType], Registration]
Answer = Callable[[web.Request], Awaitable[web.Response]]


@dataclass
class Seen:
    """One request as the server got it. The target is not decoded."""

    method: str
    target: str
    content_type: str
    body: str
    began: float  # monotonic seconds
    ended: float = inf


class Server:
    """Answers as it is told, and keeps what it saw in the order of arrival."""

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


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
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


def call(*moments: float, said: str = "1.1") -> Call:
    """A call of one leg with callbacks at these seconds."""
    types = (EventType.DIAL_IN, EventType.ANSWER_IN, EventType.HANGUP)
    callbacks = zip(moments, types, strict=False)
    parameters = {"CallID": said, "CallerIDName": "Müller & Söhne 100%+"}
    return Call(
        said,
        Scenario.ANSWERED,
        tuple(Callback(at, PHONES[0], type_, parameters) for at, type_ in callbacks),
    )


async def place(registrations: Registrations, placed: Call, speed: float = inf) -> Pbx:
    async with Pbx(callbacks, registered_in(registrations), speed=speed, timeout=0.3) as pbx:
        await pbx.place(placed)
    return pbx


@pytest.mark.parametrize("scenario", list(Scenario))
def test_every_callback_of_a_call_arrives_once_and_in_order(scenario: Scenario) -> None:
    placed = make_call(scenario, Random(7), PHONES)

    async def run() -> None:
        async with serving() as server:
            pbx = await place(server.registrations(), placed)
        assert pbx.tally.calls == 1
        assert pbx.tally.sent == pbx.tally.accepted == len(placed.callbacks) == len(server.seen)
        arrived = iter(server.seen)
        for _, moment in groupby(placed.callbacks, key=lambda callback: callback.at):
            due = [f"/{callback.extension}/{callback.type.label}" for callback in moment]
            came = [next(arrived).target.partition("?")[0] for _ in due]
            assert sorted(came) == sorted(due)

    asyncio.run(run())


def test_get_adds_the_parameters_to_the_query_and_keeps_the_urls_own() -> None:
    placed = call(0)

    async def run() -> None:
        async with serving() as server:
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

    asyncio.run(run())


def test_post_sends_a_form_and_leaves_the_url_as_it_is() -> None:
    placed = call(0)

    async def run() -> None:
        async with serving() as server:
            await place(server.registrations("POST", "?key=a%2Ab%20c"), placed)
        (seen,) = server.seen
        assert (seen.method, seen.target) == ("POST", "/0003*210/dial-in?key=a%2Ab%20c")
        assert seen.content_type == "application/x-www-form-urlencoded"
        assert dict(parse_qsl(seen.body)) == placed.callbacks[0].parameters

    asyncio.run(run())


def test_what_is_not_registered_is_not_called_back() -> None:
    async def run() -> None:
        async with serving() as server:
            registrations = server.registrations()
            del registrations[PHONES[0], EventType.ANSWER_IN]
            pbx = await place(registrations, call(0, 1, 2))
        assert [seen.target.partition("?")[0] for seen in server.seen] == [
            "/0003*210/dial-in",
            "/0003*210/hangup",
        ]
        assert pbx.tally.sent == pbx.tally.accepted == 2

    asyncio.run(run())


@pytest.mark.parametrize("status", [204, 301, 302, 404, 503])
def test_answers_are_counted_by_status_and_redirects_not_followed(status: int) -> None:
    async def run() -> None:
        async with serving() as server:

            async def answer(request: web.Request) -> web.Response:
                return web.Response(status=status, headers={"Location": "/elsewhere"})

            server.answer = answer
            pbx = await place(server.registrations(), call(0))
        assert len(server.seen) == 1
        assert pbx.tally.accepted == (status == 204)
        assert pbx.tally.refused == ({} if status == 204 else {status: 1})
        assert not pbx.tally.failed

    asyncio.run(run())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_callback_that_got_no_answer_is_not_repeated(method: Literal["GET", "POST"]) -> None:
    async def run() -> None:
        async with serving() as server:

            async def hang_up(request: web.Request) -> web.Response:
                assert request.transport is not None
                request.transport.abort()
                return web.Response()

            server.answer = hang_up
            pbx = await place(server.registrations(method), call(0))
            assert len(server.seen) == 1
            assert pbx.tally.failed == {"broken off": 1}

    asyncio.run(run())


def test_failures_are_counted_by_reason() -> None:
    async def run() -> None:
        async with serving() as server:

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
                pbx = await place(registered, call(0))
                assert pbx.tally.failed == {reason: 1}, url
                assert (pbx.tally.sent, pbx.tally.accepted) == (1, 0)

    asyncio.run(run())


def test_speed_compresses_time() -> None:
    async def run() -> None:
        async with serving() as server:
            await place(server.registrations(), call(0, 2, 6), speed=20)
        first, second, third = (seen.began for seen in server.seen)
        assert 0.05 < second - first < 1  # a twentieth of 2 s, and what a busy machine adds
        assert 0.25 < third - first < 3

    asyncio.run(run())


async def _slow(request: web.Request) -> web.Response:
    await asyncio.sleep(0.15)
    return web.Response()


def test_in_compressed_time_a_callback_waits_for_the_answer_to_the_one_before() -> None:
    async def run() -> None:
        async with serving() as server:
            server.answer = _slow
            await place(server.registrations(), call(0, 0.1, 0.2), speed=100)
        first, second, third = server.seen
        assert first.ended <= second.began
        assert second.ended <= third.began

    asyncio.run(run())


def test_in_real_time_a_callback_waits_for_no_answer() -> None:
    async def run() -> None:
        async with serving() as server:
            server.answer = _slow
            await place(server.registrations(), call(0, 0.02, 0.04), speed=1)
        assert max(seen.began for seen in server.seen) < min(seen.ended for seen in server.seen)

    asyncio.run(run())


def test_callbacks_of_the_same_moment_go_out_together() -> None:
    async def run() -> None:
        async with serving() as server:
            server.answer = _slow
            await place(server.registrations(), make_call(Scenario.RING_GROUP, Random(7), PHONES))
        ringing = server.seen[:3]
        assert all("/dial-in?" in seen.target for seen in ringing)
        assert max(seen.began for seen in ringing) < min(seen.ended for seen in ringing)

    asyncio.run(run())


def test_load_begins_calls_at_its_rate_and_each_keeps_its_order() -> None:
    calls = list(islice(random_calls(Random(7), PHONES), 60))

    async def run() -> None:
        async with (
            serving() as server,
            Pbx(callbacks, registered_in(server.registrations("POST")), speed=inf) as pbx,
        ):
            began = time.monotonic()
            await pbx.load(calls, rate=200)
            seconds = time.monotonic() - began
        assert 59 / 200 <= seconds < 3
        assert pbx.tally.calls == 60
        assert pbx.tally.accepted == sum(len(placed.callbacks) for placed in calls)
        arrived: dict[str, list[str]] = {}
        for seen in server.seen:
            parameters = dict(parse_qsl(seen.body))
            arrived.setdefault(parameters["CallID"], []).append(parameters["CallStatus"])
        for placed in calls:
            statuses = [callback.parameters["CallStatus"] for callback in placed.callbacks]
            assert arrived[placed.id] == statuses

    asyncio.run(run())


def test_load_ends_after_its_duration() -> None:
    async def run() -> None:
        async with (
            serving() as server,
            Pbx(callbacks, registered_in(server.registrations()), speed=inf) as pbx,
        ):
            await pbx.load(random_calls(Random(7), PHONES), rate=50, duration=0.2)
        assert 5 <= pbx.tally.calls <= 10

    asyncio.run(run())


def test_no_more_callbacks_are_on_their_way_than_allowed_and_none_is_left_out() -> None:
    now = most = 0

    async def count(request: web.Request) -> web.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return web.Response()

    async def run() -> None:
        async with serving() as server:
            server.answer = count
            async with Pbx(
                callbacks, registered_in(server.registrations()), speed=inf, concurrency=4
            ) as pbx:
                await pbx.load((call(0, 1, 2, said=f"1.{n}") for n in range(40)), rate=inf)
        assert pbx.tally.accepted == 120
        assert most == 4

    asyncio.run(run())
