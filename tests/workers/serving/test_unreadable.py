"""An event that cannot be read, as one of a newer version, holds up nothing."""

import logging
import time
from typing import Any

import pytest

from offhook import CallEvent, Context
from offhook.event import to_stored
from offhook.inbox import keys
from offhook.settings import TenantSettings
from tests.events import event
from tests.workers.serving.bench import STREAM, Bench

UNREADABLE = [b'{"v":1,"type":"call-parked"}', b"\xff", b"[" * 5000]


@pytest.mark.parametrize("stored", UNREADABLE)
async def test_entry_that_cannot_be_read_is_set_aside(
    bench: Bench, caplog: pytest.LogCaptureFixture, stored: bytes
) -> None:
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])

    bench.plug(handle)
    await bench.append(event("a", 1))
    bench.redis.xadd(STREAM, {"e": stored, "n": 2})
    bench.redis.set(keys.last(0), 2)
    await bench.append(event("a", 3))
    with caplog.at_level(logging.ERROR):
        await bench.deliver(handle)
    assert got == ["1", "3"]
    [(_, refused)] = _any(bench.redis.xrange(keys.quarantine()))
    assert refused[b"event"] == stored
    assert len([each for each in caplog.messages if "cannot be read, set aside" in each]) == 1


@pytest.mark.parametrize("stored", [*UNREADABLE, b"1", b'{"v":2,"id":{}}'])
@pytest.mark.parametrize("at", [0, 1, 2], ids=["first", "between", "last"])
async def test_parked_event_that_cannot_be_read_is_set_aside(
    bench: Bench, caplog: pytest.LogCaptureFixture, stored: bytes, at: int
) -> None:
    got = bench.record()
    events = [to_stored(event("a", n)) for n in range(2)]
    park(bench, "main/a", *events[:at], stored, *events[at:])
    await bench.append(event("b", 2))
    with caplog.at_level(logging.ERROR):
        async with bench.serving():
            await bench.all_done()
            await bench.append(event("a", 3))
            await bench.finished()
    assert [n for n in got if n != "2"] == ["0", "1", "3"]
    assert "2" in got
    [(_, refused)] = _any(bench.redis.xrange(keys.quarantine()))
    assert refused[b"event"] == stored
    assert b"parked for crm" in refused[b"error"]
    [message] = [each for each in caplog.messages if "cannot be read, set aside" in each]
    assert "main/a" in message
    assert "crm" in message
    assert bench.redis.keys("offhook:{0}:lane:*") == []
    assert not bench.redis.exists(bench.key("attempts"), bench.key("redelivering"))


async def test_parked_event_of_a_tenant_that_cannot_be_read_is_in_its_quarantine(
    bench: Bench,
) -> None:
    async def handle(one: CallEvent, context: Context) -> None:
        pytest.fail("there is nothing to deliver")

    bench.tenants["acme"] = TenantSettings(extensions=[])
    bench.plug(handle, "acme/crm")
    park(bench, "acme:main/a", b"\xff", handler="acme/crm")
    async with bench.serving():
        await bench.all_done()
    assert bench.redis.xlen(keys.quarantine("acme")) == 1
    assert not bench.redis.exists(keys.quarantine())


def park(bench: Bench, call: str, *stored: bytes, handler: str = "crm") -> None:
    """Park these as if the first had failed, and is due again."""
    lane = f"{handler} {call}"
    bench.redis.rpush(bench.key(f"lane:{handler}:{call}"), *stored)
    bench.redis.hset(bench.key("parked"), lane, "id")
    bench.redis.hset(bench.key("attempts"), lane, 1)
    bench.redis.zadd(bench.key("due"), {lane: time.time() * 1000})


def _any(answer: Any) -> Any:
    return answer
