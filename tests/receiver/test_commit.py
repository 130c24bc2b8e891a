"""Group commit: one append for many, in order, and an answer of its own for each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
import redis
from redis.exceptions import ResponseError
from rq import Queue

from offhook.connection import connect, connect_rq
from offhook.errors import InboxUnavailable
from offhook.event import CallEvent, from_stored
from offhook.inbox import Inbox, partition_of
from receiver.commit import MAX_BATCH, GroupCommit
from tests.events import event


class Watched(Inbox):
    """The real inbox, which also notes how many events each append had."""

    batches: list[int]
    hold: asyncio.Event | None = None

    async def append(
        self,
        partition: int,
        events: Sequence[tuple[str, CallEvent]],
        handlers: Sequence[str],
        duplicate_window: float,
    ) -> tuple[set[int], list[str]]:
        self.batches.append(len(events))
        if self.hold:
            await self.hold.wait()
        return await super().append(partition, events, handlers, duplicate_window)


def run(
    url: str,
    story: Callable[[GroupCommit, Watched], Awaitable[None]],
    partitions: int = 1,
    handlers: Sequence[str] = (),
) -> None:
    async def main() -> None:
        rq = connect_rq(url)
        async with connect(url, tries=0) as client:
            inbox = Watched(client, partitions)
            inbox.batches = []
            commit = GroupCommit(inbox, rq, handlers, duplicate_window=60)
            await story(commit, inbox)
            await commit.close()
        rq.close()

    asyncio.run(main())


def stored(url: str, partition: int = 0) -> list[CallEvent]:
    with redis.Redis.from_url(url) as client:
        entries: list[tuple[bytes, dict[bytes, bytes]]] = client.xrange(
            f"offhook:{{{partition}}}:inbox"
        )
    return [from_stored(fields[b"e"]) for _, fields in entries]


def test_events_that_wait_together_share_one_append(redis_url: str) -> None:
    sent = [event(f"call-{n % 7}", n) for n in range(200)]

    async def story(commit: GroupCommit, inbox: Watched) -> None:
        inbox.hold = asyncio.Event()
        first = asyncio.create_task(commit.append("first", sent[0]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        others = [asyncio.create_task(commit.append(one.id, one)) for one in sent[1:]]
        await asyncio.sleep(0.01)
        assert not first.done()
        inbox.hold.set()
        assert await asyncio.gather(first, *others) == [True] * 200
        assert inbox.batches == [1, 199]

    run(redis_url, story)
    assert stored(redis_url) == sent


def test_a_crowd_is_appended_in_order_and_in_batches_of_bounded_size(redis_url: str) -> None:
    sent = [event("call", n) for n in range(MAX_BATCH * 2 + 1)]

    async def story(commit: GroupCommit, inbox: Watched) -> None:
        await asyncio.gather(*(commit.append(one.id, one) for one in sent))
        assert inbox.batches == [MAX_BATCH, MAX_BATCH, 1]

    run(redis_url, story)
    assert stored(redis_url) == sent


def test_each_gets_its_own_answer(redis_url: str) -> None:
    sent = [event("call", n) for n in range(50)]

    async def story(commit: GroupCommit, inbox: Watched) -> None:
        marks = [str(n // 2) for n in range(50)]
        answers = await asyncio.gather(*map(commit.append, marks, sent))
        assert answers == [True, False] * 25
        assert len(inbox.batches) == 1

    run(redis_url, story)
    assert stored(redis_url) == sent[::2]


def test_a_batch_that_fails_is_accepted_for_none_and_the_next_one_is_taken(redis_url: str) -> None:
    async def story(commit: GroupCommit, inbox: Watched) -> None:
        await inbox.redis.set("offhook:{0}:inbox", "no stream")
        failed = await asyncio.gather(
            *(commit.append(str(n), event("call", n)) for n in range(20)), return_exceptions=True
        )
        assert len(inbox.batches) == 1
        assert [type(answer) for answer in failed] == [InboxUnavailable] * 20
        await inbox.redis.delete("offhook:{0}:inbox")
        # What failed left no mark behind: it is not mistaken for a repeat.
        assert await commit.append("0", event("call", 0)) is True

    run(redis_url, story)
    assert len(stored(redis_url)) == 1


def test_a_bug_in_appending_is_no_acceptance(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(commit: GroupCommit, inbox: Watched) -> None:
        inbox.batches = None  # type: ignore[assignment]
        with pytest.raises(InboxUnavailable):
            await commit.append("mark", event())

    run(redis_url, story)
    assert "nobody thought of" in caplog.text


def test_a_caller_that_gave_up_disturbs_no_other(redis_url: str) -> None:
    async def story(commit: GroupCommit, inbox: Watched) -> None:
        inbox.hold = asyncio.Event()
        impatient = asyncio.create_task(commit.append("a", event("call", 1)))
        patient = asyncio.create_task(commit.append("b", event("call", 2)))
        await asyncio.sleep(0.01)
        impatient.cancel()
        inbox.hold.set()
        assert await patient is True

    run(redis_url, story)
    assert len(stored(redis_url)) == 2


def test_partitions_do_not_wait_for_each_other(redis_url: str) -> None:
    sent = [event(f"call-{n}") for n in range(40)]

    async def story(commit: GroupCommit, inbox: Watched) -> None:
        assert all(await asyncio.gather(*(commit.append(one.id, one) for one in sent)))
        assert len(inbox.batches) == 4

    run(redis_url, story, partitions=4)
    for partition in range(4):
        expected = [one for one in sent if partition_of(one, 4) == partition]
        assert stored(redis_url, partition) == expected
        assert expected


def test_each_handler_is_called_once_and_before_the_end(redis_url: str) -> None:
    async def story(commit: GroupCommit, inbox: Watched) -> None:
        for n in range(5):
            await commit.append(str(n), event("call", n))

    run(redis_url, story, handlers=["crm", "chat"])
    with redis.Redis.from_url(redis_url) as client:
        for handler in ("crm", "chat"):
            assert Queue(f"offhook.{handler}.0", connection=client).count == 1


def test_closing_waits_for_what_is_under_way_and_for_the_call_that_follows(redis_url: str) -> None:
    async def story(commit: GroupCommit, inbox: Watched) -> None:
        inbox.hold = asyncio.Event()
        appending = asyncio.create_task(commit.append("a", event()))
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(commit.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        inbox.hold.set()
        await closing
        assert await appending is True
        assert await asyncio.to_thread(called) == 1

    def called() -> int:
        with redis.Redis.from_url(redis_url) as client:
            return Queue("offhook.crm.0", connection=client).count

    run(redis_url, story, handlers=["crm"])


def test_an_event_is_safe_though_nobody_could_be_called(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("rq:queue:offhook.crm.0", "no list")
        with pytest.raises(ResponseError):
            client.rpush("rq:queue:offhook.crm.0", "x")

    async def story(commit: GroupCommit, inbox: Watched) -> None:
        assert await commit.append("a", event()) is True

    run(redis_url, story, handlers=["crm"])
    assert len(stored(redis_url)) == 1
    assert "calling the workers failed" in caplog.text
