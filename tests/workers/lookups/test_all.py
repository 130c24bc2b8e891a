"""What holds for every built-in lookup that is no handler, too."""

import re
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from offhook import Handler
from offhook.errors import ConfigError
from offhook.plugins import installed, load_lookup
from offhook.settings import LookupSettings
from offhook.testing import configured
from tests.http_target import http_target

DOCS = (Path(__file__).parents[3] / "docs" / "lookups.md").read_text()

# Options with which each can be made, every one of them set.
OPTIONS: dict[str, dict[str, Any]] = {
    "csv": {"path": Path("contacts.csv"), "number": ("Phone", "Mobile"), "name": ("Company",)},
    "sql": {
        "url": "postgresql://offhook:hush@db.example.com/crm",
        "query": "SELECT name FROM contacts WHERE phone = :number",
    },
}
HANDLERS = {name for name in installed("lookups") if issubclass(load_lookup(name), Handler)}

names = pytest.mark.parametrize("name", OPTIONS)


def plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def test_every_installed_lookup_is_tested_here_or_as_a_crm() -> None:
    assert set(installed("lookups")) - HANDLERS == set(OPTIONS)


@names
def test_options_survive_a_round_trip(name: str) -> None:
    cls: Any = load_lookup(name)
    assert set(OPTIONS[name]) == {field.name for field in fields(cls)}
    made = configured(cls, **OPTIONS[name])
    assert {option: plain(getattr(made, option)) for option in OPTIONS[name]} == OPTIONS[name]


@names
def test_an_error_names_an_option_of_the_wrong_type(name: str) -> None:
    for option in OPTIONS[name]:
        with pytest.raises(ConfigError) as wrong:
            configured(load_lookup(name), **OPTIONS[name] | {option: object()})
        assert all(problem.startswith(f"options.{option}") for problem in wrong.value.problems)


@names
def test_it_documents_itself_and_each_option(name: str) -> None:
    assert str(load_lookup(name).__doc__).startswith("Find names in ")
    for option, hint in get_type_hints(load_lookup(name), include_extras=True).items():
        if option in OPTIONS[name]:
            assert get_origin(hint) is Annotated
            assert any(isinstance(e, FieldInfo) and e.description for e in get_args(hint)), option


@names
def test_the_docs_list_its_options(name: str) -> None:
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", DOCS, re.DOTALL | re.MULTILINE))
    named = re.findall(r"^\| `(\w+)` \|", sections[f"`{name}`"], re.MULTILINE)
    assert named == list(OPTIONS[name])


def test_the_docs_list_the_settings_of_a_lookup() -> None:
    settings, _, _ = DOCS.partition("\n## `csv`")
    named = re.findall(r"^\| `(\w+)` \|", settings, re.MULTILINE)
    assert named == list(LookupSettings.model_fields)


def test_the_docs_name_every_crm() -> None:
    section = re.search(r"^## A CRM\n(.*?)(?=^## )", DOCS, re.DOTALL | re.MULTILINE)
    assert section
    assert {f"`{name}`" for name in HANDLERS} <= set(re.findall("`[^`]+`", section[1]))


def test_the_docs_example_lookup_passes_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(# directory\.py\n.*?)```", DOCS, re.DOTALL)
    test = re.search(r"```python\n(# test_directory\.py\n.*?)```", DOCS, re.DOTALL)
    assert code
    assert test
    module = ModuleType("directory")
    monkeypatch.setitem(sys.modules, "directory", module)
    exec(compile(code[1], "directory.py", "exec"), vars(module))  # noqa: S102
    assert len(code[1].splitlines()) < 25
    tests: dict[str, Any] = {}
    exec(compile(test[1], "test_directory.py", "exec"), tests)  # noqa: S102
    with http_target() as server:
        server.plan(200, body=b'{"name": "Jane of Acme"}')
        server.plan(404)
        tests["test_only_known_numbers_have_a_name"](server)
        assert [request.path for request in server.requests] == [
            "/people?phone=%2B40211234567",
            "/people?phone=%2B40211234568",
        ]
