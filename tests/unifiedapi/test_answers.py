"""Answers as the documents show them, and stranger ones: what the client makes of each."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from tests.unifiedapi.serving import Script, Server, Told
from unifiedapi.client import Listing, UnifiedApi
from unifiedapi.errors import UnexpectedAnswer
from unifiedapi.oauth import BearerToken
from unifiedapi.resources import (
    AgentStatus,
    EventMethod,
    EventStatus,
    EventType,
    PhoneCallEvent,
    RegistrationStatus,
    Resource,
)

R = TypeVar("R")
T = TypeVar("T", bound=Resource)

# The sample of List Presence (v3): it speaks of two results and shows one.
SAMPLE = {
    "startIndex": 0,
    "totalResults": 2,
    "itemsPerPage": 20,
    "filtered": False,
    "sorted": False,
    "entry": [
        {
            "extension": "0003*210",
            "status": 0,
            "registration": [
                {
                    "agent": "3CXPhone 5.0.14439.0",
                    "registration": "-1",
                    "expire": "2011-02-10T15:10:55Z",
                }
            ],
        }
    ],
}
EVENT = {"type": "0", "id": "e1", "method": "1", "url": "http://h", "status": "1", "note": ""}


def call(server: Server, use: Callable[[UnifiedApi], Awaitable[R]]) -> R:
    async def run() -> R:
        async with UnifiedApi(server.url, BearerToken("t"), waits=()) as api:
            return await use(api)

    return asyncio.run(run())


async def read(listing: Listing[T]) -> list[T]:
    return [entry async for entry in listing]


@pytest.mark.parametrize("body", [SAMPLE, [SAMPLE]], ids=["v3", "v5"])
def test_the_documents_sample_is_read_and_the_missing_entry_asked_for(
    body: object, server: Server
) -> None:
    server.app = script = Script(Told(200, body), Told(204))
    [presence] = call(server, lambda api: read(api.presence.list("0003*210")))
    assert presence.registration[0].registration == RegistrationStatus.NOT_REGISTERED
    assert presence.extra == {}
    first, second = script.requests
    assert (first.method, first.path) == ("GET", "/uapi/extensions/@me/0003*210/presence/")
    assert first.headers["authorization"] == "Bearer t"
    assert first.headers["content-type"] == "application/json"
    assert first.query == [("count", "4999"), ("startIndex", "0")]
    assert second.query == [("count", "4999"), ("startIndex", "1")]


def test_numbers_as_numbers_unknown_values_and_unknown_fields_are_kept(server: Server) -> None:
    entry = {"type": 9, "id": 77, "method": 1, "status": "0", "modified": "", "colour": ["red"]}
    server.app = Script(Told(200, {"startIndex": "0", "totalResults": "1", "entry": [entry]}))
    [event] = call(server, lambda api: read(api.phone_call_events.list("0003*210")))
    assert (int(event.type), event.type.name, event.id) == (9, "UNDOCUMENTED_9", "77")
    assert (event.method, event.status) == (EventMethod.POST, EventStatus.DISABLED)
    assert event.modified is None
    assert event.extra == {"colour": ["red"]}


@pytest.mark.parametrize(
    "body",
    [
        {"id": "e1"},
        [{"id": "e1"}],
        "e1",
        ["e1"],
        EVENT,
        {"id": "e1", "type": 0, "links": {"self": "https://h/uapi/x"}},
    ],
)
def test_a_new_event_is_whole_when_the_pbx_says_only_its_id(body: object, server: Server) -> None:
    server.app = script = Script(Told(200, body))
    event = call(
        server,
        lambda api: api.phone_call_events.create(
            "0003*210", type=EventType.DIAL_IN, url="http://h", note="n"
        ),
    )
    assert (event.id, event.type, event.url) == ("e1", EventType.DIAL_IN, "http://h")
    assert event.method == EventMethod.POST
    [request] = script.requests
    assert (request.method, request.path) == (
        "POST",
        "/uapi/extensions/@me/0003*210/phoneCallEvents/",
    )
    assert request.json == {
        "type": "0",
        "method": "1",
        "url": "http://h",
        "status": "1",
        "note": "n",
    }


def test_a_new_event_without_an_id_is_looked_for(server: Server) -> None:
    def create(api: UnifiedApi) -> Awaitable[PhoneCallEvent]:
        return api.phone_call_events.create("0003*210", type=EventType.DIAL_IN, url="http://h")

    old = EVENT | {"modified": "2020-01-01T00:00:00Z"}
    new = EVENT | {"id": "e2", "modified": "2020-01-01T03:00:00+02:00"}
    other = EVENT | {"id": "e3", "modified": "2021-01-01T00:00:00Z", "url": "http://other"}
    page = {"startIndex": 0, "totalResults": 3, "entry": [new, old, other]}
    server.app = Script(Told(204), Told(200, page))
    assert call(server, create).id == "e2"
    server.app = Script(Told(204))
    with pytest.raises(UnexpectedAnswer, match="not in the list"):
        call(server, create)


@pytest.mark.parametrize("told", [Told(204), Told(200, "e1"), Told(200, [EVENT | {"note": "new"}])])
def test_a_changed_event_is_known_without_an_answer(told: Told, server: Server) -> None:
    server.app = script = Script(told)
    event = call(
        server,
        lambda api: api.phone_call_events.update("0003*210", EventType.DIAL_IN, "e1", note="new"),
    )
    assert (event.id, event.type, event.note) == ("e1", EventType.DIAL_IN, "new")
    [request] = script.requests
    assert (request.method, request.path) == (
        "PUT",
        "/uapi/extensions/@me/0003*210/phoneCallEvents/0/e1/",
    )
    assert request.json == {"note": "new"}


@pytest.mark.parametrize("told", [Told(204), Told(200, [{"agentNumber": "0003*210", "status": 1}])])
def test_a_changed_agent_is_known_without_an_answer(told: Told, server: Server) -> None:
    server.app = script = Script(told)
    agent = call(
        server, lambda api: api.queue_agents.update("0003*400", "0003*210", AgentStatus.ONLINE)
    )
    assert (agent.agent_number, agent.status) == ("0003*210", AgentStatus.ONLINE)
    assert script.requests[0].json == {"status": "1"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        {"startIndex": 0, "totalResults": 0, "entry": []},
        [{"startIndex": 0, "entry": []}],
    ],
)
def test_nothing_is_nothing_in_any_form(body: object, server: Server) -> None:
    server.app = Script(Told(200, body))
    assert call(server, lambda api: read(api.phone_call_events.list("0003*210"))) == []


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        [],
        [SAMPLE, SAMPLE],
        "text",
        5,
        {"totalResults": 0},
        {"entry": "none"},
        {"entry": [5]},
        {"entry": [{"status": 1}]},
        {"entry": [{"extension": "1", "status": "busy"}]},
        {"entry": [{"extension": "1", "registration": [7]}]},
        {"startIndex": 20, "entry": [{"extension": "1"}]},
    ],
)
def test_a_strange_answer_is_an_error_and_never_an_empty_list(body: object, server: Server) -> None:
    server.app = Script(Told(200, body))
    with pytest.raises(UnexpectedAnswer):
        call(server, lambda api: read(api.presence.list()))
