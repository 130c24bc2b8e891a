"""`offhook deliveries`, and the deliveries of `offhook call`."""

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from offhook import CallEvent, Context, PermanentError, TemporaryError
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import event
from tests.offhook_cli.conftest import Offhook
from tests.workers.serving.bench import Bench

HANDLERS = '[handlers.crm]\nuse = "console"\n[handlers.screen]\nuse = "console"\n'


async def fails_as_named(one: CallEvent, context: Context) -> None:
    if one.call_id == "rejected":
        raise PermanentError("answered 410 (crm.example.com): [red]no such\x1b[0m contact")
    if one.call_id == "busy":
        raise TemporaryError("no answer from crm.example.com", retry_after=3600)


async def succeeds(one: CallEvent, context: Context) -> None:
    pass


@pytest.fixture
def recorded(
    redis_url: str, configure: Configure, offhook: Offhook, monkeypatch: pytest.MonkeyPatch
) -> list[CallEvent]:
    """An event of each of four calls, delivered one after the other to two handlers."""
    monkeypatch.setenv("COLUMNS", "200")
    configure(HANDLERS, partitions=1)
    events = [event(call) for call in ("first", "rejected", "busy", "last")]

    async def deliver() -> None:
        bench = Bench(redis_url)
        bench.settings = load_settings()
        bench.plug(succeeds, "screen")
        async with bench.serving(fails_as_named):
            for each in events:
                await bench.append(each)
                await bench.finished()
                await asyncio.sleep(0.002)
        bench.redis.close()

    asyncio.run(deliver())
    return events


def listed(offhook: Offhook, *options: str) -> list[tuple[str, str, str]]:
    """Handler, call and outcome of what is listed."""
    result = offhook("deliveries", "--json", *options)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    return [(each["handler"], each["call"][5:], each["outcome"]) for each in found]


def test_deliveries_are_listed_newest_first(recorded: list[CallEvent], offhook: Offhook) -> None:
    calls = [call for _, call, _ in listed(offhook)]
    assert calls == [each for each in ("last", "busy", "rejected", "first") for _ in range(2)]
    shown = offhook("deliveries")
    assert shown.stderr == ""
    places = [shown.stdout.index(f"main/{each}") for each in dict.fromkeys(calls)]
    assert places == sorted(places)
    for text in (" delivered ", " dead ", " failed ", "no answer from crm.example.com"):
        assert text in shown.stdout


def test_options_filter_the_deliveries(recorded: list[CallEvent], offhook: Offhook) -> None:
    failed = [("crm", "busy", "failed"), ("crm", "rejected", "dead")]
    assert listed(offhook, "--outcome", "dead", "--outcome", "failed") == failed
    assert listed(offhook, "--handler", "crm", "--outcome", "delivered") == [
        ("crm", "last", "delivered"),
        ("crm", "first", "delivered"),
    ]
    for call in ("main/rejected", "rejected"):
        found = listed(offhook, "--call", call, "--handler", "screen")
        assert found == [("screen", "rejected", "delivered")]
    assert listed(offhook, "--until", "1h") == []
    assert len(listed(offhook, "--since", "1h")) == 8
    assert offhook("deliveries", "--until", "1h").stderr == "No deliveries match.\n"


def test_pages_follow_each_other(recorded: list[CallEvent], offhook: Offhook) -> None:
    everything, seen, more = listed(offhook), [], ["--limit", "3"]
    for size in (3, 3, 2):
        page = listed(offhook, *more)
        assert len(page) == size
        seen += page
        said = offhook("deliveries", *more).stderr
        more = ["--limit", "3", *said.split()[-2:]]
    assert seen == everything
    assert said == ""


def test_wrong_options_are_refused(recorded: list[CallEvent], offhook: Offhook) -> None:
    unknown = offhook("deliveries", "--handler", "scren")
    assert (unknown.exit_code, unknown.stdout) == (2, "")
    assert "no handler is configured as 'scren'" in unknown.stderr
    assert "did you mean 'screen'?" in unknown.stderr
    wrong = offhook("deliveries", "--before", "yesterday")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert wrong.stderr == "--before: 'yesterday' is not the end of a page\n"


def test_call_shows_its_deliveries(recorded: list[CallEvent], offhook: Offhook) -> None:
    shown = offhook("call", "rejected").stdout
    assert "answered 410 (crm.example.com): [red]no such" in shown
    assert "\x1b" not in shown
    assert "screen" in shown
    called: dict[str, Any] = json.loads(offhook("call", "rejected", "--json").stdout)
    crm, screen = sorted(called["deliveries"], key=lambda each: each["handler"])
    assert crm["event"] == screen["event"] == recorded[1].id
    assert (crm["attempt"], crm["outcome"], screen["outcome"]) == (1, "dead", "delivered")
    assert crm["answer"].startswith("answered 410")
    assert datetime.fromisoformat(crm["began"]) >= recorded[1].received - timedelta(seconds=1)
    assert 0 <= crm["took"] < 20
