"""`offhook lookup`."""

import json

import pytest

from tests.conftest import Configure
from tests.offhook_cli.conftest import Offhook
from tests.offhook_cli.samples import lines, sample

THREE = """
[lookups.staff]
use = "csv"
options.path = "{folder}/staff.csv"
[lookups.customers]
use = "csv"
options.path = "{folder}/customers.csv"
[lookups.slow]
use = "tests.offhook.lookups:Slow"
timeout = 0.1
"""


@pytest.fixture
def three(configure: Configure) -> Configure:
    """Three lookups: an empty one, one that knows Jane, one that times out."""
    folder = configure().parent
    (folder / "staff.csv").write_text("number,name\n")
    (folder / "customers.csv").write_text("number,name\n021 123 4567,Jane of Acme\n")
    configure(THREE.format(folder=folder), region="RO")
    return configure


def test_each_lookup_is_shown_with_its_result(three: Configure, offhook: Offhook) -> None:
    result = offhook("lookup", "0211234567")
    words = " ".join(result.stdout.split())
    assert "staff csv - " in words
    assert "customers csv Jane of Acme " in words
    assert "failed: did not answer within 0.1 s" in words
    assert result.exit_code == 1  # one failed
    shown = sample("lookups.md", "offhook lookup +442079460100")
    assert lines(shown)[0] == lines(result.stdout)[0] == "lookup use name took"


def test_json_has_name_error_and_duration(three: Configure, offhook: Offhook) -> None:
    found = json.loads(offhook("lookup", "0211234567", "--json").stdout)
    assert (found["number"], found["name"]) == ("+40211234567", "Jane of Acme")
    assert [each["lookup"] for each in found["lookups"]] == ["staff", "customers", "slow"]
    assert [each["name"] for each in found["lookups"]] == [None, "Jane of Acme", None]
    assert found["lookups"][2]["error"] == "did not answer within 0.1 s"
    assert 0.1 <= found["lookups"][2]["took"] < 60  # how long it would sleep


def test_number_without_country_is_reported(configure: Configure, offhook: Offhook) -> None:
    folder = configure().parent
    (folder / "staff.csv").write_text("number,name\n0211234567,Jane\n")
    configure(f'[lookups.staff]\nuse = "csv"\noptions.path = "{folder}/staff.csv"\n')
    result = offhook("lookup", "0211234567")
    assert result.exit_code == 0
    assert "Jane" in result.stdout
    assert "The number has no country: set `region`" in result.stdout
    assert "country" not in offhook("lookup", "+40211234567").stdout


@pytest.mark.parametrize("number", ["112", "anonymous"])
def test_internal_or_hidden_number_is_refused(
    number: str, three: Configure, offhook: Offhook
) -> None:
    result = offhook("lookup", number)
    assert result.exit_code == 1
    assert result.stderr == f"{number} is not an external number; lookups are not asked about it\n"


def test_without_lookups_the_fix_is_named(configure: Configure, offhook: Offhook) -> None:
    path = configure()
    result = offhook("lookup", "+40211234567")
    assert result.exit_code == 1
    assert result.stderr == f"no lookup is configured: add a [lookups.NAME] table to {path}\n"


def test_fault_of_a_lookup_names_the_key(configure: Configure, offhook: Offhook) -> None:
    configure('[lookups.staff]\nuse = "csv"\n')
    result = offhook("lookup", "+40211234567")
    assert result.exit_code == 2
    assert result.stderr.startswith("lookups.staff.options.path: ")
