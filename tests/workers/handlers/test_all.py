"""Promises of every installed handler, and of those that send requests."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from offhook import Handler, PermanentError, TemporaryError
from offhook.errors import ConfigError
from offhook.plugins import installed, load_handler
from offhook.testing import configured, deliver, sample_event
from tests.http_target import HttpTarget
from workers.handlers.crm import Crm

PAGES = ("writing-handlers.md", "handlers.md", "crm.md")
DOCS = "\n".join((Path(__file__).parents[3] / "docs" / page).read_text() for page in PAGES)

# The options of every CRM handler.
CRM_OPTIONS: dict[str, Any] = {
    "several": "all",
    "unknown": "create",
    "internal": True,
    "owners": {"0003*210": "7"},
    "owner": "8",
    "region": "GB",
    "recording_url": "https://pbx/{pbx}/{call}/{recording}",
    "lifetime": 60.0,
    "timeout": 5.0,
}

# For each handler, a valid value of every option.
OPTIONS: dict[str, dict[str, Any]] = {
    "agents": {
        "host": "https://pbx",
        "queues": ["0003*400"],
        "client_id": None,
        "client_secret": None,
        "token": "hush",
        "ca_file": Path("/etc/offhook/pbx.pem"),
        "user": "@me",
    },
    "bottlecrm": CRM_OPTIONS
    | {
        "several": "none",
        "token": "hush",
        "account": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
        "base_url": "https://crm.acme.test",
    },
    "console": {},
    "file": {
        "path": Path(__file__).with_name("calls.csv"),
        "format": "csv",
        "daily": False,
        "megabytes": 5.0,
        "compress": False,
        "keep": 7,
    },
    "hubspot": CRM_OPTIONS
    | {
        "token": "hush",
        "call_property": "call_key",
        "contact_property": "number_key",
        "dispositions": {"answered": "f240bbac-87c9-4f6e-bf70-924b57d47db7"},
        "base_url": "https://api.hubapi.com",
    },
    "notify": {"urls": ["json://localhost"], "title": "{{ event.type }}", "body": "{{ caller }}"}
    | {"vip": ("+4021*",), "rings": 3, "quiet": "22:00-07:00", "zone": "UTC"},
    "pipedrive": CRM_OPTIONS
    | {
        "token": "hush",
        "activity_type": "phone",
        "deals": False,
        "base_url": "https://acme.pipedrive.com",
    },
    "salesforce": CRM_OPTIONS
    | {
        "several": "none",
        "client_id": "3MVG9consumer",
        "client_secret": "hush",
        "call_field": "CallObject",
        "lead_field": "Phone",
        "open_status": "Open",
        "ended_status": "Done",
        "zone": "Europe/London",
        "version": "67.0",
        "base_url": "https://acme.my.salesforce.com",
    },
    "sql": {"url": "sqlite:////var/lib/offhook/calls.db", "prefix": "support_"},
    "stream": {
        "url": "nats://offhook:hush@bus.example.com",
        "topic": "calls.{{ event.type }}",
        "through": "CALLS",
        "cloudevents": "structured",
        "timeout": 5.0,
    },
    "tryton": CRM_OPTIONS
    | {
        "database": "acme",
        "login": "offhook",
        "password": "hush",
        "tokens": "/var/lib/offhook/tokens",
        "unknown_party": "4711",
        "zone": "Europe/London",
        "base_url": "https://tryton.acme.com",
    },
    "webhook": {
        "url": "https://crm.example.com/calls",
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "previous_secret": "whsec_plJ3nmyCDGBKInavdOK15jsl7aL7aLa1",
        "cloudevents": "binary",
        "content_type": "application/json",
        "body": "{{ event | tojson }}",
        "headers": {"Authorization": "Bearer hush"},
        "timeout": 5.0,
        "private_networks": True,
    },
    "zoho": CRM_OPTIONS
    | {
        "several": "none",
        "client_id": "1000.CLIENT",
        "client_secret": "hush",
        "refresh_token": "1000.hush",
        "tokens": "/var/lib/offhook/tokens",
        "call_field": "Call_Key",
        "contact_field": "Number_Key",
        "modules": ["Leads"],
        "accounts_url": "https://accounts.zoho.eu",
        "base_url": "https://www.zohoapis.eu",
    },
}

# Handlers that send requests, with options to send them to a test server.
SENDING: dict[str, Callable[[HttpTarget], dict[str, Any]]] = {
    "notify": lambda target: {
        "urls": f"json://127.0.0.1:{target.port}/",
        "body": "{{ event.id }}",
    },
    "webhook": lambda target: {"url": target.url, "private_networks": True},
}

# No status is permanent for these: Apprise does not report why a target refused.
ALWAYS_TEMPORARY = {"notify"}

names = pytest.mark.parametrize("name", installed("handlers"))
senders = pytest.mark.parametrize("name", SENDING)


def handler_class(name: str) -> type[Handler]:
    found = load_handler(name)
    assert isinstance(found, type)
    return found


def options_of(name: str) -> dict[str, FieldInfo]:
    """Every option and its pydantic Field."""
    described = {}
    for option, hint in get_type_hints(handler_class(name), include_extras=True).items():
        if get_origin(hint) is Annotated:
            found = [extra for extra in get_args(hint) if isinstance(extra, FieldInfo)]
            described[option] = found[-1]
    return described


def plain(value: Any) -> Any:
    """A value as written in the configuration."""
    match value:
        case SecretStr():
            return value.get_secret_value()
        case Path():
            return str(value)
        case list():
            return [plain(item) for item in value]
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case _:
            return value


def test_every_installed_handler_is_tested_here() -> None:
    assert set(OPTIONS) == set(installed("handlers"))


@names
def test_options_survive_a_round_trip(name: str) -> None:
    cls = handler_class(name)
    assert set(OPTIONS[name]) == {field.name for field in fields(cls)}  # type: ignore[arg-type]
    made = configured(cls, **OPTIONS[name])
    assert {option: plain(getattr(made, option)) for option in OPTIONS[name]} == plain(
        OPTIONS[name]
    )
    assert configured(cls, **{o: plain(getattr(made, o)) for o in OPTIONS[name]}) == made


@names
def test_an_error_names_an_unknown_option(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        configured(handler_class(name), **OPTIONS[name], colour="red")
    assert raised.value.problems == ["options.colour: there is no such option"]


@names
def test_an_error_names_an_option_of_the_wrong_type(name: str) -> None:
    for option in OPTIONS[name]:
        with pytest.raises(ConfigError) as raised:
            configured(handler_class(name), **OPTIONS[name] | {option: object()})
        assert all(problem.startswith(f"options.{option}") for problem in raised.value.problems)


@names
def test_no_secret_is_in_its_repr(name: str) -> None:
    shown = repr(configured(handler_class(name), **OPTIONS[name]))
    assert not re.search("hush|whsec_|example|localhost|sqlite", shown)


@names
def test_it_documents_itself_and_each_option(name: str) -> None:
    cls = handler_class(name)
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}(")  # what dataclass would write
    described = options_of(name)
    assert set(described) == set(OPTIONS[name])
    assert all(field.description for field in described.values())


@names
def test_the_docs_list_its_options(name: str) -> None:
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", DOCS, re.DOTALL | re.MULTILINE))
    section = sections[f"`{name}`"]
    if issubclass(handler_class(name), Crm):
        section = sections["Common options"] + section
    named = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert named == list(OPTIONS[name])


def test_the_docs_have_no_other_section() -> None:
    assert set(re.findall(r"^## `(\w+)`", DOCS, re.MULTILINE)) == set(installed("handlers"))


def test_the_docs_first_handler_works(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = re.search(r"```python\n(# calls\.py\n.*?)```", DOCS, re.DOTALL)
    shown = re.search(r"\$ python calls\.py\n(.*?)```", DOCS, re.DOTALL)
    assert code
    assert shown
    exec(compile(code[1], "calls.py", "exec"), {"__name__": "__main__"})  # noqa: S102
    assert capsys.readouterr().out == shown[1]


def test_the_docs_handler_passes_its_tests(tmp_path: Path) -> None:
    for name in ("crm.py", "test_crm.py"):
        code = re.search(rf"```python\n(# {name}\n.*?)```", DOCS, re.DOTALL)
        assert code
        (tmp_path / name).write_text(code[1])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_crm.py"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "2 passed" in ran.stdout, ran.stdout


@senders
def test_the_events_id_reaches_the_target(name: str, target: HttpTarget) -> None:
    event = sample_event()
    deliver(configured(handler_class(name), **SENDING[name](target)), event)
    (request,) = target.requests
    assert event.id in f"{request.headers} {request.body.decode()}"


@senders
def test_503_is_temporary(name: str, target: HttpTarget) -> None:
    target.plan(503)
    with pytest.raises(TemporaryError, match="503"):
        deliver(configured(handler_class(name), **SENDING[name](target)), sample_event())


@senders
def test_410_is_permanent(name: str, target: HttpTarget) -> None:
    target.plan(410)
    kind = TemporaryError if name in ALWAYS_TEMPORARY else PermanentError
    with pytest.raises(kind, match="410"):
        deliver(configured(handler_class(name), **SENDING[name](target)), sample_event())
