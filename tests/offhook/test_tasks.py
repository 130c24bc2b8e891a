"""Ending asyncio tasks, also when a cancellation gets lost, and after a time limit."""

import asyncio
import time

import pytest

from offhook.tasks import Limit, LimitExceeded, asked_to_end, end
from tests.simulation.clock import Clock
from tests.simulation.loop import Loop


async def test_end_cancels_again_if_a_cancellation_gets_lost() -> None:
    lost = 0

    async def deaf() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
                if lost == 2:
                    raise

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await asyncio.wait_for(end(task), 5)
    assert (lost, task.cancelled()) == (2, True)


async def test_a_task_that_ends_its_own_tasks_has_time_for_that() -> None:
    may_end = asyncio.Event()

    async def slow() -> None:
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue

    async def parent() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await end(child)

    child, task = asyncio.create_task(slow()), asyncio.create_task(parent())
    await asyncio.sleep(0)
    ending = asyncio.create_task(end(task, again=60))
    await asyncio.sleep(0.5)
    assert not ending.done()
    may_end.set()
    await asyncio.wait_for(ending, 30)
    assert (child.done(), task.cancelled()) == (True, True)


async def test_a_loop_notices_a_lost_cancellation() -> None:
    async def deaf() -> str:
        while not asked_to_end():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue
        return "ended"

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    task.cancel()
    assert await asyncio.wait_for(task, 5) == "ended"


async def test_end_without_tasks_returns() -> None:
    await end()


async def _sleep(limit: Limit, seconds: float) -> float:
    clock = asyncio.get_running_loop().time
    began = clock()
    with limit:
        await asyncio.sleep(seconds)
    return clock() - began


async def _late(limit: Limit) -> float:
    clock = asyncio.get_running_loop().time
    began = clock()
    with pytest.raises(LimitExceeded):
        await _sleep(limit, 5)
    return clock() - began


def test_each_task_gets_the_whole_time() -> None:
    async def story() -> None:
        limit = Limit(0.4)
        first = asyncio.create_task(_late(limit))
        await asyncio.sleep(0.2)
        second = asyncio.create_task(_late(limit))
        short = asyncio.create_task(_sleep(limit, 0.01))
        assert await short == pytest.approx(0.01)
        for task in (first, second):
            assert await task == pytest.approx(0.4)
        assert await _sleep(limit, 0.01) == pytest.approx(0.01)  # they left nothing behind
        assert await _late(limit) == pytest.approx(0.4)

    loop = Loop(Clock(), lambda _: 0.0)  # no time passes but that of timers
    loop.run_until_complete(story())
    loop.forget()
    assert not loop.failures


async def test_a_late_task_may_continue() -> None:
    limit = Limit(0.05)
    task = asyncio.current_task()
    assert task is not None
    for _ in range(3):
        await _late(limit)
        assert task.cancelling() == 0


def test_a_limit_can_be_used_in_another_loop() -> None:
    limit = Limit(0.05)
    for _ in range(2):  # the first loop ends with its timer still set
        asyncio.run(_sleep(limit, 0))
        assert asyncio.run(_late(limit)) < 5


async def test_a_task_cancelled_from_elsewhere_ends() -> None:
    task = asyncio.create_task(_sleep(Limit(60), 60))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_is_late_and_cancelled_from_elsewhere_ends() -> None:
    task = asyncio.create_task(_sleep(Limit(0.05), 60))
    await asyncio.sleep(0)  # in which it enters, and no timer runs
    # Both happen before the task runs again.
    time.sleep(0.1)
    asyncio.get_running_loop().call_later(0, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_raised_in_time_is_passed_on() -> None:
    with pytest.raises(TimeoutError, match="mine"), Limit(5):
        raise TimeoutError("mine")
