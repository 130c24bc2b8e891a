"""Telphin's dialect: the same call events from other parameters."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.dialects import telphin
from offhook.errors import RefusedCallback
from offhook.event import CallEvent, EventType, from_stored, to_stored
from tests.callbacks import load, names


def read(name: str) -> CallEvent:
    """The event of a payload."""
    payload = load(name)
    pbx, extension, _ = payload.names
    return read_parameters(dict(parse_qsl(payload.parameters.decode())), pbx, extension)


def read_parameters(
    parameters: dict[str, str], pbx: str = "office", extension: str = "0003*210"
) -> CallEvent:
    return telphin.read_event(pbx=pbx, extension=extension, parameters=parameters)


def said(event_type: str, **parameters: str) -> dict[str, str]:
    return {"CallID": "1", "EventType": event_type} | parameters


@pytest.mark.parametrize(
    ("event_type", "flow", "expected"),
    [
        ("dial-in", "in", EventType.DIAL_IN),
        ("dial-out", "out", EventType.DIAL_OUT),
        ("answer", "in", EventType.ANSWER_IN),
        ("answer", "out", EventType.ANSWER_OUT),
        ("Answer", "OUT", EventType.ANSWER_OUT),
        ("hangup", "in", EventType.HANGUP),
        ("hangup", "", EventType.HANGUP),
    ],
)
def test_the_event_type_is_a_parameter(event_type: str, flow: str, expected: EventType) -> None:
    assert read_parameters(said(event_type, CallFlow=flow)).type is expected


@pytest.mark.parametrize(
    ("event_type", "flow"),
    [("answer", ""), ("message-in", "in"), ("message-out", "out"), ("voicemail", "in"), ("", "in")],
)
def test_other_event_types_are_refused(event_type: str, flow: str) -> None:
    with pytest.raises(RefusedCallback, match="EventType must be") as refused:
        read_parameters(said(event_type, CallFlow=flow))
    assert refused.value.code == "unknown_event_type"


def test_a_whole_incoming_call() -> None:
    events = [read(name) for name in names("telphin-answered-incoming")]
    assert [event.type for event in events] == [
        EventType.DIAL_IN,
        EventType.DIAL_IN,
        EventType.ANSWER_IN,
        EventType.HANGUP,
        EventType.HANGUP,
    ]
    assert {event.call for event in events} == {"office/2fb3c0d1-10300-3f6c5a4e"}
    assert len({event.leg for event in events}) == 2


def test_an_event_has_the_fields_that_only_telphin_sends() -> None:
    event = read("telphin-answered-incoming/4-hangup-210")
    assert event.leg == "10245-3f6c5a4e9b8d7c6f5a4b3c2d1e0f9a8b"
    assert event.occurred == datetime(2024, 11, 21, 10, 47, 54, 873456, UTC)
    assert event.recording == "10245-3f6c5a4e9b8d7c6f5a4b3c2d1e0f9a8b"
    assert event.bridged is None
    assert (event.status, event.direction) == ("ANSWER", "in")
    assert event.parameters["Duration"] == "42500000"


def test_extensions_lose_their_domain() -> None:
    event = read("telphin-answered-incoming/4-hangup-210")
    assert event.called.extension == "0003*210"
    assert event.caller.extension == "0003*500"
    assert event.caller.number == "74950000123"
    outgoing = read("telphin-answered-outgoing/1-dial-out-210")
    assert (outgoing.caller.extension, outgoing.called.extension) == ("0003*210", None)
    assert (outgoing.called.number, outgoing.direction) == ("74950000777", "out")


@pytest.mark.parametrize(
    ("name", "bridged"),
    [
        ("telphin-answered-incoming/5-hangup-500", True),
        ("telphin-missed/4-hangup-400", False),
        ("telphin-missed/3-hangup-211", None),
    ],
)
def test_a_queue_tells_whether_a_person_answered(name: str, bridged: bool | None) -> None:
    assert read(name).bridged is bridged


def test_after_a_transfer_the_caller_is_still_the_outside_number() -> None:
    numbers = [read(name).caller.number for name in names("telphin-transfer")]
    assert numbers == ["74950000123"] * 6
    going_out = said("dial-out", CallFlow="out", CallerIDNum="0003*210", RemoteNumber="7495")
    assert read_parameters(going_out).caller.number == "0003*210"


@pytest.mark.parametrize(
    "time",
    [
        *("", "soon", "9" * 30, "9" * 5000, "1.5"),
        "253402300799999999",  # the last microsecond of the year 9999
        "-62135596800000000",  # the first of the year 1
        "4102444800000000",  # 2100
    ],
)
def test_an_event_with_an_impossible_time_is_kept_without_it(time: str) -> None:
    assert read_parameters(said("hangup", EventTime=time)).occurred is None


def test_a_pbx_may_be_a_little_ahead() -> None:
    soon = int((datetime.now(UTC) + timedelta(hours=20)).timestamp())
    event = read_parameters(said("hangup", EventTime=str(soon * 1_000_000)))
    assert event.occurred == datetime.fromtimestamp(soon, UTC)


@given(
    st.dictionaries(st.sampled_from(["EventTime", "Bridged", "SubCallID", "RecID"]), st.text())
    | st.dictionaries(st.sampled_from(["CalledExtension", "RemoteNumber", "X"]), st.text())
)
def test_an_event_with_any_parameters_can_be_stored(
    parameters: dict[str, str],
) -> None:
    event = read_parameters(said("dial-in", CallFlow="in") | parameters)
    assert from_stored(to_stored(event)) == event
    assert event.parameters.items() >= parameters.items()


def test_a_callback_without_a_call_id_is_refused() -> None:
    with pytest.raises(RefusedCallback, match="no CallID"):
        read_parameters(said("hangup") | {"CallID": " "})
