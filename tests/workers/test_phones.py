"""Registrations, look by look."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.event import CallEvent, EventType
from unifiedapi.resources import PhoneRegistration, Presence, RegistrationStatus
from workers.phones import Phone, is_registered, look

BEGAN = datetime(2026, 11, 21, 9, tzinfo=UTC)
S = RegistrationStatus


def presence(*states: RegistrationStatus) -> Presence:
    phones = tuple(PhoneRegistration(registration=s, agent=f"phone {n}", expire=BEGAN)
                   for n, s in enumerate(states))  # fmt: skip
    return Presence(extension="0003*210", registration=phones)


def looks(*seen: bool | None) -> list[CallEvent]:
    """What is told when the phone is seen so, a minute apart."""
    phone: Phone | None = None
    told = []
    for n, registered in enumerate(seen):
        state = S.UNKNOWN if registered is None else S.REGISTERED if registered else S.EXPIRED
        phone, event = look(phone, presence(state), "main", BEGAN + timedelta(minutes=n))
        told += [event] if event else []
    return told


@pytest.mark.parametrize(
    ("states", "registered"),
    [
        ([S.REGISTERED], True),
        ([S.NOT_NECESSARY], True),
        ([S.EXPIRED, S.REGISTERED], True),
        ([S.EXPIRED], False),
        ([S.NOT_REGISTERED, S.EXPIRED], False),
        ([], False),
        ([S.UNKNOWN], None),
        ([S.EXPIRED, S.UNKNOWN], None),
        ([S(7)], None),
    ],
)
def test_one_phone_that_is_registered_is_enough(
    states: list[RegistrationStatus], registered: bool | None
) -> None:
    assert is_registered(presence(*states)) is registered


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ([True], ""),
        ([False], ""),  # the first look tells nothing
        ([False, False, False], ""),
        ([True, False], ""),
        ([True, False, False], "u"),
        ([True, False, False, False], "u"),
        ([True, False, True, False, True, False], ""),  # it flaps
        ([True, False, False, True, True], "ur"),
        ([False, True, True], "r"),
        ([True, False, None, False], "u"),  # not knowing is no look
        ([None, True, None, None, True], ""),
    ],
)
def test_a_change_counts_when_two_looks_have_seen_it(seen: list[bool | None], told: str) -> None:
    names = {EventType.PHONE_UNREGISTERED: "u", EventType.PHONE_REGISTERED: "r"}
    assert "".join(names[event.type] for event in looks(*seen)) == told


@given(st.lists(st.booleans(), max_size=40))
def test_what_is_told_alternates_and_is_what_two_looks_saw(seen: list[bool]) -> None:
    events = looks(*seen)
    told = [event.type is EventType.PHONE_REGISTERED for event in events]
    assert told == [(not seen[0]) ^ bool(n % 2) for n in range(len(told))]
    steady = [b for a, b in pairwise(seen) if a is b]
    if steady:  # in the end it is known how the phone was for two looks, if not since
        assert ([seen[0], *told])[-1] is steady[-1]
    assert len({event.id for event in events}) == len(events)


def test_the_event_says_what_and_since_when() -> None:
    before = Phone(registered=True, changed=BEGAN)
    later = BEGAN + timedelta(minutes=1)
    _, event = look(before, presence(S.NOT_REGISTERED, S.EXPIRED), "main", later)
    assert event is not None
    assert (event.type, event.extension, event.pbx) == ("phone-unregistered", "0003*210", "main")
    assert (event.call_id, event.received, event.occurred) == ("extension 0003*210", later, BEGAN)
    assert event.parameters == {
        "status": "not registered",
        "agent": "phone 0",
        "expire": "2026-11-21T09:00:00+00:00",
    }
    _, again = look(before, presence(S.EXPIRED), "main", later + timedelta(minutes=1))
    assert again is not None
    assert again.id == event.id
    _, there = look(Phone(registered=False, changed=BEGAN), presence(S.EXPIRED, S.REGISTERED),
                    "main", later)  # fmt: skip
    assert there is not None
    assert there.parameters["agent"] == "phone 1"
    assert there.id != event.id
    _, none = look(before, presence(), "main", later)
    assert none is not None
    assert none.parameters == {}
