"""Group commit: one batch for many events, in order, and an outcome for each."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from offhook.errors import InboxUnavailable
from offhook.event import CallEvent, from_stored
from offhook.inbox import partition_of
from receiver.group_commit import MAX_BATCH, MAX_WAITING, GroupCommit
from tests.events import event
from tests.receiver.storing import append, until


class Recorder:
    """Records the batches and detects repeats."""

    def __init__(self, partitions: int) -> None:
        self.stored: list[list[CallEvent]] = [[] for _ in range(partitions)]
        self.batches: list[int] = []
        self.hold: asyncio.Event | None = None
        self.error: Exception | None = None
        self._marks: set[str] = set()
        self._busy: set[int] = set()

    async def put(
        self, partition: int, events: Sequence[tuple[str, bytes]], tenants: Sequence[str]
    ) -> set[int]:
        assert partition not in self._busy, "concurrent puts"
        self._busy.add(partition)
        self.batches.append(len(events))
        if self.hold:
            await self.hold.wait()
        await asyncio.sleep(0)
        self._busy.remove(partition)
        if self.error:
            raise self.error
        repeats = set()
        for index, (mark, one) in enumerate(events):
            if mark in self._marks:
                repeats.add(index)
            else:
                self._marks.add(mark)
                self.stored[partition].append(from_stored(one))
        return repeats


@asynccontextmanager
async def committing(
    partitions: int = 1, max_waiting: int = MAX_WAITING
) -> AsyncIterator[tuple[GroupCommit, Recorder]]:
    recorder = Recorder(partitions)
    commit = GroupCommit(recorder.put, partitions, max_waiting)
    yield commit, recorder
    await commit.close()


async def test_waiting_events_are_stored_in_one_batch() -> None:
    sent = [event(f"call-{n % 7}", n) for n in range(200)]

    async with committing() as (commit, recorder):
        recorder.hold = asyncio.Event()
        first = asyncio.create_task(append(commit, "first", sent[0]))
        await until(lambda: recorder.batches == [1])
        others = [asyncio.create_task(append(commit, one.id, one)) for one in sent[1:]]
        await asyncio.sleep(0.01)
        assert not first.done()
        recorder.hold.set()
        assert await asyncio.gather(first, *others) == [True] * 200
        assert recorder.batches == [1, 199]
    assert recorder.stored == [sent]


async def test_batches_keep_order_and_have_a_maximum_size() -> None:
    sent = [event("call", n) for n in range(MAX_BATCH * 2 + 1)]

    async with committing() as (commit, recorder):
        await asyncio.gather(*(append(commit, one.id, one) for one in sent))
        assert recorder.batches == [MAX_BATCH, MAX_BATCH, 1]
    assert recorder.stored == [sent]


async def test_each_event_gets_its_own_outcome() -> None:
    sent = [event("call", n) for n in range(50)]

    async with committing() as (commit, recorder):
        marks = [str(n // 2) for n in range(50)]
        answers = await asyncio.gather(
            *(append(commit, *each) for each in zip(marks, sent, strict=True))
        )
        assert answers == [True, False] * 25
        assert len(recorder.batches) == 1
    assert recorder.stored == [sent[::2]]


async def test_failed_batch_fails_all_its_events_but_not_the_next_batch() -> None:
    async with committing() as (commit, recorder):
        recorder.error = InboxUnavailable("not now")
        failed = await asyncio.gather(
            *(append(commit, str(n), event("call", n)) for n in range(20)), return_exceptions=True
        )
        assert len(recorder.batches) == 1
        assert [type(answer) for answer in failed] == [InboxUnavailable] * 20
        recorder.error = None
        assert await append(commit, "0", event("call", 0)) is True
    assert len(recorder.stored[0]) == 1


async def test_unexpected_error_is_not_an_acceptance(caplog: pytest.LogCaptureFixture) -> None:
    async with committing() as (commit, recorder):
        recorder.error = KeyError("a bug")
        with pytest.raises(InboxUnavailable):
            await append(commit, "mark", event())
    assert "unexpected error while storing events" in caplog.text


async def test_cancelled_request_does_not_affect_others() -> None:
    async with committing() as (commit, recorder):
        recorder.hold = asyncio.Event()
        impatient = asyncio.create_task(append(commit, "a", event("call", 1)))
        patient = asyncio.create_task(append(commit, "b", event("call", 2)))
        await until(lambda: recorder.batches == [2])
        impatient.cancel()
        recorder.hold.set()
        assert await patient is True
    assert len(recorder.stored[0]) == 2


async def test_failed_response_does_not_affect_others(caplog: pytest.LogCaptureFixture) -> None:
    async with committing() as (commit, recorder):

        def fail(outcome: object) -> None:
            raise OSError("the connection is gone")

        commit.submit("a", event("call", 1), fail)
        async with asyncio.timeout(10):
            assert await append(commit, "b", event("call", 2)) is True
    assert len(recorder.stored[0]) == 2
    assert "cannot send a response" in caplog.text


async def test_partitions_do_not_wait_for_each_other() -> None:
    sent = [event(f"call-{n}") for n in range(40)]

    async with committing(partitions=4) as (commit, recorder):
        recorder.hold = asyncio.Event()
        sending = [asyncio.create_task(append(commit, one.id, one)) for one in sent]
        await until(lambda: len(recorder.batches) == 4)
        recorder.hold.set()
        assert all(await asyncio.gather(*sending))
    for partition in range(4):
        expected = [one for one in sent if partition_of(one, 4) == partition]
        assert recorder.stored[partition] == expected
        assert expected


async def test_number_of_waiting_events_is_limited() -> None:
    async with committing(max_waiting=3) as (commit, recorder):
        recorder.hold = asyncio.Event()
        first = asyncio.create_task(append(commit, "first", event(n=9)))
        await until(lambda: recorder.batches == [1])  # it is being stored; later ones wait
        waiting = [asyncio.create_task(append(commit, f"{n}", event(n=n))) for n in range(3)]
        await asyncio.sleep(0.01)
        refused = pytest.raises(InboxUnavailable, match="3 events are already waiting to be stored")
        async with asyncio.timeout(30):
            with refused:
                await append(commit, "one more", event(n=4))
        recorder.hold.set()
        assert await asyncio.gather(first, *waiting) == [True] * 4
        assert await append(commit, "one more", event(n=4)) is True


async def test_close_waits_for_running_batches() -> None:
    async with committing() as (commit, recorder):
        recorder.hold = asyncio.Event()
        appending = asyncio.create_task(append(commit, "a", event()))
        await until(lambda: recorder.batches == [1])
        closing = asyncio.create_task(commit.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        recorder.hold.set()
        await closing
        assert await appending is True
