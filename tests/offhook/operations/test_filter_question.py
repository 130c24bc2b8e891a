"""What a handler would have got with another filter."""

from datetime import UTC, datetime, timedelta
from itertools import count
from types import SimpleNamespace

import pytest

from offhook import ExtensionSettings
from offhook.errors import ConfigError
from offhook.event import EventType
from offhook.extensions import UNKNOWN
from offhook.operations import filter_question
from offhook.operations.filter_question import FilterAnswer, ask_filter, other_filter, span
from offhook.settings import HandlerSettings, TenantSettings
from tests.events import event
from tests.workers.serving.bench import Bench

HANGUP = EventType.HANGUP


@pytest.fixture
def bench(redis_url: str) -> Bench:
    return Bench(redis_url, partitions=2)


async def ask(
    bench: Bench, events: str | None = None, extensions: str | None = None, name: str = "crm"
) -> FilterAnswer:
    policy = HandlerSettings(
        use="console", events=frozenset({HANGUP}), extensions=["0003*21?"], tenants="all"
    )
    asked = other_filter(name, policy, events, extensions)
    known = {("main", "0003*212"): ExtensionSettings(handlers=("log",))}
    now = datetime.now(UTC)
    found: FilterAnswer = await bench.with_inbox(
        lambda inbox: ask_filter(
            inbox,
            bench.settings,
            asked,
            lambda pbx, number: known.get((pbx, number), UNKNOWN),
            now - timedelta(hours=1),
            now + timedelta(hours=1),
        )
    )
    return found


def content(bench: Bench) -> dict[object, object]:
    return {key: bench.redis.dump(key) for key in bench.redis.scan_iter()}


async def test_counts_by_type_and_beside_the_present_filter(bench: Bench) -> None:
    bench.tenants["acme"] = TenantSettings(extensions=[])
    bench.record()
    await bench.append(
        *(event(f"in-{n}") for n in range(4)),
        *(event(f"out-{n}", type=HANGUP) for n in range(3)),
        event("other", type=HANGUP, extension="0003*400"),
        event("not-of-crm", type=HANGUP, extension="0003*212"),
        event("acme", type=HANGUP, tenant="acme"),
    )
    before = content(bench)
    same = await ask(bench)
    assert (same.looked, same.got, same.would_get, same.more, same.fewer) == (10, 4, 4, 0, 0)
    more = await ask(bench, events="raw", extensions="")
    assert (more.got, more.would_get, more.more, more.fewer) == (4, 9, 5, 0)
    assert more.types == {"dial-in": 4, "hangup": 5}
    assert more.gained == {"0003*210": 4, "0003*400": 1}
    less = await ask(bench, events="dial-in", extensions="0003*400")
    assert (less.would_get, less.fewer, less.complete) == (0, 4, True)
    tenants = await ask(bench, name="acme/crm")
    assert (tenants.looked, tenants.got) == (1, 1)
    assert before == content(bench)  # unchanged


async def test_ends_in_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.record()
    await bench.append(*(event(f"in-{n}") for n in range(20)))
    monkeypatch.setattr(filter_question, "_PAGE", 1)
    clock = SimpleNamespace(monotonic=count().__next__)  # a second for each look at it
    monkeypatch.setattr(filter_question, "time", clock)
    answer = await ask(bench, events="raw")
    assert not answer.complete
    assert answer.looked == 2


@pytest.mark.parametrize("events", ["hangup, no-such", "<script>"])
def test_wrong_filter_is_refused(events: str) -> None:
    with pytest.raises(ConfigError):
        other_filter("crm", HandlerSettings(use="console"), events)


def test_spans_are_in_local_time() -> None:
    now = datetime(2026, 5, 2, 14, 30).astimezone()
    assert span("yesterday", now) == (
        datetime(2026, 5, 1).astimezone(),
        datetime(2026, 5, 2).astimezone(),
    )
    assert span("today", now)[1] == now
    with pytest.raises(KeyError):
        span("tomorrow", now)
