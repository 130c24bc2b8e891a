"""`ExtensionSetup`: compares the PBXs with what should be registered, and sets extensions up.

In the background, one run at a time for all consoles: Redis keeps how far it is, and what differs.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from offhook.errors import ConfigError
from offhook.extensions import Extensions, ExtensionSettings, Name
from offhook.inbox import keys
from offhook.operations.audit import Change, Details, note_change
from offhook.operations.run_lease import RunLease
from offhook.provisioning.api import sentence
from offhook.provisioning.registrar import ByHand, Registrar, Survey, Target, registrar
from offhook.provisioning.setting_up import (
    SIGNS,
    changes_here,
    changes_on_pbx,
    keep_phones,
    make_changes,
)
from offhook.settings import Settings
from offhook.tasks import end
from offhook_console.languages import gettext
from offhook_console.problem_details import ConsoleError
from unifiedapi.errors import UnifiedApiError

log = logging.getLogger("offhook.console")

_STEP = 200  # extensions between two notes of how far it is
_LEASE = 60  # seconds without a sign of life until another run may begin
_BEAT = 10.0  # seconds between signs of life
_MOST_ERRORS = 20  # that are kept of a run
_NAMED = 3  # extensions that the audit log names

PlanLine = tuple[str, str]  # `+ ~ - =`, and what is done


class SetupRun(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison, or a setup.

    Attributes:
        total, done: numbers of extensions.
        failed: number of extensions that failed; `errors` says why the first ones did.
        ended: null while it goes on.
    """

    kind: Literal["compare", "setup"]
    by: str
    began: datetime
    total: int = 0
    done: int = 0
    failed: int = 0
    errors: tuple[str, ...] = ()
    ended: datetime | None = None


class ExtensionSetup:
    """What the console does about extensions on the PBXs. Only the operator's.

    Args:
        running: what runs in the background, also after other settings have taken our place.
    """

    def __init__(self, settings: Settings, redis: Redis, running: set[asyncio.Task[None]]) -> None:
        self._settings = settings
        self._redis = redis
        self._extensions = Extensions(redis)
        self._running = running

    async def state(self) -> tuple[SetupRun | None, bool]:
        """The last run, if there was one; and whether it goes on."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.get(keys.SETUP_RUN)
            pipeline.exists(keys.SETUP_LEASE)
            stored, held = await pipeline.execute()
        run = None if stored is None else msgspec.json.decode(stored, type=SetupRun)
        return run, run is not None and run.ended is None and bool(held)

    async def drift(self) -> dict[Name, list[PlanLine]]:
        """The extensions that differed when they were last compared, and what would be done."""
        found: Any = await self._redis.hgetall(keys.DRIFT)
        plans = {}
        for field, stored in sorted(found.items()):
            pbx, _, number = field.decode().partition("/")
            plans[pbx, number] = msgspec.json.decode(stored, type=list[PlanLine])
        return plans

    def owns(self, name: Name) -> bool:
        """Return whether an extension is the operator's, on a PBX that is configured."""
        return name[0] in self._settings.pbx and not self._settings.tenant_of(*name)

    async def plan(
        self, pbx: str, given: Mapping[str, ExtensionSettings]
    ) -> tuple[list[tuple[str, list[PlanLine]]], list[str]]:
        """What setting these few extensions up would do; and what is wrong. Changes nothing.

        Raises:
            ConsoleError: the PBX does not let us ask.
        """
        stored = await self._extensions.read([(pbx, number) for number in given])
        try:
            async with registrar(self._settings, pbx) as here:
                targets = [
                    Target.of(self._settings, (pbx, number), each) for number, each in given.items()
                ]
                surveys = await here.survey(targets)
        except (ConfigError, UnifiedApiError) as error:
            raise ConsoleError(409, f"{pbx}: {sentence(error)}") from error
        plans, wrong = [], []
        for each in surveys:
            if isinstance(each, Survey):
                number = each.target.extension
                lines = _lines(each, changes_here(stored.get((pbx, number)), each))
                plans.append((number, lines or [("=", gettext("nothing to do: up to date"))]))
                if each.has_unknown_kind and isinstance(here, Registrar):
                    wrong.append(
                        gettext(
                            "{number} is neither a phone nor a queue: choose its kind",
                            number=number,
                        )
                    )
            else:
                wrong.append(f"{each.item.extension}: {each.error}")
        return plans, wrong

    async def start_comparison(self, by: str) -> None:
        """Compare all extensions with the PBXs.

        Raises:
            ConsoleError: a run goes on already.
        """
        names = [name for name in await self._extensions.names() if self.owns(name)]
        await self._start("compare", by, dict.fromkeys(sorted(names)))
        await note_change(self._redis, by, Change.EXTENSIONS_COMPARED)

    async def start_setup(
        self, by: str, given: Mapping[Name, ExtensionSettings] | None = None
    ) -> None:
        """Set extensions up.

        Args:
            given: these, with these settings; None: all that differed when they were last
                compared, with the settings that they have.

        Raises:
            ConsoleError: a run goes on already, or there is nothing to do.
        """
        wanted: dict[Name, ExtensionSettings | None] = dict(given or {})
        if given is None:
            wanted = {name: None for name in await self.drift() if self.owns(name)}
        if not wanted:
            raise ConsoleError(409, gettext("All extensions match now."))
        await self._start("setup", by, wanted)
        named = [number for _, number in wanted][:_NAMED] + ["…"] * (len(wanted) > _NAMED)
        details: Details = {"number": len(wanted), "extensions": ", ".join(named)}
        await note_change(self._redis, by, Change.EXTENSIONS_SET_UP, details)

    async def _start(
        self,
        kind: Literal["compare", "setup"],
        by: str,
        wanted: Mapping[Name, ExtensionSettings | None],
    ) -> None:
        lease = RunLease(self._redis, keys.SETUP_LEASE, _LEASE)
        if not await lease.take():
            problem = gettext("Another comparison or setup is running: wait until it has finished.")
            raise ConsoleError(409, problem)
        run = SetupRun(kind=kind, by=by, began=datetime.now(UTC), total=len(wanted))
        await self._save(run)
        working = asyncio.create_task(self._work(run, wanted, lease))
        self._running.add(working)
        working.add_done_callback(self._running.discard)

    async def _work(
        self, run: SetupRun, wanted: Mapping[Name, ExtensionSettings | None], lease: RunLease
    ) -> None:
        this = asyncio.current_task()
        assert this is not None  # noqa: S101
        beating = asyncio.create_task(_beat(lease, this))
        try:
            if run.kind == "compare":
                await self._redis.delete(keys.DRIFT)
            for pbx in dict.fromkeys(pbx for pbx, _ in wanted):
                its = {number: each for (where, number), each in wanted.items() if where == pbx}
                run = await self._work_on(pbx, its, run)
            await self._save(msgspec.structs.replace(run, ended=datetime.now(UTC)))
        except RedisError as error:
            log.error("Redis does not answer: the setup of extensions stops: %s", error)
        finally:
            await end(beating)
            await lease.release()

    async def _work_on(
        self, pbx: str, its: Mapping[str, ExtensionSettings | None], run: SetupRun
    ) -> SetupRun:
        numbers = [*its]
        users: set[str] = set()
        try:
            async with registrar(self._settings, pbx) as here:
                for at in range(0, len(numbers), _STEP):
                    some = numbers[at : at + _STEP]
                    run, used = await self._step(here, some, its, run)
                    users |= used
                    await self._save(run)
                if run.kind == "setup":
                    problem = await keep_phones(self._extensions, here, users)
                    run = _failing(run, [problem] if problem else [], 0)
        except (ConfigError, UnifiedApiError) as error:
            run = _failing(run, [f"{pbx}: {sentence(error)}"], len(numbers))
        return run

    async def _step(
        self,
        here: Registrar | ByHand,
        numbers: Sequence[str],
        its: Mapping[str, ExtensionSettings | None],
        run: SetupRun,
    ) -> tuple[SetupRun, set[str]]:
        pbx = here.pbx
        stored = await self._extensions.read([(pbx, number) for number in numbers])
        targets = []
        for number in numbers:
            known = its[number] or stored.get((pbx, number))
            if known is not None:  # else it was removed meanwhile
                targets.append(Target.of(self._settings, (pbx, number), known))
        found = await here.survey(targets)
        surveys = [each for each in found if isinstance(each, Survey)]
        errors = [
            f"{each.item.extension}: {each.error}" for each in found if not isinstance(each, Survey)
        ]
        differing: dict[str, list[PlanLine]] = {}
        if run.kind == "setup":
            outcomes = await make_changes(self._extensions, here, surveys, lambda: None)
            errors += [f"{each.extension}: {each.error}" for each in outcomes if each.error]
            right = [each.extension for each in outcomes if not each.error]
        else:
            for survey in surveys:
                if lines := _lines(survey, []):
                    differing[survey.target.extension] = lines
            right = [each.target.extension for each in surveys]
        await self._note(pbx, differing, [each for each in right if each not in differing])
        run = msgspec.structs.replace(run, done=run.done + len(numbers))
        return _failing(run, errors, len(errors)), {each.target.user for each in surveys}

    async def _note(
        self, pbx: str, differing: Mapping[str, list[PlanLine]], right: Sequence[str]
    ) -> None:
        async with self._redis.pipeline(transaction=True) as pipeline:
            if differing:
                lines: dict[Any, Any] = {
                    f"{pbx}/{n}": msgspec.json.encode(each) for n, each in differing.items()
                }
                pipeline.hset(keys.DRIFT, mapping=lines)
            if right:
                pipeline.hdel(keys.DRIFT, *(f"{pbx}/{number}" for number in right))
            await pipeline.execute()

    async def _save(self, run: SetupRun) -> None:
        await self._redis.set(keys.SETUP_RUN, msgspec.json.encode(run))


def merged(known: ExtensionSettings | None, **given: Any) -> ExtensionSettings:
    """The settings of an extension with those given; a new kind gets its usual event types."""
    if given.get("kind") is not None:
        given = {"events": None} | given
    return replace(known or ExtensionSettings(), **given)


async def _beat(lease: RunLease, work: asyncio.Task[None]) -> None:
    """Renew the lease of the work; end the work if the lease is no longer ours."""
    while True:
        await asyncio.sleep(_BEAT)
        try:
            if not await lease.renew():
                log.error("another console may set up extensions by now: this setup stops")
                await end(work)
        except RedisError as error:
            log.warning("Redis does not answer: %s", error)


def _lines(survey: Survey, here: Sequence[str]) -> list[PlanLine]:
    lines = [(SIGNS[action], words) for action, words in changes_on_pbx(survey)]
    # Created and deleted phone call events show the event types.
    lines += [("~", words) for words in here if not words.startswith("events: ")]
    if lines and survey.others:
        lines.append(("=", f"{survey.others} phone call events of other software: unchanged"))
    return lines


def _failing(run: SetupRun, errors: Sequence[str], failed: int) -> SetupRun:
    kept = (*run.errors, *errors)[:_MOST_ERRORS]
    return msgspec.structs.replace(run, failed=run.failed + failed, errors=kept)
