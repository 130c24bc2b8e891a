"""`offhook init`."""

import re
import stat
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from offhook.event import EventType
from offhook.plugins import faults, installed, plug_handler, plug_lookup
from offhook.settings import (
    ConsoleSettings,
    HandlerSettings,
    LookupSettings,
    PbxSettings,
    Settings,
    TenantLimits,
    TenantSettings,
    load_settings,
)
from offhook_cli.init import configuration
from tests.offhook_cli.conftest import Offhook


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("OFFHOOK_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_written_configuration_has_all_defaults(offhook: Offhook, folder: Path) -> None:
    assert offhook("init").exit_code == 0
    settings = load_settings()
    assert settings.model_dump(exclude={"secret", "handlers"}) == Settings.model_construct(
        secret=settings.secret
    ).model_dump(exclude={"secret", "handlers"})
    assert settings.handlers == {"screen": HandlerSettings(use="console")}
    assert faults(plug_handler, settings.handlers) == []


def test_secret_is_long_and_private(offhook: Offhook, folder: Path) -> None:
    offhook("init")
    path = folder / "offhook.secret"
    for each in (path, folder / "offhook.toml"):  # options may be secrets
        assert stat.S_IMODE(each.stat().st_mode) == 0o600
    assert load_settings().secret.get_secret_value() == path.read_text().strip()
    assert len(path.read_text().strip()) >= 43


def test_two_secrets_differ(offhook: Offhook, folder: Path) -> None:
    offhook("init", "--directory", "one")
    offhook("init", "--directory", "two")
    one, two = (folder / name / "offhook.secret" for name in ("one", "two"))
    assert one.read_text() != two.read_text()


def test_uncommented_lines_are_valid_settings(offhook: Offhook, folder: Path) -> None:
    offhook("init")
    path = folder / "offhook.toml"
    path.write_text(re.sub(r"^#(?=\S)", "", path.read_text(), flags=re.MULTILINE))
    (folder / "offhook.previous-secret").write_text("another secret, also forty characters long")
    (folder / "offhook.metrics-token").write_text("a token, also more than forty characters long")
    (folder / "offhook.client-secret").write_text("the app's secret")
    settings = load_settings()
    assert settings.previous_secret is not None
    plugged = {name: plug_handler(name, table) for name, table in settings.handlers.items()}
    assert plugged["missed"].events == frozenset({EventType.MISSED_CALL})
    assert [plug_lookup(n, t).lifetime for n, t in settings.lookups.items()] == [300, 300]


def test_every_setting_is_listed_with_its_description() -> None:
    text = configuration()
    tables: dict[type[BaseModel], set[str]] = {
        Settings: {"handlers", "lookups", "pbx", "tenants", "console"},
        # `offhook console user` prints a user; docs/console.md has single sign-on.
        ConsoleSettings: {"users", "oidc"},
        HandlerSettings: {"use", "options"},
        LookupSettings: {"use", "options"},
        PbxSettings: {"token"},  # described in a comment
        TenantSettings: {"handlers", "lookups", "pbx", "limits", "users"},
        TenantLimits: set(),
    }
    for model, elsewhere in tables.items():
        for name, field in model.model_fields.items():
            if name in elsewhere:
                continue
            comments = re.findall(rf"((?:^# .*\n)+)#?{name}(?:_file)? = ", text, re.MULTILINE)
            described = [" ".join(re.findall("^# (.*)", each, re.MULTILINE)) for each in comments]
            assert any(each.endswith(str(field.description)) for each in described), name
    assert max(map(len, text.splitlines())) <= 100


def test_examples_use_built_in_plugins() -> None:
    uncommented = tomllib.loads(re.sub(r"^#(?=\S)", "", configuration(), flags=re.MULTILINE))
    for table, plugins in {
        "handlers": installed("handlers"),
        "lookups": installed("lookups"),
    }.items():
        built_in = {
            n for n, point in plugins.items() if point.dist and point.dist.name == "offhook"
        }
        assert {each["use"] for each in uncommented[table].values()} <= built_in


@pytest.mark.parametrize("name", ["offhook.toml", "offhook.secret"])
def test_nothing_is_overwritten(name: str, offhook: Offhook, folder: Path) -> None:
    (folder / name).write_text("mine")
    result = offhook("init")
    assert result.exit_code == 1
    assert result.stderr == f"{name} already exists; nothing was written.\n"
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_text() == "mine"


def test_next_steps_are_printed(offhook: Offhook, folder: Path) -> None:
    assert "export" not in offhook("init").stdout
    elsewhere = offhook("init", "--directory", "etc").stdout
    assert f"export OFFHOOK_CONFIG={folder.resolve()}/etc/offhook.toml" in elsewhere
    assert "offhook serve" in elsewhere
    assert "`offhook work --reload`" in elsewhere


def test_unwritable_directory_is_one_sentence(offhook: Offhook, folder: Path) -> None:
    (folder / "file").write_text("")
    result = offhook("init", "--directory", "file/below")
    assert result.exit_code == 1
    assert result.stderr == "cannot write file/below: Not a directory\n"
