"""Many extensions at once: the limit, and giving up on a PBX that does not answer."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from offhook.extensions import ExtensionSettings
from offhook.provisioning.plan import Action, Installation
from offhook.provisioning.registrar import Failed, Registrar, Survey, Target
from tests.offhook.sandbox import Sandbox, sandbox
from unifiedapi.client import UnifiedApi
from unifiedapi.oauth import BearerToken
from unifiedapi.sandbox.store import Contents, Extension, Store, User

US = Installation("https://offhook.example.com", ["a secret for tests, forty characters long"])
NUMBERS = [f"0003*{number}" for number in range(100, 160)]
TARGETS = [Target(number, ExtensionSettings(), "@me") for number in NUMBERS]


@pytest.fixture
def pbx() -> Iterator[Sandbox]:
    users = [User(3, "0003")]
    extensions = [Extension(number, 3) for number in NUMBERS]
    store = Store(Contents(users=users, extensions=extensions, tokens={"the-token": 3}))
    with sandbox(store) as running:
        yield running


@asynccontextmanager
async def registrar(pbx: Sandbox) -> AsyncIterator[Registrar]:
    async with UnifiedApi(pbx.url, BearerToken("the-token"), waits=()) as api:
        yield Registrar(api, US, "main", at_once=8)


async def test_no_more_extensions_at_once_than_allowed(pbx: Sandbox) -> None:
    at_once, most, done = 0, 0, 0

    async def work(item: int) -> int:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.001)
        at_once -= 1
        return item * 2

    def count() -> None:
        nonlocal done
        done += 1

    async with registrar(pbx) as each:
        assert await each._each(range(50), work, count) == [n * 2 for n in range(50)]
    assert (most, done) == (8, 50)


async def test_a_pbx_that_does_not_answer_is_given_up(pbx: Sandbox) -> None:
    pbx.dies_after = 0
    async with registrar(pbx) as each:
        results = await each.survey(TARGETS)
    errors = [result.error for result in results if isinstance(result, Failed)]
    assert len(errors) == len(results) == len(TARGETS)
    assert sum(error.startswith("not tried: ") for error in errors) >= len(TARGETS) - 16


async def test_a_setup_that_was_interrupted_is_completed_by_the_next(pbx: Sandbox) -> None:
    async with registrar(pbx) as each:
        surveys = [one for one in await each.survey(TARGETS) if isinstance(one, Survey)]
        pbx.dies_after = len(pbx.requests) + 77
        outcomes = await each.carry_out(surveys)
        assert any(outcome.error is not None for outcome in outcomes)
        assert sum(outcome.done[Action.CREATE] for outcome in outcomes) == 77
        pbx.dies_after = None
        surveys = [one for one in await each.survey(TARGETS) if isinstance(one, Survey)]
        outcomes = await each.carry_out(surveys)
        assert sum(outcome.done[Action.CREATE] for outcome in outcomes) == 5 * len(TARGETS) - 77
    assert all(len(pbx.store.events(number)) == 5 for number in NUMBERS)
