"""`CallEvent` and its stored form."""

import time
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.dialects.voipnow import read_event
from offhook.event import CallEvent, EventType, from_stored, new_event_id, to_stored


def read(type: EventType = EventType.DIAL_IN, **parameters: str) -> CallEvent:  # noqa: A002
    return read_event(
        pbx="main", extension="0003*210", type=type, parameters={"CallID": "1.2"} | parameters
    )


@given(
    st.dictionaries(st.text(), st.text()),
    st.sampled_from(EventType),
    st.text(),
    st.datetimes(timezones=st.just(UTC)),
)
def test_a_stored_event_comes_back_equal(
    parameters: dict[str, str], kind: EventType, extension: str, received: datetime
) -> None:
    event = read_event(
        pbx="main",
        extension=extension,
        type=kind,
        parameters=parameters | {"CallID": "1"},
        received=received,
    )
    assert from_stored(to_stored(event)) == event
    assert CallEvent.from_dict(event.as_dict()) == event


def test_another_version_of_the_stored_form_is_refused() -> None:
    stored = msgspec.json.decode(to_stored(read()))
    assert stored["v"] == 1
    with pytest.raises(msgspec.ValidationError):
        CallEvent.from_dict(stored | {"v": 2})


def test_unknown_fields_of_a_stored_event_are_ignored() -> None:
    event = read()
    assert CallEvent.from_dict(event.as_dict() | {"later": 1}) == event


def test_an_event_is_immutable() -> None:
    with pytest.raises(AttributeError):
        read().call_id = "other"  # type: ignore[misc]


def test_ids_are_unique_and_sort_by_time() -> None:
    ids = []
    for _ in range(5):
        ids.append(new_event_id())
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert len({new_event_id() for _ in range(1000)}) == 1000
    assert {len(one) for one in ids} == {32}
