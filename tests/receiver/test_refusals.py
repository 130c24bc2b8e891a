"""What a receiver refuses is counted, logged once a minute, and stored for `offhook status`."""

import logging
from collections.abc import Iterator

import pytest

from offhook.connection import connect
from offhook.inbox import keys, refused
from offhook.inbox.refused import Cause
from receiver.refusals import Refusals


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    yield now
    monkeypatch.undo()


def test_a_flood_is_one_log_line_a_minute(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    refusals = Refusals()
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            refusals.count(Cause.WRONG_TOKEN, "203.0.113.9")
            refusals.log_the_rest()
        assert [record.args and record.args[0] for record in caplog.records] == [1]  # type: ignore[index]
        refusals.count(Cause.URL_RATE, "main/0003*210")  # another cause has its own line
        clock[0] += 60
        refusals.log_the_rest()
        refusals.log_the_rest()
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "refused: 1 callbacks with a wrong token: was the secret changed, or a URL revoked? "
        "(last: 203.0.113.9)",
        "refused: 1 callbacks above the `url_rate` of their URL (last: main/0003*210)",
        "refused: 999 callbacks with a wrong token: was the secret changed, or a URL revoked? "
        "(last: 203.0.113.9)",
    ]


def test_notes_are_about_the_last_ten_minutes(clock: list[float]) -> None:
    refusals = Refusals()
    assert list(refusals.notes()) == []
    for _ in range(3):
        refusals.count(Cause.CONNECTIONS, "203.0.113.9")
    said = ["refused since the start: 3 connections, because too many were open"]
    assert list(refusals.notes()) == said
    clock[0] += 599
    assert list(refusals.notes()) == said
    clock[0] += 2
    assert list(refusals.notes()) == []


async def test_counts_are_added_up_in_redis_for_a_day(redis_url: str) -> None:
    one, other = Refusals(), Refusals()
    async with connect(redis_url) as redis:
        for _ in range(3):
            for refusals in (one, other):
                refusals.count(Cause.WRONG_TOKEN, "203.0.113.9")
                counts = refusals.unstored()
                assert counts == {"": {"wrong_token": 1}}
                await refused.add(redis, counts[""])
                refusals.stored("", counts[""])
                assert refusals.unstored() == {}
        assert await refused.sentences(redis) == [
            "refused: 6 callbacks with a wrong token: was the secret changed, or a URL revoked?"
        ]
        assert 86_000 < await redis.ttl(keys.refused()) <= 86_400
        await redis.expire(keys.refused(), 100)
        await refused.add(redis, {"share": 2, "of a newer version": 1})
        assert await redis.ttl(keys.refused()) <= 100  # the day began with the first one
        assert len(await refused.sentences(redis)) == 2
