"""What is particular to Salesforce."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from offhook import Outcome, Party, PermanentError, TemporaryError
from offhook.errors import ConfigError
from offhook.testing import configured, deliver, sample_call, sample_event
from tests.workers.handlers.crm.salesforce_side import DATA, JANE, SalesforceSide, error
from workers.handlers.crm.salesforce import Salesforce


def handler(salesforce: SalesforceSide, **options: object) -> Salesforce:
    return configured(Salesforce, **salesforce.options() | options)


def logged(salesforce: SalesforceSide) -> dict[str, Any]:
    (task,) = salesforce.objects["Task"].values()
    return {name: value for name, value in task.items() if name != "CreatedDate"}


def test_a_call_is_a_task(salesforce: SalesforceSide) -> None:
    jane = salesforce.add_contact("Jane Doe", "+40211234567")
    crm = handler(
        salesforce, owner="jane@example.com", recording_url="http://pbx/{pbx}/{call}/{recording}"
    )
    deliver(crm, sample_event("call-ended", summary=sample_call(recording="r7")))
    assert logged(salesforce) == {
        "Offhook_Call__c": "main/1795289400.101",
        "TaskSubtype": "Call",
        "Subject": "Call from Jane Doe (+40211234567)",
        "Status": "Completed",
        "ActivityDate": "2026-11-21",
        "CallType": "Inbound",
        "CallDisposition": "Answered",
        "CallDurationInSeconds": 45,
        "WhoId": jane,
        "OwnerId": JANE,
        "Description": (
            "Called +40318100210\n"
            "Answered by 0003*210 after 8 s\n"
            "Talked for 45 s\n"
            "Recording: http://pbx/main/1795289400.101/r7\n"
            "Call main/1795289400.101"
        ),
    }


def test_a_task_is_open_until_the_call_ends(salesforce: SalesforceSide) -> None:
    crm = handler(salesforce)
    for event in ("call-started", "call-answered"):
        deliver(crm, sample_event(event))
        task = logged(salesforce)
        assert task["Status"] == "In Progress"
        assert not {"CallDisposition", "CallDurationInSeconds", "Description"} & set(task)
    deliver(crm, sample_event("call-ended"))
    assert logged(salesforce)["Status"] == "Completed"


def test_a_closed_task_is_not_reopened(salesforce: SalesforceSide) -> None:
    deliver(handler(salesforce), sample_event("call-ended"))
    deliver(handler(salesforce), sample_event("call-started"))
    assert logged(salesforce)["Status"] == "Completed"


def test_statuses_can_be_configured(salesforce: SalesforceSide) -> None:
    crm = handler(salesforce, open_status="Läuft", ended_status="Erledigt")
    deliver(crm, sample_event("call-started"))
    assert logged(salesforce)["Status"] == "Läuft"
    deliver(crm, sample_event("call-ended"))
    assert logged(salesforce)["Status"] == "Erledigt"


@pytest.mark.parametrize("outcome", list(Outcome))
def test_the_outcome_is_the_call_result(salesforce: SalesforceSide, outcome: Outcome) -> None:
    deliver(handler(salesforce), sample_event("call-ended", summary=sample_call(outcome)))
    task = logged(salesforce)
    assert task["CallDisposition"] == outcome.capitalize()
    assert task["CallDurationInSeconds"] == (45 if outcome is Outcome.ANSWERED else 0)


@pytest.mark.parametrize(
    ("direction", "kind"), [("in", "Inbound"), ("out", "Outbound"), ("internal", "Internal")]
)
def test_the_direction_is_the_call_type(
    salesforce: SalesforceSide, direction: str, kind: str
) -> None:
    call = sample_call(direction=direction)
    deliver(handler(salesforce, internal=True), sample_event("call-ended", summary=call))
    assert logged(salesforce)["CallType"] == kind


@pytest.mark.parametrize(
    ("zone", "day"), [("UTC", "2026-11-21"), ("Europe/Bucharest", "2026-11-22")]
)
def test_the_date_is_in_the_time_zone(salesforce: SalesforceSide, zone: str, day: str) -> None:
    started = datetime(2026, 11, 21, 23, 0, tzinfo=UTC)
    call = sample_call(started=started)
    deliver(handler(salesforce, zone=zone), sample_event("call-ended", summary=call))
    assert logged(salesforce)["ActivityDate"] == day


def test_notes_and_choices_are_kept(salesforce: SalesforceSide) -> None:
    salesforce.add_contact("Jane Doe", "+40211234567")
    crm = handler(salesforce)
    deliver(crm, sample_event("call-started"))
    (task,) = salesforce.objects["Task"].values()
    other = salesforce.add_contact("John", "1")
    task |= {"Description": "wants a quote", "WhoId": other, "ActivityDate": "2026-12-01"}
    deliver(crm, sample_event("call-ended"))
    after = logged(salesforce)
    assert (after["Description"], after["WhoId"], after["ActivityDate"]) == (
        "wants a quote",
        other,
        "2026-12-01",
    )


def test_a_long_name_is_cut(salesforce: SalesforceSide) -> None:
    call = sample_call(caller=Party(number="+40211234567", name="J" * 300))
    crm = handler(salesforce, unknown="create")
    deliver(crm, sample_event("call-ended", summary=call))
    assert len(logged(salesforce)["Subject"]) == 255


# Who


def test_other_numbers_in_the_search_result_are_ignored(salesforce: SalesforceSide) -> None:
    salesforce.fuzzy = True
    for phone in ("+44211234567", "1234567", ""):
        salesforce.add_contact("John", phone)
    deliver(handler(salesforce), sample_event("call-ended"))
    assert not salesforce.records()[0].contacts


def test_every_number_of_a_contact_counts(salesforce: SalesforceSide) -> None:
    for kind in ("Phone", "MobilePhone", "HomePhone", "OtherPhone"):
        jane = salesforce.add("Contact", Name="Jane", **{kind: "(021) 123 4567"})
        deliver(handler(salesforce), sample_event("call-ended"))
        assert logged(salesforce)["WhoId"] == jane
        salesforce.forget_records()
        salesforce.delete_contact(jane)


def test_the_newest_of_leads_and_contacts_is_used(salesforce: SalesforceSide) -> None:
    salesforce.add_contact("Jane", "+40211234567")
    lead = salesforce.add("Lead", Name="John", Phone="021 123 4567")
    deliver(handler(salesforce), sample_event("call-ended"))
    assert logged(salesforce)["WhoId"] == lead


def test_a_converted_lead_is_not_used(salesforce: SalesforceSide) -> None:
    jane = salesforce.add_contact("Jane", "+40211234567")
    salesforce.add("Lead", Name="Jane", Phone="+40211234567", IsConverted=True)
    deliver(handler(salesforce), sample_event("call-ended"))
    assert logged(salesforce)["WhoId"] == jane


def test_a_created_lead_has_number_name_and_owner(salesforce: SalesforceSide) -> None:
    deliver(handler(salesforce, unknown="create", owner=JANE), sample_event("call-started"))
    (lead,) = salesforce.objects["Lead"].values()
    assert {name: value for name, value in lead.items() if name != "CreatedDate"} == {
        "LastName": "Jane Doe",
        "Name": "Jane Doe",
        "Company": "[not provided]",
        "Phone": "+40211234567",
        "Offhook_Number__c": "+40211234567",
        "OwnerId": JANE,
        "IsConverted": False,
        "ConvertedContactId": None,
    }


def test_a_created_lead_that_was_converted_is_a_contact(salesforce: SalesforceSide) -> None:
    deliver(handler(salesforce, unknown="create"), sample_event("call-started"))
    contact = salesforce.add("Contact", Name="Jane Doe", Phone="another")
    (lead,) = salesforce.objects["Lead"].values()
    lead |= {"IsConverted": True, "ConvertedContactId": contact}
    salesforce.forget_records()
    deliver(handler(salesforce, unknown="create"), sample_event("call-ended"))
    assert logged(salesforce)["WhoId"] == contact
    assert len(salesforce.objects["Lead"]) == 1


@pytest.mark.parametrize(
    ("owner", "user"),
    [
        ("jane@example.com", JANE),
        ("JANE@acme.example", JANE),
        (JANE, JANE),
        ("joe@example.com", None),
        ("Jane", None),
        ("o'hara@example.com", None),
    ],
)
def test_an_owner_is_an_active_user(
    salesforce: SalesforceSide, owner: str, user: str | None
) -> None:
    deliver(handler(salesforce, owner=owner), sample_event("call-ended"))
    (record,) = salesforce.records()
    assert record.owner == user


def test_a_user_name_comes_before_a_mail_address(salesforce: SalesforceSide) -> None:
    shared = {"Email": "jane@example.com", "Username": "first@acme.example", "IsActive": True}
    salesforce.objects["User"]["005J00000000009AAA"] = shared | {"CreatedDate": "2020"}
    salesforce.objects["User"][JANE]["Username"] = "jane@example.com"
    deliver(handler(salesforce, owner="jane@example.com"), sample_event("call-ended"))
    assert logged(salesforce)["OwnerId"] == JANE


# One record


def test_a_late_earlier_attempt_makes_no_second_task(
    salesforce: SalesforceSide,
) -> None:
    """The query does not see yet what the server is still busy with; the unique field does."""
    deliver(handler(salesforce), sample_event("call-started"))
    empty = {"totalSize": 0, "done": True, "records": []}
    salesforce.plan(200, empty, when=f"GET {DATA}/query/")
    with pytest.raises(TemporaryError, match="from an earlier attempt"):
        deliver(handler(salesforce), sample_event("call-ended"))
    deliver(handler(salesforce), sample_event("call-ended"), attempt=2)
    assert logged(salesforce)["Status"] == "Completed"


def test_a_late_earlier_attempt_makes_no_second_lead(
    salesforce: SalesforceSide,
) -> None:
    deliver(handler(salesforce, unknown="create"), sample_event("call-started"))
    empty = {"totalSize": 0, "done": True, "records": []}
    salesforce.plan(200, empty, when=f"GET {DATA}/query/")
    with pytest.raises(TemporaryError, match="from an earlier attempt"):
        deliver(handler(salesforce, unknown="create"), sample_event("call-ended"))
    deliver(handler(salesforce, unknown="create"), sample_event("call-ended"), attempt=2)
    assert len(salesforce.contacts()) == 1


def test_a_standard_field_can_be_used(salesforce: SalesforceSide) -> None:
    """CallObject, a standard field, is searchable but not unique."""
    salesforce.custom, salesforce.unique = {}, set()
    for event in ("call-started", "call-answered", "call-ended", "call-ended"):
        deliver(handler(salesforce, call_field="CallObject"), sample_event(event))
    assert logged(salesforce)["CallObject"] == "main/1795289400.101"


@pytest.mark.parametrize(
    "order",
    [
        ("call-ended", "call-corrected", "call-ended"),
        ("call-corrected", "call-ended", "call-corrected"),
        ("call-ended", "call-started", "call-corrected"),
    ],
)
def test_events_in_any_order_leave_one_task(
    salesforce: SalesforceSide, order: tuple[str, ...]
) -> None:
    for event in order:
        outcome = "answered" if event == "call-corrected" else "missed"
        call = sample_call(None if event == "call-started" else outcome)
        deliver(handler(salesforce), sample_event(event, summary=call))
    assert logged(salesforce)["Status"] == "Completed"


def test_a_correction_sets_duration_and_result(salesforce: SalesforceSide) -> None:
    deliver(handler(salesforce), sample_event("call-ended", summary=sample_call("missed")))
    assert logged(salesforce)["CallDisposition"] == "Missed"
    deliver(handler(salesforce), sample_event("call-corrected"))
    task = logged(salesforce)
    assert (task["CallDisposition"], task["CallDurationInSeconds"]) == ("Answered", 45)


# Sessions, rights and limits


def test_one_session_is_used_until_it_expires(salesforce: SalesforceSide) -> None:
    crm = handler(salesforce)
    for event in ("call-started", "call-answered"):
        deliver(crm, sample_event(event))
    assert salesforce.lines().count("POST /services/oauth2/token") == 1
    salesforce.sessions.clear()
    deliver(crm, sample_event("call-ended"))
    assert salesforce.lines().count("POST /services/oauth2/token") == 1
    assert logged(salesforce)["Status"] == "Completed"


def test_an_app_without_a_user_is_temporary(salesforce: SalesforceSide) -> None:
    message = "no client credentials user enabled"
    body = {"error": "invalid_grant", "error_description": message}
    salesforce.plan(400, body, when="POST /services/oauth2")
    with pytest.raises(TemporaryError, match=rf"{message}.*correct the credentials"):
        deliver(handler(salesforce), sample_event("call-ended"))


@pytest.mark.parametrize(("kind", "unknown"), [("Task", "log"), ("Lead", "create")])
def test_a_missing_field_is_temporary_and_named(
    salesforce: SalesforceSide, kind: str, unknown: str
) -> None:
    salesforce.custom[kind] = set()
    with pytest.raises(TemporaryError, match=rf"create it.*Offhook_\w+__c.*{kind}"):
        deliver(handler(salesforce, unknown=unknown), sample_event("call-ended"))


def test_a_read_only_field_is_temporary(salesforce: SalesforceSide) -> None:
    message = "Unable to create/update fields: CallDisposition."
    refused = error(400, "INVALID_FIELD_FOR_INSERT_UPDATE", message, "CallDisposition")
    salesforce.plan(400, refused.json, when=salesforce.write)
    with pytest.raises(TemporaryError, match=r"give the user access.*CallDisposition"):
        deliver(handler(salesforce), sample_event("call-ended"))


def test_a_duplicate_in_another_field_is_permanent(salesforce: SalesforceSide) -> None:
    message = "duplicate value found: Ticket__c duplicates value on record with id: 00T"
    salesforce.plan(400, error(400, "DUPLICATE_VALUE", message).json, when=salesforce.write)
    with pytest.raises(PermanentError, match="Ticket__c"):
        deliver(handler(salesforce), sample_event("call-ended"))


def test_a_locked_row_is_temporary(salesforce: SalesforceSide) -> None:
    locked = error(400, "UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record")
    salesforce.plan(400, locked.json, when=salesforce.write)
    with pytest.raises(TemporaryError, match="exclusive access"):
        deliver(handler(salesforce), sample_event("call-ended"))


def test_the_search_has_every_form_escaped(salesforce: SalesforceSide) -> None:
    deliver(handler(salesforce), sample_event("call-ended"))
    (search,) = (asked.query["q"] for asked in salesforce.requests if "search" in asked.path)
    phrases = search.partition("}")[0].removeprefix("FIND {").split(" OR ")
    assert phrases[:3] == [r'"\+40211234567"', '"40211234567"', '"0040211234567"']
    assert '"021 123 4567"' in phrases


def test_only_a_new_task_gets_a_subtype(salesforce: SalesforceSide) -> None:
    """Otherwise the tests that change one would prove nothing."""
    deliver(handler(salesforce), sample_event("call-started"))
    (task,) = salesforce.objects["Task"]
    answer = httpx.patch(
        f"{salesforce.url}{DATA}/sobjects/Task/{task}",
        json={"TaskSubtype": "Call"},
        headers=salesforce.headers(),
    )
    assert answer.status_code == 500
    salesforce.violations.clear()


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_id": ""},
        {"call_field": "Offhook Call"},
        {"lead_field": "x'y"},
        {"open_status": ""},
        {"ended_status": ""},
        {"zone": "Bucharest"},
        {"zone": "../etc"},
        {"version": "v68"},
        {"base_url": "https://acme.my.salesforce.com/"},
        {"several": "all"},
    ],
)
def test_an_error_names_a_wrong_option(wrong: dict[str, object]) -> None:
    fine = {"client_id": "k", "client_secret": "hush", "base_url": "https://x.my.salesforce.com"}
    with pytest.raises(ConfigError) as raised:
        configured(Salesforce, **fine | wrong)
    (name,) = wrong
    assert all(problem.startswith(f"options.{name}") for problem in raised.value.problems)
