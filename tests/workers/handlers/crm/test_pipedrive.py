"""What is particular to Pipedrive."""

from datetime import timedelta
from typing import Any

import pytest

from offhook import TemporaryError
from offhook.testing import configured, deliver, sample_call, sample_event
from tests.workers.handlers.crm.pipedrive_side import PipedriveSide, error
from workers.handlers.crm.pipedrive import Pipedrive


def handler(pipedrive: PipedriveSide, **options: object) -> Pipedrive:
    return configured(Pipedrive, **pipedrive.options() | options)


def logged(pipedrive: PipedriveSide) -> dict[str, Any]:
    (activity,) = pipedrive.activities.values()
    return {name: value for name, value in activity.items() if name != "updated"}


def test_a_call_is_an_activity(pipedrive: PipedriveSide) -> None:
    jane = pipedrive.add_contact("Jane Doe", "+40211234567")
    crm = handler(
        pipedrive, owner="jane@example.com", recording_url="http://pbx/{pbx}/{call}/{recording}"
    )
    deliver(crm, sample_event("call-ended", summary=sample_call(recording="r7")))
    assert logged(pipedrive) == {
        "type": "call",
        "subject": "Call from Jane Doe (+40211234567)",
        "done": True,
        "due_date": "2026-11-21",
        "due_time": "19:30",
        "duration": "00:01",
        "owner_id": 7,
        "participants": [{"person_id": int(jane), "primary": True}],
        "public_description": (
            "Called +40318100210\n"
            "Answered by 0003*210 after 8 s\n"
            "Talked for 45 s\n"
            "Recording: http://pbx/main/1795289400.101/r7\n"
            "Call main/1795289400.101"
        ),
    }


def test_an_activity_is_to_be_done_until_the_call_ends(pipedrive: PipedriveSide) -> None:
    crm = handler(pipedrive)
    deliver(crm, sample_event("call-started"))
    assert logged(pipedrive)["done"] is False
    deliver(crm, sample_event("call-answered"))
    assert logged(pipedrive)["done"] is False
    deliver(crm, sample_event("call-ended"))
    assert logged(pipedrive)["done"] is True


def test_a_long_call_has_hours(pipedrive: PipedriveSide) -> None:
    deliver(handler(pipedrive), sample_event("call-ended", summary=sample_call(talk_seconds=3661)))
    assert logged(pipedrive)["duration"] == "01:02"


def test_a_call_that_was_not_answered_has_no_duration(pipedrive: PipedriveSide) -> None:
    deliver(handler(pipedrive), sample_event("call-ended", summary=sample_call("missed")))
    activity = logged(pipedrive)
    assert "duration" not in activity
    assert "Rang for 20 s" in activity["public_description"]


def test_notes_and_choices_are_kept(pipedrive: PipedriveSide) -> None:
    pipedrive.add_contact("Jane Doe", "+40211234567")
    crm = handler(pipedrive)
    deliver(crm, sample_event("call-started"))
    (activity,) = pipedrive.activities.values()
    other = pipedrive.add_contact("John", "1")
    chosen = [{"person_id": int(other), "primary": True}]
    activity |= {"note": "wants a quote", "participants": chosen, "deal_id": 99}
    deliver(crm, sample_event("call-ended"))
    after = logged(pipedrive)
    assert (after["note"], after["participants"], after["deal_id"]) == (
        "wants a quote",
        chosen,
        99,
    )


def test_the_call_is_found_among_many_activities(pipedrive: PipedriveSide) -> None:
    deliver(handler(pipedrive), sample_event("call-started"))
    pipedrive.page = 2
    for number in range(7):
        pipedrive.add_activity(type="task", subject=str(number), done=False)
        pipedrive.add_activity(
            type="call", subject="", done=False, public_description="Call main/1795289400.1010"
        )
    deliver(handler(pipedrive), sample_event("call-ended"))
    same = [record for record in pipedrive.records() if record.key == "main/1795289400.101"]
    assert len(same) == 1
    assert same[0].ended


def test_a_process_searches_for_the_activity_once(pipedrive: PipedriveSide) -> None:
    crm = handler(pipedrive)
    for event in ("call-started", "call-answered", "call-ended"):
        deliver(crm, sample_event(event))
    assert pipedrive.lines().count("GET /api/v2/activities") == 1


@pytest.mark.parametrize("minutes", [-9, 600])
def test_the_clocks_may_differ(pipedrive: PipedriveSide, minutes: int) -> None:
    pipedrive.now += timedelta(minutes=minutes)
    deliver(handler(pipedrive), sample_event("call-started"))
    deliver(handler(pipedrive), sample_event("call-ended"))
    assert len(pipedrive.records()) == 1


@pytest.mark.parametrize("deals", [True, False])
@pytest.mark.parametrize(("open_deals", "expected"), [(0, False), (1, True), (2, False)])
def test_the_call_is_linked_to_the_only_open_deal(
    pipedrive: PipedriveSide, deals: bool, open_deals: int, expected: bool
) -> None:
    jane = pipedrive.add_contact("Jane Doe", "+40211234567")
    pipedrive.add_deal(jane, "won")
    made = [pipedrive.add_deal(jane) for _ in range(open_deals)]
    deliver(handler(pipedrive, deals=deals), sample_event("call-ended"))
    assert logged(pipedrive).get("deal_id") == (made[0] if expected and deals else None)


def test_all_contacts_are_participants_the_newest_first(pipedrive: PipedriveSide) -> None:
    old = pipedrive.add_contact("Jane", "+40211234567")
    new = pipedrive.add_contact("Joan", "021 123 4567")
    deliver(handler(pipedrive, several="all"), sample_event("call-ended"))
    assert logged(pipedrive)["participants"] == [
        {"person_id": int(new), "primary": True},
        {"person_id": int(old), "primary": False},
    ]


def test_a_created_person_has_number_name_and_owner(pipedrive: PipedriveSide) -> None:
    deliver(handler(pipedrive, unknown="create", owner="7"), sample_event("call-started"))
    (person,) = pipedrive.persons.values()
    assert person["name"] == "Jane Doe"
    assert person["owner_id"] == 7
    assert person["phones"] == [{"value": "+40211234567", "primary": True, "label": "work"}]


def test_the_activity_type_can_be_configured(pipedrive: PipedriveSide) -> None:
    deliver(handler(pipedrive, activity_type="phone"), sample_event("call-ended"))
    assert logged(pipedrive)["type"] == "phone"


def test_the_rate_limit_header_sets_the_delay(pipedrive: PipedriveSide) -> None:
    headers = {"x-ratelimit-reset": "2", "x-ratelimit-remaining": "0"}
    pipedrive.plan(429, error(429, "Too many requests").json, headers=headers)
    with pytest.raises(TemporaryError) as raised:
        deliver(handler(pipedrive), sample_event("call-ended"))
    assert raised.value.retry_after == 2
    pipedrive.plan(429, headers=headers | {"Retry-After": "10"})
    with pytest.raises(TemporaryError) as raised:
        deliver(handler(pipedrive), sample_event("call-ended"))
    assert raised.value.retry_after == 10


def test_the_daily_limit_is_recognized_by_its_header(pipedrive: PipedriveSide) -> None:
    pipedrive.plan(429, headers={"x-daily-requests-left": "0", "Retry-After": "1"})
    with pytest.raises(TemporaryError, match="at midnight UTC") as raised:
        deliver(handler(pipedrive), sample_event("call-ended"))
    assert raised.value.retry_after
    assert 60 <= raised.value.retry_after <= 86_460


@pytest.mark.parametrize("owner", ["jan@example.com", "Jane", "jane"])
def test_a_similar_owner_is_not_used(pipedrive: PipedriveSide, owner: str) -> None:
    deliver(handler(pipedrive, owner=owner), sample_event("call-ended"))
    assert "owner_id" not in logged(pipedrive)


def test_an_owners_mail_address_ignores_case(pipedrive: PipedriveSide) -> None:
    deliver(handler(pipedrive, owner="Jane@Example.com"), sample_event("call-ended"))
    assert logged(pipedrive)["owner_id"] == 7


def test_finding_a_person_takes_three_searches(pipedrive: PipedriveSide) -> None:
    deliver(handler(pipedrive), sample_event("call-ended"))
    terms = [r.query["term"] for r in pipedrive.requests if r.path.endswith("/search")]
    assert terms == ["211234567", "123 4567", "123-4567"]
