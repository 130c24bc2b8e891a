"""`offhook erase`: afterwards the number is nowhere, and nothing else has changed."""

import asyncio
import gzip
import json
import re
import sqlite3
import urllib.parse
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis as blocking

from offhook import CallEvent, Context, EventType, Party, PermanentError, queues
from offhook.connection import connect
from offhook.event import to_stored
from offhook.inbox import Batch, Inbox, keys, quarantine
from offhook.inbox.replays import Replays
from offhook.settings import load_settings
from offhook.testing import configured, deliver, sample_call, sample_event
from receiver.journal import Journal
from tests.conftest import Configure
from tests.events import batch_of
from tests.offhook_cli.conftest import Offhook
from tests.workers.folded import fold, until_folded
from tests.workers.serving.bench import Bench
from workers.handlers.file import File
from workers.handlers.sql import Sql

NUMBER, OTHER = "+442079460100", "+442079460199"
FORMS = ("+442079460100", "00442079460100", "02079460100", "020 7946 0100", "+44 (0)20 7946-0100")
HANDLERS = """
[handlers.log]
use = "sql"
[handlers.log.options]
url = "sqlite:///{folder}/calls.db"
[handlers.lines]
use = "file"
[handlers.lines.options]
path = "{folder}/calls.jsonl"
[handlers.crm]
use = "console"
"""
HOUR = timedelta(hours=1)
NAMES = ("log", "lines", "crm")


@pytest.fixture
def redis(redis_url: str, configure: Configure, tmp_path: Path) -> Iterator[blocking.Redis]:
    configure(HANDLERS.format(folder=tmp_path), region="GB", settle=0.1)
    with blocking.Redis.from_url(redis_url) as client:
        on_inbox(lambda inbox: inbox.register(dict.fromkeys(NAMES, "earliest")))
        yield client


def on_inbox(go: Callable[[Inbox], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        settings = load_settings()
        async with connect(settings.redis_url) as client:
            return await go(Inbox(client, 1))

    return asyncio.run(run())


def call_of(number: str, call_id: str, name: str = "Jane Doe") -> list[CallEvent]:
    """The first and the last event of a call; only the first has the number."""
    party = Party(number=number, name=name)
    parameters = {"CallID": call_id, "CallerIDNum": number, "CallerIDName": name}
    return [
        sample_event(caller=party, call_id=call_id, parameters=parameters),
        sample_event(
            EventType.HANGUP, caller=Party(), call_id=call_id, parameters={"CallID": call_id}
        ),
    ]


def append(*events: CallEvent) -> None:
    on_inbox(lambda inbox: inbox.append(batch_of(*events), 0))


def deliver_all(*handlers: str) -> None:
    """Let the handlers get every event, and fold the calls."""

    fold(load_settings())
    with blocking.Redis.from_url(load_settings().redis_url) as client:
        last = stored(client)[-1][0]
        client.hset(keys.behind(0), mapping=dict.fromkeys(handlers, last))


def everything(redis: blocking.Redis) -> str:
    """Every key of the server, with its content."""
    read: dict[Any, Callable[[bytes], Any]] = {
        b"string": redis.get,
        b"stream": redis.xrange,
        b"hash": redis.hgetall,
        b"list": lambda key: redis.lrange(key, 0, -1),
        b"set": redis.smembers,
        b"zset": lambda key: redis.zrange(key, 0, -1),
    }
    return "\n".join(f"{key!r} {read[redis.type(key)](key)!r}" for key in redis.scan_iter())


def stored(redis: blocking.Redis) -> list[tuple[bytes, bytes]]:
    found: Any = redis.xrange(keys.inbox(0))
    return [(position, fields[b"e"]) for position, fields in found]


def report_of(offhook: Offhook, code: int = 0) -> dict[str, Any]:
    result = offhook("erase", NUMBER, "--yes", "--json")
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_number_is_nowhere_in_redis_afterwards(redis: blocking.Redis, offhook: Offhook) -> None:
    for number, form in enumerate(FORMS):
        append(*call_of(form, f"theirs-{number}"))
    append(*call_of(OTHER, "other", "John Roe"))
    deliver_all("log", "lines", "crm")
    (letter, _), (others, _) = call_of(NUMBER, "letter"), call_of(OTHER, "others")
    for each in (letter, others):
        queues.bury(redis, "crm", each, attempt=3, error="answered 410", trace=f"Trace: {each.id}")
    on_inbox(
        lambda inbox: quarantine.keep(
            inbox.redis,
            [{"code": "x", "query": f"CallerIDNum={urllib.parse.quote(NUMBER)}&CallerIDName=Jane"}],
            10,
        )
    )
    redis.set(keys.memory("crm", f"contact/{NUMBER}"), "4711")
    redis.set(keys.lookup_name("contacts", NUMBER), "Jane Doe")
    redis.set(keys.lookup_name("contacts", OTHER), "John Roe")
    before = dict(stored(redis))
    report = report_of(offhook)["redis"]
    left = everything(redis)
    # In any form, but not a few digits of it, which an id or a time may have by chance.
    assert not re.search(r"7946(?:%20|\W)?010", left.replace(OTHER, ""))
    assert "Jane" not in left
    assert left.count("John Roe") >= 3
    assert report["calls"] == len(FORMS)
    assert report["events"] == len(before) - len(stored(redis)) > 2 * len(FORMS)
    assert (report["dead_letters"], report["quarantine"], report["remembered"]) == (1, 1, 2)
    assert dict(stored(redis)).items() <= before.items()
    [call] = json.loads(offhook("calls", "--json", "--since", "3000d").stdout)
    assert call["id"] == "other"


def test_the_record_of_deliveries_loses_the_number(
    redis: blocking.Redis, offhook: Offhook, redis_url: str
) -> None:
    async def rejects(event: CallEvent, context: Context) -> None:
        raise PermanentError(f"no contact has the number {event.caller.number}")

    async def deliver() -> None:
        bench = Bench(redis_url)
        bench.settings = load_settings()
        bench.handlers = []
        bench.plug(rejects, events=["dial-in"])
        async with bench.serving():
            await bench.append(*call_of(NUMBER, "theirs"), *call_of(OTHER, "other"))
            await until_folded(bench)
        bench.redis.close()

    asyncio.run(deliver())
    deliver_all("log", "lines", "crm")
    assert NUMBER in everything(redis)
    assert len(json.loads(offhook("deliveries", "--json").stdout)) == 2
    report_of(offhook)
    assert NUMBER not in everything(redis)
    [left] = json.loads(offhook("deliveries", "--json").stdout)
    assert (left["call"], left["answer"]) == ("main/other", f"no contact has the number {OTHER}")


def test_an_event_that_a_handler_has_not_had_waits(redis: blocking.Redis, offhook: Offhook) -> None:
    append(*call_of(NUMBER, "theirs"), *call_of(OTHER, "other"))
    deliver_all("log", "lines")
    before = stored(redis)
    report = report_of(offhook, code=1)
    assert report["redis"]["waiting"] == ["main/theirs"]
    assert "run it again later" in report["left"][0]
    assert stored(redis) == before
    assert len(json.loads(offhook("calls", "--json", "--since", "3000d").stdout)) == 2
    deliver_all("crm")
    assert report_of(offhook)["redis"]["waiting"] == []
    assert NUMBER.encode() not in b"".join(event for _, event in stored(redis))


def test_a_call_in_progress_and_a_parked_lane_wait(redis: blocking.Redis, offhook: Offhook) -> None:
    (dial, _), (first, last) = call_of(NUMBER, "live"), call_of(NUMBER, "parked")
    append(dial, first, last)
    deliver_all("log", "lines", "crm")
    redis.hset(keys.parked(0), f"crm {first.call}", first.id)
    redis.rpush(keys.lane(0, "crm", first.call), to_stored(first))
    report = report_of(offhook, code=1)
    assert report["redis"]["waiting"] == ["main/live", "main/parked"]
    assert report["redis"]["events"] == 0


def test_positions_and_order_stay(redis: blocking.Redis, offhook: Offhook) -> None:
    for number in range(20):
        append(*call_of(NUMBER if number % 3 else OTHER, f"call-{number}"))
    deliver_all("log", "lines", "crm")
    tables = (keys.known(0), keys.behind(0), keys.read(0), keys.folded(0))
    before = [redis.hgetall(table) for table in tables]
    report_of(offhook)
    assert [redis.hgetall(table) for table in tables] == before
    kept = stored(redis)
    got: list[str] = []

    async def replay() -> None:
        bench = Bench(load_settings().redis_url)
        bench.plug(lambda event, _: got.append(event.id), events=["raw", "calls"])
        await bench.with_inbox(
            lambda inbox: Replays(inbox).set_back("crm", datetime.now(UTC) - HOUR)
        )
        await bench.deliver()
        bench.redis.close()

    asyncio.run(replay())
    assert sorted(got) == sorted(json.loads(event)["id"] for _, event in kept)


def test_files_and_call_logs_lose_the_number(
    redis: blocking.Redis, offhook: Offhook, tmp_path: Path
) -> None:
    log = configured(Sql, url=f"sqlite:///{tmp_path}/calls.db")
    lines = configured(File, path=tmp_path / "calls.jsonl", megabytes=0.002)
    for number in (NUMBER, OTHER, "+4402079460100"):
        party = Party(number=number, name="Jane Doe" if "100" in number else "John Roe")
        call = sample_call(caller=party, id=number)
        for event in (
            sample_event(caller=party, call_id=number, parameters={"CallerIDNum": number}),
            sample_event("call-ended", caller=party, call_id=number, summary=call),
        ):
            deliver(log, event)
            deliver(lines, event)
    assert len(list(tmp_path.glob("calls-*.gz"))) >= 2
    times = {path: path.stat().st_mtime for path in tmp_path.glob("calls-*.gz")}
    report = report_of(offhook)
    assert report["handlers"] == {"log": 6, "lines": 4}
    assert report["copies"] == ["crm"]
    assert {path: path.stat().st_mtime for path in tmp_path.glob("calls-*.gz")} == times
    left = ""
    for path in tmp_path.glob("calls*.jsonl*"):
        data = path.read_bytes()
        left += (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    assert left.count("\n") == left.count(f'"number":"{OTHER}","name":"John Roe"') / 1.5 == 2
    assert "Jane" not in left
    for path in tmp_path.glob("calls.db*"):
        assert b"Jane" not in path.read_bytes()
    with sqlite3.connect(tmp_path / "calls.db") as connection:
        [(legs,)] = connection.execute("SELECT count(*) FROM legs")
        [(calls,)] = connection.execute("SELECT count(*) FROM calls")
    connection.close()
    assert (legs, calls) == (1, 1)


def test_a_journal_waits_and_a_damaged_one_loses_the_number(
    redis: blocking.Redis, offhook: Offhook, tmp_path: Path
) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()

    async def write() -> None:
        journal = Journal(folder / "1.journal", 1_000_000)
        batch: Batch = batch_of(*call_of(NUMBER, "theirs"))
        await journal.append(batch)
        journal.close()

    asyncio.run(write())
    damaged = folder / "1.damaged"
    damaged.write_bytes(b"%s\n\xff%s\n" % (NUMBER.encode(), OTHER.encode()))
    report = report_of(offhook, code=1)
    assert report["journal"] == 1
    assert damaged.read_bytes() == b"\xff%s\n" % OTHER.encode()
    assert "1 line of the journal" in report["left"][0]


def test_a_number_without_a_country_is_refused(
    redis_url: str, configure: Configure, offhook: Offhook
) -> None:
    configure()
    result = offhook("erase", "02079460100", "--yes")
    assert result.exit_code == 2
    assert "has no country" in result.stderr


def test_the_report_is_printed(redis: blocking.Redis, offhook: Offhook) -> None:
    append(*call_of(NUMBER, "theirs"))
    deliver_all("log", "lines", "crm")
    assert offhook("erase", "020 7946 0100", input="n\n").exit_code == 1
    assert len(stored(redis)) > 0
    result = offhook("erase", "020 7946 0100", input="y\n")
    assert f"Deleted of {NUMBER}:" in result.stdout
    assert "inbox:         " in result.stdout
    assert "Their targets may have copies: crm." in result.stderr
    assert stored(redis) == []
