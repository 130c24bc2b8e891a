"""What is particular to Zoho CRM."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from offhook import Outcome, Party, PermanentError, TemporaryError
from offhook.errors import ConfigError
from offhook.testing import configured, deliver, sample_call, sample_event
from tests.workers.handlers.crm.zoho_side import ADMIN, ALIVE, AT_ONCE, JANE, ZohoSide, error
from tests.workers.handlers.crm.zoho_side import refused as refused_record
from workers.handlers.crm import Access, TokenFile
from workers.handlers.crm.zoho import Zoho

TOKEN = "POST /oauth/v2/token"


def handler(zoho: ZohoSide, **options: object) -> Zoho:
    return configured(Zoho, **zoho.options() | options)


def logged(zoho: ZohoSide) -> dict[str, Any]:
    (call,) = zoho.modules["Calls"].values()
    return call


def test_a_call_is_a_record_of_the_module_calls(zoho: ZohoSide) -> None:
    jane = zoho.add_contact("Jane Doe", "+40211234567")
    crm = handler(
        zoho, owner="jane@example.com", recording_url="http://pbx/{pbx}/{call}/{recording}"
    )
    deliver(crm, sample_event("call-ended", summary=sample_call(recording="r7", talk_seconds=151)))
    assert logged(zoho) == {
        "Offhook_Call": "main:1795289400.101",
        "Subject": "Call from Jane Doe (+40211234567)",
        "Call_Type": "Inbound",
        "Call_Start_Time": "2026-11-21T19:30:00+00:00",
        "Call_Duration": "02:31",
        "Who_Id": {"id": jane},
        "Owner": {"id": JANE},
        "Description": (
            "Called +40318100210\n"
            "Answered by 0003*210 after 8 s\n"
            "Talked for 151 s\n"
            "Recording: http://pbx/main/1795289400.101/r7\n"
            "Call main/1795289400.101"
        ),
    }


def test_an_incoming_call_is_logged_once_its_type_is_known(zoho: ZohoSide) -> None:
    crm = handler(zoho)
    deliver(crm, sample_event("call-started"))
    assert not zoho.records()
    going_on = sample_call(None, answered_by="0003*210")
    deliver(crm, sample_event("call-answered", summary=going_on))
    assert (logged(zoho)["Call_Type"], logged(zoho)["Call_Duration"]) == ("Inbound", "00:00")
    assert "Description" not in logged(zoho)
    deliver(crm, sample_event("call-ended"))
    assert logged(zoho)["Call_Duration"] == "00:45"


def test_an_outgoing_call_is_logged_when_it_starts(zoho: ZohoSide) -> None:
    called = Party(number="0211234567", e164="+40211234567")
    crm = handler(zoho)
    call = {"direction": "out", "caller": Party(extension="0003*210"), "called": called}
    deliver(crm, sample_event("call-started", summary=sample_call(None, **call)))
    assert (logged(zoho)["Call_Type"], logged(zoho)["Call_Duration"]) == ("Outbound", "00:00")
    deliver(crm, sample_event("call-ended", summary=sample_call("busy", **call)))
    assert logged(zoho)["Subject"] == "Call to 0211234567 (busy)"


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_unanswered_call_is_missed(zoho: ZohoSide, outcome: Outcome) -> None:
    deliver(handler(zoho), sample_event("call-ended", summary=sample_call(outcome)))
    expected = ("Inbound", "00:45") if outcome is Outcome.ANSWERED else ("Missed", None)
    assert (logged(zoho)["Call_Type"], logged(zoho).get("Call_Duration")) == expected


def test_a_long_call_has_many_minutes(zoho: ZohoSide) -> None:
    deliver(handler(zoho), sample_event("call-ended", summary=sample_call(talk_seconds=3661)))
    assert logged(zoho)["Call_Duration"] == "61:01"


@pytest.mark.parametrize(("first", "then"), [("missed", "answered"), ("answered", "missed")])
def test_a_correction_changes_everything_but_the_type(
    zoho: ZohoSide, first: str, then: str
) -> None:
    deliver(handler(zoho), sample_event("call-ended", summary=sample_call(first)))
    kind = logged(zoho)["Call_Type"]
    deliver(handler(zoho), sample_event("call-corrected", summary=sample_call(then)))
    assert logged(zoho)["Call_Type"] == kind
    assert logged(zoho)["Subject"].startswith("Missed" if then == "missed" else "Call from")
    if kind == "Inbound":
        assert logged(zoho)["Call_Duration"] == "00:00"


@pytest.mark.parametrize(
    "order",
    [
        ("call-ended", "call-corrected", "call-ended"),
        ("call-corrected", "call-ended", "call-corrected"),
        ("call-ended", "call-started", "call-answered", "call-corrected"),
    ],
)
def test_events_in_any_order_leave_one_record(zoho: ZohoSide, order: tuple[str, ...]) -> None:
    for event in order:
        outcome = {"call-ended": "missed", "call-corrected": "answered"}.get(event)
        call = sample_call(outcome, answered_by="0003*210")
        deliver(handler(zoho), sample_event(event, summary=call))
    assert len(zoho.records()) == 1


def test_notes_and_choices_are_kept(zoho: ZohoSide) -> None:
    zoho.add_contact("Jane Doe", "+40211234567")
    crm = handler(zoho, owner="jane@example.com")
    going_on = sample_call(None, answered_by="0003*210")
    deliver(crm, sample_event("call-answered", summary=going_on))
    lead = zoho.add("Leads", Full_Name="John")
    call = logged(zoho)
    del call["Who_Id"]
    call |= {"Description": "wants a quote", "What_Id": {"id": lead}, "Owner": {"id": ADMIN}}
    deliver(crm, sample_event("call-ended"))
    after = logged(zoho)
    assert after["Description"] == "wants a quote"
    assert (after["What_Id"], after.get("Who_Id")) == ({"id": lead}, None)
    assert after["Owner"] == {"id": ADMIN}


# Contacts and owners


def test_other_numbers_in_the_search_result_are_ignored(zoho: ZohoSide) -> None:
    zoho.fuzzy = True
    for phone in ("+44211234567", "1234567", ""):
        zoho.add_contact("John", phone)
    deliver(handler(zoho), sample_event("call-ended"))
    assert not zoho.records()[0].contacts


def test_every_number_of_a_contact_counts(zoho: ZohoSide) -> None:
    for kind in ("Phone", "Mobile", "Home_Phone", "Other_Phone"):
        jane = zoho.add("Contacts", Full_Name="Jane", **{kind: "(021) 123 4567"})
        deliver(handler(zoho), sample_event("call-ended"))
        assert logged(zoho)["Who_Id"] == {"id": jane}
        zoho.forget_records()
        zoho.delete_contact(jane)


def test_a_call_may_be_about_a_lead(zoho: ZohoSide) -> None:
    zoho.add_contact("Jane", "+40211234567")
    lead = zoho.add("Leads", Full_Name="John", Phone="021 123 4567")
    deliver(handler(zoho), sample_event("call-ended"))
    call = logged(zoho)
    assert (call["What_Id"], call["$se_module"]) == ({"id": lead}, "Leads")
    assert "Who_Id" not in call


def test_only_the_configured_modules_are_searched(zoho: ZohoSide) -> None:
    zoho.add("Leads", Full_Name="John", Phone="021 123 4567")
    deliver(handler(zoho, modules=["Contacts"]), sample_event("call-ended"))
    assert not zoho.records()[0].contacts
    assert not any("Leads" in line for line in zoho.lines())


def test_a_created_contact_has_number_name_and_owner(zoho: ZohoSide) -> None:
    deliver(handler(zoho, unknown="create", owner=JANE), sample_event("call-started"))
    (contact,) = zoho.modules["Contacts"].values()
    assert contact == {
        "Last_Name": "Jane Doe",
        "Full_Name": "Jane Doe",
        "Phone": "+40211234567",
        "Offhook_Number": "40211234567",
        "Owner": {"id": JANE},
    }


def test_a_renamed_contact_keeps_its_name(zoho: ZohoSide) -> None:
    deliver(handler(zoho, unknown="create"), sample_event("call-started"))
    (contact,) = zoho.modules["Contacts"].values()
    contact |= {"Full_Name": "Jane Smith", "Phone": "removed"}
    deliver(handler(zoho, unknown="create"), sample_event("call-ended"))
    assert contact["Full_Name"] == "Jane Smith"
    assert logged(zoho)["Subject"] == "Call from Jane Smith (+40211234567)"


@pytest.mark.parametrize(
    ("owner", "user"),
    [
        ("JANE@example.com", JANE),
        ("joe@example.com", ADMIN),
        ("Jane", ADMIN),
        (JANE, JANE),
    ],
)
def test_an_owner_may_be_on_any_page_of_users(zoho: ZohoSide, owner: str, user: str) -> None:
    zoho.page = 1
    deliver(handler(zoho, owner=owner), sample_event("call-ended"))
    assert logged(zoho)["Owner"] == {"id": user}


# One record


def test_a_late_earlier_attempt_makes_no_second_record(zoho: ZohoSide) -> None:
    going_on = sample_call(None, answered_by="0003*210")
    deliver(handler(zoho), sample_event("call-answered", summary=going_on))
    zoho.plan(204, when="GET /crm/v8/Calls/")
    with pytest.raises(TemporaryError, match="from an earlier attempt"):
        deliver(handler(zoho), sample_event("call-ended"))
    deliver(handler(zoho), sample_event("call-ended"), attempt=2)
    assert logged(zoho)["Call_Duration"] == "00:45"


def test_a_late_earlier_attempt_makes_no_second_contact(zoho: ZohoSide) -> None:
    deliver(handler(zoho, unknown="create"), sample_event("call-started"))
    zoho.plan(204, when="GET /crm/v8/Contacts/4")
    with pytest.raises(TemporaryError, match="from an earlier attempt"):
        deliver(handler(zoho, unknown="create"), sample_event("call-ended"))
    deliver(handler(zoho, unknown="create"), sample_event("call-ended"), attempt=2)
    assert len(zoho.contacts()) == 1


@pytest.mark.parametrize(("field", "unknown"), [("Calls", "log"), ("Contacts", "create")])
def test_a_missing_field_is_temporary_and_creates_nothing(
    zoho: ZohoSide, field: str, unknown: str
) -> None:
    """Zoho would accept the record without the field, and never find it again."""
    zoho.external = {name for name in zoho.external if not name.startswith(field)}
    with pytest.raises(TemporaryError, match="as an external field"):
        deliver(handler(zoho, unknown=unknown), sample_event("call-ended"))
    assert not zoho.modules[field]


# Errors


@pytest.mark.parametrize("status", [200, 202, 207, 400])
def test_an_error_with_a_success_status_is_an_error(zoho: ZohoSide, status: int) -> None:
    wrong = refused_record("MANDATORY_NOT_FOUND", "required field not found", api_name="Purpose")
    zoho.plan(status, wrong.json, when=zoho.write)
    with pytest.raises(PermanentError, match="MANDATORY_NOT_FOUND: Purpose: required field"):
        deliver(handler(zoho), sample_event("call-ended"))


@pytest.mark.parametrize("code", ["NO_PERMISSION", "AUTHORIZATION_FAILED", "OAUTH_SCOPE_MISMATCH"])
def test_a_missing_permission_gets_no_new_token(zoho: ZohoSide, code: str) -> None:
    zoho.plan(401, error(401, code, "permission denied").json, when=zoho.write)
    with pytest.raises(TemporaryError, match="their permissions in the CRM"):
        deliver(handler(zoho), sample_event("call-ended"))
    assert zoho.lines().count(TOKEN) == 1


def test_used_up_credits_are_recognized_by_the_header(zoho: ZohoSide) -> None:
    zoho.plan(429, zoho.too_many.json, headers={"X-API-CREDITS-REMAINING": "0"}, when=zoho.write)
    with pytest.raises(TemporaryError, match="credits are used up") as raised:
        deliver(handler(zoho), sample_event("call-ended"))
    assert raised.value.retry_after == 3600


def test_the_wrong_data_center_is_an_error_of_credentials(zoho: ZohoSide) -> None:
    with pytest.raises(TemporaryError, match=r"invalid_client.*correct the credentials"):
        deliver(handler(zoho, client_id="1000.ELSEWHERE"), sample_event("call-ended"))


def test_zoho_accounts_names_the_url_of_the_api(zoho: ZohoSide) -> None:
    crm = configured(Zoho, **{k: v for k, v in zoho.options().items() if k != "base_url"})
    deliver(crm, sample_event("call-ended"))
    assert len(zoho.records()) == 1


# Tokens: at most ten in ten minutes


def test_processes_share_one_token(zoho: ZohoSide) -> None:
    for number in range(AT_ONCE + 2):  # a new handler each time, like a new process
        deliver(handler(zoho), sample_event("call-ended", summary=sample_call(id=str(number))))
    assert zoho.lines().count(TOKEN) == 1


def test_an_expired_token_is_renewed_once_for_all(zoho: ZohoSide) -> None:
    one, other = handler(zoho), handler(zoho)
    for crm in (one, other):
        deliver(crm, sample_event("call-ended"))
    zoho.lines()
    zoho.tokens.clear()
    for crm in (one, other):
        deliver(crm, sample_event("call-corrected"))
    assert zoho.lines().count(TOKEN) == 1


def test_too_many_tokens_wait(zoho: ZohoSide) -> None:
    zoho.given = AT_ONCE
    with pytest.raises(TemporaryError, match="no more than ten access tokens") as raised:
        deliver(handler(zoho), sample_event("call-ended"))
    assert raised.value.retry_after == 600
    assert AT_ONCE < ALIVE


PROCESS = """
import json, sys
from offhook.testing import configured, deliver, sample_call, sample_event
from workers.handlers.crm.zoho import Zoho
number, options = json.load(sys.stdin)
deliver(configured(Zoho, **options), sample_event("call-ended", summary=sample_call(id=number)))
"""


def test_concurrent_processes_get_one_token(zoho: ZohoSide) -> None:
    processes = []
    for number in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS], stdin=subprocess.PIPE, cwd=Path(__file__).parents[4]
        )
        assert process.stdin
        process.stdin.write(json.dumps([str(number), zoho.options()]).encode())
        process.stdin.close()
        processes.append(process)
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len(zoho.records()) == 3
    assert zoho.lines().count(TOKEN) == 1


def test_a_token_file_is_private_and_its_name_shows_no_secret(zoho: ZohoSide) -> None:
    deliver(handler(zoho), sample_event("call-ended"))
    folder = zoho.folder / "tokens"
    (file,) = folder.iterdir()
    assert (folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    assert "hush" not in f"{file} {file.read_text()}"


def test_other_credentials_get_another_token(zoho: ZohoSide) -> None:
    deliver(handler(zoho), sample_event("call-ended"))
    with pytest.raises(TemporaryError, match="invalid_code"):
        deliver(configured(Zoho, **zoho.wrong_options()), sample_event("call-ended"))


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b'{"until": "soon"}', b"\xff"])
def test_a_damaged_token_file_is_rewritten(zoho: ZohoSide, left: bytes) -> None:
    deliver(handler(zoho), sample_event("call-ended"))
    (file,) = (zoho.folder / "tokens").iterdir()
    file.write_bytes(left)
    deliver(handler(zoho), sample_event("call-ended"))
    assert json.loads(file.read_text())["url"] == zoho.url


def test_an_error_names_a_folder_without_write_access(zoho: ZohoSide) -> None:
    (zoho.folder / "taken").write_text("")
    with pytest.raises(TemporaryError, match=r"taken/tokens \(Not a directory\).*another folder"):
        deliver(handler(zoho, tokens=f"{zoho.folder}/taken/tokens"), sample_event("call-ended"))


async def test_a_saved_token_is_used_until_shortly_before_it_expires(tmp_path: Path) -> None:
    moment, given = [1000.0], []
    file = TokenFile(tmp_path, "jane", clock=lambda: moment[0])

    async def new() -> Access:
        given.append(moment[0])
        return Access("http://crm", {"Authorization": "x"}, 3600)

    for now, left in ((1000.0, 3600.0), (1000.0, 3600.0), (4479.0, 121.0), (4480.0, 3600.0)):
        moment[0] = now
        assert (await file.access(120, None, new)).seconds == left
    assert given == [1000.0, 4480.0]


def test_the_stand_in_refuses_to_change_a_type(zoho: ZohoSide) -> None:
    """Otherwise the tests that change a record prove nothing."""
    deliver(handler(zoho), sample_event("call-ended"))
    (call,) = zoho.modules["Calls"]
    for name, value in (("Call_Type", "Missed"), ("Owner", {"id": JANE})):
        answer = httpx.put(
            f"{zoho.url}/crm/v8/Calls/{call}",
            json={"data": [{name: value}]},
            headers=zoho.headers(),
        )
        assert answer.json()["data"][0]["code"] == "INVALID_DATA"


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_id": ""},
        {"tokens": ""},
        {"call_field": "Offhook Call"},
        {"contact_field": ""},
        {"modules": []},
        {"modules": ["Deals"]},
        {"accounts_url": "accounts.zoho.eu"},
        {"base_url": "https://www.zohoapis.eu/"},
        {"several": "all"},
    ],
)
def test_an_error_names_a_wrong_option(wrong: dict[str, object]) -> None:
    fine = {"client_id": "c", "client_secret": "hush", "refresh_token": "hush"}
    with pytest.raises(ConfigError) as raised:
        configured(Zoho, **fine | wrong)
    (name,) = wrong
    assert all(problem.startswith(f"options.{name}") for problem in raised.value.problems)
