"""What an integrator sees after a typing mistake, and on a terminal that is not UTF-8."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.console import Console

from offhook.event import EventType
from offhook.testing import sample_event
from offhook_cli.live import Lines
from offhook_cli.screen import print_table, write_in_any_encoding
from tests.conftest import Configure
from tests.installation import OFFHOOK
from tests.offhook_cli.conftest import Offhook

CONFIG = """
[handlers.crm]
use = "console"
[pbx.main]
host = "https://pbx.example.com"
token = "x"
"""
# What was typed, and the last line of what is said.
TYPED = {
    "repaly": "Error: No such command 'repaly'. Did you mean 'replay'?",
    "handler": "Error: No such command 'handler'. Did you mean 'handlers'?",
    "nonsense": "Error: No such command 'nonsense'.",
    "setup shwo": (
        "'shwo' is neither an extension, such as 0003*210, nor a command: "
        "show, export, apply, check"
    ),
    "dead lst": "Error: No such command 'lst'. Did you mean 'list'?",
    "calls --sinse 2h": (
        "Error: No such option: --sinse (Possible options: --live, --name, --since)"
    ),
    "calls --since yesterday": (
        "Error: Invalid value for '--since': 'yesterday' is not a time: write 90s, 30m, 2h, 3d, 1w "
        "(ago), 2026-05-01 or 2026-05-01T14:00"
    ),
    "calls --since 2999-01-01": (
        "Error: Invalid value for '--since': '2999-01-01' is in the future"
    ),
    "calls --limit 0": "Error: Invalid value for '--limit' / '-n': must be 1 or more",
    "calls --outcome mised": (
        "Error: Invalid value for '--outcome': 'mised' is not one of 'answered', 'missed', "
        "'busy', 'cancelled', 'unreachable', 'failed'; did you mean 'missed'?"
    ),
    "calls --number abc": "--number: 'abc' contains no digit",
    "handlers show webhok": (
        "'webhok' is not installed; handlers: agents, bottlecrm, console, file, hubspot, notify, "
        "pipedrive, salesforce, sql, stream, tryton, webhook, zoho; lookups: bottlecrm, csv, "
        "hubspot, pipedrive, salesforce, sql, tryton, zoho; did you mean 'webhook'?"
    ),
    "handlers preview crmm": (
        "no handler is configured as 'crmm'; configured: crm; did you mean 'crm'?"
    ),
    "handlers preview crm": "crm (console) has no preview",
    "handlers new webhook": "a handler webhook is already installed: choose another name",
    "tail --handler cmr": "no handler is configured as 'cmr'; configured: crm",
    "replay --handler crmm --since 1h": (
        "no handler is configured as 'crmm'; configured: crm; did you mean 'crm'?"
    ),
    "dead list --handler crmm": "there is no handler 'crmm'; known: crm; did you mean 'crm'?",
    "dead retry --handler nope": "there is no handler 'nope'; known: crm",
    "setup 0003*210 --handlers crm,crmm": (
        "no handler is configured as 'crmm'; configured: crm; did you mean 'crm'?"
    ),
    "lookup 123": "no lookup is configured: add a [lookups.NAME] table to CONFIG",
    "simulate --extensions x": ("'x' is not an extension: use digits and *, such as 0003*210"),
    "simulate --extensions 1 --scenario ring-group": (
        "--scenario ring-group: needs 3 phones, --extensions has 1"
    ),
    "simulate --url example.com": (
        "--url: must start with http:// or https:// and contain no ? or #"
    ),
    "dev --extensions 210": (
        "'210' is not an extension: write the extended number, such as 0003*210"
    ),
    "serve --port http": "Error: Invalid value for '--port': must be a whole number",
    "serve --port 70000": "Error: Invalid value for '--port': must be 65535 or less",
    "simulate --rate fast": "Error: Invalid value for '--rate': must be a number",
    "serve --port 0": "Error: Invalid value for '--port': must be 1 or more",
    "serve --host 192.0.2.1": (
        "cannot listen on 192.0.2.1, port 8080: Cannot assign requested address; "
        "choose with --host and --port"
    ),
    "sandbox call answered --url http://127.0.0.1:1": (
        "no sandbox PBX answers at http://127.0.0.1:1 ([Errno 111] Connection refused): "
        "start one with `offhook sandbox start`"
    ),
    "sandbox start --file no.toml": (
        "Error: Invalid value for '--file': file 'no.toml' does not exist."
    ),
    "presence --pbx mian": (
        "no PBX is configured as 'mian'; configured: main; did you mean 'main'?"
    ),
}


@pytest.mark.parametrize("typed", TYPED)
def test_a_typing_mistake_is_explained(typed: str, configure: Configure, offhook: Offhook) -> None:
    config = configure(CONFIG)
    result = offhook(*typed.split())
    assert result.exit_code in (1, 2)
    assert result.stderr.splitlines()[-1].replace(str(config), "CONFIG") == TYPED[typed]


@pytest.mark.parametrize(
    "typed", ["--help", "setup --help", "status", "handlers", "handlers --json"]
)
def test_a_full_disk_is_one_sentence(typed: str, configure: Configure) -> None:
    configure(CONFIG)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [OFFHOOK, *typed.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.stderr == "the output cannot be written: No space left on device\n"
    assert done.returncode == 1


@pytest.mark.parametrize("typed", ["--help", "handlers"])
def test_a_reader_that_ends_is_no_error(typed: str, configure: Configure) -> None:
    configure(CONFIG)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = subprocess.run(
            [OFFHOOK, typed], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.stderr == ""


ENCODINGS = {
    "utf-8": "● ◆ ✓ ↻ ✗ → × … Søren Дарья",
    "latin-1": "* # + ~ x -> × ... Søren ?????",
    "cp1252": "* # + ~ x -> × … Søren ?????",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_output_survives_any_terminal(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(shown, encoding, write_through=True))
    write_in_any_encoding()
    typer.echo(ENCODINGS["utf-8"])
    typer.echo(ENCODINGS["utf-8"], err=True)
    assert shown.getvalue().decode(encoding).splitlines() == [ENCODINGS[encoding]] * 2
    print_table("name", rows=[["Дарья → ✓"]])
    lines = Lines(Console(highlight=False))
    lines.legend()
    lines.event(sample_event(EventType.DIAL_IN))
    assert "dial-in" in shown.getvalue().decode(encoding)
