"""The event store with a real server that is full, read-only, stalled, killed, or unreachable."""

import asyncio
import contextlib
import select
import socket
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import RedisError

from offhook.errors import ConfigError, InboxUnavailable
from offhook.event import CallEvent
from offhook.inbox import keys, partition_of
from receiver.event_store import EventStore
from receiver.group_commit import GroupCommit
from tests.events import event
from tests.receiver.storing import Valkey, append, files_may_have, storing, until

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


@contextlib.asynccontextmanager
async def connected(url: str, **values: Any) -> AsyncIterator[tuple[EventStore, GroupCommit]]:
    async with storing(url, **values) as (store, commit):
        await until(lambda: store.takes_directly)
        yield store, commit
        await until(lambda: store.takes_directly)


async def accept(commit: GroupCommit, *events: CallEvent) -> list[bool]:
    return [await append(commit, one.id, one) for one in events]


class Load:
    """Calls that each send their next event as soon as the last one is accepted."""

    def __init__(self, commit: GroupCommit, calls: int = 40) -> None:
        self._commit = commit
        self._calls = calls
        self._goes_on = True
        self.accepted: list[CallEvent] = []
        self.longest = 0.0

    async def run(self, fault: Coroutine[Any, Any, None]) -> None:
        """Run until the fault is over."""
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
            assert await append(self._commit, one.id, one) is True
            self.longest = max(self.longest, time.monotonic() - began)
            self.accepted.append(one)
            n += 1


def audit(accepted: list[CallEvent], found: list[CallEvent]) -> None:
    """Check that each event is there once, and the events of each call are in order."""
    assert len(found) == len({one.id for one in found})
    lost = {one.id for one in accepted} - {one.id for one in found}
    assert (len(lost), len(found)) == (0, len(accepted))
    for call in {one.call for one in accepted}:
        numbers = [int(one.parameters["n"]) for one in found if one.call == call]
        assert numbers == list(range(len(numbers)))


# Redis has a fault


@pytest.mark.parametrize(
    ("fault", "handlers"), [("full", {}), *((fault, HANDLER) for fault in FAULTS)]
)
async def test_faults_under_load_cost_no_event_and_no_order(
    valkey: Valkey, fault: str, handlers: object
) -> None:
    accepted: list[CallEvent] = []

    async with connected(valkey.url, handlers=handlers, patience=1) as (store, commit):
        load = Load(commit)

        async def hurt() -> None:
            await until(lambda: len(load.accepted) > 100)
            wrong: AbstractContextManager[None] = getattr(valkey, fault)()
            await asyncio.to_thread(wrong.__enter__)
            await until(lambda: store.journal_size > 0)
            journaled = len(load.accepted)
            await until(lambda: len(load.accepted) > journaled + 100)
            await asyncio.to_thread(wrong.__exit__, None, None, None)
            await until(lambda: store.takes_directly)  # while the load goes on
            direct = len(load.accepted)
            await until(lambda: len(load.accepted) > direct + 100)

        await load.run(hurt())
        assert load.longest < 10
        accepted.extend(load.accepted)
    audit(accepted, valkey.events())


async def test_all_partitions_switch_to_the_journal_together(valkey: Valkey) -> None:
    accepted: list[CallEvent] = []

    # Longer than a busy disk takes: else it would hardly ever take events directly again.
    async with connected(valkey.url, partitions=4, patience=1) as (store, commit):
        load = Load(commit)

        async def hurt() -> None:
            for _ in range(4):
                with valkey.stalled():
                    await until(lambda: not store.takes_directly)
                await until(lambda: store.takes_directly)

        await load.run(hurt())
        accepted.extend(load.accepted)
    for partition in range(4):
        mine = [one for one in accepted if partition_of(one, 4) == partition]
        assert mine
        audit(mine, valkey.events(partition))


async def test_only_the_first_event_waits_for_a_stalled_server(valkey: Valkey) -> None:
    async with connected(valkey.url, patience=1) as (_, commit):
        with valkey.stalled():
            began = time.monotonic()
            await accept(commit, event("call", 0))
            first = time.monotonic() - began
            await accept(commit, *(event("call", n) for n in range(1, 11)))
            others = time.monotonic() - began - first
        assert first >= 1
        assert others < 5  # not a second each


async def test_events_are_accepted_before_the_first_connection(valkey: Valkey) -> None:
    sent = [event("call", n) for n in range(20)]

    with valkey.killed():
        async with storing(valkey.url, handlers=HANDLER) as (_, commit):
            assert await accept(commit, *sent[:10]) == [True] * 10
    async with storing(valkey.url, handlers=HANDLER) as (store, commit):
        await until(lambda: store.takes_directly)
        assert await accept(commit, *sent[10:]) == [True] * 10
    assert valkey.events() == sent
    with valkey.client() as client:
        # The new handler got a position before the first event.
        assert client.hgetall(keys.known(0)) == {b"crm": b"0-0"}


async def test_events_from_the_journal_wake_the_workers(valkey: Valkey) -> None:
    async with connected(valkey.url, handlers=HANDLER) as (store, commit):
        with valkey.full():
            await accept(commit, event())
        await until(lambda: store.takes_directly)
    with valkey.client() as client:
        assert client.zrange(keys.ready(0), 0, -1) == [b""]


# The response is lost


class Proxy:
    """A proxy before the server that can drop responses and connections.

    Attributes:
        script: what requests have in them whose responses it can drop.
    """

    script = b"EVALSHA"

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.loses = 0  # how many more responses to appends it drops, each with its connection
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
        theirs = socket.create_connection(("127.0.0.1", self._target))
        with closing(ours), theirs, contextlib.suppress(OSError):  # an end was faster
            changing = False
            while True:  # a request or a response may come in pieces
                ready, _, _ = select.select([ours, theirs], [], [])
                if ours in ready:
                    if not (request := ours.recv(1 << 20)) or self.refuses:
                        return
                    changing = changing or self.script in request
                    theirs.sendall(request)
                if theirs in ready:
                    if not (answer := theirs.recv(1 << 20)):
                        return
                    if changing and not answer.startswith(b"-NOSCRIPT") and self.lose():
                        return
                    changing = False
                    ours.sendall(answer)

    def lose(self) -> bool:
        """Whether to drop the response to an append."""
        if not self.loses:
            return False
        self.refuses = self.loses == 1  # before the test sees the number
        self.loses -= 1
        return True


@pytest.fixture
def proxy(valkey: Valkey) -> Iterator[Proxy]:
    with closing(Proxy(valkey.port)) as running:
        yield running


async def test_journaled_batch_is_not_appended_twice_after_a_lost_response(
    valkey: Valkey, proxy: Proxy
) -> None:
    sent = [event("call", n) for n in range(30)]

    async with connected(f"redis://127.0.0.1:{proxy.port}/0", duplicate_window=0, tries=0) as (
        store,
        commit,
    ):
        await accept(commit, *sent[:10])
        proxy.loses = 1
        assert await accept(commit, sent[10]) == [True]
        assert not store.takes_directly
        assert valkey.events() == sent[:11], "the append was not made"
        assert await accept(commit, *sent[11:20]) == [True] * 9
        proxy.refuses = False
        await until(lambda: store.takes_directly)
        await accept(commit, *sent[20:])
    assert valkey.events() == sent


async def test_retried_append_is_made_once(valkey: Valkey, proxy: Proxy) -> None:
    sent = [event("call", n) for n in range(30)]

    async with connected(f"redis://127.0.0.1:{proxy.port}/0", duplicate_window=0, patience=20) as (
        store,
        commit,
    ):
        await accept(commit, *sent[:10])
        proxy.loses = 1_000_000
        sending = asyncio.create_task(accept(commit, *sent[10:]))
        await until(lambda: proxy.loses < 1_000_000)
        proxy.loses = 0
        assert await sending == [True] * 20
        assert store.journal_size == 0
    assert valkey.events() == sent


async def test_append_that_the_server_executes_late_is_made_once(valkey: Valkey) -> None:
    sent = [event("call", n) for n in range(20)]

    async with connected(valkey.url, duplicate_window=0, patience=1) as (store, commit):
        await accept(commit, *sent[:5])
        with valkey.stalled():
            await accept(commit, *sent[5:15])  # the first is in the server's socket buffer
        await until(lambda: store.takes_directly)
        await accept(commit, *sent[15:])
    assert valkey.events() == sent


# Repeats


async def test_repeats_are_detected_across_inbox_and_journal(valkey: Valkey) -> None:
    async with connected(valkey.url, duplicate_window=60) as (store, commit):

        async def says(mark: str) -> bool:
            return await append(commit, mark, event(mark))

        assert await says("before") is True
        with valkey.full():
            assert await says("first") is True
            said = {mark: await says(mark) for mark in ("before", "first", "while")}
            assert said == {"before": False, "first": False, "while": True}
            together = await asyncio.gather(*map(says, ["a", "a", "b", "a"]))
            assert together == [True, False, True, False]
        await until(lambda: store.takes_directly)
        for mark in ("before", "first", "while", "a"):
            assert await says(mark) is False
        assert [await says("new") for _ in range(2)] == [True, False]
    assert [one.call_id for one in valkey.events()] == ["before", "first", "while", "a", "b", "new"]


async def test_callback_after_the_window_is_not_a_repeat(valkey: Valkey) -> None:
    sent = [event("call", n) for n in range(6)]

    async with connected(valkey.url, duplicate_window=0.3) as (store, commit):

        async def later(one: CallEvent) -> None:
            assert await append(commit, "mark", one) is True
            await asyncio.sleep(0.4)

        await later(sent[0])
        with valkey.full():
            for one in sent[1:4]:  # Redis gets the first of them first
                await later(one)
        await until(lambda: store.takes_directly)
        # The drain was just now, but the last of them came before the window.
        await later(sent[4])
        await later(sent[5])
    assert valkey.events() == sent


async def test_without_a_window_nothing_is_a_repeat(valkey: Valkey) -> None:
    async with connected(valkey.url, duplicate_window=0) as (store, commit):
        with valkey.full():
            assert await asyncio.gather(*(append(commit, "x", event()) for _ in range(5))) == (
                [True] * 5
            )
        await until(lambda: store.takes_directly)
        assert await asyncio.gather(*(append(commit, "x", event()) for _ in range(5))) == [True] * 5
    assert len(valkey.events()) == 10


async def test_repeat_of_another_receivers_event_does_not_extend_the_window(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("receiver.event_store.time", clock)
    values: dict[str, Any] = {"duplicate_window": 30}
    async with (
        storing(valkey.url, **values) as (one, first),
        storing(valkey.url, **values) as (other, second),
    ):
        await until(lambda: one.takes_directly and other.takes_directly)
        assert await append(first, "mark", event()) is True
        now = 20
        assert await append(second, "mark", event()) is False
        now = 40
        with valkey.client() as client:
            client.delete(keys.seen(0, "mark"))  # as the server does after that time
        with valkey.full():
            assert await append(second, "other", event()) is True
            assert await append(second, "mark", event()) is True


# The disk has a fault too


async def test_event_refused_by_redis_and_disk_is_not_a_repeat_later(
    valkey: Valkey,
) -> None:
    sent = [event("call", n) for n in range(4)]

    async with connected(valkey.url) as (store, commit):
        with valkey.full():
            assert await append(commit, "a", sent[0]) is True
            with files_may_have(store.journal_size + 50):
                for _ in range(2):
                    with pytest.raises(InboxUnavailable, match="cannot be written"):
                        await append(commit, "b", sent[1])
                assert store.journal_fault == "the journal cannot be written: File too large"
            await until(lambda: store.journal_fault is None)  # by itself, without another callback
            assert await append(commit, "b", sent[2]) is True
        await until(lambda: store.takes_directly)
        assert await append(commit, "c", sent[3]) is True
    assert valkey.events() == [sent[0], *sent[2:]]


async def test_refused_first_batch_is_not_a_repeat_later(valkey: Valkey) -> None:
    sent = [event("call", n) for n in range(2)]

    async with connected(valkey.url) as (store, commit):
        with files_may_have(50), valkey.full(), pytest.raises(InboxUnavailable):
            await append(commit, "a", sent[0])
        assert await append(commit, "a", sent[1]) is True
        await until(lambda: store.takes_directly)  # it may have gone to the journal
    assert valkey.events() == sent[1:]


async def test_unwritable_folder_is_a_configuration_error(valkey: Valkey, tmp_path: Path) -> None:
    (tmp_path / "journal").touch()
    with pytest.raises(ConfigError, match="journal"):
        async with storing(valkey.url):
            pass


# Restarts


async def test_journaled_events_come_first_after_a_restart(valkey: Valkey, tmp_path: Path) -> None:
    sent = [event("call", n) for n in range(30)]

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
    assert valkey.events() == sent
    assert list((tmp_path / "journal").iterdir()) == []


@pytest.mark.parametrize("redis_is", ["there", "away"])
async def test_running_receiver_takes_over_a_dead_receivers_journal(
    valkey: Valkey, tmp_path: Path, redis_is: str
) -> None:
    sent = [event("call", n) for n in range(20)]

    async def leave() -> None:
        async with storing(valkey.url, patience=0.3) as (_, commit):
            with valkey.full():
                await accept(commit, *sent)

    async with connected(valkey.url, take_over_every=0.1) as (store, commit):
        with contextlib.ExitStack() as stack:
            if redis_is == "away":
                stack.enter_context(valkey.full())
                await accept(commit, event("other", 0))
                assert not store.takes_directly
            await leave()
        await until(lambda: len(valkey.events()) == 20 + (redis_is == "away"))
        await until(lambda: store.takes_directly and store.journal_size == 0)
        await until(lambda: len(list((tmp_path / "journal").iterdir())) == 1)
        assert await accept(commit, event("later", 0)) == [True]
    assert [one for one in valkey.events() if one.call_id == "call"] == sent


async def test_interrupted_drain_resumes_without_repeats(
    valkey: Valkey,
) -> None:
    sent = [event("call", n) for n in range(200)]

    with valkey.full():
        async with storing(valkey.url, duplicate_window=0) as (_, commit):
            await accept(commit, *sent)
    for turn in range(1, 6):
        async with storing(valkey.url, duplicate_window=0) as (store, _):
            await until(lambda turn=turn: len(valkey.events()) > turn * 20)  # type: ignore[misc]
            assert not store.takes_directly, "the drain was not interrupted"
    async with storing(valkey.url, duplicate_window=0) as (store, commit):
        await until(lambda: store.takes_directly)
    assert valkey.events() == sent


# Logs


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("full", "the server has used 90 % of maxmemory"),
        ("read_only", "read only replica"),
        ("stalled", "Redis does not take events: the server did not respond within 1 s; events"),
        ("killed", "Connect call failed"),
    ],
)
async def test_fault_is_logged_once_and_so_is_its_end(
    valkey: Valkey, fault: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(valkey.url, patience=1 if fault == "stalled" else 10) as (store, commit):
        wrong: AbstractContextManager[None] = getattr(valkey, fault)()
        with wrong:
            await accept(commit, event(), event())
            assert said in f"Redis does not take events: {store.redis_fault}; events go"
            await asyncio.sleep(0.7)
        await until(lambda: store.takes_directly)
        assert store.redis_fault == ""
    lines = [one.getMessage() for one in caplog.records if one.name == "offhook.receiver"]
    assert said in lines[0]
    assert all(line.endswith("; events go to the journal until it does") for line in lines[:-1])
    assert len(lines) <= 3
    assert lines[-1].startswith("Redis takes events again; ")


async def test_unexpected_error_does_not_stop_the_drain(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent = event()

    async with connected(valkey.url) as (store, commit):
        with valkey.full():
            await accept(commit, sent)
            monkeypatch.setattr("receiver.journal._parse", None)
        await until(lambda: "TypeError" in caplog.text)
        monkeypatch.undo()
        await until(lambda: store.takes_directly)
    assert valkey.events() == [sent]


def test_faults_of_the_test_server_work(valkey: Valkey) -> None:
    for fault in FAULTS:
        wrong: AbstractContextManager[None] = getattr(valkey, fault)()
        with wrong, valkey.client() as client:
            client.connection_pool.connection_kwargs["socket_timeout"] = 0.2
            with pytest.raises(RedisError):
                client.set("a", "b")
