"""The store against a real server that is full, read-only, stalled, killed, or cut off."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from offhook.errors import ConfigError, InboxUnavailable
from offhook.event import CallEvent
from offhook.inbox import partition_of
from receiver.event_store import EventStore
from receiver.group_commit import GroupCommit
from tests.events import event
from tests.receiver.storing import Valkey, files_may_have, storing, until

Story = Callable[[EventStore, GroupCommit], Coroutine[Any, Any, None]]
HANDLER = {"crm": {"use": "console"}}
FAULTS = ["full", "read_only", "stalled", "killed"]


@pytest.fixture(scope="module")
def server_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("hurt"))
    yield server
    server.stop()


@pytest.fixture
def valkey(server_of_its_own: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Valkey:
    server_of_its_own.make_good()
    monkeypatch.setenv("OFFHOOK_CONFIG", str(tmp_path / "empty.toml"))
    (tmp_path / "empty.toml").touch()
    return server_of_its_own


def run(url: str, story: Story, **values: Any) -> None:
    async def main() -> None:
        async with storing(url, **({"patience": 0.3} | values)) as (store, commit):
            await until(lambda: store.takes_directly)
            await story(store, commit)

    asyncio.run(main())


async def accept(commit: GroupCommit, *events: CallEvent) -> list[bool]:
    return [await commit.append(one.id, one) for one in events]


class Load:
    """Calls that send their events one by one, as fast as these are answered."""

    def __init__(self, commit: GroupCommit, calls: int = 40) -> None:
        self._commit = commit
        self._calls = calls
        self._goes_on = True
        self.accepted: list[CallEvent] = []
        self.longest = 0.0

    async def run(self, fault: Coroutine[Any, Any, None]) -> None:
        """Until the fault is over."""
        calls = [asyncio.create_task(self._call(f"call-{n}")) for n in range(self._calls)]
        try:
            await fault
        finally:
            self._goes_on = False
            await asyncio.gather(*calls)

    async def _call(self, call: str) -> None:
        n = 0
        while self._goes_on:
            one = event(call, n)
            began = time.monotonic()
            assert await self._commit.append(one.id, one) is True
            self.longest = max(self.longest, time.monotonic() - began)
            self.accepted.append(one)
            n += 1


def audit(accepted: list[CallEvent], found: list[CallEvent]) -> None:
    """Everything once, and each call in order."""
    assert len(found) == len({one.id for one in found})
    lost = {one.id for one in accepted} - {one.id for one in found}
    assert (len(lost), len(found)) == (0, len(accepted))
    for call in {one.call for one in accepted}:
        numbers = [int(one.parameters["n"]) for one in found if one.call == call]
        assert numbers == list(range(len(numbers)))


# The switch


@pytest.mark.parametrize(
    ("fault", "handlers"), [("full", {}), *((fault, HANDLER) for fault in FAULTS)]
)
def test_under_load_nothing_is_refused_lost_doubled_or_overtaken(
    valkey: Valkey, fault: str, handlers: object
) -> None:
    accepted: list[CallEvent] = []

    async def story(store: EventStore, commit: GroupCommit) -> None:
        load = Load(commit)

        async def hurt() -> None:
            await asyncio.sleep(0.15)
            wrong: AbstractContextManager[None] = getattr(valkey, fault)()
            await asyncio.to_thread(wrong.__enter__)
            await until(lambda: not store.takes_directly)
            await asyncio.sleep(0.3)
            assert store.journal_size > 0
            await asyncio.to_thread(wrong.__exit__, None, None, None)
            await until(lambda: store.takes_directly)  # while the load goes on

        await load.run(hurt())
        assert load.longest < 3
        assert store.journal_size == 0
        accepted.extend(load.accepted)

    run(valkey.url, story, handlers=handlers)
    assert len(accepted) > 300
    audit(accepted, valkey.events())


def test_several_partitions_turn_together(valkey: Valkey) -> None:
    accepted: list[CallEvent] = []

    async def story(store: EventStore, commit: GroupCommit) -> None:
        load = Load(commit)

        async def hurt() -> None:
            for _ in range(6):
                with valkey.stalled():
                    await until(lambda: not store.takes_directly)
                await until(lambda: store.takes_directly)

        await load.run(hurt())
        accepted.extend(load.accepted)

    run(valkey.url, story, partitions=4, patience=0.1)
    for partition in range(4):
        mine = [one for one in accepted if partition_of(one, 4) == partition]
        assert mine
        audit(mine, valkey.events(partition))


def test_a_server_that_is_away_costs_only_the_first_event_its_patience(valkey: Valkey) -> None:
    async def story(store: EventStore, commit: GroupCommit) -> None:
        with valkey.stalled():
            began = time.monotonic()
            await accept(commit, event("call", 0))
            first = time.monotonic() - began
            await accept(commit, *(event("call", n) for n in range(1, 11)))
            others = time.monotonic() - began - first
        assert 0.5 <= first < 1
        assert others < 0.4

    run(valkey.url, story, patience=0.5)


def test_before_the_server_was_ever_there_events_are_taken(valkey: Valkey) -> None:
    sent = [event("call", n) for n in range(20)]

    async def main() -> None:
        with valkey.killed():
            async with storing(valkey.url, handlers=HANDLER) as (_, commit):
                assert await accept(commit, *sent[:10]) == [True] * 10
        async with storing(valkey.url, handlers=HANDLER) as (store, commit):
            await until(lambda: store.takes_directly)
            assert await accept(commit, *sent[10:]) == [True] * 10

    asyncio.run(main())
    assert valkey.events() == sent
    with valkey.client() as client:
        # The new handler's cursor was made before the first of them, and so was our own.
        groups = client.xinfo_groups("offhook:{0}:inbox")
        assert {group["name"]: group["lag"] for group in groups} == {b"crm": 20, b"calls": 20}


def test_a_handler_is_called_for_what_comes_from_the_journal(valkey: Valkey) -> None:
    async def story(store: EventStore, commit: GroupCommit) -> None:
        with valkey.full():
            await accept(commit, event())
        await until(lambda: store.takes_directly)

    run(valkey.url, story, handlers=HANDLER)
    with valkey.client() as client:
        assert client.llen("rq:queue:offhook.crm.0") == 1


def test_each_handler_is_called_once_and_before_the_end(valkey: Valkey) -> None:
    async def story(store: EventStore, commit: GroupCommit) -> None:
        await accept(commit, *(event("call", n) for n in range(5)))

    run(valkey.url, story, handlers={"crm": {"use": "console"}, "chat": {"use": "console"}})
    with valkey.client() as client:
        for handler in ("crm", "chat"):
            assert client.llen(f"rq:queue:offhook.{handler}.0") == 1


def test_an_event_is_safe_though_nobody_could_be_called(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    with valkey.client() as client:
        client.set("rq:queue:offhook.crm.0", "no list")

    async def story(store: EventStore, commit: GroupCommit) -> None:
        assert await accept(commit, event()) == [True]

    run(valkey.url, story, handlers=HANDLER)
    assert len(valkey.events()) == 1
    assert "calling the workers failed" in caplog.text


# The answer is lost


class Proxy:
    """Between us and the server: can keep an answer back, and cut us off."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.loses = 0  # answers to appends that it will lose, each with its connection
        self.refuses = False
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _listen(self) -> None:
        while True:
            try:
                ours, _ = self._listening.accept()
            except OSError:
                return
            if self.refuses:
                ours.close()
                continue
            threading.Thread(target=self._serve, args=(ours,), daemon=True).start()

    def _serve(self, ours: socket.socket) -> None:
        with closing(ours), socket.create_connection(("127.0.0.1", self._target)) as theirs:
            while (request := ours.recv(1 << 20)) and not self.refuses:
                theirs.sendall(request)
                answer = theirs.recv(1 << 20)
                if self.loses and b"EVALSHA" in request and not answer.startswith(b"-NOSCRIPT"):
                    self.loses -= 1
                    self.refuses = self.loses == 0
                    return
                ours.sendall(answer)


@pytest.fixture
def proxy(valkey: Valkey) -> Iterator[Proxy]:
    with closing(Proxy(valkey.port)) as running:
        yield running


def test_an_append_whose_answer_was_lost_is_made_once_though_it_went_to_the_journal(
    valkey: Valkey, proxy: Proxy
) -> None:
    sent = [event("call", n) for n in range(30)]

    async def story(store: EventStore, commit: GroupCommit) -> None:
        await accept(commit, *sent[:10])
        proxy.loses = 1
        assert await accept(commit, sent[10]) == [True]
        assert not store.takes_directly
        assert valkey.events() == sent[:11], "it was not appended and then lost"
        assert await accept(commit, *sent[11:20]) == [True] * 9
        proxy.refuses = False
        await until(lambda: store.takes_directly)
        await accept(commit, *sent[20:])

    run(f"redis://127.0.0.1:{proxy.port}/0", story, duplicate_window=0, tries=0)
    assert valkey.events() == sent


def test_an_append_that_is_sent_again_on_the_spot_is_made_once(
    valkey: Valkey, proxy: Proxy
) -> None:
    sent = [event("call", n) for n in range(30)]

    async def story(store: EventStore, commit: GroupCommit) -> None:
        await accept(commit, *sent[:10])
        proxy.loses = 1_000_000
        sending = asyncio.create_task(accept(commit, *sent[10:]))
        await until(lambda: proxy.loses < 1_000_000)
        proxy.loses = 0
        assert await sending == [True] * 20
        assert store.journal_size == 0

    run(f"redis://127.0.0.1:{proxy.port}/0", story, duplicate_window=0, patience=5)
    assert valkey.events() == sent


def test_an_append_that_the_server_makes_late_is_made_once(valkey: Valkey) -> None:
    sent = [event("call", n) for n in range(20)]

    async def story(store: EventStore, commit: GroupCommit) -> None:
        await accept(commit, *sent[:5])
        with valkey.stalled():
            await accept(commit, *sent[5:15])  # the first of them lies in the server's buffer
        await until(lambda: store.takes_directly)
        await accept(commit, *sent[15:])

    run(valkey.url, story, duplicate_window=0)
    assert valkey.events() == sent


# Repeats


def test_a_repeat_is_recognised_wherever_the_first_one_went(valkey: Valkey) -> None:
    async def story(store: EventStore, commit: GroupCommit) -> None:
        async def says(mark: str) -> bool:
            return await commit.append(mark, event(mark))

        assert await says("before") is True
        with valkey.full():
            assert await says("first") is True
            assert [await says(mark) for mark in ("before", "first", "while")] == [
                False,
                False,
                True,
            ]
            assert await asyncio.gather(*map(says, ["a", "a", "b", "a"])) == [
                True,
                False,
                True,
                False,
            ]
        await until(lambda: store.takes_directly)
        assert [await says(mark) for mark in ("before", "first", "while", "a", "new", "new")] == [
            False,
            False,
            False,
            False,
            True,
            False,
        ]

    run(valkey.url, story)
    assert [one.call_id for one in valkey.events()] == ["before", "first", "while", "a", "b", "new"]


def test_the_same_callback_after_the_window_is_another_event(valkey: Valkey) -> None:
    sent = [event("call", n) for n in range(6)]

    async def story(store: EventStore, commit: GroupCommit) -> None:
        async def later(one: CallEvent) -> None:
            assert await commit.append("mark", one) is True
            await asyncio.sleep(0.4)

        await later(sent[0])
        with valkey.full():
            for one in sent[1:4]:  # the first of them is tried directly
                await later(one)
        await until(lambda: store.takes_directly)
        # The drain was just now, but the last of them came longer ago than that.
        await later(sent[4])
        await later(sent[5])

    run(valkey.url, story, duplicate_window=0.3)
    assert valkey.events() == sent


def test_without_a_window_nothing_is_a_repeat(valkey: Valkey) -> None:
    async def story(store: EventStore, commit: GroupCommit) -> None:
        with valkey.full():
            assert await asyncio.gather(*(commit.append("x", event()) for _ in range(5))) == (
                [True] * 5
            )
        await until(lambda: store.takes_directly)
        assert await asyncio.gather(*(commit.append("x", event()) for _ in range(5))) == [True] * 5

    run(valkey.url, story, duplicate_window=0)
    assert len(valkey.events()) == 10


def test_a_repeat_of_what_another_receiver_took_does_not_prolong_the_window(
    valkey: Valkey,
) -> None:
    async def main() -> None:
        values: dict[str, Any] = {"duplicate_window": 0.8, "patience": 0.3}
        async with (
            storing(valkey.url, **values) as (one, first),
            storing(valkey.url, **values) as (other, second),
        ):
            await until(lambda: one.takes_directly and other.takes_directly)
            assert await first.append("mark", event()) is True
            await asyncio.sleep(0.5)
            assert await second.append("mark", event()) is False
            await asyncio.sleep(0.4)
            with valkey.full():
                assert await second.append("other", event()) is True
                assert await second.append("mark", event()) is True

    asyncio.run(main())


# A disk that does not take it either


def test_with_neither_redis_nor_disk_an_event_is_refused_and_is_no_repeat_later(
    valkey: Valkey,
) -> None:
    sent = [event("call", n) for n in range(4)]

    async def story(store: EventStore, commit: GroupCommit) -> None:
        with valkey.full():
            assert await commit.append("a", sent[0]) is True
            with files_may_have(store.journal_size + 50):
                for _ in range(2):
                    with pytest.raises(InboxUnavailable, match="cannot be written"):
                        await commit.append("b", sent[1])
                assert store.fault == "the journal cannot be written: File too large"
            await until(lambda: store.fault is None)  # by itself, without another callback
            assert await commit.append("b", sent[2]) is True
        await until(lambda: store.takes_directly)
        assert await commit.append("c", sent[3]) is True

    run(valkey.url, story)
    assert valkey.events() == [sent[0], *sent[2:]]


def test_a_first_batch_that_nobody_took_is_no_repeat_either(valkey: Valkey) -> None:
    sent = [event("call", n) for n in range(2)]

    async def story(store: EventStore, commit: GroupCommit) -> None:
        with files_may_have(50), valkey.full(), pytest.raises(InboxUnavailable):
            await commit.append("a", sent[0])
        assert await commit.append("a", sent[1]) is True
        await until(lambda: store.takes_directly)  # it may have gone by the journal

    run(valkey.url, story)
    assert valkey.events() == sent[1:]


def test_an_unwritable_folder_is_a_setting_to_correct(valkey: Valkey, tmp_path: Path) -> None:
    (tmp_path / "journal").touch()

    async def main() -> None:
        async with storing(valkey.url):
            pass

    with pytest.raises(ConfigError, match="journal"):
        asyncio.run(main())


# Stop and start


def test_what_lies_in_the_journal_at_the_end_comes_first_at_the_next_start(
    valkey: Valkey, tmp_path: Path
) -> None:
    sent = [event("call", n) for n in range(30)]

    async def main() -> None:
        with valkey.full():
            for start in (0, 10):
                async with storing(valkey.url, patience=0.3) as (_, commit):
                    await accept(commit, *sent[start : start + 10])
        files = list((tmp_path / "journal").iterdir())
        assert len(files) == 2
        async with storing(valkey.url) as (store, commit):
            await until(lambda: store.takes_directly)
            await accept(commit, *sent[20:])
            assert len(list((tmp_path / "journal").iterdir())) == 1

    asyncio.run(main())
    assert valkey.events() == sent
    assert list((tmp_path / "journal").iterdir()) == []


@pytest.mark.parametrize("redis_is", ["there", "away"])
def test_what_a_receiver_leaves_behind_for_good_is_taken_over_by_one_that_runs(
    valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_is: str
) -> None:
    monkeypatch.setattr("receiver.event_store._LOOK_EVERY", 0.1)
    sent = [event("call", n) for n in range(20)]

    async def leave() -> None:
        async with storing(valkey.url, patience=0.3) as (_, commit):
            with valkey.full():
                await accept(commit, *sent)

    async def story(store: EventStore, commit: GroupCommit) -> None:
        with contextlib.ExitStack() as stack:
            if redis_is == "away":
                stack.enter_context(valkey.full())
                await accept(commit, event("other", 0))
                assert not store.takes_directly
            leaving = threading.Thread(target=asyncio.run, args=(leave(),))
            leaving.start()
            await asyncio.to_thread(leaving.join)
        await until(lambda: len(valkey.events()) == 20 + (redis_is == "away"))
        await until(lambda: store.takes_directly and store.journal_size == 0)
        await until(lambda: len(list((tmp_path / "journal").iterdir())) == 1)
        assert await accept(commit, event("later", 0)) == [True]

    run(valkey.url, story)
    assert [one for one in valkey.events() if one.call_id == "call"] == sent


def test_a_drain_that_is_broken_off_is_begun_again_and_nothing_comes_twice(
    valkey: Valkey,
) -> None:
    sent = [event("call", n) for n in range(200)]

    async def main() -> None:
        with valkey.full():
            async with storing(valkey.url, duplicate_window=0) as (_, commit):
                await accept(commit, *sent)
        for turn in range(1, 6):
            async with storing(valkey.url, duplicate_window=0) as (store, _):
                await until(lambda turn=turn: len(valkey.events()) > turn * 20)  # type: ignore[misc]
                assert not store.takes_directly, "it was not broken off"
        async with storing(valkey.url, duplicate_window=0) as (store, commit):
            await until(lambda: store.takes_directly)

    asyncio.run(main())
    assert valkey.events() == sent


# What it says


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("full", "the server has used 90 % of maxmemory"),
        ("read_only", "read only replica"),
        ("stalled", "Redis does not take events: the server did not answer within 1 s; events"),
        ("killed", "Connect call failed"),
    ],
)
def test_it_says_why_once_and_when_it_is_over(
    valkey: Valkey, fault: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(store: EventStore, commit: GroupCommit) -> None:
        wrong: AbstractContextManager[None] = getattr(valkey, fault)()
        with wrong:
            await accept(commit, event(), event())
            assert said in f"Redis does not take events: {store.trouble}; events go"
            await asyncio.sleep(0.7)
        await until(lambda: store.takes_directly)
        assert store.trouble == ""

    run(valkey.url, story, patience=1)
    lines = [one.getMessage() for one in caplog.records if one.name == "offhook.receiver"]
    assert said in lines[0]
    assert all(line.endswith("; events go to the journal until it does") for line in lines[:-1])
    assert len(lines) <= 3
    assert lines[-1].startswith("Redis takes events again; ")


def test_what_nobody_thought_of_stops_no_drain(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent = event()

    async def story(store: EventStore, commit: GroupCommit) -> None:
        with valkey.full():
            await accept(commit, sent)
            monkeypatch.setattr("receiver.journal._parse", None)
        await until(lambda: "TypeError" in caplog.text)
        monkeypatch.undo()
        await until(lambda: store.takes_directly)

    run(valkey.url, story)
    assert valkey.events() == [sent]


def test_the_server_can_be_hurt(valkey: Valkey) -> None:
    for fault in FAULTS:
        wrong: AbstractContextManager[None] = getattr(valkey, fault)()
        with wrong, valkey.client() as client:
            client.connection_pool.connection_kwargs["socket_timeout"] = 0.2
            with pytest.raises(RedisError):
                client.set("a", "b")
