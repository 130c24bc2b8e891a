"""Search on a real server finds what filtering a list of all calls finds, and pages through it."""

import random
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from offhook.call import Outcome
from offhook.calls import CallFilter, CallState, fold, summarize, terms
from offhook.connection import connect
from offhook.dialects.voipnow import read_event
from offhook.event import EventType
from offhook.inbox import Inbox, Partition, call_index, keys
from offhook.inbox.call_search import UnknownCursor, search
from offhook.inbox.call_store import CallChange, Calls, CallSave, Kept

PARTITIONS = 3
NOW = datetime.now(UTC).replace(microsecond=0)
NUMBERS = (
    "441614960251",
    "01614960251",
    "+441614960252",
    "4960251",
    "0251",
    "112",
    "anonymous",
    "",
)
NAMES = (
    "Zoë Müller",
    "ZOE MULLER-LÜDENSCHEIDT",
    "O'Brien, Seán",
    "李小龍",
    "Søren Ærø",
    "a=b:c*d\0e\n?[f]",
    "name=zoe",
    "x" * 300,
    "Straße 7",
    "",
)
NAMED = {  # what is asked for, and the names that it finds
    "ZOË": NAMES[:2] + NAMES[6:7],
    "muller": NAMES[:2],
    "o'brien": NAMES[2:3],
    "李小": NAMES[3:4],
    "o": NAMES[2:3],
    "nobody": (),
}
EXTENSIONS = ("0003*210", "0003*211", "0003*2", "a:b=c", "*")
STATUSES = ("ANSWER", "NOANSWER", "BUSY", "CANCEL")


@pytest.fixture
async def inbox(redis_url: str) -> AsyncIterator[Inbox]:
    async with connect(redis_url) as client:
        yield Inbox(client, PARTITIONS)


class Bench:
    """Calls in the store, and the same calls in a list."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.partitions = [Partition(inbox.redis, inbox.redis, n) for n in range(PARTITIONS)]
        self.calls = Calls(inbox)
        self.kept: dict[str, Kept] = {}
        self.began: dict[str, datetime] = {}

    async def save(self, *states: CallState, keep_days: float = 30) -> None:
        """Keep calls, each in the partition where it is or in any."""
        for partition in self.partitions:
            await partition.lease.take()  # a test may last longer than a lease
            changes = []
            for state in states:
                name = f"{state.pbx}/{state.id}"
                number = len(name.encode()) % PARTITIONS
                if number == partition.number:
                    known = self.kept.get(name)
                    live = None if state.closed else 1
                    self.kept[name] = Kept(name, state, "1-1", "1-2", number)
                    began = min(part.first for part in state.parts if part.first)
                    self.began.setdefault(name, datetime.fromtimestamp(began / 1e6, UTC))
                    before = known.state if known else None
                    changes.append(CallChange(self.kept[name], [], live=live, before=before))
            await self.calls.save(partition, [CallSave("", changes, None, keep_days)])

    async def erase(self, name: str) -> None:
        kept = self.kept.pop(name)
        del self.began[name]
        assert await call_index.erase(self.inbox, kept.partition, [name]) == 1

    async def found(self, most: int = 40, **wanted: Any) -> list[str]:
        """The names of the calls on all pages."""
        names: list[str] = []
        cursor = None
        while True:
            page = await search(self.inbox, CallFilter(**wanted), most, cursor)
            names += [kept.name for kept in page.calls]
            assert len(page.calls) <= most
            if page.cursor is None:
                return names
            assert page.cursor != cursor
            cursor = page.cursor

    def expected(self, **wanted: Any) -> list[str]:
        """The same from the list, newest first."""
        names = [name for name, kept in self.kept.items() if self.is_wanted(kept, **wanted)]
        return sorted(names, key=lambda name: (self.began[name], name.encode()), reverse=True)

    def is_wanted(
        self,
        kept: Kept,
        number: str | None = None,
        name: str | None = None,
        extension: str | None = None,
        outcome: Outcome | None = None,
        live: bool = False,
        since: datetime | None = None,
        before: datetime | None = None,
    ) -> bool:
        call = summarize(kept.state, None)
        began = self.began[kept.name]
        numbers = (call.caller.number, call.called.number, call.called.did)
        digits = number and "".join(filter(str.isdecimal, number)).lstrip("0")
        return (
            (digits is None or any(each and each.endswith(digits) for each in numbers))
            and (name is None or call.caller.name in NAMED[name])
            and (extension is None or extension in call.extensions)
            and (outcome is None or call.outcome is outcome)
            and (not live or call.closed_by is None)
            and (since is None or began >= since)
            and (before is None or began < before)
        )

    async def index(self) -> set[tuple[int, str, str]]:
        """What the index holds: partition, term and call."""
        found = set()
        for partition in range(PARTITIONS):
            prefix = keys.index(partition, "").encode()
            async for key in self.inbox.redis.scan_iter(prefix.replace(b"*", b"\\*") + b"*"):
                members: Any = await self.inbox.redis.zrange(key, 0, -1)
                term = key.removeprefix(prefix).decode()
                found |= {(partition, term, member.decode()) for member in members}
        return found

    def index_expected(self) -> set[tuple[int, str, str]]:
        return {
            (kept.partition, term, name)
            for name, kept in self.kept.items()
            for term in terms(kept.state)
        }


@pytest.fixture
async def bench(inbox: Inbox) -> Bench:
    made = Bench(inbox)
    await call_index.index_kept(inbox, lambda tenant: 30)
    return made


def call(
    name: str,
    *,
    ago: timedelta = timedelta(hours=1),
    number: str = "442079460100",
    caller: str = "Ada Byron",
    extension: str = "0003*210",
    did: str = "441614960999",
    status: str | None = "ANSWER",
) -> CallState:
    """A call from outside; `status` None: it goes on."""
    state: CallState | None = None
    types = [EventType.DIAL_IN]
    if status == "ANSWER":
        types.append(EventType.ANSWER_IN)
    if status is not None:
        types.append(EventType.HANGUP)
    for n, type_ in enumerate(types):
        event = read_event(
            pbx="main",
            extension=extension,
            type=type_,
            parameters={
                "CallID": name,
                "CallFlow": "IN",
                "CallerIDNum": number,
                "CallerIDName": caller,
                "CalledDID": did,
                "CalledExtension": extension,
                "CallStatus": status or "CALLING",
            },
        )
        state = fold(state, replace(event, received=NOW - ago + timedelta(seconds=n)))
    assert state is not None
    return replace(state, closed=None if status is None else "hangup")


@pytest.mark.parametrize("seed", range(3))
async def test_search_finds_what_filtering_all_calls_finds(bench: Bench, seed: int) -> None:
    some = random.Random(seed)

    def any_call(name: str) -> CallState:
        return call(
            name,
            ago=timedelta(minutes=some.randrange(40)),  # many began at the same time
            number=some.choice(NUMBERS),
            caller=some.choice(NAMES),
            extension=some.choice(EXTENSIONS[:3]),
            did=some.choice(("441614960251", "441614960999", "")),
            status=some.choice((*STATUSES, None)),
        )

    for n in range(6):
        await bench.save(*(any_call(f"{n}-{'x' * some.randrange(9)}{m}") for m in range(25)))
        for name in some.sample(sorted(bench.kept), 5):
            await bench.erase(name)
        changed = some.sample(sorted(bench.kept), 10)
        await bench.save(*(any_call(name.removeprefix("main/")) for name in changed))
        assert await bench.index() == bench.index_expected()
    for _ in range(25):
        wanted: dict[str, Any] = {
            "number": some.choice(
                ("251", "0251", "4960251", "112", "01614960251", "9", "999888777")
            ),
            "name": some.choice(list(NAMED)),
            "extension": some.choice(EXTENSIONS),
            "outcome": some.choice(list(Outcome)),
            "live": True,
            "since": NOW - timedelta(minutes=some.randrange(45)),
            "before": NOW - timedelta(minutes=some.randrange(45)),
        }
        wanted = {name: wanted[name] for name in some.sample(sorted(wanted), some.randrange(4))}
        assert await bench.found(some.choice((20, 1000)), **wanted) == bench.expected(**wanted)


@pytest.mark.parametrize(
    "stored", ["441614960251", "+44 161 496-0251", "01614960251", "00441614960251"]
)
@pytest.mark.parametrize(
    ("asked", "region"),
    [
        ("+44 1614960251", None),
        ("0044 161 4960251", "GB"),
        ("(0161) 496 0251", None),
        ("01614960251", "GB"),
        ("1614960251", "FR"),
        ("4960251", None),
        ("60251", None),
        ("251", "GB"),
        ("51", None),
    ],
)
async def test_a_number_is_found_in_any_form(
    bench: Bench, stored: str, asked: str, region: str | None
) -> None:
    await bench.save(call("wanted", number=stored), call("other", number="441614960250"))
    assert await bench.found(number=asked, region=region) == ["main/wanted"]


async def test_a_called_number_is_found(bench: Bench) -> None:
    await bench.save(call("c1", did="441614960251"))
    assert await bench.found(number="01614960251") == ["main/c1"]


async def test_numbers_with_the_same_ending_are_told_apart(bench: Bench) -> None:
    await bench.save(
        call("gb", number="441614960251"), call("us", number="12124960251"), call("s", number="251")
    )
    assert await bench.found(number="+12124960251") == ["main/us"]
    assert await bench.found(number="1614960251") == ["main/gb"]
    assert await bench.found(number="4960251") == ["main/us", "main/gb"]
    assert await bench.found(number="251") == ["main/us", "main/s", "main/gb"]


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("Zoë Müller", "muller"),
        ("Zoe Muller", "MÜLLER zoë"),
        ("Zoë Müller", "zoë mü"),
        ("Seán O'Brien", "o'brien"),
        ("Straße", "STRASSE"),
        ("Søren Ærø", "soren aero"),
        ("李小龍", "李"),
        ("李小龍", "李小龍"),
        ("Мария", "мар"),
        ("Мария", "ма"),
        ("Mueller", "muelle"),
        ("Mueller", "muell"),
        ("Ｆｕｌｌ width", "full"),
        ("a=b:c*d\0e\n?[f]", "b"),
        ("name=zoe", "zoe"),
        ("x" * 300, "x" * 300),
        ("w1 " * 30, "w1"),
        ("😀 Ada", "ada"),
    ],
)
async def test_a_name_is_found_by_words_and_their_beginnings(
    bench: Bench, stored: str, asked: str
) -> None:
    await bench.save(call("c1", caller=stored), call("other", caller="Müllabfuhr, Zora"))
    assert await bench.found(name=asked) == ["main/c1"]


@pytest.mark.parametrize("asked", ["ller", "muller bob", "zoë zoe zo adam"])
async def test_the_middle_of_a_word_and_further_words_are_not_found(
    bench: Bench, asked: str
) -> None:
    await bench.save(call("c1", caller="Zoë Müller"), call("c2", caller="Bob"))
    assert await bench.found(name=asked) == []


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"number": "abc"}, "number: 'abc' contains no digit"),
        ({"name": "\0=*"}, "name: '\\x00=*' contains no letter"),
    ],
)
def test_a_filter_without_meaning_is_refused(wanted: dict[str, str], error: str) -> None:
    with pytest.raises(ValueError, match="contains no") as raised:
        CallFilter(**wanted)  # type: ignore[arg-type]
    assert str(raised.value) == error


@pytest.mark.parametrize(
    "cursor", ["", "@", "@x", "@MSBh=", "1d", "@\N{PILE OF POO}", "@" + "A" * 99]
)
async def test_what_is_no_cursor_is_refused(bench: Bench, cursor: str) -> None:
    with pytest.raises(UnknownCursor):
        await search(bench.inbox, CallFilter(), 1, cursor)


async def test_a_cursor_holds_when_its_call_is_erased_and_newer_calls_come(bench: Bench) -> None:
    await bench.save(*(call(f"c{n}") for n in range(5)))
    page = await search(bench.inbox, CallFilter(), 2)
    assert [kept.name for kept in page.calls] == ["main/c4", "main/c3"]
    await bench.erase("main/c3")
    await bench.save(call("new", ago=timedelta()))
    page = await search(bench.inbox, CallFilter(), 9, page.cursor)
    assert [kept.name for kept in page.calls] == ["main/c2", "main/c1", "main/c0"]


@pytest.mark.parametrize("wanted", [{}, {"extension": "0003*210"}])
async def test_calls_that_began_at_the_same_moment_are_all_listed(
    bench: Bench, wanted: dict[str, Any]
) -> None:
    for first in range(0, 2500, 500):  # more than are read at once
        await bench.save(*(call(f"{n:04}") for n in range(first, first + 500)))
    assert await bench.found(most=700, **wanted) == bench.expected()


@pytest.mark.parametrize(
    "wanted",
    [
        {"number": "+44 161 4960251"},
        {"number": "0251"},
        {"name": "muller"},
        {"extension": "0003*211", "outcome": Outcome.ANSWERED},
        {"live": True},
        {"since": NOW - timedelta(seconds=90)},
    ],
)
async def test_other_calls_are_not_read(bench: Bench, wanted: dict[str, Any]) -> None:
    await bench.save(*(call(f"c{n}", caller="Mullbar Ada") for n in range(400)))
    one = call(
        "x", ago=timedelta(minutes=1), number="441614960251", caller="Müller", extension="0003*211"
    )
    live = call("y", ago=timedelta(minutes=1), number="441614960251", status=None)
    await bench.save(one, live)
    await bench.inbox.redis.config_resetstat()
    names = await bench.found(**wanted)
    assert {"main/x", "main/y"} & set(names)
    stats: Any = await bench.inbox.redis.info("stats")
    assert stats["keyspace_hits"] < 40  # sets and calls


async def test_a_page_needs_no_further_connection(bench: Bench) -> None:
    await bench.save(*(call("x" * n) for n in range(1, 40)))  # in all partitions
    before: Any = await bench.inbox.redis.info("stats")
    assert len(await bench.found(number="442079460100")) == 39
    after: Any = await bench.inbox.redis.info("stats")
    assert after["total_connections_received"] == before["total_connections_received"]


async def test_a_page_reads_a_limited_number_of_calls(bench: Bench) -> None:
    for first in range(0, 5_500, 500):
        some = range(first, first + 500)
        await bench.save(*(call(f"c{n}", ago=timedelta(seconds=n)) for n in some))
    wanted = CallFilter(name="qx")  # too short for the index
    page = await search(bench.inbox, wanted, 50)
    assert page.calls == []
    assert page.cursor is not None
    page = await search(bench.inbox, wanted, 50, page.cursor)
    assert (page.calls, page.cursor) == ([], None)


async def test_the_index_goes_away_with_the_calls(bench: Bench) -> None:
    # The milliseconds of when a call began decide whether it removes others that have expired.
    await bench.save(*(call(f"old{n}", ago=timedelta(days=2)) for n in range(3)))
    await bench.save(*(call(f"new{n}", ago=timedelta(seconds=n)) for n in range(4)), keep_days=1)
    assert {name for _, _, name in await bench.index()} == {f"main/new{n}" for n in range(4)}
    await bench.save(call("last"), keep_days=0.5 / 86_400)
    redis: Any = bench.inbox.redis
    ends = [await redis.pttl(key) async for key in redis.scan_iter(keys.index(0, "*"))]
    assert all(0 < end <= 86_400_000 for end in ends)


def earlier_version(names: Sequence[str]) -> Iterator[CallState]:
    for n, name in enumerate(names):
        yield call(name, caller=NAMES[n % len(NAMES)], number=NUMBERS[n % len(NUMBERS)])


async def test_calls_of_an_earlier_version_are_found_before_and_after_they_are_indexed(
    inbox: Inbox,
) -> None:
    bench = Bench(inbox)
    await bench.save(*earlier_version([f"c{n}{'x' * (n % 3)}" for n in range(600)]))
    async for key in inbox.redis.scan_iter("*:index:*"):
        await inbox.redis.delete(key)
    wanted: dict[str, Any] = {"number": "0251", "extension": "0003*210"}
    expected = bench.expected(**wanted)
    assert len(expected) > 50
    assert await bench.found(**wanted) == expected
    assert await call_index.index_kept(inbox, lambda tenant: 30) == 600
    assert await bench.index() == bench.index_expected()
    assert await bench.found(**wanted) == expected
    assert await call_index.index_kept(inbox, lambda tenant: 30) == 0


async def test_calls_that_change_while_they_are_indexed_are_indexed_as_they_are(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(inbox)
    await bench.save(call("c1"), call("c2", number="441614960251"))
    async for key in inbox.redis.scan_iter("*:index:*"):
        await inbox.redis.delete(key)
    read = inbox.redis.mget
    changes = [call("c1", number="441614960252"), call("c2", status=None)]

    async def read_and_change(names: list[bytes]) -> Any:
        values = await read(names)
        if changes:
            await bench.save(changes.pop())
        return values

    monkeypatch.setattr(inbox.redis, "mget", read_and_change)
    await call_index.index_kept(inbox, lambda tenant: 30)
    assert changes == []
    assert await bench.index() == bench.index_expected()


async def test_each_tenant_finds_its_own_calls(inbox: Inbox) -> None:
    calls, partition = Calls(inbox), Partition(inbox.redis, inbox.redis, 0)
    assert await partition.lease.take() == 0
    for tenant, live in (("", None), ("acme", None), ("zeta", 1)):
        prefix = f"{tenant}:" if tenant else ""
        state = call("c1", status="ANSWER" if live is None else None)
        kept = Kept(f"{prefix}main/c1", state, "1-1", "1-2", 0)
        change = CallChange(kept, [], live=live)
        await calls.save(partition, [CallSave(tenant, [change], None, 30)])
        await inbox.redis.hset(keys.read(0), tenant, "1-2")

    async def found(tenant: str, **wanted: Any) -> list[str]:
        page = await search(inbox, CallFilter(**wanted), 9, tenant=tenant)
        return [kept.name for kept in page.calls]

    filters: list[dict[str, Any]] = [{}, {"number": "442079460100"}, {"name": "ada"}]
    for _ in ("before the index", "with the index"):
        for wanted in filters:
            assert await found("", **wanted) == ["main/c1"]
            assert await found("acme", **wanted) == ["acme:main/c1"]
        assert await found("acme", live=True) == []
        assert await found("zeta", live=True) == ["zeta:main/c1"]
        assert await found("other") == []
        await call_index.index_kept(inbox, lambda tenant: 30)
    assert await call_index.erase(inbox, 0, ["acme:main/c1"]) == 1
    assert await found("acme") == []
    assert not [key async for key in inbox.redis.scan_iter("*:index:acme:*")]
    assert await found("", number="442079460100") == ["main/c1"]
