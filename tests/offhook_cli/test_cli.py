"""Behavior that all commands share: help, configuration faults, an unreachable Redis."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from offhook_cli import COMMANDS
from tests.conftest import Configure
from tests.offhook_cli.conftest import Offhook

UNREACHABLE = "redis://user:the-password@127.0.0.1:1/0"  # nothing listens on port 1
WITH_EXAMPLES = (
    *("dev", "tail", "init", "url", "serve", "work", "lookup", "status", "replay", "doctor"),
    *("deliveries", "calls", "call"),
    *("setup", "setup show", "setup check", "setup export", "setup apply"),
    *("dead list", "dead show", "dead retry", "dead discard"),
    *("quarantine list", "quarantine show", "quarantine retry", "quarantine clear"),
    *("handlers", "handlers show", "presence", "agents"),
    *(f"pbx events {name}" for name in ("list", "create", "change", "delete")),
)


def test_help_lists_every_command_with_its_whole_sentence(offhook: Offhook) -> None:
    shown = offhook("--help").stdout
    for name, sentence in COMMANDS.items():
        assert f"  {name:<10}  {sentence}\n" in shown


def test_no_arguments_show_the_help(offhook: Offhook) -> None:
    assert offhook("--help").stdout in offhook().output


def test_every_command_has_help(offhook: Offhook) -> None:
    for name in COMMANDS:
        result = offhook(name, "--help")
        assert result.exit_code == 0, name
        assert f"Usage: offhook {name}" in result.stdout


def test_help_of_a_group_lists_its_commands_with_whole_sentences(
    offhook: Offhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    groups = ("sandbox", "setup", "handlers", "calls", "dead", "quarantine", "pbx", "pbx events")
    for group in groups:
        shown = offhook(*group.split(), "--help").stdout
        assert "completion" not in shown
        assert not re.search(r"^  \w.*\.\.\.$", shown, re.MULTILINE), group


def test_help_has_examples(offhook: Offhook) -> None:
    for command in WITH_EXAMPLES:
        _, examples = offhook(*command.split(), "--help").stdout.split("Examples:\n")
        assert examples.startswith(f"    offhook {command}")


def test_help_imports_no_command() -> None:
    script = (
        "import sys\n"
        "from offhook_cli import main\n"
        "try: main()\n"
        "finally: sys.stderr.write(' '.join(sys.modules))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=True
    )
    imported = set(answer.stderr.split())
    assert "offhook_cli" in imported
    assert not imported & {f"offhook_cli.{name}" for name in COMMANDS}
    assert not imported & {"apprise", "sqlalchemy", "uvicorn", "rq", "rich", "workers", "receiver"}


def test_receiver_and_workers_import_only_what_they_need() -> None:
    program = (
        "import gc, sys\n"
        "from offhook_cli import load\n"
        "load('work'), load('serve')\n"
        "assert gc.isenabled()\n"
        "print(*sys.modules)\n"
        "import opentelemetry.sdk.metrics\n"  # what redis-py did without, others may have
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    imported = set(answer.stdout.split())
    assert {"redis", "workers.serve", "receiver.app"} <= imported
    assert not imported & {"httpx", "rich", "opentelemetry.sdk", "apprise", "sqlalchemy"}


def test_version_option_prints_the_package_version(offhook: Offhook) -> None:
    result = offhook("--version")
    assert (result.exit_code, result.stdout) == (0, f"offhook {version('offhook')}\n")


def test_help_says_where_the_documentation_is(offhook: Offhook) -> None:
    page = offhook("--help").stdout.partition("Documentation:")[2].replace("\n", "").strip()
    assert Path(page.replace("  ", "")).read_text().startswith("# Documentation\n")


def test_unknown_command_is_a_usage_error(offhook: Offhook) -> None:
    result = offhook("repaly")
    assert result.exit_code == 2
    assert "repaly" in result.stderr


@pytest.mark.parametrize("command", ["serve", "work", "status", "dead list", "url main 0003*210"])
def test_faults_of_the_configuration_are_one_line_each(
    command: str, configure: Configure, offhook: Offhook
) -> None:
    configure(partitions=0, keep_days=-1.0)
    result = offhook(*command.split())
    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    assert first.startswith("partitions: ")
    assert second.startswith("keep_days: ")
    assert result.stdout == ""


@pytest.mark.parametrize(
    "command",
    [
        *("status", "status --json", "dead list", "dead retry --all --yes", "quarantine list"),
        "replay --handler screen --since 1h --yes",
    ],
)
def test_unreachable_redis_is_one_sentence_without_the_password(
    command: str, configure: Configure, offhook: Offhook
) -> None:
    configure('[handlers.screen]\nuse = "console"\n', redis_url=UNREACHABLE)
    result = offhook(*command.split())
    assert result.exit_code == 1
    assert result.stderr == (
        "Redis at redis://***@127.0.0.1:1/0 does not answer: start it, or set redis_url\n"
    )
    assert result.stdout == ""


def test_unexpected_errors_are_raised(
    configure: Configure, offhook: Offhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure()
    monkeypatch.setattr("offhook_cli.status.read_status", None)
    assert isinstance(offhook("status").exception, TypeError)
