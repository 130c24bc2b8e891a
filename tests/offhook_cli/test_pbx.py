"""`offhook pbx events`, on a sandbox PBX that other software uses too."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offhook.callback_url import callback_url
from tests.conftest import SECRET, Configure
from tests.offhook.sandbox import Sandbox, sandbox
from tests.offhook_cli.conftest import Offhook
from unifiedapi.resources import EventMethod, EventStatus, EventType

PHONE = "0003*210"
THEIRS = "https://crm.example.org/calls?secret=hush"
OURS = callback_url("https://offhook.example.com", SECRET, "main", PHONE, "hangup")


@pytest.fixture
def pbx(configure: Configure) -> Iterator[Sandbox]:
    with sandbox() as running:
        app = next(iter(running.store.apps.values()))
        configure(
            f'[pbx.main]\nhost = "{running.url}"\nclient_id = "{app.id}"\n'
            f'client_secret = "{app.secret}"\ninsecure = true\n'
        )
        yield running


@pytest.fixture
def ours(pbx: Sandbox) -> str:
    return pbx.add(PHONE, OURS)


@pytest.fixture
def theirs(pbx: Sandbox) -> str:
    return pbx.add(PHONE, THEIRS, "CRM")


def listed(offhook: Offhook, *options: str, extension: str = PHONE) -> list[dict[str, Any]]:
    result = offhook("pbx", "events", "list", extension, "--json", *options)
    assert result.exit_code == 0, result.output
    return list(json.loads(result.stdout))


def test_all_events_are_listed_without_their_secrets(
    offhook: Offhook, ours: str, theirs: str, pbx: Sandbox
) -> None:
    [one, other] = listed(offhook)
    modified = pbx.store.events(PHONE)[1].modified
    assert modified is not None
    assert other == {
        "id": theirs,
        "type": "hangup",
        "method": "GET",
        "status": "enabled",
        "url": "https://crm.example.org/…",
        "created_by": "others",
        "note": "CRM",
        "modified": modified.isoformat(),
    }
    assert (one["id"], one["created_by"]) == (ours, "Offhook")
    shown = offhook("pbx", "events", "list", PHONE)
    assert ours in shown.stdout
    assert theirs in shown.stdout
    assert "hush" not in shown.output
    assert OURS.rpartition("/")[2] not in shown.output
    assert [each["url"] for each in listed(offhook, "--urls")] == [OURS, THEIRS]


def test_own_events_are_known_by_the_short_number_too(offhook: Offhook, ours: str) -> None:
    assert [each["created_by"] for each in listed(offhook, extension="210")] == ["Offhook"]


def test_list_takes_the_parameters_of_the_pbxs_lists(
    offhook: Offhook, ours: str, theirs: str
) -> None:
    by = ("--filter-by", "note", "--filter-op", "starts with", "--filter-value", "CR")
    assert [each["id"] for each in listed(offhook, *by)] == [theirs]
    assert [each["id"] for each in listed(offhook, "--sort-order", "desc")] == [ours, theirs]
    page = ("--sort-order", "asc", "--count", "1", "--start-index", "1")
    assert [each["id"] for each in listed(offhook, *page)] == [ours]
    assert listed(offhook, "--type", "dial-in") == []
    [first, _] = listed(offhook, "--type", "hangup", "--fields", "note, status")
    assert first == {"id": ours, "type": "hangup", "status": "enabled", "note": ""}
    assert listed(offhook, "--fields", "url")[1]["created_by"] == "others"
    assert "has no phone call events" in offhook("pbx", "events", "list", "0003*211").stderr


def test_dial_makes_a_call(offhook: Offhook, pbx: Sandbox) -> None:
    result = offhook("pbx", "dial", PHONE, "+442079460100")
    assert result.exit_code == 0, result.output
    assert "Pick it up" in result.output
    assert pbx.changes() == [("POST", "/uapi/phoneCalls/@me/simple/")]
    for wrong in ("12;34", "+"):
        refused = offhook("pbx", "dial", PHONE, wrong)
        assert refused.exit_code == 1
        assert "neither an extension" in refused.output
    assert len(pbx.changes()) == 1


def test_event_is_created(offhook: Offhook, pbx: Sandbox) -> None:
    result = offhook("pbx", "events", "create", PHONE, "--type", "answer-out", "--url", THEIRS)
    [made] = pbx.store.events(PHONE)
    assert (result.exit_code, result.stdout) == (0, f"Created {made.id}.\n")
    assert (made.type, made.url) == (EventType.ANSWER_OUT, THEIRS)
    assert (made.method, made.status) == (EventMethod.POST, EventStatus.ENABLED)
    options = ("--method", "GET", "--disabled", "--note", "n", "--json")
    result = offhook(
        "pbx", "events", "create", PHONE, "--type", "hangup", "--url", THEIRS, *options
    )
    made = pbx.store.events(PHONE)[1]
    assert json.loads(result.stdout)["id"] == made.id
    assert "hush" not in result.output
    assert (made.method, made.status, made.note) == (EventMethod.GET, EventStatus.DISABLED, "n")


def test_event_is_changed_in_part(offhook: Offhook, ours: str, pbx: Sandbox) -> None:
    result = offhook("pbx", "events", "change", PHONE, ours, "--disable", "--note", "n")
    assert (result.exit_code, result.stdout) == (0, f"Changed {ours}.\n")
    [event] = pbx.store.events(PHONE)
    assert (event.status, event.note, event.url) == (EventStatus.DISABLED, "n", OURS)
    options = ("--enable", "--method", "POST", "--url", THEIRS, "--json")
    result = offhook("pbx", "events", "change", PHONE, ours, *options)
    assert json.loads(result.stdout)["status"] == "enabled"
    [event] = pbx.store.events(PHONE)
    assert (event.status, event.method, event.url) == (
        EventStatus.ENABLED,
        EventMethod.POST,
        THEIRS,
    )


def test_event_of_other_software_is_changed_only_with_others(
    offhook: Offhook, theirs: str, pbx: Sandbox
) -> None:
    for command in (("change", PHONE, theirs, "--disable"), ("delete", PHONE, theirs, "--yes")):
        refused = offhook("pbx", "events", *command)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr.endswith(
            f"this Offhook did not create {theirs} (to https://crm.example.org): "
            "to change it all the same, add --others\n"
        )
    assert pbx.changes() == []
    changed = offhook("pbx", "events", "change", PHONE, theirs, "--disable", "--others")
    assert changed.exit_code == 0
    assert pbx.store.events(PHONE)[0].status == EventStatus.DISABLED
    asked = offhook("pbx", "events", "delete", PHONE, theirs, "--others", input="n\n")
    assert "Delete 1 phone call event of 0003*210, 1 of other software? [y/N]" in asked.stderr
    assert len(pbx.store.events(PHONE)) == 1
    gone = offhook("pbx", "events", "delete", PHONE, theirs, "--others", "--yes")
    assert (gone.exit_code, gone.stdout) == (0, f"Deleted {theirs}.\n")
    assert pbx.store.events(PHONE) == []


def test_all_means_the_own_events(offhook: Offhook, ours: str, theirs: str, pbx: Sandbox) -> None:
    nothing = offhook("pbx", "events", "delete", PHONE, "--all", "--type", "dial-in", "--yes")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert nothing.stderr.endswith("There is nothing to delete.\n")
    mine = offhook("pbx", "events", "delete", PHONE, "--all", "--yes")
    assert (mine.exit_code, mine.stdout) == (0, f"Deleted {ours}.\n")
    assert "Left alone: 1 phone call event of other software." in mine.stderr
    assert [event.id for event in pbx.store.events(PHONE)] == [theirs]
    offhook("pbx", "events", "delete", PHONE, "--all", "--others", "--yes")
    assert pbx.store.events(PHONE) == []


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("change", PHONE, "nothing", "--disable"), 1, "has no phone call event nothing"),
        (("delete", PHONE, "nothing", "--yes"), 1, "has no phone call event nothing"),
        (("change", PHONE, "nothing"), 2, "say what to change"),
        (("delete", PHONE), 2, "by id, or all of them with --all"),
        (("delete", PHONE, "x", "--all"), 2, "by id, or all of them with --all"),
        (("delete", PHONE, "x", "--type", "hangup"), 2, "use --type only with --all"),
        (("list", PHONE, "--type", "dial-up"), 2, "is not one of dial-in, dial-out"),
        (("list", "@self"), 1, "@self is not allowed here"),
        (("list", "0003*999"), 1, "extension_invalid"),
        (
            ("create", PHONE, "--type", "hangup", "--url", "ftp://h/hush"),
            1,
            "pce_url_invalid",
        ),
    ],
)
def test_wrong_use_is_one_sentence_and_changes_nothing(
    offhook: Offhook, pbx: Sandbox, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    result = offhook("pbx", "events", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert sentence in result.stderr.replace("\n", " ")
    assert "hush" not in result.output
    assert [e for number in (PHONE, "0003*211") for e in pbx.store.events(number)] == []


def test_commands_in_the_documents_exist_with_their_options(offhook: Offhook) -> None:
    page = (Path(__file__).parents[2] / "docs" / "unifiedapi.md").read_text()
    lines = re.findall(r"^offhook .*$", page, re.MULTILINE)
    assert len(lines) == 9
    for line in lines:
        result = offhook(*shlex.split(line, comments=True)[1:], "--help")
        assert result.exit_code == 0, line
