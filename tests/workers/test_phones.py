"""Which phones are registered: the rules, and the scheduled job with a sandbox PBX."""

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import redis as blocking
from hypothesis import given
from hypothesis import strategies as st

from offhook import EventType, ExtensionSettings, queues
from offhook.connection import connect
from offhook.event import CallEvent, from_stored
from offhook.extensions import Extensions
from offhook.inbox import Inbox, keys
from offhook.operations.phone_states import RegistrationState
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.offhook.sandbox import Sandbox, sandbox
from tests.workers.reconcile.reconciling import configuration
from unifiedapi.resources import PhoneRegistration, Presence, RegistrationStatus
from workers import phones as module
from workers.phones import check, is_registered, watch_all
from workers.scheduler import Scheduler

BEGAN = datetime(2026, 11, 21, 9, tzinfo=UTC)
S = RegistrationStatus


def presence(*states: RegistrationStatus) -> Presence:
    phones = tuple(PhoneRegistration(registration=s, agent=f"phone {n}", expire=BEGAN)
                   for n, s in enumerate(states))  # fmt: skip
    return Presence(extension="0003*210", registration=phones)


def checks(*seen: bool | None) -> list[CallEvent]:
    """Return the events of checks a minute apart with these results."""
    before: RegistrationState | None = None
    told = []
    for n, registered in enumerate(seen):
        state = S.UNKNOWN if registered is None else S.REGISTERED if registered else S.EXPIRED
        before, event = check(before, presence(state), "main", BEGAN + timedelta(minutes=n))
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
def test_one_registered_phone_is_enough(
    states: list[RegistrationStatus], registered: bool | None
) -> None:
    assert is_registered(presence(*states)) is registered


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ([True], ""),
        ([False], ""),  # the first check announces nothing
        ([False, False, False], ""),
        ([True, False], ""),
        ([True, False, False], "u"),
        ([True, False, False, False], "u"),
        ([True, False, True, False, True, False], ""),  # flapping
        ([True, False, False, True, True], "ur"),
        ([False, True, True], "r"),
        ([True, False, None, False], "u"),  # an unknown state is no check
        ([None, True, None, None, True], ""),
    ],
)
def test_change_counts_when_two_checks_see_it(seen: list[bool | None], told: str) -> None:
    names = {EventType.PHONE_UNREGISTERED: "u", EventType.PHONE_REGISTERED: "r"}
    assert "".join(names[event.type] for event in checks(*seen)) == told


@given(st.lists(st.booleans(), max_size=40))
def test_announcements_alternate_and_match_two_checks(seen: list[bool]) -> None:
    events = checks(*seen)
    told = [event.type is EventType.PHONE_REGISTERED for event in events]
    assert told == [(not seen[0]) ^ bool(n % 2) for n in range(len(told))]
    steady = [b for a, b in pairwise(seen) if a is b]
    if steady:  # the last announcement is the last steady state
        assert ([seen[0], *told])[-1] is steady[-1]
    assert len({event.id for event in events}) == len(events)


def test_event_says_what_changed_and_when() -> None:
    before = RegistrationState(registered=True, changed=BEGAN)
    later = BEGAN + timedelta(minutes=1)
    _, event = check(before, presence(S.NOT_REGISTERED, S.EXPIRED), "main", later)
    assert event is not None
    assert (event.type, event.extension, event.pbx) == ("phone-unregistered", "0003*210", "main")
    assert (event.call_id, event.received, event.occurred) == ("extension 0003*210", later, BEGAN)
    assert event.parameters == {
        "status": "not registered",
        "agent": "phone 0",
        "expire": "2026-11-21T09:00:00+00:00",
    }
    _, again = check(before, presence(S.EXPIRED), "main", later + timedelta(minutes=1))
    assert again is not None
    assert again.id == event.id
    gone = RegistrationState(registered=False, changed=BEGAN)
    _, there = check(gone, presence(S.EXPIRED, S.REGISTERED), "main", later)
    assert there is not None
    assert there.parameters["agent"] == "phone 1"
    assert there.id != event.id
    _, none = check(before, presence(), "main", later)
    assert none is not None
    assert none.parameters == {}


# The job

DESK, OTHER = "0003*211", "0003*212"
JOB = "workers.phones.watch_phones"


class Watch:
    def __init__(self, pbx: Sandbox, url: str) -> None:
        self.pbx = pbx
        self.url = url
        self.redis = blocking.Redis.from_url(url)

    def set_up(self, *numbers: str, pbx: str = "main") -> None:
        async def go() -> None:
            async with connect(self.url) as client:
                put = {(pbx, number): ExtensionSettings() for number in numbers}
                await Extensions(client).change(put)

        asyncio.run(go())

    def check(self) -> list[CallEvent]:
        """Check once. Return all events so far."""
        asyncio.run(watch_all(load_settings()))
        found: Any = self.redis.xrange("offhook:{0}:inbox")
        return [from_stored(fields[b"e"]) for _, fields in found]

    def set(self, state: RegistrationStatus, number: str = DESK) -> None:
        for phone in self.pbx.store.extensions[number].phones:
            phone.registration = state


@pytest.fixture
def watch(redis_url: str, configure: Configure) -> Iterator[Watch]:
    with sandbox() as pbx:
        configure(configuration(pbx))
        made = Watch(pbx, redis_url)
        yield made
        made.redis.close()


def test_lost_and_regained_registration_is_announced(watch: Watch) -> None:
    watch.set_up(DESK, OTHER)
    assert watch.check() == []
    watch.set(RegistrationStatus.EXPIRED)
    assert watch.check() == []
    [gone] = watch.check()
    assert (gone.type, gone.extension) == (EventType.PHONE_UNREGISTERED, DESK)
    assert gone.parameters["status"] == "expired"
    assert watch.check() == [gone]
    watch.set(RegistrationStatus.REGISTERED)
    watch.check()
    [_, back] = watch.check()
    assert (back.type, back.extension) == (EventType.PHONE_REGISTERED, DESK)


def test_one_request_lists_all_phones(watch: Watch) -> None:
    watch.set_up("0003*210", DESK, OTHER, "0003*213")
    watch.check()
    assert len(watch.pbx.requests) == 1


def test_all_phones_that_the_pbx_lists_are_kept(watch: Watch) -> None:
    watch.set_up(DESK)
    watch.check()
    listed = watch.redis.smembers(keys.listed_phones("main"))
    assert DESK.encode() in listed
    assert OTHER.encode() in listed


def test_only_extensions_that_are_set_up_are_watched(watch: Watch) -> None:
    watch.set_up(DESK, pbx="elsewhere")
    watch.check()
    assert watch.pbx.requests == []  # no extension to check
    watch.set_up(OTHER)
    watch.check()
    watch.set(RegistrationStatus.EXPIRED)
    watch.check()
    assert watch.check() == []
    assert watch.redis.hkeys("offhook:phones:main") == [OTHER.encode()]


def test_killed_job_announces_once(watch: Watch) -> None:
    watch.set_up(DESK)
    watch.check()
    watch.set(RegistrationStatus.EXPIRED)
    watch.check()
    before = watch.redis.hgetall("offhook:phones:main")
    told = watch.check()
    watch.redis.hset("offhook:phones:main", mapping=before)  # type: ignore[arg-type]
    assert watch.check() == told
    assert len(told) == 1


def test_state_expires_after_a_long_break(watch: Watch) -> None:
    watch.set_up(DESK)
    watch.check()
    assert 0 < watch.redis.ttl("offhook:phones:main") <= module._FORGET


def test_refusal_of_the_pbx_is_logged(
    watch: Watch, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    watch.set_up(DESK)
    configure(configuration(watch.pbx).replace("sandbox-token", "expired-token"))
    with caplog.at_level(logging.ERROR, "offhook"):
        assert watch.check() == []
    [said] = caplog.messages
    assert said.startswith("cannot check the phones of main: the PBX refuses")
    assert "expired-token" not in said


@pytest.mark.parametrize(
    ("events", "called"),
    [("['phone-registered']", True), ("['extensions']", True), ("['raw', 'calls']", False)],
)
def test_job_runs_only_if_a_handler_wants_its_events(
    watch: Watch, configure: Configure, events: str, called: bool
) -> None:
    configure(configuration(watch.pbx) + f"events = {events}\n")

    async def turn() -> None:
        async with connect(watch.url) as client:
            await Scheduler(load_settings(), Inbox(client, 1), watch.redis).round_of_jobs()

    asyncio.run(turn())
    waiting = [job.func_name for job in queues.queue(queues.SCHEDULED, watch.redis).jobs]
    assert (JOB in waiting) is called
