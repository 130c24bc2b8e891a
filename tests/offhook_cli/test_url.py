"""`offhook url`."""

import re

import pytest

from offhook.callback_url import callback_url
from offhook.event import CALLBACKS
from tests.conftest import SECRET, Configure
from tests.offhook_cli.conftest import Offhook


@pytest.fixture(autouse=True)
def _configuration(configure: Configure) -> None:
    configure(public_url="https://events.example.com/pbx")


def expected(event_type: str, version: int = 0) -> str:
    return callback_url(
        "https://events.example.com/pbx", SECRET, "main", "0003*210", event_type, version
    )


def test_one_url_per_event_type(offhook: Offhook) -> None:
    result = offhook("url", "main", "0003*210")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines == [[each.value, expected(each.value)] for each in CALLBACKS]
    assert result.stderr == ""


def test_event_option_prints_one_url(offhook: Offhook) -> None:
    result = offhook("url", "main", "0003*210", "--event", "hangup")
    assert result.stdout == f"{expected('hangup')}\n"


def test_pbx_that_sends_the_event_type_has_one_url(configure: Configure, offhook: Offhook) -> None:
    tables = '[pbx.main]\ndialect = "telphin"\n'
    configure(tables, public_url="https://events.example.com/pbx")
    result = offhook("url", "main", "0003*210")
    assert result.stdout == f"{expected('telphin')}\n"
    other = offhook("url", "other", "0003*210")
    assert len(other.stdout.splitlines()) == 5
    assert other.stderr == "! no PBX is configured as 'other'; configured: main\n"
    result = offhook("url", "main", "0003*210", "--event", "hangup")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "main has one URL for all event types" in result.stderr


def test_missing_public_url_is_reported(configure: Configure, offhook: Offhook) -> None:
    configure()
    result = offhook("url", "main", "0003*210")
    assert result.exit_code == 0
    assert "set public_url" in result.stderr


def test_name_that_does_not_fit_a_url_is_refused(offhook: Offhook) -> None:
    result = offhook("url", "main", "a/b")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'a/b' cannot be part of a callback URL" in result.stderr


# Revoking


def test_revoke_prints_new_urls_and_later_commands_use_them(offhook: Offhook) -> None:
    old = offhook("url", "main", "0003*210").stdout
    result = offhook("url", "revoke", "main", "0003*210", "--yes")
    assert result.exit_code == 0
    assert "its callbacks are refused" in result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines == [[each.value, expected(each.value, 1)] for each in CALLBACKS]
    assert offhook("url", "main", "0003*210").stdout == result.stdout
    assert not set(old.split()[1::2]) & set(result.stdout.split())
    other = offhook("url", "main", "0003*211", "--event", "hangup").stdout
    assert not re.search(r"\.1$", other)


def test_revoke_may_be_about_one_url(offhook: Offhook) -> None:
    for version in (1, 2):
        result = offhook("url", "revoke", "main", "0003*210", "--event", "hangup", "--yes")
        assert result.stdout == f"{expected('hangup', version)}\n"
    lines = offhook("url", "main", "0003*210").stdout.splitlines()
    assert [line for line in lines if re.search(r"\.[12]$", line)] == [
        f"hangup     {expected('hangup', 2)}"
    ]


def test_revoke_asks_first(offhook: Offhook) -> None:
    result = offhook("url", "revoke", "main", "0003*210")
    assert result.exit_code == 1
    assert offhook("url", "main", "0003*210", "--event", "hangup").stdout == (
        f"{expected('hangup')}\n"
    )


def test_the_one_url_of_a_telphin_extension_can_be_revoked(
    configure: Configure, offhook: Offhook
) -> None:
    tables = '[pbx.main]\ndialect = "telphin"\n'
    configure(tables, public_url="https://events.example.com/pbx")
    result = offhook("url", "revoke", "main", "0003*210", "--yes")
    assert result.stdout == f"{expected('telphin', 1)}\n"


def test_a_name_that_no_url_has_cannot_be_revoked(offhook: Offhook) -> None:
    result = offhook("url", "revoke", "main", "a/b", "--yes")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'a/b' cannot be part of a callback URL" in result.stderr
