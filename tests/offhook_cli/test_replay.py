"""`offhook replay`."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
import redis

from offhook import CallEvent, queues
from offhook.connection import connect
from offhook.inbox import Cursor, Inbox, partition_of
from tests.conftest import Configure
from tests.events import event
from tests.offhook_cli.conftest import Offhook, append

PARTITIONS = 2


class Bench:
    """A handler `crm` with a cursor on both partitions."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.do(lambda inbox: inbox.ensure_cursor("crm", "earliest"))

    def do(self, go: Callable[[Inbox], Awaitable[None]]) -> None:
        async def run() -> None:
            async with connect(self.url) as client:
                await go(Inbox(client, PARTITIONS))

        asyncio.run(run())

    def append(self, *events: CallEvent) -> None:
        self.do(lambda inbox: append(inbox, *events))

    def read(self, partitions: Sequence[int] = range(PARTITIONS)) -> list[CallEvent]:
        """Return the events that the cursor reads next in these partitions."""
        found: list[CallEvent] = []

        async def go(inbox: Inbox) -> None:
            for partition in partitions:
                cursor = Cursor(inbox, "crm", partition)
                await cursor.take()
                entries = await cursor.read(100, 10)
                found.extend(entry.event for entry in entries)
                await cursor.rest(even_if_behind=True)

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


def test_handler_is_woken_and_reads_the_events_again(bench: Bench, offhook: Offhook) -> None:
    events = spread()
    bench.append(*events)
    assert ids(bench.read()) == ids(events)
    result = offhook("replay", "--handler", "crm", "--since", "1h", input="y\n")
    assert result.exit_code == 0
    assert "crm will read 10 events again, from " in result.stderr
    assert result.stdout.endswith("crm will read 10 events again.\n")
    with redis.Redis.from_url(bench.url) as rq:
        for partition in range(PARTITIONS):
            [job] = queues.queue(queues.dispatch_queue("crm", partition), rq).jobs
            assert job.args == ["crm", partition]
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


def test_cursor_that_lags_is_not_moved_forward(bench: Bench, offhook: Offhook) -> None:
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
