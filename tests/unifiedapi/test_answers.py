"""How the client reads responses: those in the documents, and unusual ones."""

import logging

import pytest

from tests.unifiedapi.serving import Reply, Script, Server, read
from unifiedapi.client import UnifiedApi
from unifiedapi.errors import ApiError, UnexpectedAnswer
from unifiedapi.resources import (
    AgentStatus,
    EventMethod,
    EventStatus,
    EventType,
    RegistrationStatus,
)

# The sample of List Presence (v3). It says two results and shows one.
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


async def test_sample_is_read_and_its_missing_entry_requested(
    server: Server, api: UnifiedApi
) -> None:
    for body in (SAMPLE, [SAMPLE]):  # v3, v5
        server.app = script = Script(Reply(200, body), Reply(204))
        [presence] = await read(api.presence.list("0003*210"))
        assert presence.registration[0].registration == RegistrationStatus.NOT_REGISTERED
        assert presence.extra == {}
        first, second = script.requests
        assert (first.method, first.path) == ("GET", "/uapi/extensions/@me/0003*210/presence/")
        assert first.headers["authorization"] == "Bearer sandbox-token"
        assert first.headers["content-type"] == "application/json"
        assert first.query == [("count", "4999"), ("startIndex", "0")]
        assert second.query == [("count", "4999"), ("startIndex", "1")]


async def test_list_shorter_than_its_count_ends_with_a_warning(
    server: Server, api: UnifiedApi, caplog: pytest.LogCaptureFixture
) -> None:
    invalid = {"error": {"code": "startindex_invalid", "message": "no"}}
    empty = {"startIndex": 1, "totalResults": 2, "entry": []}
    for second in (Reply(204), Reply(200, empty), Reply(200, SAMPLE), Reply(400, invalid)):
        caplog.clear()
        server.app = Script(Reply(200, SAMPLE), second)
        [presence] = await read(api.presence.list())
        assert presence.extension == "0003*210"
        assert caplog.record_tuples == [
            (
                "unifiedapi",
                logging.WARNING,
                "the PBX counts 2 entries, but sent 1: the list may be incomplete",
            )
        ]


async def test_complete_list_gives_no_warning(
    server: Server, api: UnifiedApi, caplog: pytest.LogCaptureFixture
) -> None:
    for total in ({"totalResults": 1}, {}):
        server.app = Script(Reply(200, {"entry": SAMPLE["entry"]} | total), Reply(204))
        assert len(await read(api.presence.list())) == 1
    assert caplog.records == []


async def test_later_page_that_fails_is_an_error(server: Server, api: UnifiedApi) -> None:
    for status in (401, 500):
        server.app = Script(Reply(200, SAMPLE), Reply(status))
        with pytest.raises(ApiError):
            await read(api.presence.list())


async def test_unknown_numbers_and_fields_are_kept(server: Server, api: UnifiedApi) -> None:
    entry = {"type": 9, "id": 77, "method": 1, "status": "0", "modified": "", "colour": ["red"]}
    server.app = Script(Reply(200, {"startIndex": "0", "totalResults": "1", "entry": [entry]}))
    [event] = await read(api.phone_call_events.list("0003*210"))
    assert (int(event.type), event.type.name, event.id) == (9, "UNDOCUMENTED_9", "77")
    assert (event.method, event.status) == (EventMethod.POST, EventStatus.DISABLED)
    assert event.modified is None
    assert event.extra == {"colour": ["red"]}


async def test_new_event_is_complete_even_if_only_its_id_is_returned(
    server: Server, api: UnifiedApi
) -> None:
    for body in (
        {"id": "e1"},
        [{"id": "e1"}],
        "e1",
        ["e1"],
        EVENT,
        {"id": "e1", "type": 0, "links": {"self": "https://h/uapi/x"}},
    ):
        server.app = script = Script(Reply(200, body))
        event = await api.phone_call_events.create(
            "0003*210", type=EventType.DIAL_IN, url="http://h", note="n"
        )
        assert (event.id, event.type, event.url) == ("e1", EventType.DIAL_IN, "http://h")
        assert event.method == EventMethod.POST
        [request] = script.requests
        path = "/uapi/extensions/@me/0003*210/phoneCallEvents/"
        assert (request.method, request.path) == ("POST", path)
        assert request.json == {
            "type": "0",
            "method": "1",
            "url": "http://h",
            "status": "1",
            "note": "n",
        }


async def test_new_event_without_id_is_found_in_the_list(server: Server, api: UnifiedApi) -> None:
    old = EVENT | {"modified": "2020-01-01T00:00:00Z"}
    new = EVENT | {"id": "e2", "modified": "2020-01-01T03:00:00+02:00"}
    other = EVENT | {"id": "e3", "modified": "2021-01-01T00:00:00Z", "url": "http://other"}
    page = {"startIndex": 0, "totalResults": 3, "entry": [new, old, other]}
    server.app = Script(Reply(204), Reply(200, page))
    event = await api.phone_call_events.create("0003*210", type=EventType.DIAL_IN, url="http://h")
    assert event.id == "e2"
    server.app = Script(Reply(204))
    with pytest.raises(UnexpectedAnswer, match="not in the list"):
        await api.phone_call_events.create("0003*210", type=EventType.DIAL_IN, url="http://h")


async def test_updated_event_is_known_without_a_body(server: Server, api: UnifiedApi) -> None:
    for reply in (Reply(204), Reply(200, "e1"), Reply(200, [EVENT | {"note": "new"}])):
        server.app = script = Script(reply)
        event = await api.phone_call_events.update("0003*210", EventType.DIAL_IN, "e1", note="new")
        assert (event.id, event.type, event.note) == ("e1", EventType.DIAL_IN, "new")
        [request] = script.requests
        path = "/uapi/extensions/@me/0003*210/phoneCallEvents/0/e1/"
        assert (request.method, request.path) == ("PUT", path)
        assert request.json == {"note": "new"}


async def test_updated_agent_is_known_without_a_body(server: Server, api: UnifiedApi) -> None:
    for reply in (Reply(204), Reply(200, [{"agentNumber": "0003*210", "status": 1}])):
        server.app = script = Script(reply)
        agent = await api.queue_agents.update("0003*400", "0003*210", AgentStatus.ONLINE)
        assert (agent.agent_number, agent.status) == ("0003*210", AgentStatus.ONLINE)
        assert script.requests[0].json == {"status": "1"}


async def test_empty_list_has_several_forms(server: Server, api: UnifiedApi) -> None:
    for body in (
        b"",
        {"startIndex": 0, "totalResults": 0, "entry": []},
        [{"startIndex": 0, "entry": []}],
    ):
        server.app = Script(Reply(200, body))
        assert await read(api.phone_call_events.list("0003*210")) == []


async def test_invalid_response_is_an_error_and_not_an_empty_list(
    server: Server, api: UnifiedApi
) -> None:
    for body in (
        b"<html>",
        b"[" * 100_000,
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
    ):
        server.app = Script(Reply(200, body))
        with pytest.raises(UnexpectedAnswer):
            await read(api.presence.list())
