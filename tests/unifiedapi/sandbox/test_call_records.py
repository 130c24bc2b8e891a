"""Call records: what the sandbox stores and finds, and what the client reads."""

import time
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.http.callbacks import callbacks
from tests.unifiedapi.serving import Reply, Script, Server, read
from unifiedapi.client import UnifiedApi
from unifiedapi.errors import AccessDenied, InvalidRequest, UnexpectedAnswer, UserInvalid
from unifiedapi.oauth import BearerToken
from unifiedapi.resources import CallRecord, Disposition, EventType, Flow
from unifiedapi.sandbox.call_records import RecordedLeg, StoredRecord, record_of
from unifiedapi.sandbox.control import create_exchange
from unifiedapi.sandbox.refusal import Refused
from unifiedapi.sandbox.scenarios import Callback, Scenario, ScriptedCall, make_call
from unifiedapi.sandbox.server import create_sandbox
from unifiedapi.sandbox.services import answer
from unifiedapi.sandbox.services.api_request import ApiRequest
from unifiedapi.sandbox.store import EXAMPLE, Contents, Store

TOKEN = BearerToken("sandbox-token")
PHONES = ["0003*210", "0003*211", "0003*212"]
BERLIN = ZoneInfo("Europe/Berlin")


def leg(extension: str = "0003*210", **fields: Any) -> RecordedLeg:
    values: dict[str, Any] = {
        "source": "4416149601",
        "destination": extension,
        "flow": Flow.INCOMING,
        "disposition": Disposition.NO_ANSWER,
        "answered": None,
        "duration": 0,
    }
    return RecordedLeg(extension=extension, **values | fields)


def record(
    id_: str, began: datetime, *legs: RecordedLeg, saved: datetime | None = None
) -> StoredRecord:
    return StoredRecord(id=id_, published=began, saved=saved or began, legs=legs or (leg(),))


DIALS = (EventType.DIAL_IN, EventType.DIAL_OUT)
ANSWERS = (EventType.ANSWER_IN, EventType.ANSWER_OUT)
ENDED = {
    "ANSWER": Disposition.ANSWERED,
    "BUSY": Disposition.BUSY,
    "NOANSWER": Disposition.NO_ANSWER,
    "CANCEL": Disposition.NO_ANSWER,
}
NOW = datetime.now(UTC).replace(microsecond=0)
A_YEAR_AGO = NOW - timedelta(days=365)


# What a call leaves


@pytest.mark.parametrize("form", ["v3", "v3-numbers", "v5", "v5-numbers"])
async def test_record_tells_what_happened_in_the_call(
    form: str, store: Store, server: Server, api: UnifiedApi
) -> None:
    server.app = create_exchange(store, callbacks, numbers="numbers" in form, wrapped="v5" in form)
    before = datetime.now(UTC).replace(microsecond=0)
    scripts = place_one_of_each(server.url)
    records = await read(api.call_records.list())
    assert {record.id for record in records} == set(scripts)
    for found in records:
        script = scripts[found.id]
        assert found.extra == {}
        assert (found.owner_id, found.owner_name) == ("3", "0003")
        assert found.published is not None
        assert before <= found.published <= datetime.now(UTC)
        assert found.extension == found.legs[0].extension == script.callbacks[0].extension
        answered = [part.answered for part in found.legs if part.answered]
        assert found.answered == min(answered, default=None)
        check_legs(found, script)


def place_one_of_each(url: str) -> dict[str, ScriptedCall]:
    """Place a call of each scenario, and wait until all are over. Return them by CallAPIID."""
    scripts: dict[str, ScriptedCall] = {}
    for seed, scenario in enumerate(Scenario):
        order = {"scenario": scenario, "phones": PHONES, "speed": 1000, "seed": seed}
        placed = httpx.post(f"{url}/sandbox/calls", json=order).json()
        script = make_call(scenario, Random(seed), PHONES)
        assert placed["id"] == script.id
        scripts[script.callbacks[0].parameters["CallAPIID"]] = script
    deadline = time.monotonic() + 60
    while httpx.get(f"{url}/sandbox/tally").json()["running"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return scripts


def check_legs(found: CallRecord, script: ScriptedCall) -> None:
    dials = [each for each in script.callbacks if each.type in DIALS]
    seen: Counter[tuple[str, str]] = Counter()
    for part, dial in zip(found.legs, dials, strict=True):
        parameters, flow = dial.parameters, dial.parameters["CallFlow"]
        own = [
            each
            for each in script.callbacks
            if (each.extension, each.parameters["CallFlow"]) == (dial.extension, flow)
        ]
        ends = [each for each in own if each.type is EventType.HANGUP]
        end = ends[seen[dial.extension, flow]]
        seen[dial.extension, flow] += 1
        answers = [each for each in own if each.type in ANSWERS and dial.at < each.at < end.at]
        assert (part.answered is not None) == bool(answers)
        assert part.disposition == ENDED[end.parameters["CallStatus"]]
        assert part.extension == dial.extension
        [source], [destination] = part.source, part.destination
        assert source == parameters["CallerIDNum"]
        assert destination == (parameters["CalledNumber"] if flow == "OUT" else dial.extension)
        inside = source in PHONES and destination in PHONES
        outside = Flow.OUTGOING if flow == "OUT" else Flow.INCOMING
        assert part.flow == (Flow.LOCAL if inside else outside)


def test_record_has_wall_clock_times_and_durations() -> None:
    script = make_call(Scenario.TRANSFER, Random(1), PHONES)
    for speed in (1.0, 20.0):
        began = datetime(2026, 3, 29, 0, 59, 58, tzinfo=UTC)
        kept = record_of(script, began, began + timedelta(hours=1), speed)
        assert kept.published == began
        assert kept.saved == began + timedelta(hours=1)
        for part in kept.legs:
            said = [each for each in script.callbacks if each.extension == part.extension]
            [answered] = [each.at for each in said if each.type is EventType.ANSWER_IN]
            assert part.answered == began + timedelta(seconds=answered / speed)
            assert part.duration == round((said[-1].at - answered) / speed)


def test_disposition_follows_the_status_of_the_hangup() -> None:
    for status, disposition in {
        "CONGESTION": Disposition.FAILED,
        "CHANUNAVAIL": Disposition.FAILED,
        "BUSY": Disposition.BUSY,
        "UNKNOWN": Disposition.UNKNOWN,
        "SOMETHING": Disposition.UNKNOWN,
    }.items():
        parameters = {
            "CallID": "1",
            "CallFlow": "OUT",
            "CalledNumber": "0003*211",
            "CallStatus": status,
        }
        hangup = Callback(1.0, "0003*210", EventType.HANGUP, parameters)
        [part] = record_of(ScriptedCall("1", Scenario.OUTGOING, (hangup,)), NOW, NOW).legs
        assert part.disposition == disposition
        assert (part.flow, part.source, part.destination) == (Flow.LOCAL, "0003*210", "0003*211")


# What the client reads


# VoipNow wiki, CDR Resource: its sample without the dots, and with the fields that a client for a
# related PBX reads in a view.
SAMPLE = {
    "entry": {
        "53bec7de3c242d5f87e5": {
            "id": "53bec7de3c242d5f87e5",
            "ownerId": "3",
            "published": "2024-10-05T08:00:00Z",
            "phoneCallView": [
                {"source": "14141555", "destination": "0003*002", "disposition": "3", "flow": "8"},
                {
                    "source": "14141555",
                    "destination": "0003*006",
                    "disposition": "0",
                    "flow": 8,
                    "answered": "2024-10-05T10:00:07",
                    "duration": "34",
                    "codec": "alaw",
                },
            ],
        },
        "ad5a65672e3f783665c0": {
            "ownerId": 3,
            "published": "2024-10-05T10:00:00",
            "answered": None,
            "phoneCallView": [{"source": [14141555], "destination": ["0003*002"]}],
        },
    },
    "startIndex": 0,
    "totalResults": 2,
    "itemsPerPage": 20,
    "filtered": True,
    "sorted": True,
    "phoneCallStat": [{"type": 0, "total": 17558, "unanswered": "4063"}],
}


async def test_sample_is_read(server: Server) -> None:
    for body in (SAMPLE, [SAMPLE]):  # v3, v5
        server.app = script = Script(Reply(200, body))
        async with UnifiedApi(server.url, TOKEN, zone=BERLIN) as api:
            first, second = await read(api.call_records.list())
        assert (first.id, first.owner_id, first.extension) == ("53bec7de3c242d5f87e5", "3", None)
        assert first.published == datetime(2024, 10, 5, 8, tzinfo=UTC)
        silent, willing = first.legs
        assert (silent.source, silent.destination) == (("14141555",), ("0003*002",))
        assert (silent.flow, silent.disposition) == (Flow.INCOMING, Disposition.NO_ANSWER)
        assert (silent.answered, silent.duration) == (None, None)
        assert (willing.disposition, willing.duration) == (Disposition.ANSWERED, 34)
        assert willing.answered == datetime(2024, 10, 5, 8, 0, 7, tzinfo=UTC)  # local time
        assert willing.extra == {"codec": "alaw"}
        assert (second.id, second.owner_id) == ("ad5a65672e3f783665c0", "3")
        assert second.published == first.published
        assert second.answered is None
        assert second.legs[0].source == ("14141555",)
        assert second.legs[0].destination == ("0003*002",)
        assert [each.path for each in script.requests] == ["/uapi/cdr/"]
        assert script.requests[0].query == [("count", "4999"), ("startIndex", "0")]


async def test_array_of_records_and_call_id_are_read(server: Server, api: UnifiedApi) -> None:
    entry = {"id": 7, "callId": "1700000000.1", "phoneCallView": {"disposition": 9}}
    server.app = Script(Reply(200, {"startIndex": 0, "totalResults": 1, "entry": [entry]}))
    [found] = await read(api.call_records.list())
    assert (found.id, found.call_id) == ("7", "1700000000.1")
    [part] = found.legs
    assert part.disposition is not None
    assert part.disposition.name == "UNDOCUMENTED_9"


async def test_invalid_record_is_an_error(server: Server, api: UnifiedApi) -> None:
    entries: list[object] = [
        [{"published": "2024-10-05T08:00:00Z"}],
        {"1": 5},
        {"1": {"published": "yesterday"}},
        {"1": {"phoneCallView": ["0003*210"]}},
        {"1": {"phoneCallView": [{"duration": "00:34"}]}},
    ]
    for entry in entries:
        server.app = Script(Reply(200, {"startIndex": 0, "entry": entry}))
        with pytest.raises(UnexpectedAnswer):
            await read(api.call_records.list())


async def test_parameters_are_sent_with_dates_in_the_pbxs_local_time(server: Server) -> None:
    server.app = script = Script(Reply(204))
    listing: dict[str, Any] = {
        "owner": 33,
        "source": "0003*210",
        "destination": "+442079460100",
        "start_date": datetime(2024, 10, 5, tzinfo=UTC),
        "end_date": datetime(2024, 12, 5, 1, 2, 3, 999_999, tzinfo=timezone(timedelta(hours=-5))),
        "save_start_date": datetime(2024, 10, 5, tzinfo=BERLIN),
        "save_end_date": datetime(2024, 10, 6, 23, 59, 59, tzinfo=BERLIN),
        "flow": Flow.LOCAL,
        "disposition": Disposition.ANSWERED,
        "count": 10,
        "sort_order": "ascending",
        "fields": ["total"],
    }
    async with UnifiedApi(server.url, TOKEN, zone=BERLIN) as api:
        assert await read(api.call_records.list(**listing)) == []
    [request] = script.requests
    assert (request.method, request.path) == ("GET", "/uapi/cdr/33/")
    assert dict(request.query) == {
        "source": "0003*210",
        "destination": "+442079460100",
        "startDate": "2024-10-05T02:00:00",
        "endDate": "2024-12-05T07:02:03",
        "saveStartDate": "2024-10-05T00:00:00",
        "saveEndDate": "2024-10-06T23:59:59",
        "flow": "2",
        "disposition": "0",
        "count": "10",
        "startIndex": "0",
        "sortOrder": "ascending",
        "fields": "total",
    }


async def test_date_without_a_zone_is_refused(api: UnifiedApi) -> None:
    for name in ("start_date", "end_date", "save_start_date", "save_end_date"):
        naive: dict[str, Any] = {name: datetime(2024, 10, 5)}  # noqa: DTZ001 - the point
        with pytest.raises(InvalidRequest, match="time zone"):
            api.call_records.list(**naive)


# The client against the sandbox


@pytest.mark.parametrize("form", ["v3", "v5-numbers"])
async def test_pages_sorting_filters_and_fields(
    form: str, store: Store, server: Server, api: UnifiedApi
) -> None:
    server.app = create_sandbox(store, numbers="numbers" in form, wrapped="v5" in form)
    for n in (2, 0, 1, 4, 3):
        store.add_record(record(f"r{n}", NOW - timedelta(seconds=10 - n), leg(PHONES[n % 3])))

    records = api.call_records
    recent: dict[str, Any] = {"start_date": NOW - timedelta(hours=1)}
    listing = records.list(count=2, sort_order="descending", **recent)
    assert [each.id for each in await read(listing)] == ["r4", "r3", "r2", "r1", "r0"]
    assert [len(page.entry) async for page in listing.pages()] == [2, 2, 1]
    some = await read(records.list(destination="0003*211", **recent))
    assert sorted(each.id for each in some) == ["r1", "r4"]
    narrow = await read(records.list(fields=["published"], **recent))
    assert {each.id for each in narrow} == {"r0", "r1", "r2", "r3", "r4"}
    assert all(each.published and not each.legs for each in narrow)


async def test_disposition_and_dates_select_records(
    store: Store, sandbox: str, api: UnifiedApi
) -> None:
    store.add_record(record("one", NOW))
    store.add_record(record("two", NOW, leg(disposition=Disposition.BUSY)))
    dates: dict[str, Any] = {
        "start_date": NOW - timedelta(hours=1),
        "end_date": NOW + timedelta(hours=1),
    }
    [busy] = await read(api.call_records.list(disposition=Disposition.BUSY, **dates))
    assert busy.id == "two"
    found = await read(api.call_records.list(count=1, **dates))
    assert [each.id for each in found] == ["one", "two"]


async def test_user_sees_the_calls_of_extensions_they_manage(store: Store, sandbox: str) -> None:
    store.add_record(record("mine", NOW, leg("0003*210")))
    store.add_record(record("both", NOW, leg("0003*212"), leg("0003*211")))
    store.add_record(record("colleague", NOW, leg("0003*213")))
    store.add_record(record("stranger", NOW, leg("0004*210")))
    store.add_record(record("gone", NOW, leg("0003*999")))
    recent = NOW - timedelta(hours=1)

    async def ids(token: str, owner: str | int | None = None) -> set[str]:
        async with UnifiedApi(sandbox, BearerToken(token)) as api:
            found = await read(api.call_records.list(owner=owner, start_date=recent))
        return {each.id for each in found}

    assert await ids("sandbox-token-user") == {"mine", "both"}
    assert await ids("sandbox-token-user", "@me") == {"mine", "both"}
    assert await ids("sandbox-token") == {"mine", "both", "colleague"}
    assert await ids("sandbox-token", 13) == {"both", "colleague"}
    assert await ids("sandbox-token-administrator") == {"mine", "both", "colleague", "stranger"}
    with pytest.raises(AccessDenied):
        await ids("sandbox-token", 40)
    for owner in (99, "@owner"):
        with pytest.raises(UserInvalid):
            await ids("sandbox-token", owner)


async def test_dates_are_in_the_pbxs_local_time(store: Store, sandbox: str) -> None:
    store.zone = BERLIN
    began = datetime(2024, 7, 1, 22, 30, tzinfo=UTC)  # half past midnight in Berlin, on the 2nd
    saved = began + timedelta(minutes=5)
    store.add_record(record("night", began, saved=saved))
    wide: dict[str, Any] = {
        "start_date": began - timedelta(days=2),
        "end_date": began + timedelta(days=2),
    }

    async def found(zone: tzinfo, **dates: datetime) -> bool:
        async with UnifiedApi(sandbox, TOKEN, zone=zone) as api:
            records = await read(api.call_records.list(**wide | dates))
        return [each.id for each in records if each.published == began] == ["night"]

    second = timedelta(seconds=1)
    assert await found(BERLIN, start_date=began, end_date=began)
    assert not await found(BERLIN, start_date=began + second)
    assert not await found(BERLIN, end_date=began - second)
    assert not await found(UTC, start_date=began, end_date=began)  # the wrong zone
    assert await found(BERLIN, save_start_date=saved, save_end_date=saved)
    assert not await found(BERLIN, save_start_date=saved + second)
    assert not await found(BERLIN, save_end_date=saved - second)


async def test_default_period_is_this_month_until_now(
    store: Store, sandbox: str, api: UnifiedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return NOW.astimezone(tz)

    monkeypatch.setattr("unifiedapi.sandbox.services.cdr.datetime", Stopped)
    first_of_month = NOW.replace(day=1, hour=0, minute=0, second=0)
    store.add_record(record("last month", first_of_month - timedelta(seconds=1)))
    store.add_record(record("this month", first_of_month))
    store.add_record(record("future", NOW + timedelta(hours=1)))
    found = await read(api.call_records.list())
    assert [each.id for each in found] == ["this month"]


# What the sandbox finds, compared with a simple model

NUMBERS = ["0003*210", "0003*211", "+442079460100", "4416149601"]
MOMENTS = [A_YEAR_AGO + timedelta(hours=n) for n in range(4)]

legs = st.builds(
    leg,
    st.sampled_from(["0003*210", "0003*211", "0004*210"]),
    source=st.sampled_from(NUMBERS),
    destination=st.sampled_from(NUMBERS),
    flow=st.sampled_from(Flow),
    disposition=st.sampled_from([each for each in Disposition if each != Disposition.ANSWERED]),
) | st.builds(
    leg,
    st.sampled_from(["0003*210", "0004*210"]),
    source=st.sampled_from(NUMBERS),
    disposition=st.just(Disposition.ANSWERED),
    answered=st.sampled_from(MOMENTS),
)
some_records = st.lists(
    st.builds(
        lambda began, saved, parts: record("", began, *parts, saved=saved),
        st.sampled_from(MOMENTS),
        st.sampled_from(MOMENTS),
        st.lists(legs, min_size=1, max_size=3),
    ),
    max_size=8,
).map(lambda found: [msgspec.structs.replace(r, id=f"r{n}") for n, r in enumerate(found)])


def text(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%S")


@given(
    everything=some_records,
    start=st.integers(0, 9),
    count=st.integers(1, 9),
    dates=st.fixed_dictionaries(
        {},
        optional={
            name: st.sampled_from(MOMENTS)
            for name in ("startDate", "endDate", "saveStartDate", "saveEndDate")
        },
    ),
    parties=st.fixed_dictionaries(
        {},
        optional={
            "source": st.sampled_from(NUMBERS),
            "destination": st.sampled_from(NUMBERS),
            "flow": st.sampled_from(Flow),
            "disposition": st.sampled_from(Disposition),
        },
    ),
    by=st.sampled_from([None, "source", "destination", "published", "answered"]),
    op=st.sampled_from(["equals", "startsWith", "inArray", "present", None]),
    values=st.tuples(st.sampled_from(NUMBERS), st.sampled_from(MOMENTS)),
    order=st.sampled_from(["ascending", "descending", None]),
)
def test_sandbox_finds_the_same_records_as_the_model(
    everything: list[StoredRecord],
    start: int,
    count: int,
    dates: dict[str, datetime],
    parties: dict[str, Any],
    by: str | None,
    op: str | None,
    values: tuple[str, datetime],
    order: str | None,
) -> None:
    dates = {"startDate": MOMENTS[0]} | dates
    value = values[0] if by in ("source", "destination") else text(values[1])
    query = {"startIndex": str(start), "count": str(count)}
    query |= {name: text(moment) for name, moment in dates.items()}
    query |= {
        name: str(wanted) if name in NAMES else str(int(wanted)) for name, wanted in parties.items()
    }
    query |= {"filterBy": by, "filterValue": value} if by else {}
    query |= {"filterOp": op} if op else {}
    query |= {"sortOrder": order} if order else {}
    store = Store.example()
    for each in everything:
        store.add_record(each)
    request = ApiRequest(
        user=store.users[3],
        method="GET",
        path=["cdr"],
        query=list(query.items()),
        body=b"",
        base="http://h/uapi",
    )

    latest = datetime.max.replace(tzinfo=UTC)
    if dates["startDate"] > dates.get("endDate", latest) or dates.get(
        "saveStartDate", MOMENTS[0]
    ) > dates.get("saveEndDate", latest):
        with pytest.raises(Refused):
            answer(store, request)
        return
    found = []
    for each in everything:
        moment = each.published
        for part in each.legs:
            if part.answered is not None:
                moment = min(p.answered for p in each.legs if p.answered)
        if moment < dates["startDate"] or moment > dates.get("endDate", latest):
            continue
        if each.saved < dates.get("saveStartDate", MOMENTS[0]):
            continue
        if each.saved > dates.get("saveEndDate", latest):
            continue
        if not [part for part in each.legs if part.extension != "0004*210"]:
            continue
        fit = False
        for part in each.legs:
            same = [getattr(part, name) == wanted for name, wanted in parties.items()]
            fit = fit or all(same)
        if not fit:
            continue
        has = {
            "source": [part.source for part in each.legs],
            "destination": [part.destination for part in each.legs],
            "published": [text(each.published)],
            "answered": [text(each.answered)],
        }
        if by and op == "present" and has[by] == [""]:
            continue
        begins = op == "startsWith" and any(had.startswith(value) for had in has[by or "source"])
        if by and op != "present" and value not in has[by] and not begins:
            continue
        found.append(each)
    if order is not None:
        moments = MOMENTS if order == "ascending" else MOMENTS[::-1]
        found = [each for moment in moments for each in found if each.published == moment]
    page = found[start : start + count]
    got = answer(store, request)
    if not page:
        assert got is None
        return
    assert list(got["entry"]) == [each.id for each in page]
    assert [entry["id"] for entry in got["entry"].values()] == list(got["entry"])
    assert (got["startIndex"], got["totalResults"]) == (start, len(found))
    incoming, others = got["phoneCallStat"]
    assert incoming["total"] + others["total"] == len(found)
    assert incoming["total"] == len([r for r in found if r.legs[0].flow == Flow.INCOMING])
    answered = len([each for each in found if each.answered])
    assert incoming["answered"] + others["answered"] == answered
    for part in (incoming, others):
        assert part["total"] * 2 == sum(n for name, n in part.items() if name != "type")


NAMES = ("source", "destination")


def test_invalid_parameters_are_refused(sandbox: str) -> None:
    headers = {"Authorization": "Bearer sandbox-token"}
    for query, code in (
        ("startDate=2024-10-05", "cdr_start_date_invalid"),
        ("startDate=2024-10-05T00:00:00Z", "cdr_start_date_invalid"),
        ("startDate=2024-10-05T00:00:00%2B02:00", "cdr_start_date_invalid"),
        ("startDate=2024-10-05%2000:00:00", "cdr_start_date_invalid"),
        ("startDate=2023-02-29T00:00:00", "cdr_start_date_invalid"),
        ("startDate=0000-01-01T00:00:00", "cdr_start_date_invalid"),
        ("startDate=2024-10-05T24:00:00", "cdr_start_date_invalid"),
        ("startDate=2024-10-05T00:00:00%0A", "cdr_start_date_invalid"),
        ("startDate=", "cdr_start_date_invalid"),
        ("endDate=now", "cdr_end_date_invalid"),
        ("saveStartDate=now", "cdr_save_start_date_invalid"),
        ("saveEndDate=now", "cdr_save_end_date_invalid"),
        ("startDate=9999-01-01T00:00:00", "cdr_invalid_date_parameters"),  # after now
        ("endDate=2000-01-01T00:00:00", "cdr_invalid_date_parameters"),  # before this month
        (
            "saveStartDate=2024-10-05T00:00:01&saveEndDate=2024-10-05T00:00:00",
            "cdr_invalid_date_parameters",
        ),
        ("source=anonymous", "cdr_source_invalid"),
        ("source=", "cdr_source_invalid"),
        ("destination=@self", "cdr_destination_invalid"),
        ("flow=1", "cdr_flow_invalid"),
        ("flow=", "cdr_flow_invalid"),
        ("disposition=6", "cdr_disposition_invalid"),
        ("filterBy=source&filterValue=x", "cdr_invalid_filter_by_source"),
        ("filterBy=destination&filterValue=x", "cdr_invalid_filter_by_destination"),
        ("filterBy=published&filterValue=2024", "cdr_invalid_filter_by_published"),
        ("filterBy=answered&filterValue=2024", "cdr_invalid_filter_by_answered"),
        (
            "filterBy=source&filterOp=inArray&filterValue[0]=1&filterValue[1]=x",
            "cdr_invalid_filter_by_source",
        ),
        ("filterBy=source", "filtervalue_invalid"),
        ("filterBy=flow&filterValue=2", "filterby_invalid"),
        ("fields=colour", "fields_invalid"),
        ("count=0", "count_invalid"),
    ):
        refused = httpx.get(f"{sandbox}/uapi/cdr?{query}", headers=headers)
        found = refused.status_code, refused.json()["error"]["code"]
        assert found == (400, code), query


def test_response_looks_like_the_documents_sample(store: Store, sandbox: str) -> None:
    store.add_record(record("53bec7de3c242d5f87e5", NOW, leg(), leg("0003*211")))
    headers = {"Authorization": "Bearer sandbox-token"}
    began = text(NOW - timedelta(hours=1))
    got = httpx.get(f"{sandbox}/uapi/cdr/3/?startDate={began}&count=1", headers=headers).json()
    view = {"source": "4416149601", "flow": "8", "disposition": "3", "duration": "0"}
    assert got["entry"] == {
        "53bec7de3c242d5f87e5": {
            "id": "53bec7de3c242d5f87e5",
            "extension": "0003*210",
            "ownerId": "3",
            "ownerName": "0003",
            "published": f"{text(NOW)}Z",
            "phoneCallView": [
                {"id": "00", "extension": "0003*210", "destination": "0003*210", **view},
                {"id": "01", "extension": "0003*211", "destination": "0003*211", **view},
            ],
        }
    }
    assert got["phoneCallStat"][0] == {
        "type": 0,
        "total": 1,
        "answered": 0,
        "unanswered": 1,
        "busy": 0,
        "failed": 0,
        "unknown": 0,
        "unallowed": 0,
    }


def test_oldest_records_are_dropped_and_a_repeated_id_replaces() -> None:
    store = Store(msgspec.toml.decode(EXAMPLE.read_bytes(), type=Contents), max_records=3)
    for id_ in ("a", "b", "a", "c", "d"):
        store.add_record(record(id_, NOW))
    assert [each.id for each in store.records()] == ["a", "c", "d"]
