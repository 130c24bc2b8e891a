"""The client against the sandbox, over real HTTP and TLS: every operation, every form of answer."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest

from tests.unifiedapi.serving import Server, serve
from unifiedapi.blocking import BlockingUnifiedApi
from unifiedapi.client import Listing, UnifiedApi
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
    UserInvalid,
)
from unifiedapi.oauth import Auth, BearerToken, ClientCredentials
from unifiedapi.resources import (
    AgentStatus,
    Disposition,
    EventMethod,
    EventStatus,
    EventType,
    Flow,
    PresenceStatus,
    RegistrationStatus,
    Resource,
)
from unifiedapi.sandbox.server import create_sandbox
from unifiedapi.sandbox.store import Store
from unifiedapi.sandbox.tls import Certificate
from unifiedapi.transport import InsecureConnection

URL = "https://offhook.example.org/callbacks/pbx/0003*210/dial-in/a-token?x=1"
TOKEN = BearerToken("sandbox-token")
R = TypeVar("R")
T = TypeVar("T", bound=Resource)


def call(url: str, use: Callable[[UnifiedApi], Awaitable[R]], auth: Auth = TOKEN) -> R:
    async def run() -> R:
        async with UnifiedApi(url, auth) as api:
            return await use(api)

    return asyncio.run(run())


async def read(listing: Listing[T]) -> list[T]:
    return [entry async for entry in listing]


@pytest.fixture(params=["v3", "v3-numbers", "v5", "v5-numbers"])
def any_sandbox(request: pytest.FixtureRequest, store: Store, server: Server) -> str:
    """A sandbox for each form of answer: strings or numbers, bare or in an array."""
    numbers, wrapped = "numbers" in request.param, "v5" in request.param
    server.app = create_sandbox(store, numbers=numbers, wrapped=wrapped)
    return server.url


def test_a_phone_call_event_is_created_listed_updated_and_deleted(any_sandbox: str) -> None:
    async def use(api: UnifiedApi) -> None:
        events = api.phone_call_events
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

    call(any_sandbox, use)


def test_all_events_of_one_type_or_of_the_extension_are_deleted_at_once(any_sandbox: str) -> None:
    async def use(api: UnifiedApi) -> None:
        events = api.phone_call_events
        ids = [
            (await events.create("0003*210", type=type_, url=URL)).id
            for type_ in (EventType.DIAL_IN, EventType.DIAL_IN, EventType.HANGUP)
        ]
        other = await events.create("0003*211", type=EventType.DIAL_IN, url=URL)
        assert await events.delete_all("0003*210", EventType.DIAL_IN) == tuple(ids[:2])
        assert await events.delete_all("0003*210") == (ids[2],)
        assert await events.delete_all("0003*210") == ()
        assert await read(events.list("0003*211")) == [other]

    call(any_sandbox, use)


def test_presence_tells_what_phones_do(any_sandbox: str) -> None:
    async def use(api: UnifiedApi) -> None:
        [presence] = await read(api.presence.list("0003*210"))
        [phone] = presence.registration
        assert (presence.extension, presence.status) == ("0003*210", PresenceStatus.UNKNOWN)
        assert phone.agent == "3CXPhone 5.0.14439.0"
        assert phone.registration == RegistrationStatus.NOT_REGISTERED
        assert phone.expire == datetime(2011, 2, 10, 15, 10, 55, tzinfo=UTC)
        everybody = await read(api.presence.list(sort_order="descending"))
        numbers = [presence.extension for presence in everybody]
        assert numbers == ["0003*213", "0003*212", "0003*211", "0003*210"]
        assert everybody[1].registration[1].expire is None

    call(any_sandbox, use)


def test_queue_agents_log_in_pause_and_log_out(any_sandbox: str) -> None:
    async def use(api: UnifiedApi) -> None:
        agents = api.queue_agents
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

    call(any_sandbox, use)


def test_pages_are_followed_to_the_end(any_sandbox: str, store: Store) -> None:
    for n in range(25):
        store.add_event(
            "0003*210", type=EventType(n % 5), method=EventMethod.GET, url=f"http://h/{n:02}"
        )

    async def use(api: UnifiedApi) -> None:
        listing = api.phone_call_events.list("0003*210", count=10, sort_order="desc")
        assert [event.url for event in await read(listing)] == [
            f"http://h/{n:02}" for n in range(24, -1, -1)
        ]
        assert [len(page.entry) async for page in listing.pages()] == [10, 10, 5]
        rest = await read(api.phone_call_events.list("0003*210", start_index=20))
        assert len(rest) == 5

    call(any_sandbox, use)


def test_filters_arrays_and_fields_reach_the_pbx(any_sandbox: str) -> None:
    async def use(api: UnifiedApi) -> None:
        some = await read(
            api.presence.list(
                filter_by="extension",
                filter_op="inArray",
                filter_value=["0003*210", "0003*213"],
                fields=["status"],
            )
        )
        assert [presence.extension for presence in some] == ["0003*210", "0003*213"]
        assert some[0].registration == ()

    call(any_sandbox, use)


def test_users_are_me_viewer_owner_or_a_number(sandbox: str) -> None:
    async def use(api: UnifiedApi) -> None:
        for user in ("@me", "@viewer", "@owner", "12", 12):
            assert len(await read(api.presence.list("0003*210", user=user))) == 1
        owned = await read(api.presence.list("@self", user=12))
        assert [presence.extension for presence in owned] == ["0003*210", "0003*211"]

    call(sandbox, use)


def test_what_breaks_a_rule_is_not_sent() -> None:
    nobody = "http://127.0.0.1:9"

    async def use(api: UnifiedApi) -> None:
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

    call(nobody, use)


Attempt = Callable[[UnifiedApi], Awaitable[object]]

EVENT = {"type": "0", "method": "0", "url": URL, "status": "1"}

# A way to each error of the documents that a client can bring about.
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
    # The client writes dates itself, and cannot be made to write a wrong one.
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


@pytest.mark.parametrize("kind", REFUSALS, ids=lambda kind: kind.codes[0])
def test_every_refusal_has_its_class(any_sandbox: str, kind: type[ApiError]) -> None:
    async def use(api: UnifiedApi) -> None:
        with pytest.raises(ApiError) as caught:
            await REFUSALS[kind](api)
        error = caught.value
        assert type(error) is kind
        assert error.code == kind.codes[0]
        assert error.status == {"access_denied": 401, "request_not_implemented": 501}.get(
            error.code, 400
        )
        assert error.message
        assert error.message in str(error)

    call(any_sandbox, use)


def test_a_token_that_is_not_good_is_refused(sandbox: str) -> None:
    with pytest.raises(AccessDenied):
        call(sandbox, lambda api: read(api.presence.list()), BearerToken("another"))


def test_client_credentials_over_tls_with_a_ca_of_its_own(
    store: Store, certificate: Certificate, tmp_path: Path
) -> None:
    async def use(url: str) -> int:
        auth = ClientCredentials("sandbox-app", "sandbox-secret")
        async with UnifiedApi(url, auth, ca_file=certificate.ca_file) as api:
            first = await read(api.presence.list())
            store.revoke_tokens()
            return len(first) + len(await read(api.presence.list()))

    with serve(create_sandbox(store), certificate) as url:
        assert asyncio.run(use(url)) == 8


def test_a_certificate_that_nobody_vouches_for_is_refused_unless_told_otherwise(
    store: Store, certificate: Certificate
) -> None:
    with serve(create_sandbox(store), certificate) as url:
        with pytest.raises(NotTrusted, match="ca_file"):
            call(url, lambda api: read(api.presence.list()))
        with (
            pytest.warns(InsecureConnection),
            BlockingUnifiedApi(url, TOKEN, insecure=True) as api,
        ):
            assert len(list(api.presence.list())) == 4


@pytest.mark.parametrize(
    "url",
    [
        "",
        "pbx.example.org",
        "ftp://a",
        "https://",
        "https://u:p@a",
        "http://pbx.example.org",
        "h:/[",
    ],
)
def test_a_url_that_no_token_may_go_to_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        UnifiedApi(url, BearerToken("t"))


def test_a_ca_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    for name in ("empty.pem", "missing.pem"):
        with pytest.raises(InvalidRequest, match=name):
            UnifiedApi("https://a", BearerToken("t"), ca_file=tmp_path / name)


def test_the_base_url_may_name_uapi(sandbox: str) -> None:
    assert call(f"{sandbox}/uapi/", lambda api: read(api.presence.list("0003*211")))


def test_a_script_needs_no_await(sandbox: str) -> None:
    with BlockingUnifiedApi(sandbox, TOKEN) as api:
        event = api.phone_call_events.create("0003*210", type=EventType.HANGUP, url=URL)
        assert list(api.phone_call_events.list("0003*210")) == [event]
        api.phone_call_events.delete("0003*210", event.type, event.id)
        assert list(api.phone_call_events.list("0003*210", count=1)) == []
        assert api.queue_agents.update("0003*400", "0003*210", AgentStatus.PAUSED).status == 2
        first = next(api.presence.list(count=1))  # the rest is never asked for
        assert first.extension == "0003*210"
        with pytest.raises(ExtensionInvalid):
            list(api.presence.list("0003*999"))


def test_no_token_and_no_callback_url_is_shown(
    sandbox: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    auth = ClientCredentials("sandbox-app", "sandbox-secret")
    with BlockingUnifiedApi(sandbox, auth) as api:
        event = api.phone_call_events.create("0003*210", type=EventType.HANGUP, url=URL)
        shown = repr(event) + repr(event.__rich_repr__()) + repr(auth) + repr(api)
        with pytest.raises(ExtensionInvalid) as caught:
            list(api.presence.list("0003*999"))
        shown += repr(caught.value) + str(caught.value) + caplog.text
    [kept] = (tmp_path / "cache" / "unifiedapi").glob("*.json")
    assert json.loads(kept.read_text())["access_token"] not in shown
    assert "sandbox-secret" not in shown
    assert "a-token" not in shown
    assert "https://offhook.example.org/…" in shown
