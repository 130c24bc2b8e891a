"""`offhook handlers`."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from pydantic import Field, SecretStr

from offhook import CallEvent, Context, Handler
from offhook.plugins import installed
from offhook_cli.plugin_help import Option, options
from tests.conftest import Configure
from tests.offhook_cli.conftest import Offhook

TWO = """
[handlers.crm]
use = "webhook"
events = ["hangup", "dial-in"]
direction = "in"
extensions = ["0003*2??"]
pbx = ["main"]
options.url = "https://user:the-password@crm.example.com/"

[handlers.screen]
use = "console"
retry = []
"""
WRONG = """
[handlers.crm]
use = "webhook"
options.urll = "https://crm.example.com/"

[handlers.chat]
use = "sms"
"""


@dataclass(frozen=True)
class Sample(Handler):
    """One option of each kind."""

    url: Annotated[str, Field(description="where to")]
    key: SecretStr | None = None
    size: Annotated[int, Field(ge=1, description="how big")] = 7
    mode: Literal["fast", "safe"] = "safe"
    names: list[Annotated[str, Field(min_length=1)]] = field(default_factory=list)
    headers: dict[str, SecretStr] = field(default_factory=dict)
    on: bool = True
    made: str = field(init=False, default="in the class")

    async def handle(self, event: CallEvent, context: Context) -> None:
        """Do nothing."""


def test_options_are_described_as_written_in_toml() -> None:
    assert options(Sample) == (
        Option("url", "text", True, None, "where to"),
        Option("key", "text", False, None, ""),
        Option("size", "whole number", False, 7, "how big"),
        Option("mode", '"fast" or "safe"', False, "safe", ""),
        Option("names", "list of text", False, [], ""),
        Option("headers", "table", False, {}, ""),
        Option("on", "true or false", False, True, ""),
    )


def test_installed_and_configured_handlers_are_listed(
    configure: Configure, offhook: Offhook
) -> None:
    configure(TWO)
    result = offhook("handlers")
    assert (result.exit_code, result.stderr) == (0, "")
    for name in installed("handlers"):
        assert f"\n {name} " in result.stdout
    assert "dial-in, hangup; incoming calls; of 0003*2??; PBX main" in " ".join(
        result.stdout.split()
    )
    assert " raw " in result.stdout  # the default of a handler without `events`
    assert "the-password" not in result.stdout


def test_preview_shows_what_would_be_sent(configure: Configure, offhook: Offhook) -> None:
    configure(
        TWO
        + """
[handlers.missed]
use = "notify"
events = ["calls"]
[handlers.missed.options]
urls = "json://127.0.0.1:9"
body = "{{ caller }} rang for {{ call.ring_seconds | int }} s"
"""
    )
    single = offhook("handlers", "preview", "missed", "--event", "missed-call")
    assert single.stdout.splitlines() == [
        "--- missed-call",
        "missed-call 0003*210",
        "Jane Doe (+40211234567) rang for 20 s",
    ]
    everything = offhook("handlers", "preview", "missed").stdout
    assert everything.count("---") == 5
    refused = offhook("handlers", "preview", "screen")
    assert (refused.exit_code, refused.stderr) == (1, "screen (console) has no preview\n")
    unknown = offhook("handlers", "preview", "nobody")
    assert unknown.stderr.startswith(
        "no handler is configured as 'nobody'; configured: crm, screen"
    )


def test_json_lists_handlers_without_options(configure: Configure, offhook: Offhook) -> None:
    configure(TWO)
    listed = json.loads(offhook("handlers", "--json").stdout)
    assert [each["name"] for each in listed["installed"]] == list(installed("handlers"))
    assert all(each["package"] == "offhook" and each["help"] for each in listed["installed"])
    assert listed["configured"]["screen"]["retry"] == []
    assert "options" not in listed["configured"]["crm"]
    assert listed["problems"] == []


LOOKUPS = """
[lookups.staff]
use = "csv"
options.path = "{folder}/staff.csv"
[lookups.crm]
use = "hubspot"
timeout = 1.5
options.token = "the-password"
"""


def test_lookups_are_listed(configure: Configure, offhook: Offhook) -> None:
    folder = configure().parent
    (folder / "staff.csv").write_text("number,name\n")
    configure(LOOKUPS.format(folder=folder))
    result = offhook("handlers")
    assert (result.exit_code, result.stderr) == (0, "")
    _, _, lookups = result.stdout.partition("\nLookups find the caller")
    for name in installed("lookups"):
        assert f"\n {name} " in lookups
    words = " ".join(lookups.split())
    assert "name use timeout cached" in words
    assert "staff csv 2 s no crm hubspot 1.5 s 300 s" in words
    assert "the-password" not in lookups
    as_json = json.loads(offhook("handlers", "--json").stdout)
    assert [each["name"] for each in as_json["lookups"]["installed"]] == list(installed("lookups"))
    assert as_json["lookups"]["configured"]["crm"]["timeout"] == 1.5
    assert "options" not in as_json["lookups"]["configured"]["crm"]
    for each in as_json["lookups"]["installed"]:
        assert each["problem"] is None
        assert each["help"]
        assert all(option["description"] for option in each["options"])


def test_faults_of_lookups_name_the_key(configure: Configure, offhook: Offhook) -> None:
    folder = configure().parent
    configure(
        LOOKUPS.format(folder=folder)
        + """
options.tokken = "x"
[lookups.phonebook]
use = "webhook"
[lookups.mine]
use = "json:dumps"
"""
    )
    result = offhook("handlers")
    assert result.exit_code == 1
    option, unknown, mine, file = result.stderr.splitlines()
    assert file == (
        f"! lookups.staff: {folder}/staff.csv cannot be read: No such file or directory"
    )
    assert option == (
        "! lookups.crm.options.tokken: there is no such option; did you mean 'token'?"
    )
    assert unknown.startswith(
        "! lookups.phonebook.use: no lookup is called 'webhook': installed are bottlecrm, csv, "
    )
    assert mine == (
        "! lookups.mine.use: 'json:dumps' must be a dataclass that inherits from offhook.Lookup"
    )


def test_faults_of_handlers_name_the_key(configure: Configure, offhook: Offhook) -> None:
    configure(WRONG)
    result = offhook("handlers")
    assert result.exit_code == 1
    first, second, third = result.stderr.splitlines()
    assert first.startswith("! handlers.crm.options.url: ")
    assert second == ("! handlers.crm.options.urll: there is no such option; did you mean 'url'?")
    assert third.startswith("! handlers.chat.use: no handler is called 'sms': installed are ")
    as_json = offhook("handlers", "--json")
    assert as_json.exit_code == 1
    assert len(json.loads(as_json.stdout)["problems"]) == 3


def test_without_configuration_installed_handlers_are_listed(
    configure: Configure, offhook: Offhook
) -> None:
    result = offhook("handlers")
    assert result.exit_code == 1
    assert "webhook" in result.stdout
    assert "! OFFHOOK_CONFIG: there is no file" in result.stderr


def test_handler_is_shown_with_its_options(offhook: Offhook) -> None:
    shown = offhook("handlers", "show", "webhook")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("webhook, from the package offhook\n\nPOST every event")
    assert "default: 10.0" in shown.stdout
    described = json.loads(offhook("handlers", "show", "webhook", "--json").stdout)
    assert {option["name"]: option["required"] for option in described["options"]}["url"] is True


def test_lookup_is_shown_with_its_options(offhook: Offhook) -> None:
    shown = offhook("handlers", "show", "csv")
    assert shown.stdout.startswith("csv, a lookup from the package offhook\n\nFind names in a CSV")
    both = offhook("handlers", "show", "sql").stdout
    assert both.startswith("sql, from the package offhook\n")
    assert "\nsql, a lookup from the package offhook\n" in both
    assert offhook("handlers", "show", "hubspot").stdout.count("from the package") == 1
    assert json.loads(offhook("handlers", "show", "csv", "--json").stdout)["name"] == "csv"


def test_options_of_built_in_handlers_are_described(offhook: Offhook) -> None:
    for each in json.loads(offhook("handlers", "--json").stdout)["installed"]:
        assert each["problem"] is None
        for option in each["options"]:
            assert option["description"], f"{each['name']}: {option['name']}"


def test_showing_an_unknown_handler_lists_the_known_ones(offhook: Offhook) -> None:
    result = offhook("handlers", "show", "sms")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "'sms' is not installed; handlers: agents, bottlecrm, console, "
    )


def test_broken_plugin_does_not_hide_the_others(
    offhook: Offhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(use: str) -> None:
        raise SyntaxError("never closed")

    monkeypatch.setattr("offhook_cli.handlers.load_handler", broken)
    listed = json.loads(offhook("handlers", "--json").stdout)
    assert {each["problem"] for each in listed["installed"]} == {"never closed"}
    assert "never closed" in offhook("handlers", "show", "console").stdout
