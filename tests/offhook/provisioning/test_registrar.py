"""Many extensions at once: how many, and when to give up."""

import asyncio
from collections.abc import Awaitable, Callable

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


def store() -> Store:
    users = [User(3, "0003")]
    extensions = [Extension(number, 3) for number in NUMBERS]
    return Store(Contents(users=users, extensions=extensions, tokens={"the-token": 3}))


def with_registrar(
    pbx: Sandbox, go: Callable[[Registrar], Awaitable[None]], at_once: int = 8
) -> None:
    async def run() -> None:
        async with UnifiedApi(pbx.url, BearerToken("the-token"), waits=()) as api:
            await go(Registrar(api, US, "main", at_once=at_once))

    asyncio.run(run())


def test_no_more_at_once_than_it_may() -> None:
    together, most = 0, 0

    async def go(registrar: Registrar) -> None:
        async def work(item: int) -> int:
            nonlocal together, most
            together += 1
            most = max(most, together)
            await asyncio.sleep(0.001)
            together -= 1
            return item * 2

        done: list[None] = []
        results = await registrar._each(range(50), work, lambda: done.append(None))
        assert results == [n * 2 for n in range(50)]
        assert len(done) == 50

    with sandbox(store()) as pbx:
        with_registrar(pbx, go)
    assert most == 8


def test_a_pbx_that_answers_none_is_not_asked_for_all() -> None:
    async def go(registrar: Registrar) -> None:
        results = await registrar.survey(TARGETS)
        assert len(results) == len(TARGETS)
        errors = [result.error for result in results if isinstance(result, Failed)]
        assert len(errors) == len(TARGETS)
        assert sum(error.startswith("not tried: ") for error in errors) >= len(TARGETS) - 16

    with sandbox(store()) as pbx:
        pbx.dies_after = 0
        with_registrar(pbx, go)


def test_what_a_dead_pbx_left_is_done_the_next_time() -> None:
    made = 0

    async def go(registrar: Registrar) -> None:
        nonlocal made
        surveys = [each for each in await registrar.survey(TARGETS) if isinstance(each, Survey)]
        pbx.dies_after = len(pbx.requests) + 77
        outcomes = await registrar.carry_out(surveys)
        made = sum(outcome.done[Action.CREATE] for outcome in outcomes)
        assert any(outcome.error is not None for outcome in outcomes)
        assert made == 77
        pbx.dies_after = None
        surveys = [each for each in await registrar.survey(TARGETS) if isinstance(each, Survey)]
        outcomes = await registrar.carry_out(surveys)
        assert sum(outcome.done[Action.CREATE] for outcome in outcomes) == 5 * len(TARGETS) - made
        assert all(len(pbx.store.events(number)) == 5 for number in NUMBERS)

    with sandbox(store()) as pbx:
        with_registrar(pbx, go)
