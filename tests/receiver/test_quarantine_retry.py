"""Refused callbacks, delivered after all."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis

from offhook.connection import opened
from offhook.errors import InboxUnavailable, RefusedCallback
from offhook.event import CallEvent, from_stored, to_stored
from offhook.inbox import keys, quarantine
from offhook.settings import Settings, load_settings
from receiver.callback import CallbackRequest, quarantined
from receiver.quarantine_retry import Retried, retry
from tests.conftest import Configure
from tests.events import event

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
CRM = '[handlers.crm]\nuse = "console"\n'
FORM = "application/x-www-form-urlencoded"
BAD = RefusedCallback(400, "too_many_parameters", "A callback may have 10 parameters.")


def request(body: bytes, **other: Any) -> CallbackRequest:
    usual = {"pbx": "main", "extension": "0003*210", "event_type": "dial-in", "method": "POST"}
    return CallbackRequest(**(usual | {"content_type": FORM, "query": b"", "body": body} | other))


async def keep(
    settings: Settings,
    refused: CallbackRequest,
    received: datetime = NOON,
    refusal: RefusedCallback = BAD,
) -> None:
    kept = quarantined(refused, refusal, 100) | {"received": received.isoformat()}
    async with opened(settings) as (inbox, _):
        await quarantine.keep(inbox.redis, [kept], 1000)


async def retried(settings: Settings) -> Retried:
    async with opened(settings) as (inbox, _):
        return await retry(settings, inbox, reversed(await quarantine.kept(inbox.redis)))


async def remaining(settings: Settings) -> int:
    async with opened(settings) as (inbox, _):
        return await quarantine.length(inbox.redis)


@pytest.fixture
def settings(configure: Configure) -> Settings:
    configure(CRM)
    return load_settings()


@pytest.fixture
def events(redis_url: str) -> Callable[[], list[CallEvent]]:
    def read() -> list[CallEvent]:
        with Redis.from_url(redis_url) as client:
            found: Any = client.xrange("offhook:{0}:inbox")
        return [from_stored(fields[b"e"]) for _, fields in found]

    return read


Events = Callable[[], list[CallEvent]]


async def test_refused_callback_is_delivered_and_removed(
    settings: Settings, events: Events, redis_url: str
) -> None:
    await keep(settings, request(b"CallID=1&CallerIDName=Jo", query=b"a=%FF"))
    outcome = await retried(settings)
    [event] = events()
    assert (event.call, event.extension, event.type) == ("main/1", "0003*210", "dial-in")
    assert event.parameters == {"a": "\ufffd", "CallID": "1", "CallerIDName": "Jo"}
    assert event.received == NOON
    assert len(event.id) == 32
    assert (len(outcome.delivered), outcome.repeats, outcome.refused) == (1, [], {})
    assert await remaining(settings) == 0
    with Redis.from_url(redis_url) as client:
        assert client.zrange(keys.ready(0), 0, -1) == [b""]  # a worker is woken


async def test_event_of_a_later_version_is_delivered_once_it_can_be_read(
    settings: Settings, events: Events
) -> None:
    kept = event("1", 0)
    later = to_stored(kept).replace(b'{"v":1,', b'{"v":2,')
    async with opened(settings) as (inbox, _):
        for stored in (later, to_stored(kept)):
            refused: dict[str, str | bytes] = {"error": "cannot be read", "event": stored}
            await quarantine.keep(inbox.redis, [refused], 1000)
    outcome = await retried(settings)
    assert events() == [kept]
    assert len(outcome.delivered) == 1
    assert list(outcome.refused.values()) == ["cannot be read"]
    assert await remaining(settings) == 1


async def test_events_keep_their_order(settings: Settings, events: Events) -> None:
    for n in range(5):
        await keep(settings, request(b"CallID=1&n=%d" % n))
    await retried(settings)
    assert [event.parameters["n"] for event in events()] == ["0", "1", "2", "3", "4"]
    assert sorted(event.id for event in events()) == [event.id for event in events()]


async def test_what_is_still_refused_stays(settings: Settings, events: Events) -> None:
    await keep(settings, request(b"CallID=1"))
    await keep(settings, request(b"NoCallID=1"))
    outcome = await retried(settings)
    assert list(outcome.refused.values()) == ["The callback has no CallID."]
    assert len(events()) == 1
    assert await remaining(settings) == 1


@pytest.mark.parametrize("code", ["incomplete_body", "read_timeout", "too_large"])
async def test_part_of_a_request_is_never_an_event(
    settings: Settings, events: Events, code: str
) -> None:
    await keep(settings, request(b"CallID=1"), refusal=RefusedCallback(400, code, "No."))
    assert list((await retried(settings)).refused.values()) == ["No. Only a part of it is kept."]
    assert events() == []


async def test_request_that_was_cut_is_never_an_event(settings: Settings, events: Events) -> None:
    await keep(settings, request(b"CallID=1&a=" + b"1" * 100))
    assert len((await retried(settings)).refused) == 1
    assert events() == []


async def test_crash_before_the_removal_loses_nothing_and_doubles_nothing(
    settings: Settings, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep(settings, request(b"CallID=1"))
    with monkeypatch.context() as patch:
        patch.setattr(quarantine, "remove", None)
        with pytest.raises(TypeError):
            await retried(settings)
    assert await remaining(settings) == 1
    await asyncio.gather(retried(settings), retried(settings))  # two operators at once
    assert len(events()) == 1
    assert await remaining(settings) == 0


async def test_event_that_is_not_safe_stays_in_the_quarantine(
    settings: Settings, events: Events
) -> None:
    await keep(settings, request(b"CallID=1"))
    with pytest.raises(InboxUnavailable):  # there is no replica
        await retried(settings.model_copy(update={"durability": "replica", "patience": 0.1}))
    assert await remaining(settings) == 1
    await retried(settings)
    assert len(events()) == 1


async def test_repeat_within_the_window_is_one_event(settings: Settings, events: Events) -> None:
    for seconds in (0, 1, 7):
        await keep(settings, request(b"CallID=1"), NOON + timedelta(seconds=seconds))
    outcome = await retried(settings)
    assert (len(outcome.delivered), len(outcome.repeats)) == (2, 1)
    assert [event.received.second for event in events()] == [0, 7]
    assert await remaining(settings) == 0
