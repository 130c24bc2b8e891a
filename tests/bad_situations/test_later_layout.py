"""An older version runs on an inbox that a later one has changed: it refuses, and loses nothing."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis

from offhook.connection import opened
from offhook.errors import LaterLayout
from offhook.inbox import keys
from offhook.inbox.numbering import LAYOUT
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.installation import OFFHOOK, wait_until
from tests.offhook_cli.conftest import Offhook
from tests.receiver.running import RunningReceiver, running_receiver, url

SENTENCE = (
    f"a later version of Offhook has written the inbox (layout {LAYOUT + 1}; this version knows "
    f"{LAYOUT}): install that version again, or restore the backup from before it"
)
COMMANDS = (
    "console",
    "status",
    "calls",
    "replay --handler console --since 1h",
    "quarantine list",
)


@pytest.fixture
def changed(redis_url: str, configure: Configure) -> Any:
    """Return a client of a server whose inbox a later version has written."""
    configure('[handlers.console]\nuse = "console"\n')
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.hset(keys.PARTITIONS, mapping={"layout": LAYOUT + 1, "current": 1, "epoch": 1})
        yield client


def post(receiver: RunningReceiver, call: str) -> int:
    return receiver.post(url(), f"CallID={call}".encode()).status


def ready(receiver: RunningReceiver) -> Any:
    return receiver.get("/health/ready").json


def test_workers_end_with_the_reason(changed: Any) -> None:
    command = [OFFHOOK, "work"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, SENTENCE in ended.stderr) == (2, True), ended.stderr
    assert changed.keys() == [keys.PARTITIONS]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_says_why_and_changes_nothing(command: str, changed: Any, offhook: Offhook) -> None:
    result = offhook(*command.split())
    assert (result.exit_code, SENTENCE in result.stderr) == (2, True), result.stderr
    assert changed.keys() == [keys.PARTITIONS]


def test_doctor_fails_with_the_reason(changed: Any, offhook: Offhook) -> None:
    result = offhook("doctor", "--json")
    assert result.exit_code == 1
    assert SENTENCE in result.stdout


def test_receiver_accepts_into_its_journal_until_the_inbox_is_its_own(
    changed: Any, redis_url: str, tmp_path: Path
) -> None:
    with running_receiver(redis_url, tmp_path, journal=tmp_path / "journal") as receiver:
        wait_until(lambda: ready(receiver)["notes"] == [f"redis: {SENTENCE}"], "it says why")
        assert post(receiver, "1") == 200
        assert changed.keys() == [keys.PARTITIONS]
        assert receiver.get("/metrics").status == 200
        changed.hset(keys.PARTITIONS, "layout", LAYOUT)  # a backup was restored
        wait_until(lambda: changed.xlen(keys.inbox(0)) == 1, "the journal is in the inbox")


def test_running_receiver_uses_its_journal_when_the_layout_changes_with_an_epoch(
    redis_url: str, tmp_path: Path
) -> None:
    with (
        redis.Redis.from_url(redis_url, decode_responses=True) as client,
        running_receiver(redis_url, tmp_path, journal=tmp_path / "journal") as receiver,
    ):
        wait_until(lambda: client.exists(keys.PARTITIONS), "the receiver uses the inbox")
        assert client.hget(keys.PARTITIONS, "layout") == str(LAYOUT)
        assert post(receiver, "1") == 200
        epoch = int(client.hget(keys.PARTITIONS, "epoch") or 0) + 1
        client.hset(keys.PARTITIONS, mapping={"layout": LAYOUT + 1, "epoch": epoch})
        client.set(keys.epoch(0), epoch)
        assert post(receiver, "2") == 200
        assert client.xlen(keys.inbox(0)) == 1
        assert ready(receiver)["journal"] > 0


async def test_inbox_says_its_layout_and_a_later_one_is_refused(
    changed: Any, redis_url: str
) -> None:
    with pytest.raises(LaterLayout):
        async with opened(load_settings()):
            pass
    changed.hset(keys.PARTITIONS, "layout", LAYOUT)
    async with opened(load_settings()) as (inbox, _):
        assert inbox.numbering.current == 1
