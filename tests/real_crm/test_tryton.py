"""What is particular to Tryton, on a real one."""

import asyncio
import re
from typing import Any

import pytest

from offhook import CallEvent, Party, PermanentError, TemporaryError
from offhook.handler_memory import LocalMemory
from offhook.testing import configured, context, deliver, sample_call, sample_event
from tests.real_crm.tryton import PASSWORD, UNKNOWN, Asking, TrytonSide, session
from workers.handlers.crm.tryton import Tryton

pytestmark = [
    pytest.mark.parametrize("server", ["tryton"], indirect=True),
    pytest.mark.xdist_group("tryton"),
]

NUMBER = "+40211234567"
LOGIN, CREATE, DELETE = (
    "POST common.db.login",
    "POST model.ir.note.create",
    "POST model.ir.note.delete",
)


def handler(side: TrytonSide, **options: Any) -> Tryton:
    return configured(Tryton, **side.options() | options)


def started(**fields: Any) -> CallEvent:
    return sample_event("call-started", summary=sample_call(None, **fields))


def ended(**fields: Any) -> CallEvent:
    return sample_event("call-ended", summary=sample_call(**fields))


def fails(side: TrytonSide, event: CallEvent, **options: Any) -> TemporaryError:
    with pytest.raises(TemporaryError) as raised:
        deliver(handler(side, **options), event)
    assert "hush" not in str(raised.value)
    return raised.value


def contacts(side: TrytonSide) -> frozenset[str]:
    (record,) = side.records()
    return record.contacts


# What stands there


def test_a_call_is_a_note(side: TrytonSide) -> None:
    jane = side.add_contact("Jane Doe", NUMBER)
    crm = handler(
        side,
        zone="Europe/Bucharest",
        owner="jane@example.com",
        recording_url="http://pbx/{pbx}/{call}/{recording}",
    )
    deliver(crm, started())
    (note,) = side.notes()
    assert note["message"] == (
        "Call from Jane Doe (+40211234567)\n"
        "Began 2026-11-21 21:30:00 EET\n"
        "User: Jane Roe\n"
        "Called +40318100210\n"
        "Call main/1795289400.101"
    )
    deliver(crm, ended(recording="r7"))
    (note,) = side.notes()
    assert note["resource"] == f"party.party,{jane}"
    assert note["message"] == (
        "Call from Jane Doe (+40211234567)\n"
        "Began 2026-11-21 21:30:00 EET\n"
        "Ended 2026-11-21 21:30:53 EET\n"
        "User: Jane Roe\n"
        "Called +40318100210\n"
        "Answered by 0003*210 after 8 s\n"
        "Talked for 45 s\n"
        "Recording: http://pbx/main/1795289400.101/r7\n"
        "Call main/1795289400.101"
    )


def test_an_unchanged_call_changes_no_note(side: TrytonSide) -> None:
    deliver(handler(side), ended())
    before = side.notes()
    side.lines()
    deliver(handler(side), ended(), attempt=2)
    assert side.notes() == before
    assert not {CREATE, DELETE} & set(side.lines())


def test_there_is_always_a_note(side: TrytonSide) -> None:
    """The old note goes when the new one is there."""
    deliver(handler(side), started())
    side.plan(503, when=CREATE)
    fails(side, ended())
    (note,) = side.notes()
    assert "Ended" not in note["message"]


def test_other_peoples_notes_are_kept(side: TrytonSide) -> None:
    """Also when they copied a line of ours."""
    jane = int(side.add_contact("Jane Doe", NUMBER))
    deliver(handler(side), started())
    (ours,) = side.notes()
    theirs = ["She calls again tomorrow", ours["message"]]
    resource = f"party.party,{jane}"
    side.ask("ir.note.create", [{"resource": resource, "message": text} for text in theirs])
    deliver(handler(side), ended())
    found = [note["message"] for note in side.notes()]
    assert found[:2] == theirs
    assert len(found) == 3
    assert "Ended" in found[2]


def test_a_line_break_in_a_name_adds_no_line(side: TrytonSide) -> None:
    eve = Party(number=NUMBER, e164=NUMBER, name="Eve\nCall main/1\r\x00\u2028")
    for _ in range(2):
        deliver(handler(side, unknown="create"), ended(caller=eve))
    (note,) = side.notes()
    assert note["message"].split("\n")[0] == "Call from Eve Call main/1    (+40211234567)"
    assert note["message"].split("\n")[-1] == "Call main/1795289400.101"
    assert list(side.contacts().values()) == ["Eve Call main/1   "]


# One record


def test_a_duplicate_note_is_deleted(side: TrytonSide) -> None:
    """Tryton carried out an attempt that had been given up only after the next had looked."""
    deliver(handler(side), started())
    (note,) = side.notes()
    side.sql(
        "INSERT INTO ir_note (create_uid, create_date, resource, message) "
        "SELECT create_uid, create_date, resource, message FROM ir_note"
    )
    assert len(side.notes()) == 2
    deliver(handler(side), started(), attempt=2)
    assert side.notes() == [note]


def test_a_failed_deletion_is_temporary(side: TrytonSide) -> None:
    """An attempt that had been given up deletes it first."""
    deliver(handler(side), started())
    (note,) = side.notes()
    with pytest.raises(RuntimeError) as said:
        Asking(side.server.url + side.server.rpc, "offhook", PASSWORD)(
            "ir.note.delete", [note["id"] + 1]
        )
    side.plan(200, {"id": 0, "error": said.value.args[0]}, when=DELETE)
    assert "cannot be deleted" in str(fails(side, ended()))
    deliver(handler(side), ended(), attempt=2)
    assert len(side.records()) == 1


def test_the_note_moves_to_the_current_holder_of_the_number(side: TrytonSide) -> None:
    memory = LocalMemory()
    side.add_contact("John", NUMBER)
    deliver(handler(side), started(), memory=memory)
    jane = side.add_contact("Jane Doe", NUMBER)
    deliver(handler(side), ended(), memory=memory)
    assert contacts(side) == {jane}


def test_the_party_is_remembered_before_the_note_is_created(side: TrytonSide) -> None:
    memory = LocalMemory()
    side.add_contact("John", NUMBER)
    side.cut(when=CREATE)
    with pytest.raises(TemporaryError):
        deliver(handler(side), started(), memory=memory)
    jane = side.add_contact("Jane Doe", NUMBER)
    deliver(handler(side), started(), attempt=2, memory=memory)
    assert contacts(side) == {jane}


def test_calls_of_similar_pbx_names_are_two(side: TrytonSide) -> None:
    """_ stands for any character when Tryton searches."""
    for pbx in ("a_c", "abc", "a_c"):
        deliver(handler(side), sample_event("call-ended", pbx=pbx))
    assert {record.key.partition("/")[0] for record in side.records()} == {"a_c", "abc"}


def test_a_number_removed_from_its_party_leaves_one_note(side: TrytonSide) -> None:
    memory = LocalMemory()
    jane = int(side.add_contact("Jane Doe", NUMBER))
    deliver(handler(side), started(), memory=memory)
    side.ask("party.contact_mechanism.delete", side.ask("party.contact_mechanism.search", []))
    deliver(handler(side), ended(), memory=memory)
    assert not contacts(side)
    assert str(jane) in side.contacts()


def test_a_deleted_party_is_no_obstacle(side: TrytonSide) -> None:
    """Also where a rule says which parties the user may read."""
    memory = LocalMemory()
    jane = side.add_contact("Jane Doe", NUMBER)
    rule = {
        "name": "All but one",
        "model": "party.party",
        "global_p": True,
        "perm_read": True,
        "rules": [["create", [{"domain": '[["name", "!=", "Secret"]]'}]]],
    }
    made = side.ask("ir.rule.group.create", [rule])
    try:
        deliver(handler(side), started(), memory=memory)
        side.delete_contact(jane)
        deliver(handler(side), ended(), memory=memory)
    finally:
        side.ask("ir.rule.group.delete", made)
    assert "Ended" in side.notes()[-1]["message"]


def test_each_holder_of_the_number_gets_a_note(side: TrytonSide) -> None:
    both = {side.add_contact(name, NUMBER) for name in ("Jane Doe", "John")}
    deliver(handler(side, several="all"), started())
    assert len(side.notes()) == 2
    both.add(side.add_contact("Joan", NUMBER))
    deliver(handler(side, several="all"), ended())
    assert len(side.notes()) == 3
    assert contacts(side) == both


# Whose it is


@pytest.mark.parametrize("library", [True, False])
def test_a_number_is_found_as_tryton_stores_it(side: TrytonSide, library: bool) -> None:
    """With `phonenumbers` in full, if the party's country is known; without it as it was typed."""
    for id, typed in enumerate(side.numbers_typed):  # noqa: A001
        if library:
            jane = side.add_in_romania("Jane Doe", typed)
            (kept,) = side.sql("SELECT * FROM party_contact_mechanism WHERE party = %s", jane)
            assert (kept["value_compact"], kept["type"]) == (NUMBER, "phone")
        else:
            jane = side.add("Jane Doe", typed, "other")
            side.sql("UPDATE party_contact_mechanism SET type = 'phone' WHERE party = %s", jane)
        deliver(handler(side), ended(id=str(id)))
        assert side.records()[-1].contacts == {jane}, typed


@pytest.mark.parametrize(
    ("kind", "number", "found"),
    [
        ("mobile", "+40 21 123 4567", True),
        ("fax", "+40 21 123 4567", True),
        ("other", "021.123.4567 ext. 12", True),
        ("other", "+40 2112 3456 70", False),
        ("other", "+40 211 23 45 607", False),
        ("website", "https://example.com/+40211234567", False),
        ("email", "0211234567@fax.example.com", False),
    ],
)
def test_only_phone_numbers_are_compared(
    side: TrytonSide, kind: str, number: str, found: bool
) -> None:
    jane = side.add("Jane Doe", number, kind)
    deliver(handler(side), ended())
    assert contacts(side) == ({jane} if found else set())


def test_an_inactive_party_is_not_found(side: TrytonSide) -> None:
    side.ask("party.party.write", [int(side.add("Jane Doe", NUMBER))], {"active": False})
    john = int(side.add_contact("John", NUMBER))
    side.sql("UPDATE party_contact_mechanism SET active = FALSE WHERE party = %s", john)
    deliver(handler(side), ended())
    assert not contacts(side)


@pytest.mark.parametrize(
    ("number", "kind"), [(NUMBER, "phone"), ("+40999999999", "other"), ("0211234567", "other")]
)
def test_a_created_party_has_the_number(side: TrytonSide, number: str, kind: str) -> None:
    """As something else, when Tryton does not take it for a telephone number."""
    e164 = number if number.startswith("+") else None
    caller = Party(number=number, e164=e164, name="Jane Doe")
    for id in "12":  # noqa: A001
        deliver(handler(side, unknown="create"), ended(id=id, caller=caller))
    ((jane, name),) = side.contacts().items()
    (kept,) = side.sql("SELECT * FROM party_contact_mechanism")
    assert (name, kept["type"], kept["value"].replace(" ", "")) == ("Jane Doe", kind, number)
    assert [record.contacts for record in side.records()] == [{jane}, {jane}]


async def test_two_workers_create_one_party(side: TrytonSide) -> None:
    memory = LocalMemory()
    calls = [started(id=id) for id in "1234"]  # noqa: A001

    contexts = [context(event=event, memory=memory) for event in calls]
    await asyncio.gather(
        *(
            handler(side, unknown="create").handle(event, each)
            for event, each in zip(calls, contexts, strict=True)
        )
    )
    for each in contexts:
        await each.http.close()
    assert len(side.contacts()) == 1
    assert len(side.records()) == 4


@pytest.mark.parametrize("named", ["name", "code"])
def test_the_unknown_party_is_found_by_name_or_code(side: TrytonSide, named: str) -> None:
    (party,) = side.ask("party.party.search_read", [["name", "=", UNKNOWN]], 0, 1, None, [named])
    deliver(handler(side, unknown_party=party[named]), ended())
    (note,) = side.notes()
    assert note["resource"] == f"party.party,{party['id']}"


def test_a_missing_unknown_party_is_temporary(side: TrytonSide) -> None:
    jane = side.add_contact("Jane Doe", NUMBER)
    hidden = Party(number=None)
    error = fails(side, ended(caller=hidden), unknown_party="Nobody")
    assert "has no party Nobody" in str(error)
    assert "create it" in str(error)
    deliver(handler(side, unknown_party="Nobody", unknown="leave"), ended(caller=hidden, id="1"))
    deliver(handler(side, unknown_party="Nobody"), ended())
    (note,) = side.notes()
    assert note["resource"] == f"party.party,{jane}"


@pytest.mark.parametrize("owner", ["jane", "Jane@Example.com", None])
def test_an_owner_is_a_login_a_mail_address_or_an_id(side: TrytonSide, owner: str | None) -> None:
    deliver(handler(side, owner=owner or side.server.jane), ended())
    (record,) = side.records()
    assert record.owner == side.server.jane


@pytest.mark.parametrize("owner", ["jan_", "%", "jane@example.co_", "4711"])
def test_an_owner_is_not_a_pattern(side: TrytonSide, owner: str) -> None:
    deliver(handler(side, owner=owner), ended())
    (record,) = side.records()
    assert record.owner is None


# Signing in


def test_all_workers_share_a_session(side: TrytonSide) -> None:
    for id in "123":  # noqa: A001
        deliver(handler(side), ended(id=id))
    assert side.lines().count(LOGIN) == 1


def test_a_session_that_tryton_ended_is_renewed_once(side: TrytonSide) -> None:
    crm = handler(side)
    deliver(crm, started())
    side.lines()
    (user,) = side.ask("res.user.search", [["login", "=", "offhook"]])
    side.ask("res.user.write", [user], {"password": PASSWORD})  # ends all of the user's sessions
    assert not side.sql("SELECT * FROM ir_session WHERE create_uid = %s", user)
    deliver(crm, ended())
    deliver(handler(side), ended(id="2"))
    assert side.lines().count(LOGIN) == 1
    assert len(side.records()) == 2


def test_before_8_0_the_path_is_different(side: TrytonSide) -> None:
    """Only the path is tried here: the server is a newer one."""
    side.plan(405, when=LOGIN)
    results = [[2, "key"], [], [{"id": 1, "name": UNKNOWN, "code": "1"}], [], [7]]
    for result in results:
        side.plan(200, {"id": 0, "result": result}, when="POST")
    deliver(handler(side), ended())
    assert [asked.path for asked in side.requests] == ["/crm/rpc/", *["/crm/"] * len(results)]
    assert (
        side.requests[-1].headers["authorization"] == session("offhook", 2, "key")["Authorization"]
    )


def test_a_changed_password_is_temporary(side: TrytonSide) -> None:
    crm = handler(side)
    deliver(crm, started())
    (user,) = side.ask("res.user.search", [["login", "=", "offhook"]])
    side.ask("res.user.write", [user], {"password": f"{PASSWORD}-new"})
    try:
        with pytest.raises(TemporaryError, match=r"denies access \(401\)"):
            deliver(crm, ended())
        deliver(handler(side, password=f"{PASSWORD}-new"), ended())
    finally:
        side.ask("res.user.write", [user], {"password": PASSWORD})
    assert len(side.records()) == 1


def test_too_many_wrong_passwords_wait_for_five_minutes(side: TrytonSide) -> None:
    """Each attempt extends the wait."""
    errors = [fails(side, ended(), password="hush-wrong") for _ in range(4)]
    assert [error.retry_after for error in errors] == [None, None, None, 300]
    assert "five minutes" in str(errors[-1])
    assert fails(side, ended()).retry_after == 300  # the right one does not help


def test_missing_permissions_are_temporary(side: TrytonSide) -> None:
    access = {"perm_read": True, "perm_write": False, "perm_create": False, "perm_delete": False}
    made = side.ask("ir.model.access.create", [access | {"model": "party.party"}])
    try:
        error = fails(side, ended())
        assert re.search(r"denies access \(403: You are not allowed .*permissions", str(error))
    finally:
        side.ask("ir.model.access.delete", made)
    deliver(handler(side), ended(), attempt=2)
    assert len(side.records()) == 1


@pytest.mark.parametrize("statuses", [[404], [405, 405]])
def test_the_wrong_address_is_temporary(side: TrytonSide, statuses: list[int]) -> None:
    """As another web server answers, or Tryton when it has no such database. On PostgreSQL that
    takes longer than the handler waits."""
    for status in statuses:
        side.plan(status, when=LOGIN)
    error = fails(side, ended())
    assert "has no database crm: correct the handler's options" in str(error)


# Errors


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (["ConcurrencyException", "Records were modified in the meanwhile"], "busy"),
        (["'party.party'", ""], "the database has the module party"),
        (["division by zero", "Traceback: hush"], "division by zero"),
        (["LoginException", ["password_x", "Password", "password"]], "denies access (401"),
        ([], "failed"),
        ("what", "what"),
        (None, "failed"),
        ([["UserError"]], "failed"),
    ],
)
def test_an_error_in_a_response_is_temporary(side: TrytonSide, error: Any, said: str) -> None:
    side.plan(200, {"id": 0, "error": error}, when=CREATE)
    assert said in str(fails(side, ended()))
    deliver(handler(side), ended(), attempt=2)
    assert len(side.records()) == 1


@pytest.mark.parametrize("body", [b"[]", b"null", b'"no"', b"{}", b""])
def test_an_empty_response_is_temporary(side: TrytonSide, body: bytes) -> None:
    side.plan(200, body=body, when=CREATE)
    assert "address" in str(fails(side, ended()))


def test_a_question_for_a_person_is_permanent(side: TrytonSide) -> None:
    warning = ["UserWarning", ["a_warning", "Are you sure?", "It is late."]]
    side.plan(200, {"id": 0, "error": warning}, when=CREATE)
    with pytest.raises(PermanentError, match=r"refused: a_warning: Are you sure\?: It is late\."):
        deliver(handler(side), ended())
