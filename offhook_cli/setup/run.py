"""Show the changes to extensions, ask for confirmation, make them, and print a summary."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import typer

from offhook.connection import connect
from offhook.extensions import Extensions, ExtensionSettings, Name
from offhook.provisioning.api import sentence
from offhook.provisioning.plan import Action
from offhook.provisioning.registrar import (
    ByHand,
    Failed,
    Registrar,
    SetupOutcome,
    Survey,
    Target,
    registrar,
)
from offhook.provisioning.setting_up import (
    changes_here,
    changes_on_pbx,
    keep_phones,
    make_changes,
)
from offhook.settings import Settings
from offhook_cli.pbx_api import warn_insecure
from offhook_cli.screen import confirm, counted, fail, note, print_table, progress
from unifiedapi.errors import UnifiedApiError

_HERE = ("127.0.0.1", "localhost", "::1")
_NAMED = 3  # extensions that a line names before it counts the rest
_DONE = {
    Action.CREATE: "created",
    Action.UPDATE: "updated",
    Action.ENABLE: "enabled",
    Action.DELETE: "deleted",
    Action.LEAVE: "left",
}

Stored = dict[Name, ExtensionSettings]


@dataclass(frozen=True)
class Site:
    """The PBXs, and the stored settings of extensions."""

    settings: Settings
    registrars: dict[str, Registrar | ByHand]
    extensions: Extensions
    stored: Stored

    def user(self, pbx: str) -> str:
        """The user who owns a PBX's extensions by default."""
        return self.settings.pbx[pbx].user

    def wanted(self, name: Name, settings: ExtensionSettings) -> Target:
        """A target: an extension with these settings."""
        return Target.of(self.settings, name, settings)

    def target(self, name: Name, given: dict[str, Any], *, remove: bool) -> Target:
        """A target: an extension with its stored settings plus those given; or its removal."""
        if "kind" in given:  # without --events, a new kind gets its usual event types
            given = {"events": None} | given
        target = self.wanted(name, replace(self.stored.get(name, ExtensionSettings()), **given))
        return replace(target, settings=None) if remove else target


@asynccontextmanager
async def site(
    settings: Settings, pbxs: Iterable[str], *, at_once: int, adopt: bool = False
) -> AsyncIterator[Site]:
    """Connect to Redis and to the APIs of the PBXs."""
    async with AsyncExitStack() as stack:
        redis = connect(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        extensions = Extensions(redis)
        registrars: dict[str, Registrar | ByHand] = {}
        for name in pbxs:
            warn_insecure(settings, name)
            registrars[name] = await stack.enter_async_context(
                registrar(settings, name, at_once=at_once, adopt=adopt)
            )
        yield Site(settings, registrars, extensions, await extensions.all())


@dataclass(frozen=True)
class Order:
    """Targets on one PBX."""

    registrar: Registrar | ByHand
    targets: Sequence[Target]

    @property
    def pbx(self) -> str:
        """The PBX's name."""
        return self.registrar.pbx


async def run(here: Site, orders: Sequence[Order], *, yes: bool, only_plan: bool) -> bool:
    """Make the changes, after a confirmation. Return whether all succeeded."""
    surveys, failures = await _survey(orders)
    to_do = [
        (pbx, survey)
        for pbx, survey in surveys
        if not survey.is_right or _new_settings(here, pbx, survey)
    ]
    _print_plan([(pbx, survey, _in_words(here, pbx, survey)) for pbx, survey in to_do])
    _print_others(surveys)
    _print_unknown_kinds(orders, surveys)
    _print_failures(failures)
    for order in orders:
        if isinstance(order.registrar, ByHand) and order.targets:
            note(
                f"! {order.pbx}: no API access is configured: register the URLs that "
                f"`offhook url {order.pbx} EXTENSION` prints on the PBX by hand, or delete them."
            )
    if not to_do:
        if surveys:
            typer.echo(f"Nothing to do: {counted(len(surveys), 'extension')} up to date.")
        elif not failures:
            note("Nothing to do: no extension matches.")
        return not failures
    if only_plan:
        return not failures
    done = len(surveys) - len(to_do)
    rest = f" ({counted(done, 'extension')} up to date)" if done else ""
    confirm(f"Change {counted(len(to_do), 'extension')}{rest}?", yes=yes)
    outcomes = await _make_changes(here, orders, to_do)
    failed = [(pbx, Failed(o.extension, o.error)) for pbx, o in outcomes if o.error is not None]
    _print_summary(outcomes)
    _print_failures(failed)
    if failed:
        note("Fix the cause and run the command again: it continues with the rest.")
    elif urlsplit(here.settings.public_url).hostname in _HERE:
        note("Only a PBX on this machine can reach public_url: set it to a public address.")
    return not failures and not failed


async def check_drift(orders: Sequence[Order]) -> bool:
    """Print where PBXs differ from the settings. Return whether none does."""
    surveys, failures = await _survey(orders)
    wrong = [(pbx, survey) for pbx, survey in surveys if not survey.is_right]
    _print_plan([(pbx, survey, _on_pbx(survey)) for pbx, survey in wrong])
    _print_others(surveys)
    _print_unknown_kinds(orders, surveys)
    _print_failures(failures)
    if wrong:
        note(
            f"! {len(wrong)} of {counted(len(surveys), 'extension')} differ: "
            "`offhook setup --known` makes the changes above"
        )
    elif surveys:
        typer.echo(f"{counted(len(surveys), 'extension')} up to date.")
    elif not failures:
        note("No extension is set up.")
    return not wrong and not failures


async def _survey(
    orders: Sequence[Order],
) -> tuple[list[tuple[str, Survey]], list[tuple[str, Failed[str]]]]:
    surveys: list[tuple[str, Survey]] = []
    failures: list[tuple[str, Failed[str]]] = []
    with _steps("Comparing", sum(len(order.targets) for order in orders)) as advance:
        for order in orders:
            for result in await order.registrar.survey(order.targets, advance):
                if isinstance(result, Survey):
                    surveys.append((order.pbx, result))
                else:
                    failures.append((order.pbx, Failed(result.item.extension, result.error)))
    return surveys, failures


async def _make_changes(
    here: Site, orders: Sequence[Order], to_do: Sequence[tuple[str, Survey]]
) -> list[tuple[str, SetupOutcome]]:
    """Make the changes, PBX by PBX."""
    outcomes: list[tuple[str, SetupOutcome]] = []
    with _steps("Setting up", len(to_do)) as advance:
        for order in orders:
            mine = [survey for pbx, survey in to_do if pbx == order.pbx]
            users = {survey.target.user for survey in mine if survey.target.settings}
            if (problem := await keep_phones(here.extensions, order.registrar, users)) is not None:
                note(f"! {problem}")
            done = await make_changes(here.extensions, order.registrar, mine, advance)
            outcomes += [(order.pbx, outcome) for outcome in done]
    return outcomes


@contextmanager
def _steps(what: str, total: int) -> Iterator[Callable[[], None]]:
    with progress(what, total) as advance:
        number = count(1)
        yield lambda: advance(next(number))


def _new_settings(here: Site, pbx: str, survey: Survey) -> list[str]:
    return changes_here(here.stored.get((pbx, survey.target.extension)), survey)


def _on_pbx(survey: Survey) -> list[str]:
    return [words for _, words in changes_on_pbx(survey)]


def _in_words(here: Site, pbx: str, survey: Survey) -> list[str]:
    # Created and deleted phone call events already show the event types.
    new = [line for line in _new_settings(here, pbx, survey) if not line.startswith("events: ")]
    return _on_pbx(survey) + new or ["remember"]


def _print_plan(rows: Iterable[tuple[str, Survey, list[str]]]) -> None:
    """Print the changes; extensions with the same changes share a row."""
    alike: dict[tuple[str, str], list[str]] = {}
    for pbx, survey, words in rows:
        alike.setdefault((pbx, "\n".join(words)), []).append(survey.target.extension)
    if alike:
        print_table(
            "PBX",
            "extension",
            "changes",
            rows=[[pbx, _names(them, "\n"), words] for (pbx, words), them in alike.items()],
        )


def _names(extensions: Sequence[str], separator: str = ", ") -> str:
    """List the first few extensions, and the number of the others."""
    more = len(extensions) - _NAMED
    if more <= 1:
        return separator.join(extensions)
    return f"{separator.join(extensions[:_NAMED])}{separator}and {more} more"


def _print_others(surveys: Iterable[tuple[str, Survey]]) -> None:
    others, strays = 0, Counter[str]()
    for _, survey in surveys:
        others += survey.others
        strays.update(survey.strays)
    if others:
        note(f"{counted(others, 'phone call event')} of other software: unchanged.")
    for host in sorted(strays):
        note(
            f"! {counted(strays[host], 'extension')}: phone call events of another Offhook "
            f"installation, at {host}. If that was this one under a former secret, use --adopt"
        )


def _print_unknown_kinds(orders: Iterable[Order], surveys: Iterable[tuple[str, Survey]]) -> None:
    """Name the extensions whose kind the PBXs do not say. A PBX without API access is not asked."""
    asked = {order.pbx for order in orders if isinstance(order.registrar, Registrar)}
    for pbx in sorted(asked):
        unknown = [s.target.extension for name, s in surveys if name == pbx and s.has_unknown_kind]
        if unknown:
            note(
                f"! {pbx} {_names(unknown)}: neither a phone nor a queue, and the PBX does not say "
                "more: give --kind ivr or --kind conference. Until then, calls that end there "
                "count as answered, with the gap `kind`"
            )


def _print_failures(failures: Iterable[tuple[str, Failed[str]]]) -> None:
    """Print the failures; extensions with the same reason share a line."""
    alike: dict[tuple[str, str], list[str]] = {}
    for pbx, failed in failures:
        alike.setdefault((pbx, failed.error), []).append(failed.item)
    for (pbx, error), extensions in alike.items():
        note(f"! {pbx} {_names(extensions)}: {error}")


def _print_summary(outcomes: Sequence[tuple[str, SetupOutcome]]) -> None:
    rows = []
    for pbx in dict.fromkeys(pbx for pbx, _ in outcomes):
        mine = [outcome for name, outcome in outcomes if name == pbx]
        done = sum((outcome.done for outcome in mine), Counter[Action]())
        failed = sum(outcome.error is not None for outcome in mine)
        counts = [len(mine), *(done[action] for action in _DONE), failed]
        rows.append([pbx, *map(str, counts)])
    columns = ("extensions", *_DONE.values(), "failed")
    print_table("PBX", *columns, rows=rows, right=columns)


def finish(work: Coroutine[Any, Any, bool]) -> None:
    """Run the work; exit with 1 unless all of it succeeded."""
    try:
        succeeded = asyncio.run(work)
    except UnifiedApiError as error:
        fail(sentence(error))
    if not succeeded:
        raise typer.Exit(1)
