"""An entry of the inbox that cannot be read, as one of a newer version, holds up nothing."""

import logging
from typing import Any

import pytest

from offhook import CallEvent, Context
from offhook.inbox import keys
from tests.events import event
from tests.workers.serving.bench import STREAM, Bench


@pytest.mark.parametrize("stored", [b'{"v":1,"type":"call-parked"}', b"\xff", b"[" * 5000])
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


def _any(answer: Any) -> Any:
    return answer
