"""`offhook setup` against a sandbox PBX on a real port."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace
from redis import Redis
from typer.testing import Result

from offhook.callback_url import callback_url
from offhook.connection import connect
from offhook.event import CALLBACKS
from offhook.extensions import Extensions, ExtensionsCopy
from offhook.inbox.keys import EXTENSIONS
from tests.conftest import SECRET, Configure
from tests.offhook.sandbox import Sandbox, sandbox
from tests.offhook_cli.conftest import Offhook
from tests.offhook_cli.samples import sample
from tests.unifiedapi.serving import serve
from unifiedapi.client import UnifiedApi
from unifiedapi.resources import EventMethod, EventStatus
from unifiedapi.resources import EventType as PbxEventType
from unifiedapi.sandbox.store import App, Contents, Extension, Store, User
from unifiedapi.sandbox.tls import make_certificate

ALL = sorted(CALLBACKS)
CAME_AND_LEFT = ["dial-in", "hangup"]
PUBLIC = "https://offhook.example.com"
HANDLERS = '[handlers.crm]\nuse = "console"\n[handlers.chat]\nuse = "console"\n'

Tables = Callable[..., None]


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait between retries."""
    monkeypatch.setattr("offhook.provisioning.registrar.UnifiedApi", partial(UnifiedApi, waits=()))


@pytest.fixture
def pbx() -> Iterator[Sandbox]:
    with sandbox() as running:
        yield running


def table(name: str, url: str, **more: object) -> str:
    values = {"host": url, "client_id": "sandbox-app", "client_secret": "sandbox-secret"} | more
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    return "\n".join([f"[pbx.{name}]", *lines, ""])


@pytest.fixture(autouse=True)
def _configuration(configure: Configure, pbx: Sandbox) -> None:
    configure(HANDLERS + table("main", pbx.url), public_url=PUBLIC)


@pytest.fixture
def setup(offhook: Offhook, tmp_path: Path) -> Callable[..., Result]:
    """Run `offhook setup`, and check that it prints no secret and raises no unexpected error."""

    def run(*arguments: str, input: str = "") -> Result:  # noqa: A002 - CliRunner's name
        result = offhook("setup", *arguments, input=input)
        assert result.exception is None or isinstance(result.exception, SystemExit), result
        assert "/callback" not in result.output
        printed = result.output.replace(str(tmp_path), "")
        assert not re.search(r"[A-Za-z0-9_-]{24}", printed), printed  # a token has this form
        for secret in (SECRET, "sandbox-secret"):
            assert secret not in result.output
        return result

    return run


Setup = Callable[..., Result]


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


# Registering


def test_plan_is_shown_confirmed_and_registered(setup: Setup, pbx: Sandbox) -> None:
    result = setup("0003*210", input="y\n")
    assert "create dial-in, dial-out, hangup, answer-in, answer-out" in ok(result)
    assert "Change 1 extension? [y/N]" in result.stderr
    assert pbx.types("0003*210") == ALL
    for event in pbx.store.events("0003*210"):
        label = event.type.label
        assert event.url == callback_url(PUBLIC, SECRET, "main", "0003*210", label)
        assert event.method is EventMethod.POST
        assert event.status is EventStatus.ENABLED
        assert event.note == "offhook:main"


def test_setup_page_shows_the_output(setup: Setup) -> None:
    printed = setup("0003*210", "0003*400", input="y\n").output.strip()
    shown = sample("setup.md", "offhook setup '0003*210' '0003*400'").strip()
    assert [line.rstrip() for line in printed.splitlines()] == shown.splitlines()


def test_declining_changes_nothing(setup: Setup, pbx: Sandbox) -> None:
    assert setup("0003*210", input="n\n").exit_code == 1
    assert not pbx.changes()
    assert "No extension is set up" in setup("show").stderr


def test_plan_option_changes_nothing(setup: Setup, pbx: Sandbox) -> None:
    assert "create" in ok(setup("0003*210", "--dry-run", "--owner", "jane"))
    assert not pbx.changes()
    assert json.loads(ok(setup("show", "--json"))) == []


def test_second_run_changes_nothing(setup: Setup, pbx: Sandbox) -> None:
    arguments = ("0003*210", "0003*400", "--yes", "--owner", "jane", "--handlers", "crm")
    ok(setup(*arguments))
    before = [pbx.store.events(number) for number in ("0003*210", "0003*400")]
    pbx.requests.clear()
    assert ok(setup(*arguments)) == "Nothing to do: 2 extensions up to date.\n"
    assert not pbx.changes()
    assert [pbx.store.events(number) for number in ("0003*210", "0003*400")] == before


def kinds(setup: Setup) -> dict[str, str | None]:
    return {e["extension"]: e["kind"] for e in json.loads(ok(setup("show", "--json")))}


def asked_for_the_kind(pbx: Sandbox) -> bool:
    asked = ("*", "/presence"), ("*", "/queue/")  # of one extension, not the list of all phones
    return any(all(part in path for part in parts) for _, path in pbx.requests for parts in asked)


def test_kind_is_detected_once_and_selects_the_events(setup: Setup, pbx: Sandbox) -> None:
    assert "kind: queue" in ok(setup("0003*210", "0003*400", "--yes"))
    assert pbx.types("0003*210") == ALL
    assert pbx.types("0003*400") == CAME_AND_LEFT
    assert kinds(setup) == {"0003*210": "phone", "0003*400": "queue"}
    pbx.requests.clear()
    ok(setup("--known", "--owner", "jane", "--yes"))
    ok(setup("--known", "--remove", "--yes"))
    assert not asked_for_the_kind(pbx)


def test_kind_that_the_pbx_does_not_say_is_not_guessed(setup: Setup, pbx: Sandbox) -> None:
    said = "neither a phone nor a queue, and the PBX does not say more"
    printed = setup("0003*210", "0003*500", "0003*600", "--yes")
    assert printed.exit_code == 0
    assert f"! main 0003*500, 0003*600: {said}" in " ".join(printed.stderr.split())
    assert kinds(setup) == {"0003*210": "phone", "0003*500": None, "0003*600": None}
    for number in ("0003*500", "0003*600"):
        assert pbx.types(number) == CAME_AND_LEFT
    assert f"! main 0003*500, 0003*600: {said}" in " ".join(setup("check").stderr.split())
    ok(setup("0003*500", "--kind", "ivr", "--yes"))
    ok(setup("0003*600", "--kind", "conference", "--yes"))
    assert said not in " ".join(setup("check").stderr.split())
    assert kinds(setup) == {"0003*210": "phone", "0003*500": "ivr", "0003*600": "conference"}


def test_phones_of_the_pbx_are_kept_even_if_they_are_not_set_up(
    setup: Setup, redis_url: str
) -> None:
    ok(setup("0003*400", "--yes"))

    async def known() -> list[bool]:
        async with connect(redis_url) as client:
            copy = ExtensionsCopy(Extensions(client))
            names = [("main", each) for each in ("0003*210", "0003*400", "0003*299")]
            await copy.load(names)
            return [name in copy for name in names]

    assert asyncio.run(known()) == [True, True, False]
    assert list(kinds(setup)) == ["0003*400"]


def test_kind_option_is_kept(setup: Setup, pbx: Sandbox) -> None:
    ok(setup("0003*210", "--kind", "conference", "--yes"))
    assert pbx.types("0003*210") == CAME_AND_LEFT
    ok(setup("0003*210", "--owner", "jane", "--yes"))
    assert kinds(setup) == {"0003*210": "conference"}
    assert "conference" in ok(setup("show"))
    ok(setup("0003*210", "--kind", "phone", "--yes"))
    assert pbx.types("0003*210") == ALL
    ok(setup("0003*210", "--kind", "phone", "--events", "hangup", "--yes"))
    assert pbx.types("0003*210") == ["hangup"]
    assert not asked_for_the_kind(pbx)


def test_detecting_a_missing_kind_keeps_the_events(
    setup: Setup, pbx: Sandbox, redis_url: str
) -> None:
    before = {"events": ["hangup"], "owner": "jane"}
    ok(setup("0003*400", "--events", "hangup", "--owner", "jane", "--yes"))
    with Redis.from_url(redis_url) as store:
        store.hset(EXTENSIONS, "main/0003*400", json.dumps(before))
    assert "kind: queue" in ok(setup("--known", "--yes"))
    assert kinds(setup) == {"0003*400": "queue"}
    assert pbx.types("0003*400") == ["hangup"]


def test_events_and_method_options_are_kept(setup: Setup, pbx: Sandbox) -> None:
    ok(setup("0003*210", "--events", "dial-in,hangup", "--method", "get", "--yes"))
    assert pbx.types("0003*210") == ["dial-in", "hangup"]
    assert {event.method for event in pbx.store.events("0003*210")} == {EventMethod.GET}
    ok(setup("0003*210", "--label", "Front desk", "--yes"))
    assert pbx.types("0003*210") == ["dial-in", "hangup"]
    [shown] = json.loads(ok(setup("show", "--json")))
    assert shown == {
        "pbx": "main",
        "extension": "0003*210",
        "label": "Front desk",
        "owner": None,
        "handlers": None,
        "events": ["dial-in", "hangup"],
        "method": "GET",
        "kind": "phone",
        "user": None,
    }
    assert "delete dial-in" in ok(setup("0003*210", "--events", "hangup", "--yes"))
    assert pbx.types("0003*210") == ["hangup"]


def test_all_means_every_phone_of_the_user(setup: Setup, pbx: Sandbox) -> None:
    ok(setup("--all", "--yes"))
    shown = json.loads(ok(setup("show", "--json")))
    assert [each["extension"] for each in shown] == [f"0003*{n}" for n in (210, 211, 212, 213)]
    assert pbx.types("0003*213") == ALL
    assert pbx.types("0004*210") == []


def test_user_option_selects_the_phones_of_another_user(setup: Setup, pbx: Sandbox) -> None:
    ok(setup("--all", "--user", "13", "--yes"))
    shown = json.loads(ok(setup("show", "--json")))
    assert [(each["extension"], each["user"]) for each in shown] == [
        ("0003*212", "13"),
        ("0003*213", "13"),
    ]
    assert pbx.types("0003*210") == []
    assert {path.split("/")[3] for _, path in pbx.requests if "/uapi" in path} == {"13"}
    pbx.requests.clear()
    ok(setup("--known", "--remove", "--yes"))
    assert {path.split("/")[3] for _, path in pbx.requests if "/uapi" in path} == {"13"}


def test_columns_of_a_file_override_options(setup: Setup, pbx: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "extensions.csv"
    path.write_text(
        "\ufeffExtension;Label;Owner;Kind;Events;Handlers\n"
        "0003*210;Empfang;jane;;dial-in hangup;crm\n"
        "0003*211;;;;;\n"
        "0003*600;;;Conference;;\n",
        "utf-8",
    )
    ok(setup("--file", str(path), "--owner", "nobody", "--yes"))
    first, second, third = json.loads(ok(setup("show", "--json")))
    assert (first["label"], first["owner"], first["handlers"]) == ("Empfang", "jane", ["crm"])
    assert first["events"] == ["dial-in", "hangup"]
    assert (second["label"], second["owner"], second["handlers"]) == (None, "nobody", None)
    assert (second["kind"], third["kind"]) == ("phone", "conference")
    assert pbx.types("0003*211") == ALL
    assert pbx.types("0003*600") == CAME_AND_LEFT


def test_local_settings_change_without_api_requests(setup: Setup, pbx: Sandbox) -> None:
    ok(setup("0003*210", "--owner", "jane", "--handlers", "crm", "--yes"))
    pbx.requests.clear()
    printed = ok(setup("0003*210", "--owner", "", "--handlers", "all", "--yes"))
    assert "owner: none" in printed
    assert "handlers: all" in printed
    assert not pbx.changes()
    [shown] = json.loads(ok(setup("show", "--json")))
    assert (shown["owner"], shown["handlers"]) == (None, None)


# Phone call events of other software


def test_events_of_other_software_are_unchanged(setup: Setup, pbx: Sandbox) -> None:
    names = ("0003*210", "hangup")
    urls = [
        "https://crm.example.com/calls?extension=210",
        callback_url("https://staging.example.com", "x" * 40, "main", *names),
        callback_url(PUBLIC, SECRET, "branch", *names),
    ]
    theirs = [pbx.add("0003*210", url) for url in urls]
    before = {e.id: e for e in pbx.store.events("0003*210")}
    result = setup("0003*210", "--yes")
    assert "3 phone call events of other software: unchanged." in result.stderr
    assert "at staging.example.com" in result.stderr
    ok(setup("0003*210", "--events", "dial-in", "--yes"))
    ok(setup("0003*210", "--remove", "--yes"))
    assert {e.id: e for e in pbx.store.events("0003*210")} == before
    assert list(before) == theirs


def test_duplicate_registrations_are_deleted(setup: Setup, pbx: Sandbox) -> None:
    url = callback_url(PUBLIC, SECRET, "main", "0003*210", "hangup")
    for _ in range(3):
        pbx.add("0003*210", url)
    assert "delete hangup, hangup" in ok(setup("0003*210", "--events", "hangup", "--yes"))
    [event] = pbx.store.events("0003*210")
    assert (event.url, event.method) == (url, EventMethod.POST)


def test_registration_disabled_on_the_pbx_is_enabled(setup: Setup, pbx: Sandbox) -> None:
    ok(setup("0003*400", "--yes"))
    event, _ = pbx.store.events("0003*400")
    pbx.store.put_event("0003*400", replace(event, status=EventStatus.DISABLED))
    assert "enable dial-in" in ok(setup("0003*400", "--yes"))
    assert {each.status for each in pbx.store.events("0003*400")} == {EventStatus.ENABLED}


# Secret and host


def test_revoked_urls_are_replaced(setup: Setup, pbx: Sandbox, offhook: Offhook) -> None:
    ok(setup("0003*210", "--yes"))
    ids = [event.id for event in pbx.store.events("0003*210")]
    ok(offhook("url", "revoke", "main", "0003*210", "--event", "hangup", "--yes"))
    assert "update url of hangup" in ok(setup("--known", "--yes"))
    assert [event.id for event in pbx.store.events("0003*210")] == ids
    assert set(pbx.urls("0003*210")) == {
        callback_url(PUBLIC, SECRET, "main", "0003*210", each, int(each == "hangup"))
        for each in CALLBACKS
    }
    assert "Nothing to do" in ok(setup("--known", "--yes"))


@pytest.mark.parametrize("adopt", [False, True])
def test_new_secret_or_host_updates_the_urls(
    adopt: bool, setup: Setup, pbx: Sandbox, configure: Configure
) -> None:
    ok(setup("0003*210", "--yes"))
    ids = [event.id for event in pbx.store.events("0003*210")]
    new = "another secret, forty characters long, too"
    host = "https://new.example.com"
    if adopt:  # both at once, so the old URLs cannot be recognized as ours
        configure(HANDLERS + table("main", pbx.url), public_url=host, secret=new)
        result = setup("0003*210", "--dry-run")
        assert "create" in ok(result)
        assert "--adopt" in result.stderr
        assert "update url of" in ok(setup("--known", "--adopt", "--yes"))
    else:
        configure(HANDLERS + table("main", pbx.url), public_url=PUBLIC, secret=new)
        assert "update url of dial-in, dial-out, hangup" in ok(setup("--known", "--yes"))
        configure(HANDLERS + table("main", pbx.url), public_url=host, secret=new)
        assert "update url of dial-in, dial-out, hangup" in ok(setup("--known", "--yes"))
    assert [event.id for event in pbx.store.events("0003*210")] == ids
    assert set(pbx.urls("0003*210")) == {
        callback_url(host, new, "main", "0003*210", each) for each in CALLBACKS
    }


# Failures


def test_failing_extension_does_not_stop_the_others(setup: Setup, pbx: Sandbox) -> None:
    result = setup("0003*999", "0003*210", "0004*210", "--yes")
    assert result.exit_code == 1
    assert pbx.types("0003*210") == ALL
    assert "! main 0003*999, 0004*210: the PBX refuses: extension_invalid (400)" in result.stderr
    assert [each["extension"] for each in json.loads(ok(setup("show", "--json")))] == ["0003*210"]


def test_interrupted_setup_is_resumed(setup: Setup, pbx: Sandbox) -> None:
    pbx.dies_after = 18  # a token, a page of phones, 4 x presence and list, then some creates
    result = setup("--all", "--yes")
    assert result.exit_code == 1
    assert "closed the connection early" in result.stderr
    assert "run the command again" in result.stderr
    made = len(pbx.changes())
    assert 0 < made < 20
    pbx.dies_after = None
    pbx.requests.clear()
    ok(setup("--all", "--yes"))
    assert len(pbx.changes()) == 20 - made
    for number in (210, 211, 212, 213):
        assert pbx.types(f"0003*{number}") == ALL
    assert "Nothing to do" in ok(setup("--all", "--yes"))


def test_refused_credentials_are_one_sentence(
    setup: Setup, pbx: Sandbox, configure: Configure
) -> None:
    configure(HANDLERS + table("main", pbx.url, client_secret="wrong"), public_url=PUBLIC)
    result = setup("0003*210", "0003*211", "--yes", "--at-once", "1")
    assert result.exit_code == 1
    assert result.stderr.count("the PBX gives no token: invalid_client (401)") == 2
    assert len(pbx.requests) == 1
    result = setup("--all")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("the PBX gives no token: invalid_client (401)")


def test_quoted_url_in_an_error_hides_the_token(
    setup: Setup, pbx: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unifiedapi.errors import EventUrlInvalid

    async def refuse(*_: object, url: str, **__: object) -> None:
        raise EventUrlInvalid("pce_url_invalid", 400, f"bad url: {url.partition('/callback')[2]}")

    monkeypatch.setattr("unifiedapi.client.PhoneCallEvents.create", refuse)
    result = setup("0003*400", "--yes")
    assert result.exit_code == 1
    assert "bad url: /main/0003*400/dial-in/***" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name extensions, or use --file, --all or --known"),
        (["210"], "'210' is not an extension: write the extended number, such as 0003*210"),
        (
            ["shwo"],
            "'shwo' is neither an extension, such as 0003*210, nor a command: show",
        ),
        (
            ["0003*210", "--events", "ring"],
            "ring is not an event type: choose from dial-in,",
        ),
        (
            ["0003*210", "--handlers", "crn"],
            "no handler is configured as 'crn'; configured: crm, ch",
        ),
        (["0003*210", "--pbx", "branch"], "no PBX is configured as 'branch'; configured: main"),
        (["0003*210", "--user", "jane"], "--user jane: must be @me, @viewer, @owner, or a user's"),
        (["--file", "missing.csv"], "missing.csv: cannot be read: No such file"),
        (["apply", "missing.toml"], "missing.toml: cannot be read: No such file"),
    ],
)
def test_wrong_arguments_are_usage_errors(
    arguments: list[str], said: str, setup: Setup, pbx: Sandbox
) -> None:
    result = setup(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(said)
    assert not pbx.requests


def test_without_a_pbx_the_fix_is_named(setup: Setup, configure: Configure) -> None:
    configure(HANDLERS)
    assert "add a table [pbx.main]" in setup("0003*210").stderr


# Removing


def test_remove_unregisters_and_forgets(setup: Setup, pbx: Sandbox) -> None:
    ok(setup("0003*210", "0003*400", "--yes"))
    assert "forget" in ok(setup("0003*210", "--remove", "--yes"))
    assert pbx.types("0003*210") == []
    assert pbx.types("0003*400") == CAME_AND_LEFT
    assert [each["extension"] for each in json.loads(ok(setup("show", "--json")))] == ["0003*400"]
    ok(setup("--all", "--remove", "--yes"))
    assert pbx.types("0003*400") == []
    assert json.loads(ok(setup("show", "--json"))) == []
    assert "Nothing to do" in ok(setup("0003*210", "--remove", "--yes"))


def test_no_matching_extension_is_reported(setup: Setup, tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("")
    for arguments in (["--known"], ["apply", str(tmp_path / "empty.toml")]):
        result = setup(*arguments)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == "Nothing to do: no extension matches.\n"


# Several PBXs


def another() -> Store:
    """Return a PBX that also has an extension 0003*210."""
    return Store(
        Contents(
            users=[User(id=1, organization="0003")],
            extensions=[Extension("0003*210", 1), Extension("0003*800", 1)],
            apps=[App("branch-app", "branch-app-s", 1)],
        )
    )


def test_equal_numbers_on_two_pbxs_are_kept_apart(
    setup: Setup, pbx: Sandbox, configure: Configure
) -> None:
    with sandbox(another()) as branch:
        app = {"client_id": "branch-app", "client_secret": "branch-app-s"}
        configure(
            HANDLERS + table("main", pbx.url) + table("branch", branch.url, **app),
            public_url=PUBLIC,
        )
        assert "choose a PBX with --pbx: main, branch" in setup("0003*210").stderr
        ok(setup("0003*210", "--pbx", "main", "--owner", "jane", "--yes"))
        ok(setup("0003*210", "--pbx", "branch", "--owner", "joe", "--events", "hangup", "--yes"))
        shown = json.loads(ok(setup("show", "--json")))
        assert [(e["pbx"], e["extension"], e["owner"]) for e in shown] == [
            ("branch", "0003*210", "joe"),
            ("main", "0003*210", "jane"),
        ]
        assert pbx.types("0003*210") == ALL
        assert branch.types("0003*210") == ["hangup"]
        assert "/callback/branch/" in branch.urls("0003*210")[0]
        assert "Nothing to do: 2 extensions" in ok(setup("--known", "--yes"))
        ok(setup("0003*210", "--pbx", "main", "--remove", "--yes"))
        assert branch.types("0003*210") == ["hangup"]
        exported = ok(setup("export", "-"))
        assert '["branch"."0003*210"]' in exported
        assert "main" not in exported


# A PBX without UnifiedAPI


@pytest.mark.parametrize("office", ['[pbx.office]\ndialect = "telphin"\n', "[pbx.office]\n"])
def test_extensions_of_a_pbx_without_an_api_are_stored_without_registering(
    office: str, setup: Setup, pbx: Sandbox, configure: Configure
) -> None:
    configure(HANDLERS + table("main", pbx.url) + office, public_url=PUBLIC)
    by_hand = "register the URLs that `offhook url office EXTENSION` prints on the PBX by hand"
    for arguments in (["7*1"], ["7*4", "--kind", "queue", "--owner", "jane"]):
        result = setup(*arguments, "--pbx", "office", "--yes")
        assert by_hand in result.stderr
        ok(result)
    assert kinds(setup) == {"7*1": None, "7*4": "queue"}
    assert not pbx.requests
    ok(setup("0003*400", "--pbx", "main", "--yes"))
    assert "Nothing to do: 3 extensions" in ok(setup("--known", "--yes"))
    assert "name the phones" in setup("--all", "--pbx", "office").stderr
    ok(setup("--known", "--pbx", "office", "--remove", "--yes"))
    assert kinds(setup) == {"0003*400": "queue"}


# Files


def test_exported_file_can_be_applied(setup: Setup, pbx: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "extensions.toml"
    ok(setup("0003*210", "--label", 'The "desk"\\ö\x7f', "--handlers", "crm,chat", "--yes"))
    ok(setup("0003*400", "--method", "GET", "--yes"))
    ok(setup("export", str(path)))
    before = json.loads(ok(setup("show", "--json")))
    assert "Nothing to do" in ok(setup("apply", str(path), "--prune", "--yes"))
    ok(setup("--all", "--remove", "--yes"))
    ok(setup("apply", str(path), "--yes"))
    assert json.loads(ok(setup("show", "--json"))) == before
    assert pbx.types("0003*210") == ALL
    assert {event.method for event in pbx.store.events("0003*400")} == {EventMethod.GET}
    text = path.read_text()
    ok(setup("export", str(path)))
    assert path.read_text() == text


def test_applying_a_file_replaces_and_prunes(setup: Setup, pbx: Sandbox, tmp_path: Path) -> None:
    ok(setup("0003*210", "0003*211", "--label", "old", "--yes"))
    path = tmp_path / "extensions.toml"
    path.write_text(
        '[main."0003*210"]\nowner = "jane"\nevents = ["hangup"]\n'
        '[main."0003*400"]\n[main."0003*600"]\nkind = "conference"\n'
    )
    ok(setup("apply", str(path), "--yes"))
    assert pbx.types("0003*210") == ["hangup"]
    assert pbx.types("0003*400") == CAME_AND_LEFT
    assert pbx.types("0003*211") == ALL
    ok(setup("apply", str(path), "--prune", "--yes"))
    assert pbx.types("0003*211") == []
    shown = json.loads(ok(setup("show", "--json")))
    assert [(e["extension"], e["label"], e["owner"], e["kind"]) for e in shown] == [
        ("0003*210", None, "jane", "phone"),
        ("0003*400", None, None, "queue"),
        ("0003*600", None, None, "conference"),
    ]
    assert "Nothing to do" in ok(setup("apply", str(path), "--prune", "--yes"))


def test_all_faults_of_a_file_are_reported(setup: Setup, tmp_path: Path) -> None:
    path = tmp_path / "extensions.toml"
    path.write_text('[main."0003*210"]\nkind = "fax"\ncolour = "red"\nmethod = "PUT"\n')
    result = setup("apply", str(path))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 3
    path.write_text('[other."0003*210"]\n')
    assert "no PBX is configured as 'other'" in setup("apply", str(path)).stderr
    path.write_text('[main."210"]\n')
    assert "'210' is not an extension" in setup("apply", str(path)).stderr
    path.write_text('[main."0003*210"]\nhandlers = ["crn"]\n')
    assert "no handler is configured as 'crn'" in setup("apply", str(path)).stderr


# Checking


def test_check_finds_changes_on_the_pbx(
    setup: Setup, pbx: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(settings: object) -> None:
        return None

    monkeypatch.setattr("offhook_cli.setup.inspect.reachability_problem", nothing)
    ok(setup("0003*210", "0003*211", "--yes"))
    pbx.requests.clear()
    assert ok(setup("check")) == sample("setup.md", "offhook setup check")
    pbx.store.remove_events("0003*211", {pbx.store.events("0003*211")[0].id})
    result = setup("check")
    assert result.exit_code == 1
    assert "create dial-in" in result.stdout
    assert "1 of 2 extensions differ" in result.stderr
    assert ok(setup("check", "0003*210"))
    assert setup("check", "0003*999").exit_code == 1
    assert not pbx.changes()


def test_check_reports_unknown_handlers_and_pbxs(
    setup: Setup, pbx: Sandbox, configure: Configure
) -> None:
    ok(setup("0003*400", "--handlers", "chat", "--yes"))
    configure('[handlers.crm]\nuse = "console"\n' + table("other", pbx.url), public_url=PUBLIC)
    result = setup("check")
    assert result.exit_code == 1
    assert "! PBX main is not configured, but has extensions set up" in result.stderr
    assert "! no handler is configured as 'chat', but extensions name it" in result.stderr


def test_private_certificate_authority_and_insecure(
    setup: Setup, tmp_path: Path, configure: Configure
) -> None:
    certificate = make_certificate(tmp_path, "127.0.0.1")
    pbx = Sandbox(Store.example())
    with serve(pbx.app(), certificate) as url:
        configure(HANDLERS + table("main", url), public_url=PUBLIC)
        result = setup("0003*400", "--yes")
        assert result.exit_code == 1
        assert "is not trusted" in result.stderr
        assert not pbx.requests
        configure(HANDLERS + table("main", url, ca_file="ca.pem"), public_url=PUBLIC)
        ok(setup("0003*400", "--yes"))
        configure(HANDLERS + table("main", url, insecure=True), public_url=PUBLIC)
        result = setup("0003*400", "--yes")
        assert "Nothing to do" in ok(result)
        assert "! pbx.main: insecure: any server that answers at 127.0.0.1" in result.stderr


def test_token_replaces_client_id_and_secret(
    setup: Setup, pbx: Sandbox, configure: Configure, tmp_path: Path
) -> None:
    (tmp_path / "the-token").write_text("sandbox-token\n")
    credentials = {"client_id": None, "client_secret": None, "token_file": "the-token"}
    configure(HANDLERS + table("main", pbx.url, **credentials), public_url=PUBLIC)
    ok(setup("0003*400", "--yes"))
    assert pbx.store.registrations("0003*400", PbxEventType.HANGUP)
    assert not [path for _, path in pbx.requests if path.startswith("/oauth")]
