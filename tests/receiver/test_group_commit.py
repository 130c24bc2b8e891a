"""Group commit: one put for many, in order, and an answer of its own for each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from offhook.errors import InboxUnavailable
from offhook.event import CallEvent, from_stored
from offhook.inbox import partition_of
from receiver.group_commit import MAX_BATCH, GroupCommit
from tests.events import event


class Recorder:
    """Keeps what it is given, and knows a repeat when it sees one."""

    def __init__(self, partitions: int) -> None:
        self.stored: list[list[CallEvent]] = [[] for _ in range(partitions)]
        self.batches: list[int] = []
        self.hold: asyncio.Event | None = None
        self.error: Exception | None = None
        self._marks: set[str] = set()
        self._busy: set[int] = set()

    async def put(self, partition: int, events: Sequence[tuple[str, bytes]]) -> set[int]:
        assert partition not in self._busy, "two puts at a time"
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


def run(
    story: Callable[[GroupCommit, Recorder], Awaitable[None]], partitions: int = 1
) -> list[list[CallEvent]]:
    """Tell the story; what was stored, by partition."""

    async def main() -> list[list[CallEvent]]:
        recorder = Recorder(partitions)
        commit = GroupCommit(recorder.put, partitions)
        await story(commit, recorder)
        await commit.close()
        return recorder.stored

    return asyncio.run(main())


def test_events_that_wait_together_are_put_together() -> None:
    sent = [event(f"call-{n % 7}", n) for n in range(200)]

    async def story(commit: GroupCommit, recorder: Recorder) -> None:
        recorder.hold = asyncio.Event()
        first = asyncio.create_task(commit.append("first", sent[0]))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(commit.append(one.id, one)) for one in sent[1:]]
        await asyncio.sleep(0.01)
        assert not first.done()
        recorder.hold.set()
        assert await asyncio.gather(first, *others) == [True] * 200
        assert recorder.batches == [1, 199]

    assert run(story) == [sent]


def test_a_crowd_is_put_in_order_and_in_batches_of_bounded_size() -> None:
    sent = [event("call", n) for n in range(MAX_BATCH * 2 + 1)]

    async def story(commit: GroupCommit, recorder: Recorder) -> None:
        await asyncio.gather(*(commit.append(one.id, one) for one in sent))
        assert recorder.batches == [MAX_BATCH, MAX_BATCH, 1]

    assert run(story) == [sent]


def test_each_gets_its_own_answer() -> None:
    sent = [event("call", n) for n in range(50)]

    async def story(commit: GroupCommit, recorder: Recorder) -> None:
        marks = [str(n // 2) for n in range(50)]
        answers = await asyncio.gather(*map(commit.append, marks, sent))
        assert answers == [True, False] * 25
        assert len(recorder.batches) == 1

    assert run(story) == [sent[::2]]


def test_a_batch_that_fails_is_accepted_for_none_and_the_next_one_is_taken() -> None:
    async def story(commit: GroupCommit, recorder: Recorder) -> None:
        recorder.error = InboxUnavailable("not now")
        failed = await asyncio.gather(
            *(commit.append(str(n), event("call", n)) for n in range(20)), return_exceptions=True
        )
        assert len(recorder.batches) == 1
        assert [type(answer) for answer in failed] == [InboxUnavailable] * 20
        recorder.error = None
        assert await commit.append("0", event("call", 0)) is True

    assert len(run(story)[0]) == 1


def test_a_bug_in_storing_is_no_acceptance(caplog: pytest.LogCaptureFixture) -> None:
    async def story(commit: GroupCommit, recorder: Recorder) -> None:
        recorder.error = KeyError("who would have thought")
        with pytest.raises(InboxUnavailable):
            await commit.append("mark", event())

    run(story)
    assert "nobody thought of" in caplog.text


def test_a_caller_that_gave_up_disturbs_no_other() -> None:
    async def story(commit: GroupCommit, recorder: Recorder) -> None:
        recorder.hold = asyncio.Event()
        impatient = asyncio.create_task(commit.append("a", event("call", 1)))
        patient = asyncio.create_task(commit.append("b", event("call", 2)))
        await asyncio.sleep(0.01)
        impatient.cancel()
        recorder.hold.set()
        assert await patient is True

    assert len(run(story)[0]) == 2


def test_an_answer_that_cannot_be_sent_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def story(commit: GroupCommit, recorder: Recorder) -> None:
        def fail(outcome: object) -> None:
            raise OSError("the connection is gone")

        commit.submit("a", event("call", 1), fail)
        async with asyncio.timeout(10):
            assert await commit.append("b", event("call", 2)) is True

    assert len(run(story)[0]) == 2
    assert "could not be sent" in caplog.text


def test_partitions_do_not_wait_for_each_other() -> None:
    sent = [event(f"call-{n}") for n in range(40)]

    async def story(commit: GroupCommit, recorder: Recorder) -> None:
        recorder.hold = asyncio.Event()
        sending = [asyncio.create_task(commit.append(one.id, one)) for one in sent]
        await asyncio.sleep(0.01)
        assert len(recorder.batches) == 4
        recorder.hold.set()
        assert all(await asyncio.gather(*sending))

    stored = run(story, partitions=4)
    for partition in range(4):
        expected = [one for one in sent if partition_of(one, 4) == partition]
        assert stored[partition] == expected
        assert expected


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receiver.group_commit.MOST_WAITING", 3)

    async def story(commit: GroupCommit, recorder: Recorder) -> None:
        recorder.hold = asyncio.Event()
        first = asyncio.create_task(commit.append("first", event(n=9)))
        await asyncio.sleep(0.01)  # it is on its way; those after it wait
        waiting = [asyncio.create_task(commit.append(f"{n}", event(n=n))) for n in range(3)]
        await asyncio.sleep(0.01)
        refused = pytest.raises(InboxUnavailable, match="3 events wait to be stored already")
        async with asyncio.timeout(1):
            with refused:
                await commit.append("one more", event(n=4))
        recorder.hold.set()
        assert await asyncio.gather(first, *waiting) == [True] * 4
        assert await commit.append("one more", event(n=4)) is True

    run(story)


def test_closing_waits_for_what_is_under_way() -> None:
    async def story(commit: GroupCommit, recorder: Recorder) -> None:
        recorder.hold = asyncio.Event()
        appending = asyncio.create_task(commit.append("a", event()))
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(commit.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        recorder.hold.set()
        await closing
        assert await appending is True

    run(story)
