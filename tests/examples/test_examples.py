"""The plugins in examples/: their own tests, and then installed as a user would install them."""

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from offhook.testing import configured, deliver_call, look_up
from tests.conftest import SECRET
from tests.http_target import HttpTarget
from tests.installation import ROOT

EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/pyproject.toml"))

examples = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)


def run(*arguments: str, folder: Path, path: Path) -> str:
    """Run `python -m ...` with a folder of packages; return the output. It must succeed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OFFHOOK_")}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=kept | {"PYTHONPATH": f"{path}:{ROOT}", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all examples installed."""
    folder = tmp_path_factory.mktemp("installed")
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target")
    run("pip", "install", *options, str(folder), *map(str, EXAMPLES), folder=folder, path=folder)
    return folder


@pytest.fixture
def plugins(installed: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The installed plugins, by their entry points' names."""
    monkeypatch.syspath_prepend(str(installed))
    points = [*entry_points(group="offhook.handlers"), *entry_points(group="offhook.lookups")]
    names = {example.name for example in EXAMPLES}
    return {point.name: point.load() for point in points if point.name in names}


def readme(example: Path) -> str:
    return (example / "README.md").read_text()


@examples
def test_its_own_tests_pass(example: Path) -> None:
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:schemathesis")
    run("pytest", *options, folder=example, path=example)


@examples
def test_its_readme_lists_its_options(example: Path, plugins: dict[str, Any]) -> None:
    plugin = plugins[example.name]
    options = [field.name for field in fields(plugin)] if isinstance(plugin, type) else []
    assert re.findall(r"^\| `(\w+)` \|", readme(example), re.MULTILINE) == options


def test_offhook_lists_them_as_the_readmes_configure_them(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "helpdesk").write_text("a-token")
    (tmp_path / "people.json").write_text("{}")
    blocks = [
        text for each in EXAMPLES for text in re.findall(r"```toml\n(.*?)```", readme(each), re.S)
    ]
    config = f"secret = {SECRET!r}\n" + "".join(blocks)
    config = re.sub(r'"(?:/etc/offhook|/run/secrets)/', f'"{tmp_path}/', config)
    (tmp_path / "offhook.toml").write_text(config)
    shown = run("offhook_cli", "handlers", "--json", folder=tmp_path, path=installed)
    listed = json.loads(shown)
    assert listed["problems"] == []
    assert set(listed["configured"]) == set(tomllib.loads(config)["handlers"])
    assert {"helpdesk", "missed_calls"} <= {each["name"] for each in listed["installed"]}
    assert "address_book" in {each["name"] for each in listed["lookups"]["installed"]}
    assert set(listed["lookups"]["configured"]) == {"people"}


def test_helpdesk_repeats_a_ticket_under_the_same_key(
    plugins: dict[str, Any], target: HttpTarget
) -> None:
    handler = configured(plugins["helpdesk"], url=target.url, token="a-token")
    [event] = deliver_call(handler, "missed")
    keys = [request.headers["idempotency-key"] for request in target.requests]
    assert keys == [event.id, event.id]


def test_missed_calls_writes_a_line(
    plugins: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    deliver_call(plugins["missed_calls"], "missed", events=["missed-call"])
    lines = Path("missed-calls.txt").read_text().splitlines()
    assert lines == 2 * ["2026-11-21 19:30 Jane Doe called 0003*210"]


def test_address_book_knows_the_caller(plugins: dict[str, Any], tmp_path: Path) -> None:
    [example] = re.findall(r"```json\n(.*?)```", readme(ROOT / "examples" / "address_book"), re.S)
    (tmp_path / "people.json").write_text(example)
    lookup = configured(plugins["address_book"], path=tmp_path / "people.json")
    assert look_up(lookup, "+442079460100") == "Jane of Acme"
