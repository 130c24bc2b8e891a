"""What a person's phones have to do with a call, and how nothing of it is missed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from pydantic import ValidationError

from offhook import EventType
from offhook.call import Call, Kind, Party
from offhook.calls import fold, summarize
from offhook.calls.facts import CallState
from offhook.dialects.voipnow import read_event
from offhook.settings.console_table import ConsoleSettings
from offhook_console.listeners import FeedMessage, Listener, Listeners, OwnPhones
from offhook_console.people import View
from offhook_console.pop_feed import PopFeed
from offhook_console.screen_pop import Pop, others_ringing, pop_of
from tests.offhook_console.conftest import PHONES
from unifiedapi.sandbox.scenarios import QUEUE, Scenario, ScriptedCall, make_call

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SEED = 4  # its caller does not withhold the number
ALL = View(masked=False)


def placed(scenario: str) -> ScriptedCall:
    return make_call(Scenario(scenario), Random(SEED), PHONES)


def known(call: ScriptedCall) -> Iterator[Call]:
    """Yield the call as it is known after each of its callbacks."""
    state: CallState | None = None
    for callback in call.callbacks:
        event = read_event(
            pbx="main",
            extension=callback.extension,
            type=EventType(callback.type.label),
            parameters=dict(callback.parameters),
            received=NOON + timedelta(seconds=callback.at),
        )
        kind = Kind.QUEUE if callback.extension == QUEUE else Kind.PHONE
        state = fold(state, event, kind)
        yield summarize(state, "GB")


def pops(call: ScriptedCall, phone: str, *, masked: bool = False) -> list[Pop]:
    """The pops of a phone, each once."""
    found: list[Pop] = []
    for each in known(call):
        pop = pop_of(each, OwnPhones(frozenset({phone}), masked), {})
        if pop is not None and pop not in found[-1:]:
            found.append(pop)
    return found


def phones_of(call: ScriptedCall) -> list[str]:
    return list(dict.fromkeys(c.extension for c in call.callbacks if c.extension != QUEUE))


@pytest.mark.parametrize(
    ("scenario", "states"),
    [
        ("answered", [["ringing", "answered", "ended"]]),
        ("missed", [["ringing", "missed"]]),
        ("outgoing", [[]]),
        ("internal", [[], ["ringing", "answered", "ended"]]),
        ("ring-group", [["ringing", "answered", "ended"], *[["ringing", "taken"]] * 2]),
        ("transfer", [["ringing", "answered", "ended"]] * 2),
        ("transfer-attended", [["ringing", "answered", "ended"]] * 2),
        ("queue", [["ringing", "missed", "taken"], ["ringing", "answered", "ended"]]),
        ("queue-again", [["ringing", "missed", "ringing", "answered", "ended"]]),
    ],
)
def test_a_pop_says_what_happens_at_the_phone(scenario: str, states: list[list[str]]) -> None:
    call = placed(scenario)
    found = [pops(call, phone) for phone in phones_of(call)]
    assert [[pop.state for pop in each] for each in found] == states
    assert {pop.call for each in found for pop in each} <= {f"main/{call.id}"}


@pytest.mark.parametrize("scenario", ["transfer", "transfer-attended", "queue"])
def test_the_original_caller_stays_through_transfers(scenario: str) -> None:
    call = placed(scenario)
    first = call.callbacks[0].parameters
    for phone in phones_of(call):
        for pop in pops(call, phone):
            assert pop.number in (first["CallerIDNum"], pop.e164)
            assert pop.name == first.get("CallerIDName")
            assert pop.did == first["CalledDID"]


def test_a_pop_is_retracted_when_a_colleague_answers() -> None:
    call = placed("ring-group")
    winner, loser, _ = phones_of(call)
    last = pops(call, loser)[-1]
    assert (last.state, last.by) == ("taken", winner)
    ringing = next(known(call))
    assert others_ringing(ringing, OwnPhones(frozenset({winner}), False)) == []
    *_, ringing, _ = list(known(call))[:4]
    assert set(others_ringing(ringing, OwnPhones(frozenset({winner}), False))) == {
        each for each in phones_of(call) if each != winner
    }


def test_a_masked_pop_has_three_digits_and_no_url() -> None:
    call = placed("answered")
    number = call.callbacks[0].parameters["CallerIDNum"]
    pop = pops(call, phones_of(call)[0], masked=True)[0]
    assert pop.number is not None
    assert pop.number.endswith(number[-3:])
    assert number[-6:] not in pop.number.replace(" ", "")
    assert pop.e164 is pop.url is None


def test_the_url_is_filled_in_percent_encoded() -> None:
    call = next(known(placed("answered")))
    hostile = Party(number="+44 1&x=", e164="+4420", name='"><b>/?#{did}é')
    call = Call(
        **{name: getattr(call, name) for name in call.__struct_fields__} | {"caller": hostile}
    )
    url = "https://crm.test/{name}?q={e164}&n={number}&d={did}&c={call}"
    pop = pop_of(call, OwnPhones(frozenset(call.extensions), False, url), {})
    assert pop is not None
    assert pop.url == (
        "https://crm.test/%22%3E%3Cb%3E%2F%3F%23%7Bdid%7D%C3%A9?q=%2B4420&n=%2B4420"
        f"&d={call.called.did}&c=main%2F{call.id}"
    )


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert('{number}')",
        "data:text/html,{name}",
        "//crm.test/{number}",
        "https://{name}.crm.test/",
        "https://{name}/",
        "https:///{number}",
        "https://crm.test/{phone}",
        "tel:{number}",
    ],
)
def test_a_wrong_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        ConsoleSettings(pop_url=url)


def read(listener: Listener) -> list[FeedMessage]:
    found, listener.waiting = listener.waiting, []
    return found


def test_a_stream_goes_on_where_it_broke_off() -> None:
    listeners = Listeners()
    feed, call = PopFeed(listeners), placed("ring-group")
    steps = list(known(call))
    phones = OwnPhones(frozenset({phones_of(call)[1]}), False)
    changes = list(zip([None, *steps], steps, strict=False))
    with listeners.listening(ALL, phones) as listener:
        for before, now in changes:
            feed.show(before, now, {})
        every = read(listener)
    assert len({message.id for message in every}) == len(every) == 2
    for n, message in enumerate(every):
        *again, position = feed.start(phones, message.id, [], {})
        assert again == every[n + 1 :]
        assert list(feed.start(phones, position.id, [], {})) == [position]
    with listeners.listening(ALL, OwnPhones(frozenset({"0003*299"}), False)) as other:
        for before, now in changes:
            feed.show(before, now, {})
        assert read(other) == []


@pytest.mark.parametrize("after", ["other-3", "x", "-", "-1", "other-99999999999999999999"])
def test_after_a_restart_each_call_is_told_as_it_is(after: str) -> None:
    listeners = Listeners()
    feed, call = PopFeed(listeners), placed("missed")
    ringing, *_, missed = known(call)
    phones = OwnPhones(frozenset(phones_of(call)), False)

    def states(last: str | None, known: Call) -> list[str]:
        return [each.data.partition('"state":"')[2].partition('"')[0]
                for each in feed.start(phones, last, [known], {}) if each.event]  # fmt: skip

    assert states(after, ringing) == ["ringing"]
    assert states(after, missed) == ["missed"]
    assert states(None, ringing) == ["ringing"]
    assert states(None, missed) == []  # a page that has just been opened wants no old calls
    with listeners.listening(ALL, phones) as listener:
        feed.show_again([missed], {})
        assert len(read(listener)) == 1
