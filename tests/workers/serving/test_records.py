"""What clients that watch deliveries get of each attempt."""

import json
from typing import Any

from offhook import CallEvent, Context, PermanentError, TemporaryError
from offhook.inbox import keys
from tests.events import event
from tests.workers.serving.bench import Bench, until


async def test_records_say_how_each_attempt_ended(bench: Bench) -> None:
    async def handle(one: CallEvent, context: Context) -> None:
        if one.call_id == "rejected":
            raise PermanentError("no such contact")
        if one.call_id == "busy":
            raise TemporaryError("later", retry_after=60)

    outcomes: dict[str, str] = {}
    redis: Any = bench.redis  # redis leaves pubsub() untyped
    with redis.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(keys.DELIVERIES)
        channel.get_message(timeout=1)  # it is subscribed

        def received() -> bool:
            message = channel.get_message()
            for each in json.loads(message["data"]) if message else ():
                outcomes[each["call"]] = each["outcome"]
            return len(outcomes) == 3

        async with bench.serving(handle) as server:
            await until(lambda: server.watched, "the server knows that a client watches")
            await bench.append(event("fine"), event("rejected"), event("busy"))
            await until(received, "three attempts are published")
    assert outcomes == {"main/fine": "delivered", "main/rejected": "dead", "main/busy": "failed"}
