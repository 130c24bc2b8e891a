"""A handler leaves for a process of its own, while partitions are opened or given back."""

import asyncio
from collections.abc import Awaitable, Callable, Collection

import pytest

from offhook import CallEvent, Context
from offhook.inbox import keys
from offhook.inbox.apart import move_apart
from offhook.inbox.paused import Pause
from tests.events import event
from tests.workers.serving.bench import Bench, until
from workers.serving import partition_server
from workers.serving.partition_server import Server
from workers.serving.served import ServedHandler
from workers.serving.served_partition import ServedPartition
from workers.serving.takeover import Takeover


async def nothing(one: CallEvent, context: Context) -> None:
    """Deliver at once."""


@pytest.fixture
def bench(redis_url: str) -> Bench:
    return Bench(redis_url, partitions=2)


async def test_handler_leaves_though_a_partition_is_given_back_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.serving(nothing) as server:
        first, second = await served(server)
        monkeypatch.setattr(first.writer, "written", then_give_back(server, first, second.number))
        server.guard.kept_waiting(bench.served(server), 1.0)
        await until(lambda: bench.redis.hexists(keys.APART, "crm"), "it is known to run apart")


@pytest.mark.parametrize("returns", [False, True], ids=["for long", "for a moment"])
async def test_handler_moved_out_while_a_partition_opens(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, returns: bool
) -> None:
    monkeypatch.setattr(partition_server, "WATCH_EVERY", 0.1)
    claim = Takeover.claim

    async def moved_out_meanwhile(
        self: Takeover, handlers: Collection[ServedHandler]
    ) -> set[ServedHandler]:
        claimed = await claim(self, handlers)
        move_apart(bench.redis, "crm", "blocks")
        await self._server.guard.look()
        if returns:
            bench.redis.delete(keys.APART)
        return claimed

    bench.plug(nothing)
    await bench.append(*(event(f"call-{number}") for number in range(8)))
    with monkeypatch.context() as patched:
        patched.setattr(Takeover, "claim", moved_out_meanwhile)
        server, task = await bench.start()
        await served(server)
    if returns:
        await bench.finished()
    else:
        owners = [bench.key("owners", number) for number in range(2)]
        await until(lambda: all(bench.redis.hget(each, "crm") == b"crm" for each in owners))
    server.stop()
    await task


async def test_handler_that_leaves_late_keeps_no_other_from_leaving_or_a_pause(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_server, "WATCH_EVERY", 0.1)
    go_on = asyncio.Event()

    async def hang(one: CallEvent, context: Context) -> None:
        await go_on.wait()

    def has_left(name: str) -> bool:
        owners = [bench.redis.hget(bench.key("owners", number), name) for number in range(2)]
        return owners == [name.encode()] * 2

    bench.plug(hang, "slow", start="earliest")
    bench.plug(nothing, "log")
    async with bench.serving(nothing) as server:
        await served(server)
        await bench.append(event())
        await until(lambda: not bench.served(server, "slow").idle, "a delivery runs")
        move_apart(bench.redis, "slow", "blocks")
        await until(lambda: bench.served(server, "slow").apart, "the server knows")
        bench.redis.hset(keys.PAUSED, "log", Pause("a test", 0.0).stored())
        await until(lambda: bench.served(server, "log").paused, "another is paused")
        move_apart(bench.redis, "crm", "blocks")
        await until(lambda: has_left("crm"), "another has left")
        assert not has_left("slow")
        go_on.set()
        await until(lambda: has_left("slow"), "it has left")
        bench.redis.delete(keys.APART)
        handlers = [bench.served(server, name) for name in ("slow", "crm")]
        await until(
            lambda: (
                not any(
                    each in one.away
                    for each in handlers
                    for one in server.share.partitions.values()
                )
            ),
            "both are back",
        )


async def test_replay_survives_a_partition_that_is_given_back_meanwhile(bench: Bench) -> None:
    async with bench.serving(nothing) as server:
        await bench.append(*(event(f"call-{number}") for number in range(8)))
        await bench.all_done()
        first, _ = await served(server)
        await server.share.give_back(first.number)
        bench.redis.hset(keys.replays(first.number), "crm", "0-0")
        await first.takeover._forget_replay(first.streams[""], bench.served(server), b"0-0")
        assert bench.redis.hget(keys.replays(first.number), "crm") == b"0-0"


@pytest.mark.parametrize("when", ["before", "while it is written"])
async def test_writer_that_ends_answers_who_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    async with bench.serving(nothing) as server:
        first, _ = await served(server)
        if when != "before":
            monkeypatch.setattr(first.partition, "numbered", lambda changes: never)
        waiting = asyncio.create_task(first.writer.written())
        await asyncio.sleep(0 if when == "before" else 0.05)
        server.share._serving[first.number].cancel()
        assert await asyncio.wait_for(waiting, 10) is False
        assert await asyncio.wait_for(first.writer.written(), 10) is False


async def served(server: Server) -> list[ServedPartition]:
    """Wait until the server serves both partitions."""
    await until(lambda: sum(each.opened for each in server.share.partitions.values()) == 2)
    return list(server.share.partitions.values())


def then_give_back(
    server: Server, partition: ServedPartition, number: int
) -> Callable[[], Awaitable[bool]]:
    """Return a `written` of the partition after which another partition is given back."""
    written = partition.writer.written

    async def then() -> bool:
        done = await written()
        if number in server.share.partitions:
            await server.share.give_back(number)
        return done

    return then


async def never() -> list[bytes]:
    await asyncio.Event().wait()
    return []
