"""Names on a real server: who gets one, who is asked how often, and what a lookup may not do."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis as blocking

from offhook import Call, CallEvent, Context, Lookup, Number, Party
from offhook.connection import connect
from offhook.http import Http
from offhook.plugins import PluggedLookup
from offhook.settings import LookupSettings, load_settings
from offhook.testing import sample_call, sample_event
from tests.conftest import Configure
from workers.delivery import caller_names as module
from workers.delivery.caller_names import Names, naming

JANE = "+40211234567"
AnyAnswer = Callable[[Number], Awaitable[str | None]]


@dataclass(frozen=True)
class Book(Lookup):
    """What a test wants it to be."""

    names: dict[str, str] = field(default_factory=dict)
    answer: AnyAnswer | None = None
    asked: list[str] = field(default_factory=list)

    async def name_of(self, number: Number, context: Context) -> str | None:
        self.asked.append(number.e164 or number.text)
        if self.answer is not None:
            return await self.answer(number)
        return self.names.get(number.e164 or number.text)


@dataclass(frozen=True)
class Blocking(Lookup):
    """One that hangs in its thread."""

    def name_of(self, number: Number, context: Context) -> str | None:
        time.sleep(2)
        return "late"


class Bench:
    """Lookups on one server; each `process` is what one worker process has of them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.redis = blocking.Redis.from_url(url, decode_responses=True)

    @asynccontextmanager
    async def process(
        self, *lookups: Lookup, region: str | None = "RO", **policy: Any
    ) -> AsyncIterator[Names]:
        settings = LookupSettings(use="tests:none", **policy)
        plugged = [PluggedLookup(f"book{n}", settings, each) for n, each in enumerate(lookups)]
        client = connect(self.url, tries=0)
        async with Http() as http:
            made = Names(plugged, client, http, region)
            try:
                yield made
            finally:
                made.close()
                await client.aclose()

    def name(self, *lookups: Lookup, event: CallEvent | None = None, **policy: Any) -> CallEvent:
        """What one process makes of one event."""

        async def run() -> CallEvent:
            async with self.process(*lookups, **policy) as names:
                return await names.named(event or sample_event())

        return asyncio.run(run())


@pytest.fixture
def bench(redis_url: str) -> Bench:
    return Bench(redis_url)


def party(event: CallEvent | Call, side: str) -> Party:
    found = getattr(event, side)
    assert isinstance(found, Party)
    return found


# Who gets a name

OUT = sample_call(direction="out", caller=Party(extension="0003*210"), called=Party(number=JANE))


@pytest.mark.parametrize(
    ("event", "side"),
    [
        (sample_event("dial-in"), "caller"),
        (sample_event("hangup"), "caller"),
        (sample_event("dial-out"), "called"),
        (sample_event("call-started"), "caller"),
        (sample_event("missed-call"), "caller"),
        (sample_event("call-ended", summary=OUT), "called"),
        (sample_event("dial-in", caller=Party(number="021 123 4567")), "caller"),
        # Passed on by an extension, which shows the caller's number: the DID tells.
        (sample_event("dial-in", caller=Party(number=JANE, extension="0003*211")), "caller"),
    ],
)
def test_who_is_outside_gets_the_name(event: CallEvent, side: str, bench: Bench) -> None:
    other = {"caller": "called", "called": "caller"}[side]
    named = bench.name(Book({JANE: "Jane of Acme"}), event=event)
    assert party(named, side).name == "Jane of Acme"
    assert party(named, other) == party(event, other)
    assert (named.id, named.parameters) == (event.id, event.parameters)
    assert (named.summary is None) == (event.summary is None)
    if named.summary is not None:
        assert party(named.summary, side).name == "Jane of Acme"


INSIDE = Party(number="+40318100211", extension="0003*211")  # as its calls to outside show it


@pytest.mark.parametrize(
    "event",
    [
        sample_event("dial-in", caller=INSIDE, called=Party(extension="0003*210")),
        sample_event("dial-in", caller=Party(number="anonymous")),
        sample_event("dial-in", caller=Party()),
        sample_event("dial-in", caller=Party(number="112")),
        sample_event("dial-in", caller=Party(number="1" * 21)),
        sample_event("dial-out", called=Party(number="00031", extension="0003*1")),
        sample_event("dial-out", called=Party(number="0003*211")),
        sample_event("call-ended", summary=sample_call(direction="internal", caller=INSIDE)),
        sample_event("phone-unregistered"),
        sample_event("daily-summary"),
    ],
)
def test_nobody_is_asked_about_who_is_inside_or_hidden(event: CallEvent, bench: Bench) -> None:
    book = Book(answer=_anybody)
    assert bench.name(book, event=event) == event
    assert book.asked == []


async def _anybody(number: Number) -> str:
    return "Anybody"


def test_the_lookup_has_the_last_word_and_without_it_the_pbx(bench: Bench) -> None:
    event = sample_event(caller=Party(number=JANE, name="WIRELESS CALLER"))
    assert bench.name(Book({JANE: "Jane"}), event=event).caller.name == "Jane"
    event = sample_event(caller=Party(number="+40211234568", name="WIRELESS CALLER"))
    assert bench.name(Book({JANE: "Jane"}), event=event) == event


def test_the_first_lookup_that_knows_gives_the_name(bench: Bench) -> None:
    first, second, third = Book(), Book({JANE: "Jane"}), Book({JANE: "J. Doe"})
    assert bench.name(first, second, third).caller.name == "Jane"
    assert (first.asked, second.asked, third.asked) == ([JANE], [JANE], [])


def test_the_call_of_an_event_has_the_same_name_without_another_question(bench: Bench) -> None:
    book = Book({JANE: "Jane of Acme"})

    async def run() -> Call:
        async with bench.process(book, lifetime=0) as names:
            named = await names.named(sample_event())
            return await names.named_call(sample_call(), named)

    assert asyncio.run(run()).caller.name == "Jane of Acme"
    assert book.asked == [JANE]


def test_an_event_that_is_about_another_side_than_its_call_does_not_hide_its_name(
    bench: Bench,
) -> None:
    """Such as the dial-out of an extension that passes the call on to another one."""

    async def run() -> Call:
        async with bench.process(Book({JANE: "Jane of Acme"})) as names:
            inside = sample_event("dial-out", called=Party(number="211", extension="0003*211"))
            return await names.named_call(sample_call(), await names.named(inside))

    assert asyncio.run(run()).caller.name == "Jane of Acme"


@pytest.mark.parametrize("lifetime", [300, 0])
def test_an_event_with_its_call_is_one_question(lifetime: int, bench: Bench) -> None:
    book = Book({JANE: "Jane of Acme"})
    bench.name(book, event=sample_event("call-ended"), lifetime=lifetime)
    assert book.asked == [JANE]


# Who is asked how often


def test_many_events_of_many_processes_are_one_question(bench: Bench) -> None:
    async def slowly(number: Number) -> str:
        await asyncio.sleep(0.2)
        return "Jane"

    book = Book(answer=slowly)

    async def run() -> list[CallEvent]:
        async with bench.process(book) as one, bench.process(book) as another:
            events = [sample_event(type_) for type_ in ("dial-in", "answer-in", "call-started")]
            asking = [names.named(each) for names in (one, another) for each in events * 5]
            return list(await asyncio.gather(*asking))

    assert {event.caller.name for event in asyncio.run(run())} == {"Jane"}
    assert book.asked == [JANE]


def test_nobody_asks_right_after_another_has_its_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = Book(answer=_anybody)

    async def run() -> CallEvent:
        async with bench.process(book) as names:
            redis = names._lookups[0]._redis
            claim = redis.set

            async def late(*arguments: Any, **options: Any) -> Any:
                bench.redis.set(f"offhook:lookup:book0:name:{JANE}", "Jane")  # another process
                return await claim(*arguments, **options)

            monkeypatch.setattr(redis, "set", late)
            return await names.named(sample_event())

    assert asyncio.run(run()).caller.name == "Jane"
    assert book.asked == []
    assert bench.redis.keys("*:asking:*") == []


def test_a_later_process_has_the_same_name_without_asking(bench: Bench) -> None:
    assert bench.name(Book({JANE: "Jane"})).caller.name == "Jane"
    later = Book({JANE: "Jane Smith"})
    assert bench.name(later).caller.name == "Jane"
    assert later.asked == []


def test_an_answer_is_forgotten_after_its_lifetime(bench: Bench) -> None:
    bench.name(Book({JANE: "Jane"}), lifetime=1)
    assert 0 < bench.redis.pttl(f"offhook:lookup:book0:name:{JANE}") <= 1000
    time.sleep(1.1)
    assert bench.name(Book({JANE: "Jane Smith"}), lifetime=1).caller.name == "Jane Smith"


def test_that_nobody_has_a_number_is_forgotten_sooner(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNKNOWN", 1.0)
    event, added = sample_event(), Book({JANE: "Jane"})
    assert bench.name(Book(), event=event) == event
    assert bench.name(added, event=event) == event
    time.sleep(1.1)
    assert bench.name(added, event=event).caller.name == "Jane"
    assert len(added.asked) == 1


def test_without_a_lifetime_it_is_asked_each_time_and_redis_never(bench: Bench) -> None:
    book = Book({JANE: "Jane"})

    async def run() -> None:
        async with bench.process(book, lifetime=0) as names:
            for _ in range(3):
                assert (await names.named(sample_event())).caller.name == "Jane"

    asyncio.run(run())
    assert len(book.asked) == 3
    assert bench.redis.keys("*") == []


def test_a_process_asks_redis_once_for_what_comes_together(bench: Bench) -> None:
    async def run() -> int:
        async with bench.process(Book({JANE: "Jane"})) as names:
            await names.named(sample_event())
            before = _commands(bench)
            for _ in range(100):
                await names.named(sample_event())
            return _commands(bench) - before

    assert asyncio.run(run()) <= 2  # our own questions


def _commands(bench: Bench) -> int:
    info: Any = bench.redis.info("stats")
    return int(info["total_commands_processed"])


def test_what_a_caller_pretends_to_be_is_no_key_of_ours(bench: Bench) -> None:
    bench.name(Book(), event=sample_event(caller=Party(number="12345:x\r\nfailures")))
    assert bench.redis.keys("*") == ["offhook:lookup:book0:name:12345"]


# What a lookup may not do


async def _forever(number: Number) -> str:
    await asyncio.sleep(60)
    return "late"


async def _badly(number: Number) -> str:
    raise ValueError(f"no route to {number.national}, {number.e164}, {number.text}")


async def _oddly(number: Number) -> str:
    answer: Any = 42
    return answer  # type: ignore[no-any-return]


def test_one_that_hangs_costs_its_timeout_once_and_no_event(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    book = Book(answer=_forever)

    async def run() -> None:
        async with (
            bench.process(book, timeout=0.2) as one,
            bench.process(book, timeout=0.2) as another,
        ):
            events = [sample_event() for _ in range(20)]
            together = [names.named(each) for names in (one, another) for each in events]
            assert await asyncio.gather(*together) == events * 2

    began = time.monotonic()
    asyncio.run(run())
    assert 0.2 <= time.monotonic() - began < 2
    assert book.asked == [JANE]
    assert "did not answer within 0.2 s" in caplog.text


def test_a_thread_that_hangs_holds_nobody_up(bench: Bench) -> None:
    async def run() -> float:
        began = time.monotonic()
        async with bench.process(Blocking(), timeout=0.1) as names:
            event = sample_event()
            assert await names.named(event) == event
        return time.monotonic() - began

    assert asyncio.run(run()) < 1.5


@pytest.mark.parametrize("answer", [_badly, _oddly])
def test_one_that_is_wrong_is_told_without_the_number(
    answer: AnyAnswer, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    events = [
        sample_event(caller=Party(number=f"+402112345{n}", name="PBX")) for n in range(10, 15)
    ]
    known = Book({"+40211234510": "Jane"})

    async def run() -> list[CallEvent]:
        async with bench.process(Book(answer=answer), known) as names:
            return [await names.named(event) for event in events]

    got = asyncio.run(run())
    assert [event.caller.name for event in got] == ["Jane", *["PBX"] * 4]  # the next one is asked
    assert [record.levelno for record in caplog.records] == [logging.WARNING]  # of five
    assert "lookup book0 failed" in caplog.text
    assert ("ValueError" in caplog.text) or ("returned int" in caplog.text)
    assert not re.search("112345", caplog.text)


@pytest.mark.parametrize("lifetime", [300, 0])
def test_after_three_failures_in_a_row_it_is_left_alone_for_a_while(
    lifetime: int, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE", 1.5)
    book = Book(answer=_badly)

    async def turn(names: Names, numbers: range) -> None:
        for n in numbers:
            await names.named(sample_event(caller=Party(number=f"+402112345{n}")))

    async def run() -> None:
        async with bench.process(book, lifetime=lifetime) as one:
            await turn(one, range(10, 20))
            assert len(book.asked) == 3
            if lifetime:  # the others know it, too
                async with bench.process(book, lifetime=lifetime) as another:
                    await turn(another, range(20, 30))
                    assert len(book.asked) == 3
            await asyncio.sleep(1.6)
            await turn(one, range(30, 32))
            assert len(book.asked) == 5

    asyncio.run(run())


@pytest.mark.parametrize("lifetime", [300, 0])
def test_failures_that_are_not_in_a_row_do_not_count(lifetime: int, bench: Bench) -> None:
    async def now_and_then(number: Number) -> str:
        if int(number.digits) % 3:
            raise ValueError("no")
        return "Jane"

    book = Book(answer=now_and_then)

    async def run() -> None:
        async with bench.process(book, lifetime=lifetime) as names:
            for n in range(10, 40):
                await names.named(sample_event(caller=Party(number=f"+402112345{n}")))

    asyncio.run(run())
    assert len(book.asked) == 30


def test_who_was_killed_while_it_asked_is_not_waited_for(bench: Bench) -> None:
    bench.redis.set(f"offhook:lookup:book0:asking:{JANE}", "", px=300)
    began = time.monotonic()
    assert bench.name(Book({JANE: "Jane"}), timeout=2).caller.name == "Jane"
    assert time.monotonic() - began < 1.8


def test_nobody_waits_longer_for_another_s_answer_than_for_its_own(bench: Bench) -> None:
    bench.redis.set(f"offhook:lookup:book0:asking:{JANE}", "", px=60_000)
    event, book = sample_event(), Book({JANE: "Jane"})
    began = time.monotonic()
    assert bench.name(book, event=event, timeout=0.3) == event
    assert 0.3 <= time.monotonic() - began < 2
    assert book.asked == []


def test_without_redis_the_event_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    event = sample_event()
    assert Bench("redis://127.0.0.1:1").name(Book({JANE: "Jane"}), event=event) == event
    assert "lookup book0 failed" in caplog.text


# As configured


def configured(event: CallEvent) -> CallEvent | None:
    async def run() -> CallEvent | None:
        settings = load_settings()
        client = connect(settings.redis_url)
        try:
            async with naming(settings, client) as names:
                return None if names is None else await names.named(event)
        finally:
            await client.aclose()

    return asyncio.run(run())


def test_without_lookups_there_is_nothing_to_ask(configure: Configure) -> None:
    configure()
    assert configured(sample_event()) is None


def test_one_that_has_become_wrong_is_left_out_and_costs_no_event(
    configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    path = configure()
    (path.parent / "contacts.csv").write_text(f"number,name\n{JANE},Jane of Acme\n")
    configure(f"""
[lookups.gone]
use = "a_module_that_is_gone:Lookup"
[lookups.broken]
use = "tests.workers.broken_lookup:Lookup"
[lookups.file]
use = "csv"
options.path = "{path.parent}/contacts.csv"
""")
    named = configured(sample_event())
    assert named is not None
    assert named.caller.name == "Jane of Acme"
    assert "lookup gone is left out: lookups.gone.use: " in caplog.text
    assert "lookup broken is left out: ZeroDivisionError" in caplog.text
