"""`offhook url`."""

import pytest

from offhook.callback_url import callback_url
from offhook.event import CALLBACKS
from tests.conftest import SECRET, Configure
from tests.offhook_cli.conftest import Offhook


@pytest.fixture(autouse=True)
def _configuration(configure: Configure) -> None:
    configure(public_url="https://events.example.com/pbx")


def expected(event_type: str) -> str:
    return callback_url("https://events.example.com/pbx", SECRET, "main", "0003*210", event_type)


def test_there_is_one_for_each_event_type(offhook: Offhook) -> None:
    result = offhook("url", "main", "0003*210")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines == [[each.value, expected(each.value)] for each in CALLBACKS]
    assert result.stderr == ""


def test_one_can_be_had_alone(offhook: Offhook) -> None:
    result = offhook("url", "main", "0003*210", "--event", "hangup")
    assert result.stdout == f"{expected('hangup')}\n"


def test_a_pbx_that_says_the_event_type_itself_has_one_for_all(
    configure: Configure, offhook: Offhook
) -> None:
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


def test_a_url_that_no_pbx_reaches_is_told(configure: Configure, offhook: Offhook) -> None:
    configure()
    result = offhook("url", "main", "0003*210")
    assert result.exit_code == 0
    assert "set public_url" in result.stderr


def test_a_name_that_fits_in_no_url_is_refused(offhook: Offhook) -> None:
    result = offhook("url", "main", "a/b")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'a/b' cannot be part of a callback URL" in result.stderr
