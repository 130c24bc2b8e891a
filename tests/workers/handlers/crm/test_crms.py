"""Promises of every CRM handler. tests/real_crm/ runs them against real CRMs, too."""

import asyncio
import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from offhook import (
    Call,
    CallEvent,
    ExtensionSettings,
    Outcome,
    Party,
    PermanentError,
    TemporaryError,
)
from offhook.errors import ConfigError
from offhook.testing import configured, context, deliver, sample_call, sample_event, sample_events
from tests.workers.handlers.crm.side import Side
from workers.handlers.crm import Crm

KEY = "main/1795289400.101"
JANE = "Jane Doe"


def handler(side: Side, **options: Any) -> Crm:
    return configured(side.handler, **side.options() | options)


def events() -> list[CallEvent]:
    """The events of a call, from its start to its end."""
    return [
        e for e in sample_events("calls") if e.type in Crm.events and e.type != "call-corrected"
    ]


def begun(side: Side) -> CallEvent:
    """The first event that this CRM records."""
    answered_by = None if side.first == "call-started" else "0003*210"
    return sample_event(side.first, summary=sample_call(None, answered_by=answered_by))


def outgoing() -> Call:
    return sample_call(
        direction="out",
        caller=Party(number="210", name="Front desk", extension="0003*210"),
        called=Party(number="0211234567", e164="+40211234567"),
    )


# One record


def test_a_record_is_created_at_the_start_and_completed_at_the_end(side: Side) -> None:
    jane = side.add_contact(JANE, "+40211234567")
    crm, (*_, ended) = handler(side), events()
    deliver(crm, begun(side))
    (record,) = side.records()
    assert (record.key, record.ended, record.contacts) == (KEY, False, frozenset({jane}))
    deliver(crm, ended)
    (record,) = side.records()
    assert (record.key, record.ended, record.contacts) == (KEY, True, frozenset({jane}))
    assert record.title == "Call from Jane Doe (+40211234567)"


@pytest.mark.parametrize("restarts", [False, True])
def test_repeated_events_leave_one_record(side: Side, restarts: bool) -> None:
    side.add_contact(JANE, "+40211234567")
    crm = handler(side)
    for event in [*events(), *events()]:
        for attempt in (1, 2):
            crm = handler(side) if restarts else crm
            deliver(crm, event, attempt)
    (record,) = side.records()
    assert record.ended


@pytest.mark.parametrize(("unknown", "taken"), [("log", True), ("log", False), ("create", True)])
def test_a_lost_response_makes_no_second_record(side: Side, unknown: str, taken: bool) -> None:
    """The connection breaks before the response to each request in turn.

    Every delivery runs in a new process, and no search finds new records.
    """
    lost = 0
    while True:
        number = f"+402112345{lost:02}"
        if unknown == "log":
            side.add_contact(JANE, number)
        call: dict[str, Any] = {
            "id": str(lost),
            "caller": Party(number=number, name=JANE, e164=number),
        }
        side.cut(skip=lost, taken=taken)
        for event in (
            sample_event("call-started", summary=sample_call(None, **call)),
            sample_event("call-ended", summary=sample_call(**call)),
        ):
            try:
                deliver(handler(side, unknown=unknown), event)
            except TemporaryError:
                deliver(handler(side, unknown=unknown), event, attempt=2)
        records = [record for record in side.records() if record.key == f"main/{lost}"]
        assert len(records) == 1
        assert records[0].ended
        assert len(records[0].contacts) == 1
        assert len(side.contacts()) == lost + 1
        if side.plans:  # no request was left
            break
        lost += 1
    assert lost >= 5


KILLED = """
import json, sys
from offhook import CallEvent
from offhook.plugins import load_handler
from offhook.testing import configured, deliver
use, options, event = json.load(sys.stdin)
deliver(configured(load_handler(use), **options), CallEvent.from_dict(event))
"""


def test_a_handler_killed_before_the_response_leaves_one_record(side: Side) -> None:
    side.hold(side.write)
    use = f"{side.handler.__module__}:{side.handler.__name__}"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[4],
    )
    assert process.stdin
    process.stdin.write(json.dumps([use, side.options(), begun(side).as_dict()]).encode())
    process.stdin.close()
    deadline = time.monotonic() + 30
    while not side.records():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    side.release()
    for event in events():
        deliver(handler(side), event, attempt=2)
    (record,) = side.records()
    assert record.ended


def test_calls_with_a_common_prefix_are_two_records(side: Side) -> None:
    for id in ("1795289400.101", "1795289400.10"):  # noqa: A001 - the field's name
        call = sample_call(id=id)
        deliver(handler(side), sample_event("call-ended", summary=call))
    assert {record.key for record in side.records()} == {KEY, KEY[:-1]}


def test_a_correction_changes_the_record(side: Side) -> None:
    deliver(handler(side), sample_event("call-ended", summary=sample_call("missed")))
    (record,) = side.records()
    assert record.title == "Missed call from Jane Doe (+40211234567)"
    deliver(handler(side), sample_event("call-corrected", summary=sample_call("answered")))
    (record,) = side.records()
    assert record.title == "Call from Jane Doe (+40211234567)"


def test_a_deleted_record_is_created_again(side: Side) -> None:
    crm, (*_, ended) = handler(side), events()
    deliver(crm, begun(side))
    side.forget_records()
    deliver(crm, ended)
    (record,) = side.records()
    assert record.ended


@pytest.mark.parametrize("direction", ["in", "out"])
def test_every_outcome_of_every_direction_is_accepted(side: Side, direction: str) -> None:
    for number, outcome in enumerate(Outcome):
        call = sample_call(outcome, id=f"1795289400.{number}")
        if direction == "out":
            there = outgoing()
            call = msgspec.structs.replace(
                call, direction="out", caller=there.caller, called=there.called
            )
        deliver(handler(side), sample_event("call-ended", summary=call))
    records = side.records()
    assert len(records) == len(Outcome)
    assert all(record.ended for record in records)


def test_an_unknown_talk_time_is_accepted(side: Side) -> None:
    call = sample_call(answered=None, talk_seconds=None, answered_by=None)
    deliver(handler(side), sample_event("call-ended", summary=call))
    assert len(side.records()) == 1


# The contact


def test_the_contact_is_found_in_every_form_of_the_number(side: Side) -> None:
    for number, typed in enumerate(side.numbers_typed):
        contact = side.add_contact(JANE, typed)
        call = sample_call(id=f"1795289400.{number}")
        deliver(handler(side, several="newest"), sample_event("call-ended", summary=call))
        record = side.records()[-1]
        assert record.contacts == {contact}, typed


def test_a_contact_with_another_number_is_not_used(side: Side) -> None:
    side.add_contact("John", "+40211234568")
    side.add_contact("Joan", "+44211234567")
    side.add_contact("Jim", "1234567")
    deliver(handler(side), sample_event("call-ended"))
    (record,) = side.records()
    assert not record.contacts


def test_a_national_number_is_of_the_region(side: Side) -> None:
    """021 123 4567 is Jane's number in Romania, and not +44 21 123 4567."""
    jane = side.add_contact(JANE, "021 123 4567")
    other = Party(number="+44211234567", e164="+44211234567")
    deliver(handler(side, region="RO"), sample_event("call-ended"))
    deliver(
        handler(side, region="RO"),
        sample_event("call-ended", summary=sample_call(id="2", caller=other)),
    )
    assert [record.contacts for record in side.records()] == [{jane}, set()]


def test_the_contact_of_an_outgoing_call_is_the_called_party(side: Side) -> None:
    jane = side.add_contact(JANE, "+40211234567")
    deliver(handler(side), sample_event("call-ended", summary=outgoing()))
    (record,) = side.records()
    assert (record.title, record.contacts) == (
        "Call to Jane Doe (0211234567)",
        frozenset({jane}),
    )


@pytest.mark.parametrize("several", ["newest", "all", "none"])
def test_the_option_several_chooses_the_contacts(side: Side, several: str) -> None:
    if several not in side.severals:
        with pytest.raises(ConfigError, match="several"):
            handler(side, several=several)
        return
    old = side.add_contact(JANE, "021 123 4567")
    new = side.add_contact("John Doe", "+40211234567")
    deliver(handler(side, several=several), sample_event("call-ended"))
    (record,) = side.records()
    assert record.contacts == {"newest": {new}, "all": {old, new}, "none": set()}[several]


@pytest.mark.parametrize("unknown", ["log", "create", "leave"])
def test_the_option_unknown_decides_about_unknown_numbers(side: Side, unknown: str) -> None:
    crm = handler(side, unknown=unknown)
    for event in events():
        deliver(crm, event)
    assert len(side.records()) == (unknown != "leave")
    assert list(side.contacts().values()) == ([JANE] if unknown == "create" else [])


def test_a_second_call_creates_no_second_contact(side: Side) -> None:
    """The search does not find the new contact yet."""
    for id in ("1", "2"):  # noqa: A001 - the field's name
        call = sample_call(id=id)
        deliver(handler(side, unknown="create"), sample_event("call-ended", summary=call))
    (contact,) = side.contacts()
    assert [record.contacts for record in side.records()] == [{contact}, {contact}]


async def test_concurrent_calls_create_one_contact(side: Side) -> None:
    calls = [sample_event("call-started", summary=sample_call(id=id)) for id in "12"]  # noqa: A001

    crm = handler(side, unknown="create")
    contexts = [context(event=event) for event in calls]
    await asyncio.gather(*map(crm.handle, calls, contexts))
    for each in contexts:
        await each.http.close()
    assert len(side.contacts()) == 1
    assert len(side.records()) == 2


def forgetful(side: Side) -> type[Crm]:
    """The handler's class, but it never remembers that no contact has a number."""
    return type("Forgetful", (side.handler,), {"not_found_lifetime": 0.0})


def test_a_contact_added_during_the_call_has_it_at_the_end(side: Side) -> None:
    crm, (started, _, ended) = configured(forgetful(side), **side.options()), events()
    deliver(crm, started)
    jane = side.add_contact(JANE, "+40211234567")
    deliver(crm, ended)
    (record,) = side.records()
    assert record.contacts == {jane}


@pytest.mark.parametrize("number", [None, "anonymous", "112"])
@pytest.mark.parametrize("unknown", ["log", "create", "leave"])
def test_a_hidden_number_has_no_contact(side: Side, number: str | None, unknown: str) -> None:
    side.add_contact("Emergency", "112")
    call = sample_call(caller=Party(number=number))
    deliver(handler(side, unknown=unknown), sample_event("call-ended", summary=call))
    assert [record.contacts for record in side.records()] == [frozenset()] * (unknown != "leave")
    assert len(side.contacts()) == 1


def test_a_number_of_an_unknown_country_is_found(side: Side) -> None:
    jane = side.add_contact(JANE, "0211234567")
    call = sample_call(caller=Party(number="0211234567"))
    deliver(handler(side), sample_event("call-ended", summary=call))
    (record,) = side.records()
    assert record.contacts == {jane}


def test_a_contact_is_searched_once_per_lifetime(side: Side) -> None:
    side.add_contact(JANE, "+40211234567")
    crm = handler(side)
    for id in ("1", "2"):  # noqa: A001 - the field's name
        deliver(crm, sample_event("call-ended", summary=sample_call(id=id)))
    looked = sum(line.startswith(side.find) for line in side.lines())
    crm = handler(side, lifetime=0)
    for id in ("1", "2"):  # noqa: A001 - the field's name
        deliver(crm, sample_event("call-ended", summary=sample_call(id=id)))
    assert sum(line.startswith(side.find) for line in side.lines()) == 2 * looked > 0


def test_a_cached_contact_that_was_deleted_is_searched_again(side: Side) -> None:
    jane = side.add_contact(JANE, "+40211234567")
    crm = handler(side)
    deliver(crm, sample_event("call-ended", summary=sample_call(id="1")))
    john = side.add_contact("John", "+40211234567")
    side.delete_contact(jane)
    deliver(crm, sample_event("call-ended", summary=sample_call(id="2")))
    assert side.records()[-1].contacts == {john}  # a CRM may delete her calls with her


def test_internal_calls_are_logged_only_with_internal(side: Side) -> None:
    side.add_contact(JANE, "+40211234567")
    call = sample_call(direction="internal", caller=Party(number="211", extension="0003*211"))
    event = sample_event("call-ended", summary=call)
    deliver(handler(side), event)
    assert not side.requests
    deliver(handler(side, internal=True, unknown="leave"), event)
    (record,) = side.records()
    assert record.title == "Call from 211 to +40318100210"
    assert not record.contacts


def test_an_event_without_a_call_is_refused(side: Side) -> None:
    with pytest.raises(PermanentError, match=r'events = \["calls"\]'):
        deliver(handler(side), sample_event("hangup"))


# The owner


@pytest.fixture
def owning(side: Side) -> Side:
    """A CRM in which a call has an owner."""
    if not side.owners:
        pytest.skip(f"a call in {side.handler.name} has no owner")
    return side


@pytest.mark.parametrize(
    ("extension", "options"),
    [
        (ExtensionSettings(owner="jane@example.com"), {"owners": {"0003*210": "joe@example.com"}}),
        (ExtensionSettings(), {"owners": {"0003*210": "jane@example.com"}}),
        (ExtensionSettings(), {"owners": {"main/0003*210": "jane@example.com", "0003*210": "x"}}),
        (ExtensionSettings(), {"owner": "jane@example.com", "owners": {"0003*211": "x"}}),
    ],
)
def test_the_owner_is_the_user_of_the_extension(
    owning: Side, extension: ExtensionSettings, options: dict[str, Any]
) -> None:
    deliver(handler(owning, **options), sample_event("call-ended"), extension=extension)
    (record,) = owning.records()
    assert record.owner == owning.jane_id


def test_an_owner_may_be_the_crms_own_id(owning: Side) -> None:
    deliver(handler(owning, owner=owning.jane_id), sample_event("call-ended"))
    (record,) = owning.records()
    assert record.owner == owning.jane_id


def test_without_a_user_the_call_has_no_owner(
    owning: Side, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        deliver(handler(owning, owner="nobody@example.com"), sample_event("call-ended"))
    (record,) = owning.records()
    assert record.owner is None
    assert "has no user nobody@example.com: correct the owner of 0003*210" in caplog.text


def test_the_extension_that_answered_owns_the_call(owning: Side) -> None:
    crm = handler(owning, owners={"0003*211": "jane@example.com"})
    started, answered, _ = events()
    deliver(crm, started)
    going_on = sample_call(None, answered_by="0003*211")
    deliver(crm, msgspec.structs.replace(answered, extension="0003*211", summary=going_on))
    (record,) = owning.records()
    assert record.owner == owning.jane_id


# Errors


def fails(side: Side, **options: Any) -> Exception:
    with pytest.raises((TemporaryError, PermanentError)) as raised:
        deliver(handler(side, **options), sample_event("call-ended"))
    assert "hush" not in str(raised.value)
    return raised.value


def test_wrong_credentials_are_temporary(side: Side) -> None:
    wrong = configured(side.handler, **side.wrong_options())
    with pytest.raises(TemporaryError, match=r"denies access .* correct the credentials"):
        deliver(wrong, sample_event("call-ended"))
    assert not side.records()


def test_a_missing_right_is_temporary(side: Side) -> None:
    side.plan(403, when=side.write)
    error = fails(side)
    assert isinstance(error, TemporaryError)
    assert "permissions" in str(error)


@pytest.mark.parametrize(("headers", "seconds"), [({"Retry-After": "17"}, 17.0), ({}, None)])
def test_too_many_requests_wait(side: Side, headers: dict[str, str], seconds: float | None) -> None:
    for when in (side.find, side.write):
        side.plan(side.too_many.status, side.too_many.json, headers=headers, when=when)
        error = fails(side)
        assert isinstance(error, TemporaryError)
        assert error.retry_after == seconds
    deliver(handler(side), sample_event("call-ended"))
    assert len(side.records()) == 1


def test_a_used_up_daily_limit_waits_for_hours(side: Side) -> None:
    if side.daily is None:
        pytest.skip(f"{side.handler.name} does not count the requests of a day")
    side.plan(side.daily.status, side.daily.json, headers=side.daily.headers, when=side.write)
    error = fails(side)
    assert isinstance(error, TemporaryError)
    assert error.retry_after is not None
    assert 60 <= error.retry_after <= 86_460
    assert "daily" in str(error)


def test_a_crm_that_is_down_is_temporary(side: Side) -> None:
    for status in (408, 500, 502, 503, 504):
        side.plan(status, body=b"<html>down</html>")
        error = fails(side)
        assert isinstance(error, TemporaryError)
        assert str(status) in str(error)


def test_no_response_is_temporary(side: Side) -> None:
    side.hold("")
    try:
        assert isinstance(fails(side, timeout=0.3), TemporaryError)
    finally:
        side.release()


def test_a_redirect_is_temporary(side: Side) -> None:
    side.plan(302, headers={"Location": "https://example.com"})
    error = fails(side)
    assert isinstance(error, TemporaryError)
    assert "address" in str(error)


def test_a_response_without_json_is_temporary(side: Side) -> None:
    side.plan(200, body=b"<html>a captive portal</html>")
    error = fails(side)
    assert isinstance(error, TemporaryError)
    assert "without JSON" in str(error)


def test_a_refused_record_is_permanent(side: Side) -> None:
    side.plan(side.broken.status, side.broken.json, when=side.write)
    error = fails(side)
    assert isinstance(error, PermanentError)
    assert str(side.broken.status) in str(error)


def test_the_repr_shows_no_secret(side: Side) -> None:
    assert "hush" not in repr(handler(side))


def test_a_refusal_may_have_any_body(side: Side) -> None:
    for body in (b"", b"[]", b"null", b'"no"', b"\xff"):
        side.plan(400, body=body, when=side.write)
        assert isinstance(fails(side), PermanentError)
        side.plan(429, body=body, when=side.write)
        assert isinstance(fails(side), TemporaryError)
