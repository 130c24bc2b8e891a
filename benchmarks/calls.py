"""Cost of folding events into calls: time per event, and memory per live call.

    python -m benchmarks.calls [--quick] [--rounds N] [--only NAME ...]

Measured on one core, in one process: a handler that does nothing, the fold alone, and both, as in
production. The Redis server runs on the other core; the table has its CPU time, too. Then `--live`
calls are started and not ended.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import redis

from benchmarks import machine, rounds
from offhook import EventType
from offhook.connection import connect
from offhook.dialects.voipnow import read_event
from offhook.event import CallEvent, new_event_id, to_stored
from offhook.inbox import Batch, Inbox, keys

_CALL = (
    (EventType.DIAL_IN, "CALLING"),
    (EventType.ANSWER_IN, "ANSWER"),
    (EventType.HANGUP, "ANSWER"),
)
_EVENTS = {True: '["raw", "calls"]', False: '["summaries"]'}  # of a handler that wants them or not


def main() -> None:
    given = rounds.arguments(
        __doc__ or "",
        events=(120_000, "events in the backlog, three per call"),
        live=(100_000, "number of concurrent calls"),
    )
    if given.quick:
        given.events, given.live = 3_000, 1_000
    contenders = {
        "a handler that does nothing": partial(_measure, given.events, wants=True, folds=False),
        "the fold": partial(_measure, given.events, wants=False, folds=True),
        "both": partial(_measure, given.events, wants=True, folds=True),
    }
    found = rounds.interleaved(contenders, given)
    base = next(iter(found.values()))["events/s"]
    rounds.table(
        "Time: a backlog of events of ended calls, one core",
        ["reader", "events/s", "ratio", "server, µs per event"],
        [
            [
                name,
                f"{figures['events/s']:,.0f}",
                rounds.ratio(figures["events/s"], base),
                f"{figures['server µs']:.1f}",
            ]
            for name, figures in found.items()
        ],
    )
    rows = []
    for name, calls, count in (("one", given.live, 1), ("five", given.live // 5, 5)):
        size, rate = _live(calls, count)
        rows.append([f"{calls:,}", name, f"{size:,.0f}", f"{rate:,.0f}"])
    rounds.table(
        "Memory: concurrent calls",
        ["live calls", "legs each", "bytes per call, without its events", "folded per second"],
        rows,
    )


def _measure(events: int, *, wants: bool, folds: bool) -> rounds.Figures:
    with machine.server() as url, TemporaryDirectory() as folder:
        calls = (events_of(f"{n}", 1) for n in range(events // len(_CALL)))
        asyncio.run(append(url, [event for call in calls for event in call]))
        before = _server_seconds(url)
        took = _serve(url, Path(folder), wants=wants, folds=folds)
        busy = _server_seconds(url) - before
        return {"events/s": events / took, "server µs": busy / events * 1e6}


def _live(calls: int, legs: int) -> tuple[float, float]:
    """Return the bytes that Redis keeps per live call, and the calls folded per second."""
    with machine.server() as url, TemporaryDirectory() as folder:
        begun = [e for n in range(calls) for e in events_of(f"{n}", legs)[: 2 * legs]]
        asyncio.run(append(url, begun))
        took = _serve(url, Path(folder), wants=False, folds=True)
        with redis.Redis.from_url(url) as client:
            names = list(client.scan_iter("offhook:{0}:call:*", count=10_000))[:2000]
            states = sum(client.memory_usage(name) for name in names) / len(names)
            lists = sum(
                client.memory_usage(f"offhook:{{0}}:{name}", samples=0)
                for name in ("calls", "live")
            )
        return states + lists / calls, calls / took


def _serve(url: str, folder: Path, *, wants: bool, folds: bool) -> float:
    """Run a server on one core, and return the seconds until all is delivered and folded."""
    config = folder / "offhook.toml"
    config.write_text(
        f'secret = "{machine.SECRET}"\nredis_url = "{url}"\nsettle = 60\npartitions = 1\n'
        f'[handlers.crm]\nuse = "benchmarks.calls:nothing"\nevents = {_EVENTS[wants]}\n'
        'start = "earliest"\n'
    )
    command = [sys.executable, "-m", "benchmarks.one_server", *(["fold"] if folds else [])]
    environment = {"OFFHOOK_CONFIG": str(config)}
    with (
        redis.Redis.from_url(url) as client,
        machine.running(command, folder / "log", environment) as server,
    ):
        machine.until(lambda: client.hget(keys.read(0), "") not in (None, b"0-0"), "reading starts")
        began = time.perf_counter()
        machine.until(lambda: _finished(server, client), "all events are finished", 600)
        return time.perf_counter() - began


def _finished(server: machine.Running, client: Any) -> bool:
    server.check()
    return not client.exists(keys.unfinished(0))


async def nothing(event: CallEvent) -> None:
    """Do nothing, as the handler."""


def _server_seconds(url: str) -> float:
    with redis.Redis.from_url(url) as client:
        cpu: Any = client.info("cpu")
        return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])


async def append(url: str, events: Sequence[CallEvent]) -> None:
    """Append events to the only partition."""
    writer = new_event_id()
    async with connect(url) as client:
        inbox = Inbox(client, 1)
        for number, first in enumerate(range(0, len(events), 500), 1):
            some = events[first : first + 500]
            stored = [msgspec.Raw(to_stored(event)) for event in some]
            batch = Batch(writer, number, 0, [event.id for event in some], stored)
            await inbox.append(batch, 0)


def events_of(call: str, legs: int, number: str = "+442079460100") -> list[CallEvent]:
    """The events of a call from this number: all dials, all answers, all hangups."""
    events = []
    for type_, status in _CALL:
        for leg in range(legs):
            event = read_event(
                pbx="main",
                extension=f"0003*{210 + leg}",
                type=type_,
                parameters={
                    "CallID": f"1795289400.{call}",
                    "CallerIDNum": number,
                    "CallerIDName": "Ada Byron",
                    "CalledDID": "442079460999",
                    "CalledNumber": "442079460999",
                    "CalledExtension": f"0003*{210 + leg}",
                    "CallStatus": status,
                    "CallFlow": "IN",
                    "CallAPIID": "0123456789abcdef0123456789abcdef",
                },
            )
            events.append(event)
    return events


if __name__ == "__main__":
    main()
