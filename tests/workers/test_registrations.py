"""The scheduled job that announces callbacks that the PBX has lost, with a sandbox PBX."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis as blocking

from offhook import CallEvent, EventType, ExtensionSettings
from offhook.call import Kind
from offhook.connection import connect
from offhook.event import from_stored
from offhook.extensions import Extensions
from offhook.provisioning.registrar import Survey, Target, registrar
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.offhook.sandbox import Sandbox, sandbox
from tests.workers.reconcile.reconciling import configuration
from workers import registrations
from workers.scheduler import JOBS

DESK, OTHER, THIRD = "0003*210", "0003*211", "0003*212"
SETTINGS = ExtensionSettings(kind=Kind.PHONE, events=("dial-in", "hangup"))  # type: ignore[arg-type]


class Job:
    def __init__(self, pbx: Sandbox, url: str) -> None:
        self.pbx = pbx
        self.url = url
        self.redis = blocking.Redis.from_url(url)

    async def set_up(self, *numbers: str) -> None:
        settings = load_settings()
        targets = [Target(number, SETTINGS, settings.pbx["main"].user) for number in numbers]
        async with registrar(settings, "main") as its:
            surveys = [each for each in await its.survey(targets) if isinstance(each, Survey)]
            assert [each.error for each in await its.carry_out(surveys)] == [None] * len(numbers)
        async with connect(self.url) as client:
            await Extensions(client).change({("main", number): SETTINGS for number in numbers})

    def lose(self, number: str) -> None:
        store = self.pbx.store
        store.remove_events(number, {event.id for event in store.events(number)})

    def check(self, tenant: str = "") -> list[CallEvent]:
        """Check once. Return all events so far."""
        asyncio.run(registrations.check_all(load_settings()))
        found: Any = self.redis.xrange(f"offhook:{{0}}:inbox{tenant and ':' + tenant}")
        events = [from_stored(fields[b"e"]) for _, fields in found]
        return [event for event in events if event.type is EventType.REGISTRATION_LOST]


@pytest.fixture
def job(redis_url: str, configure: Configure) -> Iterator[Job]:
    with sandbox() as pbx:
        configure(
            configuration(pbx)
            + "events = ['trouble']\n"
            + f"[tenants.acme]\nextensions = ['main/{THIRD}']\n"
        )
        made = Job(pbx, redis_url)
        asyncio.run(made.set_up(DESK, OTHER, THIRD))
        yield made
        made.redis.close()


def test_lost_callbacks_are_announced_once_per_loss(job: Job) -> None:
    assert job.check() == job.check() == []
    job.lose(DESK)
    assert job.check() == []  # `offhook setup` may be at work
    [lost] = job.check()
    assert lost.pbx == "main"
    assert lost.parameters == {
        "count": "1",
        "extensions": DESK,
        "text": f"Callbacks of 1 extension are not registered on the PBX main: {DESK}.",
    }
    assert job.check() == job.check() == [lost]
    asyncio.run(job.set_up(DESK))
    assert job.check() == [lost]
    job.lose(DESK)
    job.check()
    assert [event.parameters["extensions"] for event in job.check()] == [DESK, DESK]


def test_a_tenant_hears_of_its_extensions_and_the_operator_of_all(job: Job) -> None:
    for number in (DESK, THIRD):
        job.lose(number)
    job.check()
    assert [event.parameters["extensions"] for event in job.check()] == [DESK, THIRD]
    assert [event.parameters["extensions"] for event in job.check("acme")] == [THIRD]


def test_each_run_looks_at_some_and_goes_on_there(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registrations, "_SLICE", 1)
    job.lose(OTHER)
    told = [len(job.check()) for _ in range(4)]
    assert told == [0, 0, 1, 1]  # the second and the third look at it


def test_a_pbx_that_refuses_has_lost_nothing(job: Job, configure: Configure) -> None:
    configure(configuration(job.pbx).replace("sandbox-token", "wrong") + "events = ['trouble']\n")
    job.lose(DESK)
    assert job.check() == job.check() == []


def test_it_is_scheduled_for_handlers_that_ask(job: Job, configure: Configure) -> None:
    needed = {name: needed for name, _, needed in JOBS}["workers.registrations.check_registrations"]
    assert needed(load_settings())
    configure(configuration(job.pbx))
    assert not needed(load_settings())
