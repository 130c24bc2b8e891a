"""The client against the sandbox over HTTP and TLS: every operation, every form of response."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from tests.unifiedapi.serving import Reply, Script, Server, read, serve
from unifiedapi import listing
from unifiedapi.client import UnifiedApi
from unifiedapi.errors import (
    AccessDenied,
    AgentInvalid,
    AgentStatusInvalid,
    ApiError,
    CountInvalid,
    DatesInvalid,
    DestinationInvalid,
    DispositionInvalid,
    EndDateInvalid,
    EventIdInvalid,
    EventMethodInvalid,
    EventNoteInvalid,
    EventStatusInvalid,
    EventTypeInvalid,
    EventUrlInvalid,
    ExtensionInvalid,
    FieldsInvalid,
    FilterByAnsweredInvalid,
    FilterByDestinationInvalid,
    FilterByInvalid,
    FilterByPublishedInvalid,
    FilterBySourceInvalid,
    FilterOpInvalid,
    FilterValueInvalid,
    FlowInvalid,
    InvalidRequest,
    NotTrusted,
    RequestNotImplemented,
    SaveEndDateInvalid,
    SaveStartDateInvalid,
    SortOrderInvalid,
    SourceInvalid,
    StartDateInvalid,
    StartIndexInvalid,
    UnexpectedAnswer,
    UserInvalid,
)
from unifiedapi.oauth import BearerToken, ClientCredentials
from unifiedapi.resources import (
    AgentStatus,
    Disposition,
    EventMethod,
    EventStatus,
    EventType,
    Flow,
    PresenceStatus,
    RegistrationStatus,
)
from unifiedapi.sandbox.server import create_sandbox
from unifiedapi.sandbox.store import Store
from unifiedapi.sandbox.tls import Certificate
from unifiedapi.transport import InsecureConnection

URL = "https://offhook.example.org/callbacks/pbx/0003*210/dial-in/a-token?x=1"
TOKEN = BearerToken("sandbox-token")


@pytest.fixture(params=["v3", "v3-numbers", "v5", "v5-numbers"])
async def any_api(
    request: pytest.FixtureRequest, store: Store, server: Server
) -> AsyncIterator[UnifiedApi]:
    """A client of a sandbox with each form of response: strings or numbers, bare or in an array."""
    numbers, wrapped = "numbers" in request.param, "v5" in request.param
    server.app = create_sandbox(store, numbers=numbers, wrapped=wrapped)
    async with UnifiedApi(server.url, TOKEN) as api:
        yield api


async def test_event_can_be_created_listed_updated_and_deleted(any_api: UnifiedApi) -> None:
    events = any_api.phone_call_events
    made = await events.create(
        "0003*210", type=EventType.ANSWER_IN, url=URL, method=EventMethod.GET, note="Über ✓"
    )
    assert (made.type, made.method, made.status) == (
        EventType.ANSWER_IN,
        EventMethod.GET,
        EventStatus.ENABLED,
    )
    assert (made.url, made.note) == (URL, "Über ✓")
    assert made.modified is not None
    assert made.modified.tzinfo is not None
    assert made.links is not None
    assert (made.links.self_ or "").endswith(f"/0003*210/phoneCallEvents/3/{made.id}")
    assert await read(events.list("210")) == [made]  # the short number of the same extension
    assert await read(events.list("0003*210", EventType.ANSWER_IN, made.id)) == [made]
    assert await read(events.list("0003*210", EventType.HANGUP)) == []

    changed = await events.update(
        "0003*210", EventType.ANSWER_IN, made.id, status=EventStatus.DISABLED, note=""
    )
    assert (changed.status, changed.note, changed.url) == (EventStatus.DISABLED, "", URL)
    assert changed.method == EventMethod.GET

    await events.delete("0003*210", EventType.ANSWER_IN, made.id)
    assert await read(events.list("0003*210")) == []


async def test_a_call_is_made_with_the_documented_request(
    any_api: UnifiedApi, server: Server, api: UnifiedApi
) -> None:
    made = await any_api.phone_calls.create("0003*210", "+442079460100")
    assert made.extension == "0003*210"
    assert made.published is not None
    assert made.id
    for extension, error in (("0003*400", ExtensionInvalid), ("0003*999", ExtensionInvalid)):
        with pytest.raises(error):
            await any_api.phone_calls.create(extension, "100")
    for wrong in ("", "+", "44 20", "a", "1;2", "١"):
        with pytest.raises(InvalidRequest):
            await any_api.phone_calls.create("0003*210", wrong)
    server.app = script = Script(Reply(200, [{"id": 7}]), Reply(204))
    call = await api.phone_calls.create(
        "0003*210", "100", source="+4420", caller_id="Ada <44>", wait_for_pickup=9, user="@owner"
    )
    assert call.id == "7"
    request = script.requests[0]
    assert request.path == "/uapi/phoneCalls/@owner/simple/"
    assert request.query == [("waitForPickup", "9")]
    sent = request.json
    assert isinstance(sent, dict)
    assert len(sent.pop("nonce")) == 32
    assert sent == {
        "extension": "0003*210",
        "phoneCallView": [{"source": ["+4420"], "destination": ["100"], "callerId": "Ada <44>"}],
    }
    assert (await api.phone_calls.create("0003*210", "100")).id is None  # 204: nothing to return


async def test_delete_all_deletes_one_type_or_all(any_api: UnifiedApi) -> None:
    events = any_api.phone_call_events
    ids = [
        (await events.create("0003*210", type=type_, url=URL)).id
        for type_ in (EventType.DIAL_IN, EventType.DIAL_IN, EventType.HANGUP)
    ]
    other = await events.create("0003*211", type=EventType.DIAL_IN, url=URL)
    assert await events.delete_all("0003*210", EventType.DIAL_IN) == tuple(ids[:2])
    assert await events.delete_all("0003*210") == (ids[2],)
    assert await events.delete_all("0003*210") == ()
    assert await read(events.list("0003*211")) == [other]


async def test_presence_of_one_and_of_all_phones(any_api: UnifiedApi) -> None:
    [presence] = await read(any_api.presence.list("0003*210"))
    [phone] = presence.registration
    assert (presence.extension, presence.status) == ("0003*210", PresenceStatus.UNKNOWN)
    assert phone.agent == "3CXPhone 5.0.14439.0"
    assert phone.registration == RegistrationStatus.NOT_REGISTERED
    assert phone.expire == datetime(2011, 2, 10, 15, 10, 55, tzinfo=UTC)
    everyone = await read(any_api.presence.list(sort_order="descending"))
    numbers = [presence.extension for presence in everyone]
    assert numbers == ["0003*213", "0003*212", "0003*211", "0003*210"]
    assert everyone[1].registration[1].expire is None


async def test_queue_agents_log_in_pause_and_log_out(any_api: UnifiedApi) -> None:
    agents = any_api.queue_agents
    for status in (AgentStatus.ONLINE, AgentStatus.PAUSED, AgentStatus.LOGGED_OUT):
        changed = await agents.update("0003*400", "0003*212", status)
        assert (changed.agent_number, changed.status) == ("0003*212", status)
        assert await read(agents.list("400", "212")) == [changed]
    remote = await agents.update("0003*400", "7", AgentStatus.ONLINE)
    assert (remote.agent_number, remote.type) == ("+442079460123", "remote")
    found = await read(
        agents.list("0003*400", filter_by="status", filter_op="equals", filter_value="1")
    )
    assert [agent.agent_number for agent in found] == ["0003*210", "+442079460123"]


async def test_list_follows_pages_to_the_end(any_api: UnifiedApi, store: Store) -> None:
    for n in range(25):
        store.add_event(
            "0003*210", type=EventType(n % 5), method=EventMethod.GET, url=f"http://h/{n:02}"
        )
    listing = any_api.phone_call_events.list("0003*210", count=10, sort_order="desc")
    assert [event.url for event in await read(listing)] == [
        f"http://h/{n:02}" for n in range(24, -1, -1)
    ]
    assert [len(page.entry) async for page in listing.pages()] == [10, 10, 5]
    rest = await read(any_api.phone_call_events.list("0003*210", start_index=20))
    assert len(rest) == 5


async def test_list_without_end_is_an_error(
    server: Server, api: UnifiedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MAX_ENTRIES", 5)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        start = int(Request(scope, receive).query_params["startIndex"])
        page = {"startIndex": start, "entry": [{"extension": "0003*210"}] * 2}
        await JSONResponse(page)(scope, receive, send)

    server.app = answer
    with pytest.raises(UnexpectedAnswer, match="more than 5 entries"):
        await asyncio.wait_for(read(api.presence.list()), 10)


async def test_list_requests_a_page_only_when_it_is_read(server: Server, api: UnifiedApi) -> None:
    page = {"startIndex": 0, "totalResults": 2, "entry": [{"extension": "0003*210"}]}
    server.app = script = Script(Reply(200, page))
    async for first in api.presence.list(count=1):
        assert first.extension == "0003*210"
        break
    assert len(script.requests) == 1


async def test_filters_arrays_and_fields_reach_the_pbx(any_api: UnifiedApi) -> None:
    some = await read(
        any_api.presence.list(
            filter_by="extension",
            filter_op="inArray",
            filter_value=["0003*210", "0003*213"],
            fields=["status"],
        )
    )
    assert [presence.extension for presence in some] == ["0003*210", "0003*213"]
    assert some[0].registration == ()


@pytest.mark.usefixtures("sandbox")
async def test_user_is_me_viewer_owner_or_a_number(api: UnifiedApi) -> None:
    for user in ("@me", "@viewer", "@owner", "12", 12):
        assert len(await read(api.presence.list("0003*210", user=user))) == 1
    owned = await read(api.presence.list("@self", user=12))
    assert [presence.extension for presence in owned] == ["0003*210", "0003*211"]


async def test_invalid_request_is_not_sent() -> None:
    async with UnifiedApi("http://127.0.0.1:9", TOKEN) as api:
        events, agents, presence = api.phone_call_events, api.queue_agents, api.presence
        wrong: list[Callable[[], Awaitable[object]]] = [
            lambda: read(presence.list("@self", user="@owner")),
            lambda: read(events.list("@self")),
            lambda: events.create("@self", type=EventType.HANGUP, url=URL),
            lambda: events.update("@self", EventType.HANGUP, "1"),
            lambda: events.delete("@self", EventType.HANGUP, "1"),
            lambda: events.delete_all("@self"),
            lambda: read(agents.list("@self")),
            lambda: read(agents.list("0003*400", "@self")),
            lambda: agents.update("@self", "0003*210", AgentStatus.ONLINE),
            lambda: agents.update("0003*400", "@self", AgentStatus.ONLINE),
            lambda: read(presence.list("0003*210/../..")),
            lambda: read(presence.list("")),
            lambda: read(presence.list("0003*210", user="me")),
            lambda: read(presence.list("0003*210", user="")),
            lambda: read(events.list("0003*210", id="1")),
            lambda: read(api.call_records.list(owner="33/..")),
            lambda: events.delete("0003*210", EventType.HANGUP, ""),
            lambda: events.delete("0003*210", EventType.HANGUP, ".."),
            lambda: events.update("0003*210", EventType.HANGUP, "a/b"),
        ]
        for attempt in wrong:
            with pytest.raises(InvalidRequest):
                await attempt()


Attempt = Callable[[UnifiedApi], Awaitable[object]]

EVENT = {"type": "0", "method": "0", "url": URL, "status": "1"}

# Requests that lead to each documented error.
REFUSALS: dict[type[ApiError], Attempt] = {
    UserInvalid: lambda api: read(api.presence.list("0003*210", user=99)),
    ExtensionInvalid: lambda api: read(api.presence.list("0003*999")),
    AccessDenied: lambda api: read(api.presence.list("0004*210", user=40)),
    RequestNotImplemented: lambda api: api.request("GET", "/faxes/@me/"),
    FieldsInvalid: lambda api: read(api.presence.list(fields=["note"])),
    CountInvalid: lambda api: read(api.presence.list(count=5000)),
    StartIndexInvalid: lambda api: read(api.presence.list(start_index=-1)),
    FilterByInvalid: lambda api: read(api.presence.list(filter_by="status", filter_value="1")),
    FilterOpInvalid: lambda api: read(
        api.presence.list(
            filter_by="extension",
            filter_op="like",  # type: ignore[arg-type]
            filter_value="1",
        )
    ),
    FilterValueInvalid: lambda api: read(api.presence.list(filter_by="extension", filter_value="")),
    SortOrderInvalid: lambda api: read(api.presence.list(sort_order="up")),  # type: ignore[arg-type]
    EventTypeInvalid: lambda api: api.phone_call_events.create(
        "0003*210", type=EventType(5), url=URL
    ),
    EventMethodInvalid: lambda api: api.phone_call_events.create(
        "0003*210", type=EventType.HANGUP, url=URL, method=EventMethod(2)
    ),
    EventUrlInvalid: lambda api: api.phone_call_events.create(
        "0003*210", type=EventType.HANGUP, url="ftp://a"
    ),
    EventStatusInvalid: lambda api: api.phone_call_events.create(
        "0003*210", type=EventType.HANGUP, url=URL, status=EventStatus(2)
    ),
    EventNoteInvalid: lambda api: api.request(
        "POST", "/extensions/@me/0003*210/phoneCallEvents/", json=EVENT | {"note": 1}
    ),
    EventIdInvalid: lambda api: api.phone_call_events.delete("0003*210", EventType.HANGUP, "none"),
    AgentInvalid: lambda api: api.queue_agents.update("0003*400", "0003*299", AgentStatus.ONLINE),
    # The client itself never writes an invalid date.
    StartDateInvalid: lambda api: api.request("GET", "/cdr/", params={"startDate": "1"}),
    EndDateInvalid: lambda api: api.request("GET", "/cdr/", params={"endDate": "1"}),
    SaveStartDateInvalid: lambda api: api.request("GET", "/cdr/", params={"saveStartDate": "1"}),
    SaveEndDateInvalid: lambda api: api.request("GET", "/cdr/", params={"saveEndDate": "1"}),
    DatesInvalid: lambda api: read(
        api.call_records.list(
            start_date=datetime(2024, 10, 2, tzinfo=UTC), end_date=datetime(2024, 10, 1, tzinfo=UTC)
        )
    ),
    SourceInvalid: lambda api: read(api.call_records.list(source="anonymous")),
    DestinationInvalid: lambda api: read(api.call_records.list(destination="@self")),
    FlowInvalid: lambda api: read(api.call_records.list(flow=Flow(1))),
    DispositionInvalid: lambda api: read(api.call_records.list(disposition=Disposition(6))),
    FilterByAnsweredInvalid: lambda api: read(
        api.call_records.list(filter_by="answered", filter_value="today")
    ),
    FilterByPublishedInvalid: lambda api: read(
        api.call_records.list(filter_by="published", filter_value="today")
    ),
    FilterBySourceInvalid: lambda api: read(
        api.call_records.list(filter_by="source", filter_value="anonymous")
    ),
    FilterByDestinationInvalid: lambda api: read(
        api.call_records.list(filter_by="destination", filter_value="anonymous")
    ),
    AgentStatusInvalid: lambda api: api.queue_agents.update("0003*400", "0003*210", AgentStatus(3)),
}


async def test_each_refusal_has_its_class(any_api: UnifiedApi) -> None:
    for kind, attempt in REFUSALS.items():
        with pytest.raises(ApiError) as caught:
            await attempt(any_api)
        error = caught.value
        assert type(error) is kind
        assert error.code == kind.codes[0]
        statuses = {"access_denied": 401, "request_not_implemented": 501}
        assert error.status == statuses.get(error.code, 400)
        assert error.message
        assert error.message in str(error)


async def test_unknown_token_is_refused(sandbox: str) -> None:
    async with UnifiedApi(sandbox, BearerToken("another")) as api:
        with pytest.raises(AccessDenied):
            await read(api.presence.list())


async def test_client_credentials_over_tls_with_own_ca(
    store: Store, certificate: Certificate
) -> None:
    auth = ClientCredentials("sandbox-app", "sandbox-secret")
    with serve(create_sandbox(store), certificate) as url:
        async with UnifiedApi(url, auth, ca_file=certificate.ca_file) as api:
            assert len(await read(api.presence.list())) == 4
            store.revoke_tokens()
            assert len(await read(api.presence.list())) == 4


async def test_unknown_certificate_needs_insecure(store: Store, certificate: Certificate) -> None:
    with serve(create_sandbox(store), certificate) as url:
        async with UnifiedApi(url, TOKEN) as api:
            with pytest.raises(NotTrusted, match="ca_file"):
                await read(api.presence.list())
        with pytest.warns(InsecureConnection):
            insecure = UnifiedApi(url, TOKEN, insecure=True)
        async with insecure as api:
            assert len(await read(api.presence.list())) == 4


def test_unsafe_or_invalid_url_is_refused() -> None:
    for url in (
        "",
        "pbx.example.org",
        "ftp://a",
        "https://",
        "https://u:p@a",
        "http://pbx.example.org",
        "h:/[",
    ):
        with pytest.raises(InvalidRequest):
            UnifiedApi(url, TOKEN)


def test_invalid_ca_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    for name in ("empty.pem", "missing.pem"):
        with pytest.raises(InvalidRequest, match=name):
            UnifiedApi("https://a", TOKEN, ca_file=tmp_path / name)


async def test_base_url_may_end_in_uapi(sandbox: str) -> None:
    async with UnifiedApi(f"{sandbox}/uapi/", TOKEN) as api:
        assert await read(api.presence.list("0003*211"))


async def test_no_token_or_callback_url_is_shown(
    sandbox: str, caplog: pytest.LogCaptureFixture, cache: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    auth = ClientCredentials("sandbox-app", "sandbox-secret")
    async with UnifiedApi(sandbox, auth) as api:
        event = await api.phone_call_events.create("0003*210", type=EventType.HANGUP, url=URL)
        shown = repr(event) + repr(event.__rich_repr__()) + repr(auth) + repr(api)
        with pytest.raises(ExtensionInvalid) as caught:
            await read(api.presence.list("0003*999"))
        shown += repr(caught.value) + str(caught.value) + caplog.text
    [kept] = (cache / "unifiedapi").glob("*.json")
    assert json.loads(kept.read_text())["access_token"] not in shown
    assert "sandbox-secret" not in shown
    assert "a-token" not in shown
    assert "https://offhook.example.org/…" in shown
