"""`offhook doctor`: what it prints, and what it asks."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from offhook_cli.diagnosis import (
    Finding,
    Verdict,
    inbox_checks,
)
from tests.conftest import Configure
from tests.healthy import CRM, LOCAL, Scene, complaints, healthy, lines, read
from tests.offhook.sandbox import Sandbox, sandbox
from tests.offhook_cli.conftest import Offhook
from unifiedapi.client import UnifiedApi


@pytest.fixture
def scene(tmp_path: Path, redis_url: str, configure: Configure) -> Iterator[Scene]:
    with healthy(tmp_path, redis_url, configure) as made:
        yield made


def test_a_healthy_installation_passes(scene: Scene, offhook: Offhook) -> None:
    told = lines(offhook)
    assert [each for each in told if ": pass " not in each] == [LOCAL]
    assert told[1:3] == [
        "Configuration: pass all plugins load: handlers.crm",
        "Configuration: pass only its owner and group can read the secrets, "
        "and change the configuration",
    ]
    parts = ["Configuration", "Redis", "Inbox", "Workers", "Handlers", "Receiver", "This machine"]
    assert list(dict.fromkeys(each.partition(":")[0] for each in told)) == parts
    assert {
        'Redis: pass satisfies durability = "server"',
        "Redis: pass keeps events on its disk (appendonly yes, appendfsync always): "
        "a power failure costs nothing",
        "Redis: pass its clock agrees with that of this machine",
        "Inbox: pass all partitions are served (1)",
        "Inbox: pass holds 0 events (max_events is not set)",
        "Workers: pass 2 workers run, at least one on each queue",
        "Handlers: pass no handler is far behind (at most 0 events)",
        "Handlers: pass there are no dead letters",
        "Receiver: pass callbacks can arrive: a receiver with this secret answers at public_url",
    } <= {*told}


def test_it_changes_nothing(scene: Scene, offhook: Offhook) -> None:
    def everything() -> dict[bytes, bytes | None]:
        names: Any = scene.redis.keys()
        return {name: scene.redis.dump(name) for name in names}

    files = sorted(scene.folder.rglob("*"))
    before = everything()
    offhook("doctor")
    assert everything() == before
    assert sorted(scene.folder.rglob("*")) == files


def without_numbers(sentence: str) -> str:
    """The server's memory may have grown since the other run of the command."""
    return re.sub(r"\d+(\.\d+)?", "0", sentence)


def test_a_pipe_gets_a_line_for_each_finding(
    scene: Scene, offhook: Offhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    result = offhook("doctor")
    assert "\x1b" not in result.stdout
    found = read(offhook)
    shown = [line for line in result.stdout.splitlines() if line.startswith(" ")]
    assert [without_numbers(line) for line in shown] == [
        without_numbers(f" {each['verdict']} {each['sentence']}")
        for part in found["parts"]
        for each in part["findings"]
    ]
    passed = found["counts"]["pass"]
    assert result.stdout.endswith(f"\n\n0 failures, 1 warning, {passed} passed\n")


def test_a_narrow_terminal_breaks_between_words(
    scene: Scene, offhook: Offhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    shown = [line.rstrip() for line in offhook("doctor").stdout.splitlines()]
    at = shown.index(" warn public_url leads to this machine:")
    assert shown[at + 1 : at + 4] == [
        "      that is for trials; set it to the",
        "      https:// address at which the PBX",
        "      reaches the receiver",
    ]
    words = f"{LOCAL.partition(': ')[2]} 0 failures,"
    assert {*words.split()} <= {*" ".join(shown).split()}


def test_each_check_has_a_name(scene: Scene, offhook: Offhook) -> None:
    found = read(offhook)
    names = {(part["part"], each["check"]) for part in found["parts"] for each in part["findings"]}
    assert {("Inbox", "partitions"), ("Handlers", "dead-letters")} <= names
    assert all(check for _, check in names)


def test_an_unexpected_error_ends_only_its_check(
    scene: Scene, offhook: Offhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def room(seen: object) -> Iterator[Finding]:
        yield Finding(Verdict.PASS, "not shown, because there is more to it")
        raise KeyError("room")

    def inbox() -> list[str]:
        return [each for each in lines(offhook) if each.startswith("Inbox: ")]

    before = inbox()
    changed = [room if each is inbox_checks.room else each for each in inbox_checks.CHECKS]
    monkeypatch.setattr(inbox_checks, "CHECKS", changed)
    at = before.index("Inbox: pass holds 0 events (max_events is not set)")
    before[at] = "Inbox: fail unexpected error (KeyError: 'room'): please report it"
    assert inbox() == before


def test_a_server_that_does_not_answer_ends_only_its_part(scene: Scene, offhook: Offhook) -> None:
    scene.again(CRM, redis_url="redis://user:hunter2@127.0.0.1:1/0")
    assert complaints(offhook) == [
        "Redis: fail Redis at redis://***@127.0.0.1:1/0 does not answer: "
        "start it, or set redis_url",
        "Inbox, workers, handlers: warn not examined, because Redis cannot be used",
        LOCAL,
    ]
    assert "hunter2" not in offhook("doctor").output


def test_the_server_of_the_jobs_is_another_part(
    scene: Scene, offhook: Offhook, redis_url: str
) -> None:
    scene.again(CRM, rq_url=f"{redis_url.removesuffix('/0')}/1")
    parts = [part["part"] for part in read(offhook)["parts"]]
    assert parts[1:3] == [
        f"Redis at {redis_url} (redis_url)",
        f"Redis at {redis_url.removesuffix('/0')}/1 (rq_url)",
    ]
    assert "Workers: fail no workers run: start `offhook work`" in complaints(offhook)
    scene.again(CRM, rq_url="redis://127.0.0.1:1/0")
    assert complaints(offhook) == [
        "Redis: fail Redis at redis://127.0.0.1:1/0 does not answer: start it, or set rq_url",
        "Inbox, workers, handlers: warn not examined, because Redis cannot be used",
        LOCAL,
    ]


def test_a_user_without_rights_is_named(scene: Scene, offhook: Offhook, redis_url: str) -> None:
    where = redis_url.removeprefix("redis://")
    scene.redis.acl_setuser(
        "bob", enabled=True, passwords=["+pw"], keys=["*"], commands=["+info", "+time"]
    )
    try:
        scene.again(CRM, redis_url=f"redis://bob:pw@{where}")
        told = complaints(offhook)
    finally:
        scene.redis.acl_deluser("bob")
    assert told[0] == (
        "Redis: warn does not let Offhook read its appendfsync: make sure that it is always, "
        "or everysec"
    )
    assert told[1].startswith(
        f"Inbox, workers, handlers: fail Redis at redis://***@{where} does not allow this user "
        "everything that Offhook needs"
    )


def test_a_secret_that_a_plugin_says_is_hidden(
    scene: Scene, offhook: Offhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(scene.folder)
    (scene.folder / "key").write_text("k3y-in-a-file\n")
    (scene.folder / "talkative.py").write_text(
        "from dataclasses import dataclass\nfrom offhook import Handler\n"
        "@dataclass(frozen=True)\nclass Talkative(Handler):\n    token: str\n    key: str\n"
        "    def __post_init__(self):\n"
        "        raise RuntimeError(f'{self.token}, {self.key}, ftp://me:l0gin@x')\n"
        "    async def handle(self, event, context): ...\n"
    )
    options = 'options.token = "t0ken"\noptions.key_file = "key"\n'
    scene.again(f'{CRM}[handlers.mine]\nuse = "talkative:Talkative"\n{options}').chmod(0o600)
    (scene.folder / "key").chmod(0o600)
    told = complaints(offhook)[0]
    assert told.startswith("Configuration: fail handlers.mine.options cannot be loaded: Runtime")
    assert "RuntimeError: ***, ***, ftp://***@x (" in told
    result = offhook("doctor").output
    assert not any(each in result for each in ("t0ken", "k3y-in-a-file", "l0gin"))


@pytest.fixture(scope="module")
def pbx() -> Iterator[Sandbox]:
    with sandbox() as running:
        yield running


def test_a_pbx_is_asked_only_on_request(
    pbx: Sandbox, scene: Scene, offhook: Offhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offhook.provisioning.api.UnifiedApi", partial(UnifiedApi, waits=()))
    table = (
        f'{CRM}[pbx.{{}}]\nhost = "{pbx.url}"\ninsecure = true\n'
        'client_id = "sandbox-app"\nclient_secret = "{}"\n[pbx.by_hand]\n'
    )
    insecure = (
        f"PBX: warn pbx.main: any server that answers at {pbx.url} is trusted (insecure), and gets "
        "the credentials: set ca_file instead"
    )
    scene.again(table.format("main", "sandbox-secret"))
    assert "PBX: pass not asked: `offhook doctor --pbx` signs in to main" in lines(offhook)
    assert pbx.requests == []
    assert "PBX: pass main answers, and accepts the credentials" in lines(offhook, "--pbx")
    assert pbx.changes() == []
    assert complaints(offhook, "--pbx") == [LOCAL, insecure]
    scene.again(table.format("main", "not-the-secret"))
    assert complaints(offhook, "--pbx") == [
        LOCAL,
        "PBX: fail pbx.main: the PBX gives no token: invalid_client (401): The app or its secret "
        "is unknown: check client_id and client_secret",
        insecure,
    ]


def test_without_a_pbx_there_is_none_to_ask(scene: Scene, offhook: Offhook) -> None:
    scene.again(f"{CRM}[pbx.by_hand]\n")
    assert "PBX: pass no PBX has a host: there is none to ask" in lines(offhook, "--pbx")


def test_a_folder_of_another_user_is_named(
    scene: Scene, offhook: Offhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    assert complaints(offhook) == [
        LOCAL,
        f"Receiver: warn this user cannot write to {scene.folder}/journal (journal): run `offhook "
        "doctor` as the user of the receiver; if it is that user, change the folder's owner",
    ]


def test_a_machine_without_a_receiver_has_no_journal(scene: Scene, offhook: Offhook) -> None:
    (scene.folder / "journal").rmdir()
    assert (
        f"Receiver: pass no receiver has run here: there is no folder {scene.folder}/journal "
        "(journal)"
    ) in lines(offhook)
