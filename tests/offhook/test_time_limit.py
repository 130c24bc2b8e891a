"""A time limit for many tasks, with one timer: each task gets its time, and nobody else's."""

import asyncio
import time

import pytest

from offhook.time_limit import Limit, LimitExceeded


async def _sleep(limit: Limit, seconds: float) -> float:
    began = time.monotonic()
    with limit:
        await asyncio.sleep(seconds)
    return time.monotonic() - began


async def _late(limit: Limit) -> float:
    began = time.monotonic()
    with pytest.raises(LimitExceeded):
        await _sleep(limit, 5)
    return time.monotonic() - began


def test_each_task_gets_its_time_whenever_it_began() -> None:
    async def story() -> None:
        limit = Limit(0.4)
        first = asyncio.create_task(_late(limit))
        await asyncio.sleep(0.2)
        second = asyncio.create_task(_late(limit))
        short = asyncio.create_task(_sleep(limit, 0.01))
        assert await short < 0.4
        for task in (first, second):
            assert 0.39 < await task < 2
        assert await _sleep(limit, 0.01) < 0.4  # nothing is left behind of those before
        assert 0.39 < await _late(limit) < 2

    asyncio.run(story())
    asyncio.run(story())


def test_a_task_goes_on_after_it_was_late() -> None:
    async def story() -> None:
        limit = Limit(0.05)
        for _ in range(3):
            await _late(limit)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(story())


def test_the_same_limit_serves_another_loop() -> None:
    limit = Limit(0.05)
    for _ in range(2):  # the first loop ends with its timer still set
        asyncio.run(_sleep(limit, 0))
        assert asyncio.run(_late(limit)) < 2


def test_who_is_cancelled_by_others_is_cancelled() -> None:
    async def story() -> None:
        limit = Limit(60)
        task = asyncio.create_task(_sleep(limit, 60))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())


def test_who_is_late_and_cancelled_by_others_too_is_cancelled() -> None:
    async def story() -> None:
        limit = Limit(0.05)
        task = asyncio.create_task(_sleep(limit, 60))
        await asyncio.sleep(0.01)
        # Both before the task runs again.
        time.sleep(0.1)  # noqa: ASYNC251
        asyncio.get_running_loop().call_later(0, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())


def test_what_a_task_raises_in_time_is_its_own() -> None:
    async def story() -> None:
        limit = Limit(5)
        with pytest.raises(TimeoutError, match="mine"), limit:
            raise TimeoutError("mine")

    asyncio.run(story())
