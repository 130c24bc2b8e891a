"""The scheduled job that watches registrations, on a sandbox PBX."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis as blocking

from offhook import EventType, ExtensionSettings, queues
from offhook.connection import connect
from offhook.event import CallEvent, from_stored
from offhook.extensions import Extensions
from offhook.inbox import Inbox
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.offhook.sandbox import Sandbox, sandbox
from tests.workers.reconcile.reconciling import configuration
from unifiedapi.resources import RegistrationStatus
from workers import phones
from workers.phones import watch_all
from workers.scheduler import Scheduler

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

    def look(self) -> list[CallEvent]:
        """Look once: all that was told by then."""
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


def test_a_phone_that_is_gone_and_comes_back_is_told_of(watch: Watch) -> None:
    watch.set_up(DESK, OTHER)
    assert watch.look() == []
    watch.set(RegistrationStatus.EXPIRED)
    assert watch.look() == []
    [gone] = watch.look()
    assert (gone.type, gone.extension) == (EventType.PHONE_UNREGISTERED, DESK)
    assert gone.parameters["status"] == "expired"
    assert watch.look() == [gone]
    watch.set(RegistrationStatus.REGISTERED)
    watch.look()
    [_, back] = watch.look()
    assert (back.type, back.extension) == (EventType.PHONE_REGISTERED, DESK)


def test_it_takes_one_request_for_all_phones(watch: Watch) -> None:
    watch.set_up("0003*210", DESK, OTHER, "0003*213")
    watch.look()
    assert len(watch.pbx.requests) == 1


def test_only_what_was_set_up_is_watched(watch: Watch) -> None:
    watch.set_up(DESK, pbx="elsewhere")
    watch.look()
    assert watch.pbx.requests == []  # nobody to ask for
    watch.set_up(OTHER)
    watch.look()
    watch.set(RegistrationStatus.EXPIRED)
    watch.look()
    assert watch.look() == []
    assert watch.redis.hkeys("offhook:phones:main") == [OTHER.encode()]


def test_killed_after_it_was_told_it_is_told_once(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.set_up(DESK)
    watch.look()
    watch.set(RegistrationStatus.EXPIRED)
    watch.look()
    before = watch.redis.hgetall("offhook:phones:main")
    told = watch.look()
    watch.redis.hset("offhook:phones:main", mapping=before)  # type: ignore[arg-type]
    assert watch.look() == told
    assert len(told) == 1


def test_after_a_long_while_it_begins_anew(watch: Watch) -> None:
    watch.set_up(DESK)
    watch.look()
    assert 0 < watch.redis.ttl("offhook:phones:main") <= phones._FORGET


def test_a_pbx_that_refuses_is_told(
    watch: Watch, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    watch.set_up(DESK)
    configure(configuration(watch.pbx).replace("sandbox-token", "expired-token"))
    with caplog.at_level(logging.ERROR, "offhook"):
        assert watch.look() == []
    [said] = caplog.messages
    assert said.startswith("the phones of main were not looked at: the PBX refuses")
    assert "expired-token" not in said


@pytest.mark.parametrize(
    ("events", "called"),
    [("['phone-registered']", True), ("['extensions']", True), ("['raw', 'calls']", False)],
)
def test_nobody_is_asked_unless_somebody_wants_to_know(
    watch: Watch, configure: Configure, events: str, called: bool
) -> None:
    configure(configuration(watch.pbx) + f"events = {events}\n")

    async def turn() -> None:
        async with connect(watch.url) as client:
            await Scheduler(load_settings(), Inbox(client, 1), watch.redis).round()

    asyncio.run(turn())
    waiting = [job.func_name for job in queues.queue(queues.SCHEDULED, watch.redis).jobs]
    assert (JOB in waiting) is called
