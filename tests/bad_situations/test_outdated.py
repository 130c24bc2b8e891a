"""What an integrator reads when the files are not those that `offhook work` runs."""

import json
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import redis

from offhook.inbox import keys
from offhook.operations.processes import Process, leave, report, running
from offhook.operations.running_files import CONSOLE, SERVE, WORK, loaded_now, newer_files
from offhook.plugins import plug_all
from offhook.settings import Settings, load_settings
from tests.conftest import Configure
from tests.events import event
from tests.offhook_cli.conftest import Offhook
from tests.offhook_cli.test_dead import bury

CONFIG = """
[handlers.crm]
use = "{name}:show"
[handlers.hook]
use = "webhook"
options.url = "https://crm.example.com"
options.secret_file = "hook-secret"
"""
PLUGIN = """
from {name}_words import WORD
def show(event):
    print(WORD, event.type, flush=True)
def fail():
    raise ValueError("v1")
"""
Add = Callable[..., None]


@pytest.fixture
def name(tmp_path: Path, configure: Configure) -> Iterator[str]:
    """Return the name of a plugin that is loaded, as configured."""
    name = f"outdated_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(PLUGIN.format(name=name))
    (tmp_path / f"{name}_words.py").write_text("WORD = 'v1'\n")
    (tmp_path / "hook-secret").write_text("not easy to guess")
    configure(CONFIG.format(name=name))
    yield name
    for module in (name, f"{name}_words"):
        sys.modules.pop(module, None)


@pytest.fixture
def settings(name: str) -> Settings:
    settings = load_settings()
    assert plug_all(settings.handlers, settings.lookups).broken == {}
    return settings


@pytest.fixture
def add(settings: Settings, redis_url: str) -> Add:
    """Return a function that adds a process with the files as they are now, and its changes."""

    def add(program: str = WORK, name: str = "web/1/a", **changes: Any) -> None:
        at = {"at": "2026-05-01T10:00:00+00:00"}
        process = Process(replace(loaded_now(settings, program=program), **(at | changes)))
        with redis.Redis.from_url(redis_url) as client:
            report(client, name, process)

    return add


@pytest.fixture
def told(settings: Settings, redis_url: str) -> Callable[[], list[str]]:
    def told() -> list[str]:
        with redis.Redis.from_url(redis_url) as client:
            loaded = [each.loaded for each in running(client)]
        return [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", each)
                for each in newer_files(loaded, settings)]  # fmt: skip

    return told


RELOAD = "since `offhook work` loaded its files (TIME): `offhook reload` applies what is new"


def test_nothing_is_said_while_the_files_are_the_same(
    add: Add, told: Callable[[], list[str]], tmp_path: Path, name: str
) -> None:
    assert told() == []
    add()
    add(host="other", name="other")
    (tmp_path / f"{name}.py").touch()
    (tmp_path / "another.py").write_text("")
    assert told() == []


@pytest.mark.parametrize("file", ["NAME.py", "NAME_words.py", "offhook.toml", "hook-secret"])
def test_a_changed_file_is_named(
    file: str, add: Add, told: Callable[[], list[str]], tmp_path: Path, name: str
) -> None:
    file = file.replace("NAME", name)
    add()
    with (tmp_path / file).open("a") as opened:
        opened.write("# changed")
    assert told() == [f"{file} has changed {RELOAD}"]
    (tmp_path / file).unlink()
    if file != "offhook.toml":
        assert told() == [f"{file} has changed {RELOAD}"]


def test_a_plugin_that_workers_could_not_load_is_named(
    add: Add, told: Callable[[], list[str]]
) -> None:
    sentence = "handlers.crm.use: 'crm:show' cannot be loaded: KeyError: 'x' (crm.py, line 2)"
    add(broken=[sentence])
    add(host="web2", name="web2", broken=[sentence])
    assert told() == [f"{sentence}; correct it and run `offhook reload`"]


def test_many_changed_files_are_counted(
    add: Add, told: Callable[[], list[str]], tmp_path: Path, name: str
) -> None:
    files = ["hook-secret", "offhook.toml", f"{name}.py", f"{name}_words.py"]
    add()
    for file in files:
        with (tmp_path / file).open("a") as opened:
            opened.write(" ")
    assert told() == [f"hook-secret, offhook.toml, {name}.py and 1 more have changed {RELOAD}"]


def test_another_machine_is_named(
    add: Add, told: Callable[[], list[str]], tmp_path: Path, name: str
) -> None:
    add(host="web2", name="web2")
    (tmp_path / f"{name}.py").write_text(PLUGIN.format(name=name) + "\n")
    add(host="web3", name="web3")
    assert told() == [
        f"`offhook work` on web2, version of TIME, does not run the {name}.py that is here: "
        "copy what is newer to the other machine, then run `offhook reload`"
    ]


def test_another_machine_may_have_another_folder(
    add: Add, told: Callable[[], list[str]], settings: Settings, tmp_path: Path, name: str
) -> None:
    files = {
        path.replace(str(tmp_path), "/srv/offhook"): digest
        for path, digest in (loaded_now(settings).files | loaded_now(settings).code).items()
    }
    files |= {"/usr/lib/python3/dist-packages/not_here.py": "0"}
    add(host="web2", folder="/srv/offhook", files=files, code={})
    assert told() == []
    (tmp_path / "hook-secret").write_text("another one")
    assert told() == [
        "`offhook work` on web2, version of TIME, does not run the hook-secret that is here: "
        "copy what is newer to the other machine, then run `offhook reload`"
    ]


def test_processes_of_a_receiver_say_it_once(
    add: Add, told: Callable[[], list[str]], tmp_path: Path, name: str
) -> None:
    add(SERVE)
    add(SERVE, pid=1, name="web/1/b")
    (tmp_path / f"{name}.py").write_text("# a receiver does not load it")
    assert told() == []
    (tmp_path / "hook-secret").write_text("another one")
    assert told() == [f"hook-secret has changed {RELOAD.replace('work', 'serve')}"]


def test_processes_without_plugins_run_the_version_of_the_workers(
    add: Add, offhook: Offhook
) -> None:
    for pid, program in enumerate((CONSOLE, SERVE, WORK, CONSOLE, SERVE)):  # listed in any order
        add(program, pid=pid, name=f"web/{pid}/a")
    problems = json.loads(offhook("status", "--json").stdout)["problems"]
    assert [each for each in problems if "different versions" in each] == []


def test_processes_that_ended_are_left_out(
    add: Add, told: Callable[[], list[str]], tmp_path: Path, redis_url: str
) -> None:
    add()
    with redis.Redis.from_url(redis_url) as client:
        leave(client, "web/1/a")
        client.zadd(keys.PROCESSES, {"expired": 1, "web2/1": 1})
        client.set(keys.process("web2/1"), '{"of": "another version of Offhook"}')
    (tmp_path / "hook-secret").write_text("another one")
    assert told() == []


def test_no_digest_helps_to_guess_a_secret(
    settings: Settings, configure: Configure, name: str
) -> None:
    before = loaded_now(settings).files
    configure(CONFIG.format(name=name), secret="another secret for the URLs, of 40 letters")
    after = loaded_now(load_settings()).files
    assert before.keys() == after.keys()
    assert set(before.values()).isdisjoint(after.values())


def test_a_new_secret_changes_only_its_own_file(
    add: Add,
    told: Callable[[], list[str]],
    redis_url: str,
    configure: Configure,
    name: str,
    settings: Settings,
) -> None:
    add()
    configure(
        CONFIG.format(name=name),
        secret="another secret for the URLs, of 40 letters",
        previous_secret=settings.secret.get_secret_value(),
    )
    with redis.Redis.from_url(redis_url) as client:
        (sentence,) = newer_files([each.loaded for each in running(client)], load_settings())
    assert sentence.startswith("offhook.toml has changed since")


def test_status_and_dead_retry_say_it(
    add: Add, tmp_path: Path, offhook: Offhook, redis_url: str
) -> None:
    add()
    (tmp_path / "hook-secret").write_text("another one")
    problems = json.loads(offhook("status", "--json").stdout)["problems"]
    expected = "hook-secret has changed since `offhook work` loaded its files"
    assert [each for each in problems if each.startswith(expected)]
    assert f"! {expected}" in offhook("status").stdout
    with redis.Redis.from_url(redis_url) as rq:
        bury(rq, event())
    result = offhook("dead", "retry", "--all", "--yes")
    assert result.stderr.startswith(f"! {expected}")
    assert result.stdout == "Retried 1 dead letter.\n"


def test_a_traceback_quotes_the_code_that_runs(
    settings: Settings, tmp_path: Path, name: str
) -> None:
    loaded_now(settings)
    (tmp_path / f"{name}.py").write_text("# another line\n" * 10)
    with pytest.raises(ValueError, match="v1") as error:
        import_module(name).fail()
    assert 'raise ValueError("v1")' in "".join(traceback.format_exception(error.value))
