"""`offhook quarantine`, with refused callbacks as the receiver stores them."""

import asyncio
import json
from datetime import UTC, datetime

import pytest

from offhook.connection import connect
from offhook.inbox import quarantine
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
                await quarantine.keep(client, refused, 10)

    asyncio.run(run())


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


def test_body_is_shown_without_control_characters(redis_url: str, offhook: Offhook) -> None:
    keep(redis_url, b"CallStatus=\x1b[31m\xff")
    [refused] = json.loads(offhook("quarantine", "list", "--json").stdout)
    shown = offhook("quarantine", "show", refused["id"]).stdout
    assert (
        "body:         CallStatus=\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}\n" in shown
    )
    assert json.loads(offhook("quarantine", "show", refused["id"], "--json").stdout) == refused


def test_unknown_id_is_reported(redis_url: str, offhook: Offhook) -> None:
    result = offhook("quarantine", "show", "1-0")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "There is no refused callback 1-0" in result.stderr


def test_clear_asks_and_deletes(redis_url: str, offhook: Offhook) -> None:
    keep(redis_url, b"first", b"second")
    refused = offhook("quarantine", "clear", input="n\n")
    assert refused.exit_code == 1
    assert "Delete 2 refused callbacks? [y/N]" in refused.stderr
    assert offhook("quarantine", "clear", "--yes").stdout == "Deleted 2 refused callbacks.\n"
    assert offhook("quarantine", "list", "--json").stdout == "[]\n"
    assert offhook("quarantine", "clear").stderr == "The quarantine is empty.\n"
