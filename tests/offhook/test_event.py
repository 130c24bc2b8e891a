"""`CallEvent`: what a callback says, and how it is stored."""

import time
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.event import (
    CALLBACKS,
    CallEvent,
    EventType,
    from_stored,
    new_event_id,
    read_event,
    to_stored,
)


def read(type: EventType = EventType.DIAL_IN, **parameters: str) -> CallEvent:  # noqa: A002
    event = read_event(
        pbx="main", extension="0003*210", type=type, parameters={"CallID": "1.2"} | parameters
    )
    assert event is not None
    return event


def test_the_five_event_types_have_the_names_of_the_urls() -> None:
    assert [one.value for one in CALLBACKS] == [
        "dial-in",
        "dial-out",
        "hangup",
        "answer-in",
        "answer-out",
    ]


def test_a_full_callback_is_read_into_an_event() -> None:
    said = {
        "CallerIDNum": "15550100",
        "CallerIDName": "Jo",
        "CallerExtension": "0003*211",
        "CalledNumber": "210",
        "CalledExtension": "0003*210",
        "CalledDID": "15550199",
        "CallStatus": "CALLING",
        "CallFlow": "IN",
    }
    before = datetime.now(UTC)
    event = read(EventType.DIAL_IN, **said)
    assert event.call == "main/1.2"
    assert (event.pbx, event.extension, event.type) == ("main", "0003*210", EventType.DIAL_IN)
    caller, called = event.caller, event.called
    assert (caller.number, caller.name, caller.extension) == ("15550100", "Jo", "0003*211")
    assert (called.number, called.extension, called.did) == ("210", "0003*210", "15550199")
    assert (event.status, event.direction) == ("CALLING", "in")
    assert event.parameters == said | {"CallID": "1.2"}
    assert before <= event.received <= datetime.now(UTC)


def test_what_the_pbx_did_not_say_is_none() -> None:
    event = read(CallerIDName="", CallerIDNum=" ")
    assert (event.caller.name, event.caller.number, event.status) == (None, None, None)
    assert event.called == type(event.called)()


@pytest.mark.parametrize("parameters", [{}, {"CallID": ""}, {"CallID": " \t"}, {"Call": "1"}])
def test_without_a_call_id_there_is_no_event(parameters: dict[str, str]) -> None:
    assert read_event(pbx="m", extension="x", type=EventType.HANGUP, parameters=parameters) is None


@pytest.mark.parametrize(
    ("kind", "flow", "direction"),
    [
        (EventType.DIAL_IN, "", "in"),
        (EventType.ANSWER_IN, "", "in"),
        (EventType.DIAL_OUT, "", "out"),
        (EventType.ANSWER_OUT, "", "out"),
        (EventType.HANGUP, "", None),
        (EventType.HANGUP, "IN", "in"),
        (EventType.HANGUP, "out", "out"),
        (EventType.HANGUP, "sideways", None),
        (EventType.DIAL_IN, "OUT", "out"),
    ],
)
def test_the_direction_is_the_flow_or_else_follows_from_the_type(
    kind: EventType, flow: str, direction: str | None
) -> None:
    assert read(kind, CallFlow=flow).direction == direction


@pytest.mark.parametrize("status", ["BUSY", "SomethingNew"])
def test_a_status_is_kept_verbatim(status: str) -> None:
    assert read(CallStatus=status).status == status


@given(
    st.dictionaries(st.text(), st.text()),
    st.sampled_from(EventType),
    st.text(),
    st.datetimes(timezones=st.just(UTC)),
)
def test_the_stored_form_gives_the_same_event_back(
    parameters: dict[str, str], kind: EventType, extension: str, received: datetime
) -> None:
    event = read_event(
        pbx="main",
        extension=extension,
        type=kind,
        parameters=parameters | {"CallID": "1"},
        received=received,
    )
    assert event is not None
    assert from_stored(to_stored(event)) == event
    assert CallEvent.from_dict(event.as_dict()) == event


def test_the_stored_form_says_its_version_and_another_version_is_not_read() -> None:
    stored = msgspec.json.decode(to_stored(read()))
    assert stored["v"] == 1
    with pytest.raises(msgspec.ValidationError):
        CallEvent.from_dict(stored | {"v": 2})


def test_a_stored_event_may_have_fields_of_a_later_release() -> None:
    event = read()
    assert CallEvent.from_dict(event.as_dict() | {"later": 1}) == event


def test_an_event_does_not_change() -> None:
    with pytest.raises(AttributeError):
        read().call_id = "other"  # type: ignore[misc]


def test_ids_differ_and_sort_by_time() -> None:
    ids = []
    for _ in range(5):
        ids.append(new_event_id())
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert len({new_event_id() for _ in range(1000)}) == 1000
    assert {len(one) for one in ids} == {32}
