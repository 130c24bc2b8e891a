"""Ending what runs for ever, also when a cancellation gets lost."""

import asyncio

from offhook.tasks import asked_to_end, end


def test_a_task_that_loses_a_cancellation_is_asked_again() -> None:
    async def main() -> None:
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

    asyncio.run(main())


def test_a_loop_can_see_that_a_cancellation_got_lost() -> None:
    async def main() -> None:
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

    asyncio.run(main())


def test_nothing_to_end_is_fine() -> None:
    asyncio.run(end())
