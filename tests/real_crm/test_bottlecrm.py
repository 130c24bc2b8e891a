"""What is particular to BottleCRM, on a real one."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from offhook import Call, Outcome, Party, PermanentError, TemporaryError
from offhook.testing import configured, deliver, sample_call, sample_event
from tests.real_crm.bottlecrm import ALLOWED, BottleCrmSide
from workers.handlers.crm.bottlecrm import BottleCrm

pytestmark = [
    pytest.mark.parametrize("server", ["bottlecrm"], indirect=True),
    pytest.mark.xdist_group("bottlecrm"),
]

KEY = "main/1795289400.101"
CRMS = (Path(__file__).parents[2] / "docs" / "crm.md").read_text()
REQUIREMENTS = (Path(__file__).parent / "bottlecrm.in").read_text()
UNKNOWN = "0b6f3a3c-0000-4000-8000-000000000000"


class Forgetful(BottleCrm):
    """Never remembers that no contact has a number."""

    not_found_lifetime = 0.0


class SmallPages(BottleCrm):
    """Reads two interactions per request."""

    page = 2


def handler(side: BottleCrmSide, kind: type[BottleCrm] = BottleCrm, **options: Any) -> BottleCrm:
    return configured(kind, **side.options() | options)


def ended(crm: BottleCrm, *outcome: Any, **fields: Any) -> None:
    deliver(crm, sample_event("call-ended", summary=sample_call(*outcome, **fields)))


def logged(side: BottleCrmSide) -> dict[str, Any]:
    (interaction,) = side.interactions()
    return interaction


def test_a_call_is_an_interaction(side: BottleCrmSide) -> None:
    jane = side.add_contact("Jane Doe", "021 123 4567")
    ended(handler(side, recording_url="http://pbx/{pbx}/{call}/{recording}"), recording="r7")
    (shown,) = side.call("GET", f"interactions/?contact={jane}")["interactions"]
    fields = ("kind", "direction", "occurred_at", "duration_seconds", "outcome", "subject", "body")
    assert {name: shown[name] for name in fields} == {
        "kind": "call",
        "direction": "inbound",
        "occurred_at": "2026-11-21T19:30:00.250000Z",
        "duration_seconds": 45,
        "outcome": "connected",
        "subject": "Call from Jane Doe (+40211234567)",
        "body": (
            "Called +40318100210 · Answered by 0003*210 after 8 s · Talked for 45 s · "
            f"Recording: http://pbx/main/1795289400.101/r7 · Call {KEY}"
        ),
    }


def test_a_call_in_progress_has_neither_outcome_nor_duration(side: BottleCrmSide) -> None:
    crm = handler(side)
    for event in ("call-started", "call-answered"):
        deliver(crm, sample_event(event))
        assert (logged(side)["outcome"], logged(side)["duration_seconds"]) == ("", None)
    deliver(crm, sample_event("call-ended"))
    assert (logged(side)["outcome"], logged(side)["duration_seconds"]) == ("connected", 45)


@pytest.mark.parametrize(
    ("outcome", "theirs"),
    [
        (Outcome.ANSWERED, "connected"),
        (Outcome.MISSED, "no_answer"),
        (Outcome.BUSY, "busy"),
        (Outcome.CANCELLED, "no_answer"),
        (Outcome.UNREACHABLE, "no_answer"),
        (Outcome.FAILED, "no_answer"),
    ],
)
def test_each_outcome_is_one_of_bottlecrms(
    side: BottleCrmSide, outcome: Outcome, theirs: str
) -> None:
    ended(handler(side), outcome)
    assert logged(side)["outcome"] == theirs


def test_an_outgoing_call_is_outbound(side: BottleCrmSide) -> None:
    ended(handler(side), direction="out", called=Party(number="0211234567", e164="+40211234567"))
    assert logged(side)["direction"] == "outbound"


def test_a_long_name_is_cut(side: BottleCrmSide) -> None:
    ended(handler(side), caller=Party(number="+40211234567", name="J" * 300))
    assert len(logged(side)["subject"]) == 200


# Notes


@pytest.mark.parametrize("restarts", [False, True])
def test_notes_are_kept(side: BottleCrmSide, restarts: bool) -> None:
    side.add_contact("Jane Doe", "+40211234567")
    crm = handler(side)
    deliver(crm, sample_event("call-started"))
    (shown,) = side.interactions()
    note = f"Wants a quote.\n{shown['body']}\n\nBy Friday."
    side.call("PATCH", f"interactions/{shown['id']}/", {"body": note})
    deliver(handler(side) if restarts else crm, sample_event("call-ended"))
    first, line, *rest = logged(side)["body"].split("\n")
    assert [first, *rest] == ["Wants a quote.", "", "By Friday."]
    assert "Talked for 45 s" in line


def test_a_removed_mark_is_written_again(side: BottleCrmSide) -> None:
    crm = handler(side)
    deliver(crm, sample_event("call-started"))
    side.call("PATCH", f"interactions/{logged(side)['id']}/", {"body": "Wants a quote."})
    deliver(crm, sample_event("call-answered"))
    deliver(handler(side), sample_event("call-ended"))
    note, line = logged(side)["body"].split("\n")
    assert note == "Wants a quote."
    assert line.endswith(f"Call {KEY}")


# Whose call it is


def test_a_call_without_a_contact_is_on_the_account(side: BottleCrmSide) -> None:
    ended(handler(side))
    shown = side.call("GET", f"interactions/?account={side.options()['account']}")
    assert [each["subject"] for each in shown["interactions"]] == [
        "Call from Jane Doe (+40211234567)"
    ]


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_call_moves_from_the_account_to_a_contact_added_meanwhile(
    side: BottleCrmSide, taken: bool, restarts: bool
) -> None:
    """With its notes, and one record, whichever request is lost."""
    crm, lost = handler(side, Forgetful), 0
    while True:
        side.empty()
        side.plans.clear()
        crm = handler(side, Forgetful)
        deliver(crm, sample_event("call-started"))
        note = {"body": f"{logged(side)['body']}\nWants a quote."}
        side.call("PATCH", f"interactions/{logged(side)['id']}/", note)
        jane = side.add_contact("Jane Doe", "+40211234567")
        side.cut(skip=lost, taken=taken)
        for event in ("call-answered", "call-ended"):
            crm = handler(side, Forgetful) if restarts else crm
            try:
                deliver(crm, sample_event(event))
            except TemporaryError:
                deliver(
                    handler(side, Forgetful) if restarts else crm, sample_event(event), attempt=2
                )
        (record,) = side.records()
        assert (record.key, record.ended, record.contacts) == (KEY, True, frozenset({jane}))
        line, *notes = logged(side)["body"].split("\n")
        assert "Talked for 45 s" in line
        assert notes == ["Wants a quote."]
        if side.plans:  # nothing was left to be lost
            break
        lost += 1
    assert lost >= 5


def lead(side: BottleCrmSide, name: str, phone: str) -> str:
    first, last = name.split()
    fields = {"title": "A lead", "first_name": first, "last_name": last, "phone": phone}
    return str(side.call("POST", "leads/", fields)["id"])


def test_a_lead_has_the_call_if_no_contact_has_the_number(side: BottleCrmSide) -> None:
    john = lead(side, "John Doe", "0211234567")
    ended(handler(side), id="1")
    jane = side.add_contact("Jane Doe", "+40211234567")
    ended(handler(side), id="2")
    assert [record.contacts for record in side.records()] == [{john}, {jane}]


def test_a_call_that_began_with_a_lead_stays_there(side: BottleCrmSide) -> None:
    """Also when there is a contact with the number by the time it ends."""
    john = lead(side, "John Doe", "0211234567")
    deliver(handler(side), sample_event("call-started"))
    side.add_contact("Jane Doe", "+40211234567")
    deliver(handler(side), sample_event("call-ended"))
    (record,) = side.records()
    assert record.ended
    assert record.contacts == {john}


def test_leads_may_be_disabled(side: BottleCrmSide) -> None:
    jane = side.add_contact("Jane Doe", "+40211234567")
    side.sql("UPDATE organization SET modules_off = ?", '["leads"]')
    ended(handler(side))
    (record,) = side.records()
    assert record.contacts == {jane}


@pytest.mark.parametrize(
    ("e164", "typed"),
    [
        ("+40211234567", ("+40 21 123 4567", "0040211234567", "021 123 4567", "211234567")),
        ("+4930123456", ("+49 30 123456", "004930123456", "030/123456", "(030) 123-456")),
        ("+12025550147", ("+1 202 555 0147", "12025550147", "(202) 555-0147", "202.555.0147")),
    ],
)
def test_the_number_is_found_where_the_organisation_has_no_country(
    side: BottleCrmSide, e164: str, typed: tuple[str, ...]
) -> None:
    """Then BottleCRM compares digits, and must be asked for each way to write them."""
    side.sql("UPDATE organization SET default_country = NULL")
    for number, form in enumerate(typed):
        newest = side.add_contact("Jane Doe", form.replace("/", "-"))
        ended(handler(side), id=str(number), caller=Party(number=e164, e164=e164))
        assert side.records()[-1].contacts == {newest}, form


def test_the_newest_of_several_matches_is_used(side: BottleCrmSide) -> None:
    side.sql("UPDATE organization SET default_country = NULL")
    side.add_contact("Jane Doe", "211234567")
    new = side.add_contact("Joan Doe", "+40211234567")
    ended(handler(side), id="1")
    newer = side.add_contact("Jim Doe", "211234567")
    ended(handler(side), id="2")
    lead(side, "John Doe", "+40211234567")
    lead(side, "Jack Doe", "211234567")
    ended(handler(side), id="3")
    assert [record.contacts for record in side.records()] == [{new}, {newer}, {newer}]


def test_the_newest_lead_is_used(side: BottleCrmSide) -> None:
    side.sql("UPDATE organization SET default_country = NULL")
    lead(side, "John Doe", "+40211234567")
    newer = lead(side, "Jack Doe", "211234567")
    ended(handler(side))
    (record,) = side.records()
    assert record.contacts == {newer}


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("Jane van der Doe", "Jane van der", "Doe"),
        ("Müller", "Müller", "+40211234567"),
        (None, "Unknown", "+40211234567"),
    ],
)
def test_a_created_contact_has_number_name_and_owner(
    side: BottleCrmSide, name: str | None, first: str, last: str
) -> None:
    crm = handler(side, unknown="create", owner="Jane@Example.com")
    ended(crm, caller=Party(number="0211234567", name=name, e164="+40211234567"))
    ((contact, shown),) = side.contacts().items()
    assert shown == f"{first} {last}"
    made = side.call("GET", f"contacts/{contact}/")["contact_obj"]
    assert made["phone"] == "+40211234567"
    assert [each["user_details"]["email"] for each in made["assigned_to"]] == ["jane@example.com"]


def test_a_lost_response_creates_no_second_contact(
    side: BottleCrmSide,
) -> None:
    """The process still remembers that no contact has the number."""
    crm = handler(side, unknown="create")
    ended(crm, id="1", caller=Party(number="+40311234567", e164="+40311234567"))
    side.cut(skip=side.lines().index("POST /api/contacts/"))
    with pytest.raises(TemporaryError):
        ended(crm, id="2")
    assert len(side.contacts()) == 2
    ended(crm, id="2")
    assert len(side.contacts()) == 2


def test_an_unknown_owner_gets_no_contact(
    side: BottleCrmSide, caplog: pytest.LogCaptureFixture
) -> None:
    ended(handler(side, unknown="create", owner="nobody@example.com"))
    assert len(side.contacts()) == 1
    assert "BottleCRM has no user nobody@example.com" in caplog.text


# Finding the record


def test_the_call_is_found_among_many(side: BottleCrmSide) -> None:
    jane = side.add_contact("Jane Doe", "+40211234567")
    deliver(handler(side, SmallPages), sample_event("call-started"))
    for number in range(5):
        later = f"2026-11-21T19:4{number}:00Z"
        other = {"kind": "call", "contact": jane, "body": f"Call {KEY}0", "occurred_at": later}
        side.call("POST", "interactions/", other)
    deliver(handler(side, SmallPages), sample_event("call-ended"))
    assert [r.ended for r in side.records() if r.key == KEY] == [True]


def test_the_search_ends_before_the_call_began(side: BottleCrmSide) -> None:
    jane = side.add_contact("Jane Doe", "+40211234567")
    for day in range(10, 18):
        other = {"kind": "call", "contact": jane, "occurred_at": f"2026-11-{day}T19:30:00Z"}
        side.call("POST", "interactions/", other)
    ended(handler(side, SmallPages))
    assert side.lines().count("GET /api/interactions/") == 2  # the account's, the contact's


# Errors


def fails(side: BottleCrmSide, call: Call | None = None, **options: Any) -> Exception:
    event = sample_event("call-ended", summary=call or sample_call())
    with pytest.raises((TemporaryError, PermanentError)) as raised:
        deliver(handler(side, **options), event)
    return raised.value


@pytest.mark.parametrize("right", ALLOWED)
def test_an_error_names_a_missing_scope(side: BottleCrmSide, right: str) -> None:
    lead(side, "John Doe", "0311234567")
    side.add_contact("Jane Doe", "0211234567")
    side.allow(*(each for each in ALLOWED if each != right))

    def call_all() -> None:
        for number in ("+40211234567", "+40311234567", "+40411234567"):
            ended(handler(side), caller=Party(number=number, e164=number))

    with pytest.raises(TemporaryError, match=rf"\(403: .* It needs the {right} scope\."):
        call_all()


@pytest.mark.parametrize("known", [False, True])
def test_a_missing_account_is_temporary(side: BottleCrmSide, known: bool) -> None:
    if known:
        side.add_contact("Jane Doe", "+40211234567")
    error = fails(side, account=UNKNOWN)
    assert isinstance(error, TemporaryError)
    assert f"has no account {UNKNOWN}" in str(error)


def test_throttling_waits_as_long_as_bottlecrm_says(side: BottleCrmSide) -> None:
    side.count()
    with httpx.Client(base_url=side.url, headers=side.headers()) as client:
        for _ in range(120):
            client.post("/api/contacts/duplicates/", json={"phone": "+40211234567"})
    error = fails(side)
    assert isinstance(error, TemporaryError)
    assert "throttled" in str(error)
    assert error.retry_after
    assert 0 < error.retry_after <= 60


def test_a_call_in_the_future_is_temporary(side: BottleCrmSide) -> None:
    error = fails(side, sample_call(started=datetime.now(UTC) + timedelta(minutes=20)))
    assert isinstance(error, TemporaryError)
    assert "correct the clock" in str(error)


def test_a_refused_record_is_permanent(side: BottleCrmSide) -> None:
    error = fails(side, sample_call(caller=Party(number="+40211234567", name="J\0")))
    assert isinstance(error, PermanentError)
    assert "400" in str(error)
    assert "Null characters are not allowed" in str(error)
    assert not side.interactions()


# The docs


def test_the_docs_name_the_version_and_the_rights(side: BottleCrmSide) -> None:
    """Those of this very server, and of the token with which all this works."""
    section = CRMS.partition("## `bottlecrm`")[2].partition("\n## ")[0]
    version = re.search("^django-crm==(.*)$", REQUIREMENTS, re.MULTILINE)
    assert version
    assert f"`django-crm` {version[1]} " in section
    assert f" BottleCRM {version[1]} " in CRMS
    assert tuple(re.findall(r"`(\w+:(?:read|write))`", section)) == ALLOWED
