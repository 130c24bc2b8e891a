"""Caller names with a real server: which events get one, when lookups are asked, and failures."""

import asyncio
import logging
import re
import threading
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
from workers.delivery.caller_names import CallerNames, naming

JANE = "+40211234567"
AnyAnswer = Callable[[Number], Awaitable[str | None]]


@dataclass(frozen=True)
class Book(Lookup):
    """A lookup from a dictionary or a function."""

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
    """A lookup that hangs in its thread."""

    go_on: threading.Event

    def name_of(self, number: Number, context: Context) -> str | None:
        self.go_on.wait(60)
        return "late"


class Bench:
    """Lookups that share a server; each `process` is one worker process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.redis = blocking.Redis.from_url(url, decode_responses=True)

    @asynccontextmanager
    async def process(
        self,
        *lookups: Lookup,
        unknown_lifetime: float = 30,
        pause: float = 30,
        **policy: Any,
    ) -> AsyncIterator[CallerNames]:
        settings = LookupSettings(use="tests:none", **policy)
        plugged = [PluggedLookup(f"book{n}", settings, each) for n, each in enumerate(lookups)]
        client = connect(self.url, tries=0)
        async with Http() as http:
            made = CallerNames(
                plugged, client, http, "RO", unknown_lifetime=unknown_lifetime, pause=pause
            )
            try:
                yield made
            finally:
                made.close()
                await client.aclose()

    async def name(
        self, *lookups: Lookup, event: CallEvent | None = None, **options: Any
    ) -> CallEvent:
        """Add the name to one event, in its own process."""
        async with self.process(*lookups, **options) as names:
            return await names.named(event or sample_event())


@pytest.fixture
def bench(redis_url: str) -> Bench:
    return Bench(redis_url)


def party(event: CallEvent | Call, side: str) -> Party:
    found = getattr(event, side)
    assert isinstance(found, Party)
    return found


# Which events get a name

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
        # Forwarded by an extension that shows the caller's number: only the DID says so.
        (sample_event("dial-in", caller=Party(number=JANE, extension="0003*211")), "caller"),
    ],
)
async def test_external_party_gets_the_name(event: CallEvent, side: str, bench: Bench) -> None:
    other = {"caller": "called", "called": "caller"}[side]
    named = await bench.name(Book({JANE: "Jane of Acme"}), event=event)
    assert party(named, side).name == "Jane of Acme"
    assert party(named, other) == party(event, other)
    assert (named.id, named.parameters) == (event.id, event.parameters)
    assert (named.summary is None) == (event.summary is None)
    if named.summary is not None:
        assert party(named.summary, side).name == "Jane of Acme"


INSIDE = Party(number="+40318100211", extension="0003*211")  # as shown on its external calls


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
async def test_lookups_are_not_asked_about_internal_or_hidden_numbers(
    event: CallEvent, bench: Bench
) -> None:
    book = Book(answer=_anybody)
    assert await bench.name(book, event=event) == event
    assert book.asked == []


async def _anybody(number: Number) -> str:
    return "Anybody"


async def test_lookups_name_overrides_the_pbx_name(bench: Bench) -> None:
    event = sample_event(caller=Party(number=JANE, name="WIRELESS CALLER"))
    assert (await bench.name(Book({JANE: "Jane"}), event=event)).caller.name == "Jane"
    event = sample_event(caller=Party(number="+40211234568", name="WIRELESS CALLER"))
    assert await bench.name(Book({JANE: "Jane"}), event=event) == event


async def test_first_lookup_that_knows_the_number_wins(bench: Bench) -> None:
    first, second, third = Book(), Book({JANE: "Jane"}), Book({JANE: "J. Doe"})
    assert (await bench.name(first, second, third)).caller.name == "Jane"
    assert (first.asked, second.asked, third.asked) == ([JANE], [JANE], [])


async def test_call_of_a_named_event_needs_no_second_lookup(bench: Bench) -> None:
    book = Book({JANE: "Jane of Acme"})

    async with bench.process(book, lifetime=0) as names:
        named = await names.named(sample_event())
        result = await names.named_call(sample_call(), named)
    assert result.caller.name == "Jane of Acme"
    assert book.asked == [JANE]


async def test_call_gets_its_name_even_if_its_event_is_internal(
    bench: Bench,
) -> None:
    """Such as the dial-out of an extension that forwards the call to another one."""

    async with bench.process(Book({JANE: "Jane of Acme"})) as names:
        inside = sample_event("dial-out", called=Party(number="211", extension="0003*211"))
        result = await names.named_call(sample_call(), await names.named(inside))
    assert result.caller.name == "Jane of Acme"


@pytest.mark.parametrize("lifetime", [300, 0])
async def test_event_with_its_call_needs_one_lookup(lifetime: int, bench: Bench) -> None:
    book = Book({JANE: "Jane of Acme"})
    await bench.name(book, event=sample_event("call-ended"), lifetime=lifetime)
    assert book.asked == [JANE]


# When lookups are asked


async def test_concurrent_processes_share_one_lookup(bench: Bench) -> None:
    async def slowly(number: Number) -> str:
        await asyncio.sleep(0.2)
        return "Jane"

    book = Book(answer=slowly)

    async with bench.process(book) as one, bench.process(book) as another:
        events = [sample_event(type_) for type_ in ("dial-in", "answer-in", "call-started")]
        asking = [names.named(each) for names in (one, another) for each in events * 5]
        result = list(await asyncio.gather(*asking))
    assert {event.caller.name for event in result} == {"Jane"}
    assert book.asked == [JANE]


async def test_name_stored_by_another_process_just_now_is_used(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = Book(answer=_anybody)

    async with bench.process(book) as names:
        redis = names._lookups[0]._redis
        claim = redis.set

        async def late(*arguments: Any, **options: Any) -> Any:
            bench.redis.set(f"offhook:lookup:book0:name:{JANE}", "Jane")  # another process
            return await claim(*arguments, **options)

        monkeypatch.setattr(redis, "set", late)
        result = await names.named(sample_event())
    assert result.caller.name == "Jane"
    assert book.asked == []
    assert bench.redis.keys("*:asking:*") == []


async def test_later_process_uses_the_cached_name(bench: Bench) -> None:
    assert (await bench.name(Book({JANE: "Jane"}))).caller.name == "Jane"
    later = Book({JANE: "Jane Smith"})
    assert (await bench.name(later)).caller.name == "Jane"
    assert later.asked == []


async def test_name_expires_after_its_lifetime(bench: Bench) -> None:
    await bench.name(Book({JANE: "Jane"}), lifetime=1)
    assert bench.redis.pttl(f"offhook:lookup:book0:name:{JANE}") <= 1000
    time.sleep(1.1)
    assert (await bench.name(Book({JANE: "Jane Smith"}), lifetime=1)).caller.name == "Jane Smith"


async def test_unknown_number_expires_sooner(
    bench: Bench,
) -> None:
    event, added = sample_event(), Book({JANE: "Jane"})
    assert await bench.name(Book(), event=event, unknown_lifetime=20) == event
    assert await bench.name(added, event=event) == event
    assert 0 < bench.redis.pttl(f"offhook:lookup:book0:name:{JANE}") <= 20_000
    bench.redis.delete(f"offhook:lookup:book0:name:{JANE}")  # as it is once that time is over
    assert (await bench.name(added, event=event)).caller.name == "Jane"
    assert len(added.asked) == 1


async def test_lifetime_0_disables_the_cache(bench: Bench) -> None:
    book = Book({JANE: "Jane"})

    async with bench.process(book, lifetime=0) as names:
        for _ in range(3):
            assert (await names.named(sample_event())).caller.name == "Jane"
    assert len(book.asked) == 3
    assert bench.redis.keys("*") == []


async def test_process_caches_recent_names_locally(bench: Bench) -> None:
    async with bench.process(Book({JANE: "Jane"})) as names:
        await names.named(sample_event())
        before = _commands(bench)
        for _ in range(100):
            await names.named(sample_event())
        result = _commands(bench) - before
    assert result <= 2  # of this test itself


def _commands(bench: Bench) -> int:
    info: Any = bench.redis.info("stats")
    return int(info["total_commands_processed"])


async def test_caller_number_cannot_inject_a_redis_key(bench: Bench) -> None:
    await bench.name(Book(), event=sample_event(caller=Party(number="12345:x\r\nfailures")))
    assert bench.redis.keys("*") == ["offhook:lookup:book0:name:12345"]


# Lookups that fail


async def _forever(number: Number) -> str:
    await asyncio.sleep(60)
    return "late"


async def _badly(number: Number) -> str:
    raise ValueError(f"no route to {number.national}, {number.e164}, {number.text}")


async def _oddly(number: Number) -> str:
    answer: Any = 42
    return answer  # type: ignore[no-any-return]


async def test_hanging_lookup_costs_one_timeout_and_no_event(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    book = Book(answer=_forever)

    async with (
        bench.process(book, timeout=1) as one,
        bench.process(book, timeout=1) as another,
    ):
        events = [sample_event() for _ in range(20)]
        together = [names.named(each) for names in (one, another) for each in events]
        assert await asyncio.gather(*together) == events * 2
    assert book.asked == [JANE]
    assert "did not answer within 1 s" in caplog.text


async def test_hanging_thread_does_not_hold_up_events(bench: Bench) -> None:
    go_on = threading.Event()
    async with bench.process(Blocking(go_on), timeout=0.1) as names:
        event = sample_event()
        async with asyncio.timeout(30):
            assert await names.named(event) == event
    go_on.set()


@pytest.mark.parametrize("answer", [_badly, _oddly])
async def test_failure_is_logged_without_the_number(
    answer: AnyAnswer, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    events = [
        sample_event(caller=Party(number=f"+402112345{n}", name="PBX")) for n in range(10, 15)
    ]
    known = Book({"+40211234510": "Jane"})

    async with bench.process(Book(answer=answer), known) as names:
        result = [await names.named(event) for event in events]
    got = result
    assert [event.caller.name for event in got] == ["Jane", *["PBX"] * 4]  # from the next lookup
    assert [record.levelno for record in caplog.records] == [logging.WARNING]  # of five
    assert "lookup book0 failed" in caplog.text
    assert ("ValueError" in caplog.text) or ("returned int" in caplog.text)
    assert not re.search("112345", caplog.text)


@pytest.mark.parametrize("lifetime", [300, 0])
async def test_lookup_is_paused_after_three_failures_in_a_row(lifetime: int, bench: Bench) -> None:
    book = Book(answer=_badly)

    async def turn(names: CallerNames, numbers: range) -> None:
        for n in numbers:
            await names.named(sample_event(caller=Party(number=f"+402112345{n}")))

    async with bench.process(book, lifetime=lifetime, pause=60) as one:
        await turn(one, range(10, 20))
        assert len(book.asked) == 3
        if lifetime:  # other processes share the pause
            async with bench.process(book, lifetime=lifetime) as another:
                await turn(another, range(20, 30))
                assert len(book.asked) == 3
        (lookup,) = one._lookups
        assert 0 < lookup._paused_until - time.monotonic() <= 60 or lifetime
        assert 0 < bench.redis.pttl("offhook:lookup:book0:failures") <= 60_000 or not lifetime
        lookup._paused_until = 0.0  # as both are once that time is over
        bench.redis.delete("offhook:lookup:book0:failures")
        await turn(one, range(30, 32))
        assert len(book.asked) == 5


@pytest.mark.parametrize("lifetime", [300, 0])
async def test_failures_that_are_not_in_a_row_do_not_pause_a_lookup(
    lifetime: int, bench: Bench
) -> None:
    async def now_and_then(number: Number) -> str:
        if int(number.digits) % 3:
            raise ValueError("no")
        return "Jane"

    book = Book(answer=now_and_then)

    async with bench.process(book, lifetime=lifetime) as names:
        for n in range(10, 40):
            await names.named(sample_event(caller=Party(number=f"+402112345{n}")))
    assert len(book.asked) == 30


async def test_claim_of_a_killed_process_expires(bench: Bench) -> None:
    bench.redis.set(f"offhook:lookup:book0:asking:{JANE}", "", px=300)
    assert (await bench.name(Book({JANE: "Jane"}), timeout=10)).caller.name == "Jane"


async def test_wait_for_another_process_is_limited_by_the_timeout(bench: Bench) -> None:
    bench.redis.set(f"offhook:lookup:book0:asking:{JANE}", "", px=60_000)
    event, book = sample_event(), Book({JANE: "Jane"})
    began = time.monotonic()
    assert await bench.name(book, event=event, timeout=0.3) == event
    assert 0.3 <= time.monotonic() - began < 30
    assert book.asked == []


async def test_event_continues_without_redis(caplog: pytest.LogCaptureFixture) -> None:
    event, away = sample_event(), Bench("redis://127.0.0.1:1")
    assert await away.name(Book({JANE: "Jane"}), event=event) == event
    assert "lookup book0 failed" in caplog.text


# Configuration


async def configured(event: CallEvent) -> CallEvent | None:
    settings = load_settings()
    async with connect(settings.redis_url) as client, naming(settings, client) as of_tenant:
        names = of_tenant(event.tenant)
        return None if names is None else await names.named(event)


async def test_without_lookups_there_are_no_names(configure: Configure) -> None:
    configure()
    assert await configured(sample_event()) is None


async def test_name_is_decoded_as_the_settings_say_now(configure: Configure) -> None:
    event = sample_event(undecoded={"CallerIDName": "%CB%B8%F8%E0"})
    configure(f'[pbx.{event.pbx}]\nencoding = "cp1251"\n')
    named = await configured(event)
    assert named is not None
    assert named.caller.name == named.parameters["CallerIDName"] == "Лёша"
    assert (named.id, named.caller.number) == (event.id, event.caller.number)


async def test_a_tenants_own_code_is_asked_in_its_own_processes_alone(
    configure: Configure,
) -> None:
    book = 'lookups.book.use = "tests.offhook.lookups:Slow"'
    configure(
        f"{book}\n[tenants]\n"
        f'acme = {{extensions = ["main/0003**"], own_code = true, {book}}}\n'
        'beta = {extensions = ["main/0004**"]}\n'
    )
    settings = load_settings()
    async with connect(settings.redis_url) as client:
        for pool in ("", "shared", "beta/code", "acme/code", "acme/crm"):
            async with naming(settings, client, pool) as of_tenant:
                assert (of_tenant("acme") is not None) == pool.startswith("acme/"), pool
                assert of_tenant("") is not None, pool


async def test_misconfigured_lookup_is_left_out_and_costs_no_event(
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
    named = await configured(sample_event())
    assert named is not None
    assert named.caller.name == "Jane of Acme"
    assert "lookup gone is left out: lookups.gone.use: " in caplog.text
    assert "cannot be loaded: ZeroDivisionError" in caplog.text
