"""What is particular to HubSpot."""

import json
from datetime import UTC, datetime

import pytest

from offhook import Outcome, Party, PermanentError, TemporaryError
from offhook.errors import ConfigError
from offhook.testing import configured, deliver, sample_call, sample_event
from tests.workers.handlers.crm.hubspot_side import BUSY, CONNECTED, NO_ANSWER, HubSpotSide, error
from workers.handlers.crm.hubspot import HubSpot


def handler(hubspot: HubSpotSide, **options: object) -> HubSpot:
    return configured(HubSpot, **hubspot.options() | options)


def logged(hubspot: HubSpotSide) -> dict[str, str]:
    (call,) = hubspot.objects["calls"].values()
    return call


def test_a_call_has_hubspots_properties(hubspot: HubSpotSide) -> None:
    crm = handler(
        hubspot, owner="jane@example.com", recording_url="https://pbx.example.com/{recording}.wav"
    )
    call = sample_call(recording="rec 7")
    deliver(crm, sample_event("call-ended", summary=call))
    assert logged(hubspot) == {
        "offhook_call": "main/1795289400.101",
        "hs_timestamp": "2026-11-21T19:30:00.250Z",
        "hs_call_title": "Call from Jane Doe (+40211234567)",
        "hs_call_direction": "INBOUND",
        "hs_call_status": "COMPLETED",
        "hs_call_duration": "45000",
        "hs_call_from_number": "+40211234567",
        "hs_call_to_number": "+40318100210",
        "hs_call_disposition": CONNECTED,
        "hs_call_recording_url": "https://pbx.example.com/rec%207.wav",
        "hubspot_owner_id": "11349275740",
    }


@pytest.mark.parametrize(
    ("event", "answered_by", "status"),
    [("call-started", None, "RINGING"), ("call-answered", "0003*210", "IN_PROGRESS")],
)
def test_a_call_in_progress_has_no_outcome(
    hubspot: HubSpotSide, event: str, answered_by: str | None, status: str
) -> None:
    going_on = sample_call(None, answered_by=answered_by)
    deliver(handler(hubspot), sample_event(event, summary=going_on))
    call = logged(hubspot)
    assert call["hs_call_status"] == status
    assert not {"hs_call_duration", "hs_call_disposition"} & set(call)


@pytest.mark.parametrize(
    ("outcome", "status", "disposition"),
    [
        ("answered", "COMPLETED", CONNECTED),
        ("missed", "NO_ANSWER", NO_ANSWER),
        ("busy", "BUSY", BUSY),
        ("cancelled", "CANCELED", None),
        ("unreachable", "FAILED", None),
        ("failed", "FAILED", None),
    ],
)
def test_an_outcome_is_a_status_and_a_disposition(
    hubspot: HubSpotSide, outcome: str, status: str, disposition: str | None
) -> None:
    deliver(handler(hubspot), sample_event("call-ended", summary=sample_call(outcome)))
    call = logged(hubspot)
    assert (call["hs_call_status"], call.get("hs_call_disposition")) == (status, disposition)


def test_dispositions_may_be_changed_or_removed(hubspot: HubSpotSide) -> None:
    event = sample_event("call-ended", summary=sample_call("cancelled"))
    deliver(handler(hubspot, dispositions={"cancelled": NO_ANSWER}), event)
    assert logged(hubspot)["hs_call_disposition"] == NO_ANSWER
    hubspot.forget_records()
    deliver(handler(hubspot, dispositions={}), sample_event("call-ended"))
    assert "hs_call_disposition" not in logged(hubspot)


def test_an_outgoing_call_is_outbound(hubspot: HubSpotSide) -> None:
    call = sample_call(
        direction="out",
        caller=Party(number="210", extension="0003*210"),
        called=Party(number="0211234567", e164="+40211234567"),
    )
    deliver(handler(hubspot), sample_event("call-ended", summary=call))
    properties = logged(hubspot)
    assert properties["hs_call_direction"] == "OUTBOUND"
    assert properties["hs_call_from_number"] == "210"
    assert properties["hs_call_to_number"] == "+40211234567"


def test_times_of_another_zone_are_utc(hubspot: HubSpotSide) -> None:
    started = datetime.fromisoformat("2026-11-21T21:30:00.250999+02:00")
    deliver(handler(hubspot), sample_event("call-ended", summary=sample_call(started=started)))
    assert logged(hubspot)["hs_timestamp"] == "2026-11-21T19:30:00.250Z"
    assert started.astimezone(UTC).hour == 19


def test_notes_are_kept(hubspot: HubSpotSide) -> None:
    crm = handler(hubspot)
    deliver(crm, sample_event("call-started"))
    logged(hubspot)["hs_call_body"] = "wants a quote"
    deliver(crm, sample_event("call-ended"))
    assert logged(hubspot)["hs_call_body"] == "wants a quote"


def test_a_process_associates_a_call_once(hubspot: HubSpotSide) -> None:
    hubspot.add_contact("Jane Doe", "+40211234567")
    crm = handler(hubspot)
    for event in ("call-started", "call-answered", "call-ended"):
        deliver(crm, sample_event(event))
    assert sum(line.startswith("PUT /crm/v4") for line in hubspot.lines()) == 1


def test_the_mobile_number_counts_too(hubspot: HubSpotSide) -> None:
    contact = hubspot.add_contact("Jane Doe", "")
    hubspot.objects["contacts"][contact]["mobilephone"] = "021.123.4567"
    deliver(handler(hubspot), sample_event("call-ended"))
    (record,) = hubspot.records()
    assert record.contacts == {contact}


def test_a_created_contact_has_number_name_and_owner(hubspot: HubSpotSide) -> None:
    crm = handler(hubspot, unknown="create", owner="11349275740")
    deliver(crm, sample_event("call-started"))
    (contact,) = hubspot.objects["contacts"].values()
    assert contact == {
        "offhook_number": "+40211234567",
        "phone": "+40211234567",
        "lastname": "Jane Doe",
        "hubspot_owner_id": "11349275740",
    }


def test_a_renamed_contact_keeps_its_name(hubspot: HubSpotSide) -> None:
    deliver(handler(hubspot, unknown="create"), sample_event("call-started"))
    (contact,) = hubspot.objects["contacts"].values()
    contact |= {"lastname": "Smith", "phone": "removed"}
    hubspot.index()
    deliver(handler(hubspot, unknown="create"), sample_event("call-ended"))
    assert contact["lastname"] == "Smith"
    assert logged(hubspot)["hs_call_title"] == "Call from Smith (+40211234567)"


@pytest.mark.parametrize("unknown", ["log", "create"])
def test_a_missing_property_is_temporary_and_named(hubspot: HubSpotSide, unknown: str) -> None:
    hubspot.unique_there = False
    with pytest.raises(TemporaryError, match=r"refuses the property offhook_(call|number)"):
        deliver(handler(hubspot, unknown=unknown), sample_event("call-ended"))


def test_properties_may_have_other_names(hubspot: HubSpotSide) -> None:
    hubspot.unique = {"calls": "call_key", "contacts": "number_key"}  # type: ignore[misc]
    crm = handler(
        hubspot, call_property="call_key", contact_property="number_key", unknown="create"
    )
    deliver(crm, sample_event("call-ended"))
    assert logged(hubspot)["call_key"] == "main/1795289400.101"


def test_a_multi_status_error_is_an_error(hubspot: HubSpotSide) -> None:
    partly = {"results": [], "numErrors": 1, "errors": [error(400, "").json], "status": "COMPLETE"}
    hubspot.plan(207, partly, when=hubspot.write)
    with pytest.raises(PermanentError):
        deliver(handler(hubspot), sample_event("call-ended"))


@pytest.mark.parametrize("status", [423, 477])
def test_a_locked_account_is_temporary(hubspot: HubSpotSide, status: int) -> None:
    hubspot.plan(status, headers={"Retry-After": "2"}, when=hubspot.write)
    with pytest.raises(TemporaryError) as raised:
        deliver(handler(hubspot), sample_event("call-ended"))
    assert raised.value.retry_after == 2


def test_a_refusal_carries_the_correlation_id(hubspot: HubSpotSide) -> None:
    with pytest.raises(PermanentError, match=r"is not a valid hubspot_owner_id .* aeb5f871-7f07"):
        deliver(handler(hubspot, owner="12"), sample_event("call-ended"))


def test_the_search_has_every_form(hubspot: HubSpotSide) -> None:
    deliver(handler(hubspot), sample_event("call-ended"))
    search = json.loads(hubspot.requests[0].body)
    groups = [group["filters"][0] for group in search["filterGroups"]]
    assert [group.get("value") for group in groups[:2]] == ["211234567"] * 2
    assert {"+40211234567", "021 123 4567", "0211234567"} <= set(groups[2]["values"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"recording_url": "http://pbx.example.com/{recording}"},
        {"recording_url": "https://pbx.example.com/{file}"},
        {"dispositions": {"lost": "x"}},
        {"call_property": "Call Id"},
        {"base_url": "https://api.hubapi.com/"},
        {"several": "any"},
        {"region": "Romania"},
    ],
)
def test_an_error_names_a_wrong_option(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as raised:
        configured(HubSpot, token="hush", **wrong)
    (name,) = wrong
    assert all(problem.startswith(f"options.{name}") for problem in raised.value.problems)


def test_every_outcome_has_a_status() -> None:
    from workers.handlers.crm import hubspot

    assert set(hubspot._STATUSES) == set(Outcome)
