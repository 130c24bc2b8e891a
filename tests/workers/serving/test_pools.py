"""A handler in a process of its own depends on no handler of the shared ones."""

import asyncio
from datetime import UTC, datetime, timedelta

from offhook import CallEvent, Context
from offhook.inbox import Inbox
from tests.events import event
from tests.workers.serving.bench import Bench, until


async def test_replay_reaches_the_process_that_serves_the_handler(bench: Bench) -> None:
    got: list[str] = []

    async def handle(one: CallEvent, context: Context) -> None:
        got.append(one.parameters["n"])

    before = datetime.now(UTC) - timedelta(minutes=1)
    bench.plug(handle, process="own", events=["raw"])
    await bench.append(*(event(n=n) for n in range(3)))
    async with bench.serving(), bench.serving(pool="crm"):
        while (await bench.state()).delivered < 3:
            await asyncio.sleep(0.01)

        async def set_back(inbox: Inbox) -> int:
            return await inbox.set_back("crm", before)

        assert await bench.with_inbox(set_back) >= 3  # and the events of the call
        await until(lambda: got == ["0", "1", "2"] * 2, "they are delivered again")
        await until(lambda: not bench.redis.exists(bench.key("replays")), "the replay is done")
