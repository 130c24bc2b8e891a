"""Search: how long it takes to find calls among a million, and dead letters; what the index costs.

    python -m benchmarks.search [--quick] [--calls N] [--rounds N] [--only NAME ...]

Calls are kept as a server keeps them, but without their events. The server's append-only file is
off.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

import redis
from msgspec.structs import replace

from benchmarks import machine, rounds
from offhook import queues
from offhook.call import Outcome
from offhook.calls import CallFilter, CallState, tell
from offhook.calls.facts import Hangup, PartFacts, Words
from offhook.connection import connect
from offhook.event import new_event_id
from offhook.inbox import Inbox, Partition, call_store, keys
from offhook.inbox.call_index import index_kept
from offhook.inbox.call_search import CallPage, search
from offhook.inbox.call_store import CallChange, Calls, CallSave, Kept
from offhook.operations import dead_letters
from offhook.operations.dead_letters import Filter

_PARTITIONS = 16
_AT_ONCE = 500  # changes
_DAYS = 30
_FIRST_NAMES = ["Ada", "Björn", "Chloé", "Dieter", "Émile", "Fatima", "Håkon", "Ivana", "Jürgen"]
_SYLLABLES = ["ber", "ga", "lin", "mo", "ra", "so", "tan", "vel", "wit", "zu"]
_STATUSES = ("ANSWER",) * 14 + ("NOANSWER",) * 4 + ("BUSY", "CANCEL")


def main() -> None:
    given = rounds.arguments(
        __doc__ or "",
        calls=(1_000_000, "calls to search"),
        saved=(20_000, "calls in a round that measures the cost of saving"),
        letters=(10_000, "dead letters to list"),
    )
    if given.quick:
        given.calls, given.saved, given.letters = 2_000, 100, 100
    costs = {
        "without the index": partial(_saving, given.saved, indexed=False),
        "with the index": partial(_saving, given.saved, indexed=True),
    }
    found = rounds.interleaved(costs, given)
    base = next(iter(found.values()), {})
    rounds.table(
        f"Saving {given.saved:,} calls, each as it begins and as it ends, with the events about it",
        ["", "server, µs per save", "ratio", "worker, µs per save", "ratio", "bytes per call"],
        [
            [
                name,
                f"{figures['server']:.1f}",
                rounds.ratio(figures["server"], base["server"]),
                f"{figures['worker']:.1f}",
                rounds.ratio(figures["worker"], base["worker"]),
                f"{figures['bytes']:,.0f}",
            ]
            for name, figures in found.items()
        ],
    )
    with machine.server(persist=False) as url:
        took = asyncio.run(_keep(url, given.calls))
        with redis.Redis.from_url(url) as client:
            used = _used(client)
        rows = asyncio.run(_search_all(url))
    rounds.table(
        f"Finding 50 of {given.calls:,} calls ({used / 1e9:.2f} GB, kept in {took:.0f} s)",
        ["", "found", "first page, ms", "CPU, ms", "second page, ms", "CPU, ms"],
        rows,
    )
    with machine.server(persist=False) as url, redis.Redis.from_url(url) as client:
        rows = _dead_letters(client, given.letters)
    rounds.table(f"{given.letters:,} dead letters", ["", "ms", "CPU, ms"], rows)


def _dead_letters(rq: Any, count: int) -> list[list[str]]:
    now, [call] = datetime.now(UTC), _told(0)[0].events
    for _ in range(count):
        letter = replace(call, id=new_event_id(), received=now)
        queues.bury(rq, "crm", letter, attempt=3, error="answered 410", trace="Trace: x")
    last = queues.dead_letter_id("crm", letter.id)
    middle = next(islice(dead_letters.heads(rq, Filter()), count // 2, None)).id
    rows = []
    for what, read in {
        "one by its id": lambda: dead_letters.get(rq, [last]),
        "the first 100": lambda: islice(dead_letters.find(rq), 100),
        "100 from the middle": lambda: islice(dead_letters.find(rq, after=middle), 100),
        "all": lambda: dead_letters.find(rq),
        "those of another extension": lambda: dead_letters.find(rq, Filter(extension="none")),
        "all without their events, as the console counts them": lambda: dead_letters.heads(
            rq, Filter()
        ),
        "their number": lambda: dead_letters.counts(rq, ["crm"]),
    }.items():
        own, began = time.process_time(), time.perf_counter()
        for _ in read():
            pass
        took, own = time.perf_counter() - began, time.process_time() - own
        rows.append([what, f"{took * 1000:.1f}", f"{own * 1000:.1f}"])
    return rows


def _saving(count: int, *, indexed: bool) -> rounds.Figures:
    changes = [change for number in range(count) for change in _told(number)]
    unchanged, call_store.terms = call_store.terms, call_store.terms if indexed else _no_terms
    try:
        with machine.server(persist=False) as url, redis.Redis.from_url(url) as client:
            empty, busy, own = _used(client), _server_seconds(client), time.process_time()
            asyncio.run(_save(url, changes))
            own, busy = time.process_time() - own, _server_seconds(client) - busy
            client.delete(keys.inbox(0))  # the events of the calls
            machine.until(lambda: not _info(client)["lazyfree_pending_objects"], "they are deleted")
            return {
                "server": busy / len(changes) * 1e6,
                "worker": own / len(changes) * 1e6,
                "bytes": (_used(client) - empty) / count,
            }
    finally:
        call_store.terms = unchanged


def _no_terms(state: CallState, outcome: Outcome | None = None) -> set[str]:
    return set()


async def _save(url: str, changes: Sequence[CallChange]) -> None:
    async with connect(url) as client:
        calls, partition = Calls(Inbox(client, 1)), Partition(client, client, 0)
        for at in range(0, len(changes), _AT_ONCE):
            await partition.lease.take()
            for now in (0, 1):  # begun, ended
                page = changes[at + now : at + now + _AT_ONCE : 2]
                await calls.save(partition, [CallSave("", page, None, _DAYS)])


def _told(number: int) -> tuple[CallChange, CallChange]:
    """The two changes of a call, with the events that follow."""
    now, state = datetime.now(UTC), replace(_call(number), closed=None)
    [part] = state.parts
    ringing = replace(state, parts=(replace(part, answers=(), hangups=()),))
    begun, started = tell(ringing, None, now, None)
    closed, ended = tell(replace(begun, parts=state.parts), None, now, "hangup")
    first = CallChange(_kept(begun, 0), started, live=1)
    return first, CallChange(_kept(closed, 0), ended, before=begun)


async def _keep(url: str, count: int) -> float:
    began = time.perf_counter()
    async with connect(url) as client:
        inbox = Inbox(client, _PARTITIONS)
        calls = Calls(inbox)
        await index_kept(inbox, lambda tenant: _DAYS)  # there is nothing yet
        partitions = [Partition(client, client, number) for number in range(_PARTITIONS)]
        for first in range(0, count, _AT_ONCE):
            partition = partitions[first // _AT_ONCE % _PARTITIONS]
            await partition.lease.take()
            states = map(_call, range(first, min(first + _AT_ONCE, count)))
            changes = [CallChange(_kept(state, partition.number), []) for state in states]
            await calls.save(partition, [CallSave("", changes, None, _DAYS)])
    return time.perf_counter() - began


async def _search_all(url: str) -> list[list[str]]:
    some = _call(1_234)
    now = datetime.now(UTC)
    words = some.parts[0].words
    number, name = words.caller or "", words.name or ""
    wanted = {
        "number": CallFilter(number=f"+{number}"),
        "number, national": CallFilter(number=f"0{number[2:]}", region="GB"),
        "number, last 7 digits": CallFilter(number=number[-7:]),
        "number, last 4 digits": CallFilter(number=number[-4:]),
        "number that called most": CallFilter(number=words.did),
        "number that did not call": CallFilter(number="+15005550100"),
        "name": CallFilter(name=name),
        "name, beginning": CallFilter(name=name.split()[1][:4]),
        "name that did not call": CallFilter(name="Nemo"),
        "first name without its accent": CallFilter(name="bjorn"),
        "extension": CallFilter(extension=some.parts[0].extension),
        "extension and outcome": CallFilter(
            extension=some.parts[0].extension, outcome=Outcome.BUSY
        ),
        "number, name, extension, outcome": CallFilter(
            number=number, name=name, extension=some.parts[0].extension, outcome=Outcome.ANSWERED
        ),
        "outcome": CallFilter(outcome=Outcome.BUSY),
        "outcome that no call has": CallFilter(outcome=Outcome.FAILED),
        "everything": CallFilter(),
        "a day, two weeks ago": CallFilter(
            since=now - timedelta(days=15), before=now - timedelta(days=14)
        ),
        "live": CallFilter(live=True),
        "two letters that no name has (reads calls)": CallFilter(name="qx"),
    }
    rows = []
    async with connect(url) as client:
        inbox = Inbox(client, _PARTITIONS)
        await search(inbox, CallFilter(), 1)  # connects
        with redis.Redis.from_url(url) as client:
            for what, each in wanted.items():
                first, *times = await _page(client, inbox, each, None)
                row = [what, f"{len(first.calls)}{' or more' if first.cursor else ''}", *times]
                if first.cursor:
                    _, *times = await _page(client, inbox, each, first.cursor)
                    row += times
                rows.append([*row, "", ""][:6])
    return rows


async def _page(
    client: Any, inbox: Inbox, wanted: CallFilter, cursor: str | None
) -> tuple[CallPage, str, str]:
    """Read a page. Returns it, the time that it took, and the CPU time with the server's."""
    busy, own, began = _server_seconds(client), time.process_time(), time.perf_counter()
    page = await search(inbox, wanted, 50, cursor)
    took, own = time.perf_counter() - began, time.process_time() - own
    busy = _server_seconds(client) - busy
    return page, f"{took * 1000:.1f}", f"{(own + busy) * 1000:.1f}"


def _call(number: int) -> CallState:
    """A call from outside: of 300,000 numbers, to 100 numbers and 1,000 extensions."""
    some = random.Random(number)
    began = int(time.time() * 1e6) - some.randrange(_DAYS * 86_400_000_000)
    caller = random.Random(some.randrange(300_000))
    digits = f"44{caller.randrange(1_000_000_000, 9_999_999_999)}"
    surname = "".join(caller.choices(_SYLLABLES, k=3)).title()
    words = Words(
        digits, f"{caller.choice(_FIRST_NAMES)} {surname}", None, "", f"4416149600{number % 100:02}"
    )
    status = some.choice(_STATUSES)
    part = PartFacts(
        f"0003*{some.randrange(1000):03}",
        "in",
        None,
        None,
        words,
        (began,),
        (began + 5_000_000,) if status == "ANSWER" else (),
        (Hangup(began + 60_000_000, status, None, None),),
    )
    return CallState("main", f"{began // 1_000_000}.{number}", (part,), closed="hangup")


def _kept(state: CallState, partition: int) -> Kept:
    position = f"{state.parts[0].dials[0] // 1000}-0"
    return Kept(f"main/{state.id}", state, position, position, partition)


def _info(client: Any) -> Any:
    return client.info()


def _used(client: Any) -> int:
    return int(_info(client)["used_memory"])


def _server_seconds(client: Any) -> float:
    return float(_info(client)["used_cpu_user"] + _info(client)["used_cpu_sys"])


if __name__ == "__main__":
    main()
