"""The rules of `offhook.calls` as the worker applies them: how long to wait, and used CallIDs."""

import time
from datetime import timedelta

import pytest
from msgspec.structs import replace

from offhook import CallEvent, EventType, ExtensionSettings, Gap, Kind, Party
from offhook.event import CALLBACKS
from offhook.extensions import Extensions
from offhook.inbox import Inbox
from offhook.inbox.call_store import Calls
from offhook.settings import PbxSettings
from tests.workers.serving.bench import until
from tests.workers.serving.test_folding import Bench, answered, bench, missed, said
from workers.serving import folding

__all__ = ["bench"]  # a fixture

T = EventType
BOB = Party(number="+447700900123")


def by_bob(events: list[CallEvent]) -> list[CallEvent]:
    return [replace(event, caller=BOB) for event in events]


def later(events: list[CallEvent], seconds: float) -> list[CallEvent]:
    return [
        replace(event, received=event.received + timedelta(seconds=seconds)) for event in events
    ]


async def test_second_caller_with_a_used_call_id_is_a_call_of_its_own(bench: Bench) -> None:
    await bench.append(*answered())
    await bench.keep()
    first = bench.redis.get("offhook:{0}:call:main/c1")
    await bench.append(*by_bob(missed()))
    await bench.keep()
    await bench.append(*later(missed(), 100))
    await bench.keep()
    assert bench.told() == [
        "call-started c1",
        "call-answered c1",
        "call-ended c1",
        "call-started c1~2",
        "call-ended c1~2",
        "missed-call c1~2",
        "call-started c1~3",
        "call-ended c1~3",
        "missed-call c1~3",
    ]
    assert bench.sizes() == (3, 0, 0)
    assert first is not None

    async def go(inbox: Inbox) -> None:
        calls = Calls(inbox)
        kept = [await calls.get(name) for name in ("main/c1", "main/c1~2", "main/c1~3")]
        callers = [each.state.parts[0].words.caller for each in kept if each]
        assert callers == ["+442079460100", BOB.number, "+442079460100"]
        for each, types in zip(kept, (answered(), missed(), missed()), strict=True):
            assert each is not None
            found = await calls.events(each)
            assert [event.type for event in found] == [event.type for event in types]

    await bench.with_inbox(go)


async def test_call_of_an_event_with_a_used_call_id_is_the_right_one(bench: Bench) -> None:
    first, second = answered(), later(by_bob(missed()), 60)
    await bench.append(*first)
    await bench.keep()

    async def before(inbox: Inbox) -> None:  # it is not in the call log yet
        call = await Calls(inbox).of(second[0], Kind.PHONE, None, 0)
        assert (call.caller.number, len(call.legs)) == (BOB.number, 1)

    async def after(inbox: Inbox) -> None:
        calls = Calls(inbox)
        assert (await calls.of(first[0], Kind.PHONE, None, 0)).caller.number == "+442079460100"
        assert (await calls.of(second[1], Kind.PHONE, None, 0)).caller.number == BOB.number

    await bench.with_inbox(before)
    await bench.append(*second)
    await bench.keep()
    await bench.with_inbox(after)


async def test_call_ids_used_again_at_once_are_told_in_order(bench: Bench) -> None:
    await bench.append(*missed(), *later(by_bob(missed()), 30))  # in one read, within the window
    await bench.keep()
    assert bench.told() == [
        "call-started c1",
        "call-ended c1",
        "missed-call c1",
        "call-started c1~2",
        "call-ended c1~2",
        "missed-call c1~2",
    ]


async def test_unanswered_call_waits_longer_unless_its_caller_gave_up(bench: Bench) -> None:
    bench.change(settle_unanswered=1.5)
    cancelled = [said("c2", T.DIAL_IN, "CALLING"), said("c2", T.HANGUP, "CANCEL")]
    await bench.append(*missed("c1"), *cancelled)
    began = time.monotonic()
    await bench.keep()
    assert time.monotonic() - began > 1.5
    ends = [call for call in bench.told() if call.startswith("call-ended")]
    assert ends == ["call-ended c2", "call-ended c1"]


async def test_caller_who_may_wait_in_a_queue_is_not_told_as_missed(bench: Bench) -> None:
    def rings(extension: str) -> list[CallEvent]:
        queue = Party(number="+442079460100", extension="0003*400")
        offered = said("c1", T.DIAL_IN, "CALLING", extension)
        refused = said("c1", T.HANGUP, "NOANSWER", extension)
        return [replace(each, caller=queue) for each in (offered, refused)]

    await bench.append(*rings("0003*210"))
    await bench.keep()
    assert bench.told() == ["call-started c1"]
    assert bench.sizes() == (1, 1, 0)
    bench.change(call_timeout=0.0)
    async with bench.serving():
        await until(lambda: not bench.sizes()[1], "the call is closed")
    assert bench.told() == ["call-started c1", "call-ended c1", "missed-call c1"]


async def test_silent_call_is_closed_while_its_partition_is_served(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "SWEEP_EVERY", 0.1)
    bench.change(call_timeout=0.3)
    async with bench.serving():
        await bench.append(*answered()[:2])
        await until(lambda: bench.sizes() == (1, 0, 0), "the call is closed")
    assert bench.told() == ["call-started c1", "call-answered c1", "call-ended c1"]


@pytest.mark.parametrize("records", [True, False])
async def test_silent_call_goes_on_if_the_records_would_report_its_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, records: bool
) -> None:
    monkeypatch.setattr(folding, "SWEEP_EVERY", 0.1)
    pbx = PbxSettings(host="https://pbx.example.com", token="token")  # type: ignore[arg-type]
    bench.change(call_timeout=0.0, pbx={"main": pbx} if records else {})
    closed = replace(said("c2", T.DIAL_IN, "CALLING"), pbx="without-records")
    await bench.append(*answered()[:2], closed)
    async with bench.serving():
        await until(lambda: "call-ended c2" in bench.told())
    ends = [] if records else ["call-ended c1"]
    told = [each for each in bench.told() if each.endswith("c1")]
    assert told == ["call-started c1", "call-answered c1", *ends]
    assert bench.sizes() == (2, 1 if records else 0, 0)


async def test_hangup_of_an_extension_that_would_have_sent_more_decides_nothing(
    bench: Bench,
) -> None:
    registered = {("main", "0003*211"): ExtensionSettings(kind=Kind.PHONE, events=CALLBACKS)}
    await bench.with_inbox(lambda inbox: Extensions(inbox.redis).change(registered))
    await bench.append(*missed(), said("c1", T.HANGUP, "ANSWER", "0003*211"))
    await bench.keep()
    assert bench.told() == ["call-started c1", "call-ended c1", "missed-call c1"]
    call = bench.events()[-1].summary
    assert call is not None
    assert call.gaps == (Gap.DIAL,)


@pytest.mark.parametrize("listed", [True, False])
async def test_short_number_of_a_phone_that_the_pbx_lists_is_internal(
    bench: Bench, *, listed: bool
) -> None:
    phones = ["0003*210", "0003*299"] if listed else ["0003*210"]
    await bench.with_inbox(lambda inbox: Extensions(inbox.redis).add_phones("main", phones))
    types = ((T.DIAL_OUT, "CALLING"), (T.ANSWER_OUT, "ANSWER"), (T.HANGUP, "ANSWER"))
    sides = {
        "direction": "out",
        "caller": Party(number="210", extension="0003*210"),
        "called": Party(number="299"),
    }
    await bench.append(*(replace(said("c1", type_, status), **sides) for type_, status in types))
    await bench.keep()
    call = bench.events()[-1].summary
    assert call is not None
    assert call.direction == ("internal" if listed else "out")
    assert call.gaps == (() if listed else (Gap.DIRECTION,))
