"""`offhook quarantine`, with refused callbacks as the receiver stores them."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from offhook.connection import connect
from offhook.event import from_stored
from offhook.inbox import keys, quarantine
from tests.conftest import Configure
from tests.offhook_cli.conftest import Offhook


def keep(url: str, *bodies: bytes) -> None:
    async def run() -> None:
        async with connect(url) as client:
            for body in bodies:
                refused: dict[str, str | bytes] = {
                    "code": "missing_call_id",
                    "message": "The callback has no CallID.",
                    "pbx": "main",
                    "extension": "0003*210",
                    "event_type": "hangup",
                    "method": "POST",
                    "content_type": "text/plain",
                    "query": b"",
                    "body": body,
                    "received": datetime.now(UTC).isoformat(),
                }
                await quarantine.keep(client, [refused], 10)

    asyncio.run(run())


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(autouse=True)
def _configuration(configure: Configure) -> None:
    configure()


def test_newest_is_listed_first(redis_url: str, offhook: Offhook) -> None:
    keep(redis_url, b"first", b"second")
    listed = json.loads(offhook("quarantine", "list", "--json").stdout)
    assert [refused["body"] for refused in listed] == ["second", "first"]
    lines = offhook("quarantine", "list").stdout.splitlines()
    assert lines[:2] == [listed[0]["id"], "  POST hangup of 0003*210, PBX main"]
    assert lines[2].startswith("  The callback has no CallID. (received ")


def test_an_event_that_workers_set_aside_is_listed(store: redis.Redis, offhook: Offhook) -> None:
    set_aside: Any = {"error": "it cannot be read", "event": b"\xff"}
    key: Any = store.xadd(keys.quarantine(), set_aside)
    lines = offhook("quarantine", "list").stdout.splitlines()
    assert lines[0] == key.decode()
    assert lines[2].startswith("  it cannot be read (received ")


def test_a_long_list_is_read_page_by_page(redis_url: str, offhook: Offhook) -> None:
    keep(redis_url, b"1", b"2", b"3")
    every = [each["id"] for each in json.loads(offhook("quarantine", "list", "--json").stdout)]
    first = offhook("quarantine", "list", "--limit", "2")
    assert [line for line in first.stdout.splitlines() if line[0] != " "] == every[:2]
    assert first.stderr == f"More than 2: the next ones come with --after {every[1]}\n"
    rest = offhook("quarantine", "list", "--limit", "2", "--after", every[1])
    assert (rest.stdout.splitlines()[0], rest.stderr) == (every[2], "")
    wrong = offhook("quarantine", "list", "--after", "(1-0")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert wrong.stderr == "--after: '(1-0' is not the id of a refused callback\n"


def test_body_is_shown_without_control_characters(redis_url: str, offhook: Offhook) -> None:
    keep(redis_url, b"CallStatus=\x1b[31m\xff")
    [refused] = json.loads(offhook("quarantine", "list", "--json").stdout)
    shown = offhook("quarantine", "show", refused["id"]).stdout
    assert (
        "body:         CallStatus=\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}\n" in shown
    )
    assert json.loads(offhook("quarantine", "show", refused["id"], "--json").stdout) == refused


@pytest.mark.parametrize("key", ["1-0", "1", "-", "+", "x\ny"])
def test_unknown_id_is_reported(key: str, redis_url: str, offhook: Offhook) -> None:
    keep(redis_url, b"1")
    result = offhook("quarantine", "show", "--", key)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"There is no refused callback {key}" in result.stderr


def test_retry_delivers_what_is_no_longer_refused(
    redis_url: str, offhook: Offhook, store: redis.Redis
) -> None:
    keep(redis_url, b"CallID=1", b"first", b"CallID=2")
    [second, first, _] = json.loads(offhook("quarantine", "list", "--json").stdout)
    asked = offhook("quarantine", "retry", "--all", input="n\n")
    assert asked.exit_code == 1
    assert "Deliver 3 refused callbacks? [y/N]" in asked.stderr
    assert not store.exists("offhook:{0}:inbox")
    one = offhook("quarantine", "retry", second["id"], "--yes")
    assert (one.exit_code, one.stdout) == (0, "Delivered 1 callback.\n")
    rest = offhook("quarantine", "retry", "--all", "--yes")
    assert (rest.exit_code, rest.stdout) == (1, "Delivered 1 callback.\n")
    assert rest.stderr == f"{first['id']} is still refused: The callback has no CallID.\n"
    assert store.xlen("offhook:{0}:inbox") == 2
    assert json.loads(offhook("quarantine", "list", "--json").stdout) == [first]


def test_retry_keeps_the_order_of_a_call(
    redis_url: str, offhook: Offhook, store: redis.Redis
) -> None:
    keep(redis_url, b"CallID=1&n=1", b"CallID=1&n=2")
    assert offhook("quarantine", "retry", "--all", "--yes").exit_code == 0
    found: Any = store.xrange("offhook:{0}:inbox")
    assert [from_stored(fields[b"e"]).parameters["n"] for _, fields in found] == ["1", "2"]


@pytest.mark.parametrize("arguments", [(), ("1-0", "--all")])
def test_retry_needs_ids_or_all(offhook: Offhook, arguments: tuple[str, ...]) -> None:
    result = offhook("quarantine", "retry", *arguments)
    assert result.exit_code == 2
    assert "by id, or all of them with --all" in result.stderr.replace("\n", " ")


def test_retry_of_an_unknown_id_delivers_nothing(redis_url: str, offhook: Offhook) -> None:
    keep(redis_url, b"CallID=1")
    [kept] = json.loads(offhook("quarantine", "list", "--json").stdout)
    result = offhook("quarantine", "retry", kept["id"], "1-0", "--yes")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "There is no refused callback 1-0" in result.stderr
    assert offhook("quarantine", "clear", "--yes").stdout == "Deleted 1 refused callback.\n"
    assert offhook("quarantine", "retry", "--all").stderr == "The quarantine is empty.\n"


def test_retry_without_room_keeps_the_callbacks(
    redis_url: str, offhook: Offhook, configure: Configure
) -> None:
    keep(redis_url, b"CallID=1")
    configure(durability="replica", replicas=1, patience=0.1)
    result = offhook("quarantine", "retry", "--all", "--yes")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "so they stay in the quarantine: 0 of 1 replicas have had them" in result.stderr
    assert len(json.loads(offhook("quarantine", "list", "--json").stdout)) == 1


def test_clear_asks_and_deletes(redis_url: str, offhook: Offhook) -> None:
    keep(redis_url, b"first", b"second")
    refused = offhook("quarantine", "clear", input="n\n")
    assert refused.exit_code == 1
    assert "Delete 2 refused callbacks? [y/N]" in refused.stderr
    assert offhook("quarantine", "clear", "--yes").stdout == "Deleted 2 refused callbacks.\n"
    assert offhook("quarantine", "list", "--json").stdout == "[]\n"
    assert offhook("quarantine", "clear").stderr == "The quarantine is empty.\n"
