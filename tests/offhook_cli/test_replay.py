"""`offhook replay`."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
import redis

from offhook import CallEvent
from offhook.connection import connect
from offhook.event import from_stored
from offhook.inbox import Inbox, keys, partition_of
from offhook.inbox.partition import Changes, Partition
from offhook.inbox.positions import order_of
from tests.conftest import Configure
from tests.events import event
from tests.offhook_cli.conftest import Offhook, append

PARTITIONS = 2


class Bench:
    """A handler `crm` with a position in both partitions."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.do(lambda inbox: inbox.register({"crm": "earliest"}))

    def do(self, go: Callable[[Inbox], Awaitable[None]]) -> None:
        async def run() -> None:
            async with connect(self.url) as client:
                await go(Inbox(client, PARTITIONS))

        asyncio.run(run())

    def append(self, *events: CallEvent) -> None:
        self.do(lambda inbox: append(inbox, *events))

    def read(self, partitions: Sequence[int] = range(PARTITIONS)) -> list[CallEvent]:
        """Return the events that the handler gets next in these partitions, as its server does."""
        found: list[CallEvent] = []

        async def go(inbox: Inbox) -> None:
            for number in partitions:
                partition = Partition(inbox.redis, inbox.redis, number)
                await partition.lease.take()
                [state] = await partition.load([""])
                own = state.records.get("crm", (None, []))[0] or state.read
                own = min(own, state.replays.get("crm", own), key=order_of)
                items = await partition.range("", own, b"+", 100)
                last = items[-1][0] if items else own
                changes = Changes([("", last.decode(), 1, [], ["crm", ""], [])])
                await partition.numbered(changes)()
                await partition.replayed("", "crm", state.replays.get("crm", b""))
                await partition.lease.release()
                found.extend(from_stored(stored) for _, stored in items)

        self.do(go)
        return found


@pytest.fixture
def bench(redis_url: str, configure: Configure) -> Bench:
    configure('[handlers.crm]\nuse = "console"\n', partitions=PARTITIONS)
    return Bench(redis_url)


def spread() -> list[CallEvent]:
    """Return events of ten calls, spread over both partitions."""
    events = [event(f"call-{n}", n) for n in range(10)]
    assert {partition_of(each, PARTITIONS) for each in events} == {0, 1}
    return events


def ids(events: list[CallEvent]) -> set[str]:
    return {each.id for each in events}


def test_handler_reads_the_events_again(bench: Bench, offhook: Offhook) -> None:
    events = spread()
    bench.append(*events)
    assert ids(bench.read()) == ids(events)
    result = offhook("replay", "--handler", "crm", "--since", "1h", input="y\n")
    assert result.exit_code == 0
    assert "crm will read 10 events again, from " in result.stderr
    assert result.stdout.endswith("crm will read 10 events again.\n")
    with redis.Redis.from_url(bench.url) as client:
        for partition in range(PARTITIONS):
            assert b"*" in client.zrange(keys.ready(partition), 0, -1)  # its server looks at once
    assert ids(bench.read()) == ids(events)


def test_since_limits_the_replay(bench: Bench, offhook: Offhook) -> None:
    bench.append(event("early"))
    bench.read()
    since = datetime.now(UTC) + timedelta(milliseconds=1)
    time.sleep(0.01)
    late = event("late")
    bench.append(late)
    bench.read()
    result = offhook("replay", "--handler", "crm", "--since", since.isoformat(), "--yes")
    assert result.stdout == "crm will read 1 event again.\n"
    assert ids(bench.read()) == {late.id}


def test_declining_changes_nothing(bench: Bench, offhook: Offhook) -> None:
    bench.append(*spread())
    bench.read()
    assert offhook("replay", "--handler", "crm", "--since", "1h", input="n\n").exit_code == 1
    assert bench.read() == []


def test_handler_that_lags_is_not_moved_forward(bench: Bench, offhook: Offhook) -> None:
    """Moving it forward would lose the events in between."""
    events = spread()
    unread = [each for each in events if partition_of(each, PARTITIONS) == 0]
    bench.append(*unread)
    time.sleep(0.01)
    since = datetime.now(UTC).isoformat()
    result = offhook("replay", "--handler", "crm", "--since", since, "--yes")
    assert result.exit_code == 0
    assert result.stderr.startswith("crm has not read any event since ")

    late = [each for each in events if each not in unread]
    bench.append(*late)
    bench.read([1])
    result = offhook("replay", "--handler", "crm", "--since", since, "--yes")
    assert result.stdout == f"crm will read {len(late)} events again.\n"
    assert ids(bench.read()) == ids(events)


def test_empty_inbox_has_nothing_to_replay(
    redis_url: str, configure: Configure, offhook: Offhook
) -> None:
    configure('[handlers.crm]\nuse = "console"\n')
    result = offhook("replay", "--handler", "crm", "--since", "1h", "--yes")
    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--handler", "nix", "--since", "1h"],
            "no handler is configured as 'nix'; configured: crm",
        ),
        (["--handler", "crm", "--since", "soon"], "'soon' is not a time"),
        (["--handler", "crm", "--since", "2999-01-01"], "is in the future"),
        (["--since", "1h"], "Missing option '--handler'"),
    ],
)
def test_wrong_arguments_are_reported(
    bench: Bench, offhook: Offhook, arguments: list[str], said: str
) -> None:
    result = offhook("replay", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
