"""VoipNow's dialect, and how the URL's event type selects a dialect."""

from datetime import UTC, datetime

import pytest

from offhook.dialects import dialect, telphin, voipnow
from offhook.errors import RefusedCallback
from offhook.event import CallEvent, EventType


def read(type: EventType = EventType.DIAL_IN, **parameters: str) -> CallEvent:  # noqa: A002
    return voipnow.read_event(
        pbx="main", extension="0003*210", type=type, parameters={"CallID": "1.2"} | parameters
    )


def test_the_url_selects_the_dialect() -> None:
    for name in ("dial-in", "dial-out", "hangup", "answer-in", "answer-out"):
        assert dialect(name) is voipnow.read_event
    assert dialect("telphin") is telphin.read_event
    with pytest.raises(RefusedCallback, match=r"dial-in, .*, telphin") as refused:
        dialect("call-ended")
    assert refused.value.code == "unknown_event_type"


def test_a_full_callback_becomes_an_event() -> None:
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


def test_missing_and_empty_parameters_are_none() -> None:
    event = read(CallerIDName="", CallerIDNum=" ")
    assert (event.caller.name, event.caller.number, event.status) == (None, None, None)
    assert event.called == type(event.called)()


@pytest.mark.parametrize("parameters", [{}, {"CallID": ""}, {"CallID": " \t"}, {"Call": "1"}])
def test_a_callback_without_a_call_id_is_refused(parameters: dict[str, str]) -> None:
    with pytest.raises(RefusedCallback) as refused:
        voipnow.read_event(pbx="m", extension="x", type=EventType.HANGUP, parameters=parameters)
    assert refused.value.code == "missing_call_id"


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
def test_the_direction_is_the_flow_or_follows_from_the_type(
    kind: EventType, flow: str, direction: str | None
) -> None:
    assert read(kind, CallFlow=flow).direction == direction


@pytest.mark.parametrize("status", ["BUSY", "SomethingNew"])
def test_a_status_is_kept_verbatim(status: str) -> None:
    assert read(CallStatus=status).status == status
