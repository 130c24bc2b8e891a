"""What a shell offers after a tab, and that nothing disturbs the line that a person types."""

import os
import re
import shlex
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import redis
from typer.testing import CliRunner

from offhook.extensions import _field
from offhook.inbox import keys
from offhook_cli import app
from tests.conftest import Configure
from tests.installation import OFFHOOK
from tests.offhook_cli.test_dead import OTHER, bury, letter_id

T = TypeVar("T")

CONFIG = """
[handlers.crm]
use = "console"
[handlers.chat]
use = "console"
[pbx.Office]
dialect = "telphin"
"""
COMMANDS = ["show", "export", "apply", "check"]  # of `offhook setup`
EXTENSIONS = ["0003*210", "0003*211", "0004*100"]
CALLS = ["Office/1795289402.1", "main/1795289401.1", "main/1795289400.1"]
HOSTILE = [
    "$(touch /tmp/x)",
    "\\$(touch /tmp/x)",
    '";touch /tmp/x;"',
    "`touch /tmp/x`",
    "a b",
    "a'b",
    "a\nb",
    "a\\",
]


@pytest.fixture
def known(configure: Configure, redis_url: str) -> Iterator[redis.Redis]:
    """Extensions, calls, dead letters and more, that the shell may offer."""
    configure(CONFIG, partitions=4)
    with redis.Redis.from_url(redis_url) as rq:
        for each in EXTENSIONS:
            rq.hset(keys.EXTENSIONS, _field("main", each), "{}")
        rq.hset(keys.EXTENSIONS, mapping={"version": "3", "phones main": '["0003*299"]'})
        rq.zadd(keys.calls(0), {"main/1795289400.1": 1, "Office/1795289402.1": 3})
        rq.zadd(keys.calls(3), {"main/1795289401.1": 2})
        bury(rq, OTHER)
        rq.xadd(keys.quarantine(), {"request": "x" * 1000}, id="1795289400000-0")
        rq.hset(keys.known(0), mapping={"crm": "0", "old-crm": "0"})
        yield rq


OFFERED = {
    "st": ["status"],
    "de": ["demo", "dev", "dead", "deliveries"],
    "do": ["doctor"],
    "doctor --": ["--pbx", "--bundle", "--json", "--help"],
    "dead ": ["list", "show", "retry", "discard"],
    "pbx events c": ["create", "change"],
    "handlers ": ["show", "preview", "new", "pause", "resume", "test", "would-get"],
    "handlers --js": ["--json"],
    "handlers show webh": ["webhook"],
    "handlers preview c": ["crm", "chat"],
    "sandbox call outgoing-b": ["outgoing-busy"],
    "calls --be": ["--before"],
    "calls --outcome can": ["cancelled"],
    "replay --handler c": ["crm", "chat"],
    "tail --handler c": ["crm", "chat"],
    "tail --handler crm --ha": ["--handler"],  # may be repeated
    "tail --extension 0004": ["0004*100"],
    "tail --call main/": ["main/1795289401.1", "main/1795289400.1"],
    "dead list --handler crm --ha": [],
    "dead list --handler c": ["crm", "chat"],
    "dead list --extension 0004": ["0004*100"],
    "dead list --type call-c": ["call-corrected"],
    "dead list --type hangup --call ": CALLS,
    "pbx events list 0004": ["0004*100"],
    "pbx events create 0003*210 --type answer-": ["answer-in", "answer-out"],
    "pbx events change 0003*210 ": [],
    "setup ": [*COMMANDS, *EXTENSIONS],
    "setup sh": ["show"],
    "setup 0003*2": ["0003*210", "0003*211"],
    "setup 0003*210 ": EXTENSIONS,
    "setup check ": EXTENSIONS,
    "setup --kn": ["--known"],
    "setup --known --pbx ": ["Office"],
    "setup --handlers c": ["crm", "chat"],
    "setup --handlers crm,": ["crm,chat"],
    "setup --events dial-in,h": ["dial-in,hangup"],
    "setup --label ": [],
    "setup show --": ["--pbx", "--tenant", "--json", "--help"],
    "url ": ["print", "revoke", "Office"],
    "url main 0004": ["0004*100"],
    "url revoke Office 0003*211": ["0003*211"],
    "calls reconcile --pbx ": ["Office"],
    "calls --extension 0004": ["0004*100"],
    "agents ": EXTENSIONS,
    "agents 0003*210 0004": ["0004*100"],
    "presence 0003*21": ["0003*210", "0003*211"],
    "presence -- 0003*21": ["0003*210", "0003*211"],
    "call ": CALLS,
    "call main/179528940": ["main/1795289401.1", "main/1795289400.1"],
    "call main/1795289400.1 ": [],
    "dead show ": [letter_id(OTHER)],
    "dead retry ": [letter_id(OTHER)],
    "quarantine show ": ["1795289400000-0"],
    "quarantine clear ": [],
    "quarantine retry ": ["1795289400000-0"],
    "forget ": ["old-crm"],
    "nonsense --": ["--version", "--install-completion", "--show-completion", "--help"],
    "--he": ["--help"],
}  # fmt: skip


def environment(shell: str, line: str) -> dict[str, str]:
    """What the script of a shell sets."""
    return {
        "_OFFHOOK_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": f"offhook {line}",
        "COMP_CWORD": str(line.count(" ") + 1),
        "_TYPER_COMPLETE_ARGS": f"offhook {line}",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }


def answered(shell: str, line: str) -> str:
    result = CliRunner().invoke(app, env=environment(shell, line), prog_name="offhook")
    assert (result.exit_code, result.stderr) == (0, ""), (line, result.exception)
    return result.stdout


def offered(line: str) -> list[str]:
    return sorted(answered("bash", line).split())


def check(ask: Callable[[], T], expected: T) -> None:
    """Check an answer, again if a server on a busy machine has not answered in its moment."""
    for _ in range(30):
        if ask() == expected:
            return
    assert ask() == expected


@pytest.mark.parametrize("line", OFFERED)
def test_a_shell_offers_what_may_come_next(line: str, known: redis.Redis) -> None:
    check(lambda: offered(line), sorted(OFFERED[line]))


def test_bash_completes_with_the_script_that_is_installed(known: redis.Redis) -> None:
    path = f"{Path(OFFHOOK).parent}:{os.environ['PATH']}"
    script = subprocess.run(
        [OFFHOOK],
        env=os.environ | {"_OFFHOOK_COMPLETE": "source_bash"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    def answer(word: str) -> tuple[list[str], str]:
        done = subprocess.run(
            [
                "bash",
                "--norc",
                "-c",
                f'{script}\nCOMP_WORDS=(offhook setup "{word}"); COMP_CWORD=2; '
                "_offhook_completion offhook; printf '%s\\n' \"${COMPREPLY[@]}\"",
            ],
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines(), done.stderr

    check(lambda: answer("0003*21"), (["0003*210", "0003*211"], ""))
    check(lambda: answer("'0003*21"), (["0003*210", "0003*211"], ""))


def test_the_installed_command_answers_and_does_nothing_else(known: redis.Redis) -> None:
    def answer(line: str) -> tuple[int, list[str], str]:
        done = subprocess.run(
            [OFFHOOK],
            env=os.environ | environment("bash", line),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, sorted(done.stdout.split()), done.stderr

    check(lambda: answer("setup 0003"), (0, ["0003*210", "0003*211"], ""))
    assert answer("forget old-crm --yes ") == (0, [], "")
    assert known.hexists(keys.known(0), "old-crm")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_nothing_that_it_might_run(shell: str, known: redis.Redis) -> None:
    known.zadd(keys.calls(0), {f"main/{each}": 9 for each in HOSTILE})
    answers = []

    def ids() -> set[str]:
        answers.append(answered(shell, "call main/"))
        return set(re.findall(r"main/[0-9.]+", answers[-1]))

    check(ids, {each for each in CALLS if each.startswith("main/")})
    for each in ("touch", "a b", "a'", "main/a", "\\"):
        assert each not in answers[-1]
    for each in HOSTILE:
        assert "crm" not in answered(shell, f"setup --handlers {shlex.quote(each)},c")


@pytest.mark.parametrize(
    "config", ["not TOML", "\xff\xfe", "handlers = 5", "partitions = 'x'", "redis_url = 5", None]
)
def test_a_wrong_configuration_never_disturbs_the_line(
    config: str | None, configure: Configure
) -> None:
    path = configure()
    if config is None:
        path.unlink()
    else:
        path.write_bytes(config.encode("latin-1"))
    for line in ("tail --handler ", "setup 0", "call ", "dead show ", "url main '", "forget "):
        assert offered(line) == [], line
    assert offered("setup ") == sorted(COMMANDS)


def test_a_server_that_does_not_answer_is_left_out(configure: Configure) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        for url in (
            f"redis://127.0.0.1:{port}/0",
            "redis://127.0.0.1:1/0",
            f"rediss://127.0.0.1:{port}/0",
            "unix:///nowhere",
            "sentinel://127.0.0.1:1/main/0",
            "redis://no-such-host.invalid/0",
        ):
            configure(CONFIG, redis_url=url)
            assert offered("setup ") == sorted(COMMANDS)
