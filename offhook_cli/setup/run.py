"""Show what would be done to extensions, ask, do it, and say what was done."""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from offhook.connection import connect
from offhook.extensions import Extensions, ExtensionSettings, Name
from offhook.provisioning.plan import Action
from offhook.provisioning.registrar import (
    ByHand,
    Failed,
    Outcome,
    Registrar,
    Survey,
    Target,
    registrar,
)
from offhook.settings import Settings
from offhook_cli.pbx import tell_insecure
from offhook_cli.screen import confirm, counted, note, print_table

_HERE = ("127.0.0.1", "localhost", "::1")
_NAMED = 3  # extensions that a line names; the others it counts
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
    """What the commands work with: the PBXs, and what was said of extensions before."""

    settings: Settings
    registrars: dict[str, Registrar | ByHand]
    extensions: Extensions
    stored: Stored

    def user(self, pbx: str) -> str:
        """Whose extensions those of a PBX are, if nothing else is said."""
        return self.settings.pbx[pbx].user

    def wanted(self, name: Name, settings: ExtensionSettings) -> Target:
        """An extension that shall be so."""
        return Target(name[1], settings, settings.user or self.user(name[0]))

    def target(self, name: Name, given: dict[str, Any], *, remove: bool) -> Target:
        """An extension that shall be as it was, but for what is given; or not be at all."""
        if "kind" in given:  # who says it without events means those that are usual for it
            given = {"events": None} | given
        target = self.wanted(name, replace(self.stored.get(name, ExtensionSettings()), **given))
        return replace(target, settings=None) if remove else target


@asynccontextmanager
async def site(
    settings: Settings, pbxs: Iterable[str], *, at_once: int, adopt: bool = False
) -> AsyncIterator[Site]:
    """Everything connected; closed in the end."""
    async with AsyncExitStack() as stack:
        redis = connect(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        extensions = Extensions(redis)
        registrars: dict[str, Registrar | ByHand] = {}
        for name in pbxs:
            tell_insecure(settings, name)
            registrars[name] = await stack.enter_async_context(
                registrar(settings, name, at_once=at_once, adopt=adopt)
            )
        yield Site(settings, registrars, extensions, await extensions.all())


@dataclass(frozen=True)
class Order:
    """What shall become of extensions of one PBX."""

    registrar: Registrar | ByHand
    targets: Sequence[Target]

    @property
    def pbx(self) -> str:
        """The PBX's name."""
        return self.registrar.pbx


async def run(here: Site, orders: Sequence[Order], *, yes: bool, only_plan: bool) -> bool:
    """Carry the orders out, after a yes. False: something failed."""
    surveys, failures = await _survey(orders)
    to_do = [
        (pbx, survey)
        for pbx, survey in surveys
        if not survey.is_right or _new_settings(here, pbx, survey)
    ]
    _print_plan([(pbx, survey, _in_words(here, pbx, survey)) for pbx, survey in to_do])
    _tell_of_others(surveys)
    _tell(failures)
    for order in orders:
        if isinstance(order.registrar, ByHand) and order.targets:
            note(
                f"! {order.pbx}: Offhook does not speak its API: on the PBX, register by hand what "
                f"`offhook url {order.pbx} EXTENSION` prints, or delete it there."
            )
    if not to_do:
        if surveys:
            typer.echo(f"Nothing to do: {_as_they_should_be(len(surveys))}.")
        elif not failures:
            note("Nothing to do: there is no such extension.")
        return not failures
    if only_plan:
        return not failures
    done = len(surveys) - len(to_do)
    rest = f" ({counted(done, 'extension')} more: nothing to do)" if done else ""
    confirm(f"Do this on {counted(len(to_do), 'extension')}{rest}?", yes=yes)
    await here.extensions.change(
        {
            (pbx, survey.target.extension): survey.target.settings
            for pbx, survey in to_do
            if survey.target.settings is not None
        }
    )
    outcomes = await _carry_out(orders, to_do)
    await here.extensions.change(
        {},
        [
            (pbx, survey.target.extension)
            for (pbx, survey), (_, outcome) in zip(to_do, outcomes, strict=True)
            if survey.target.settings is None and outcome.error is None
        ],
    )
    failed = [(pbx, Failed(o.extension, o.error)) for pbx, o in outcomes if o.error is not None]
    _print_summary(outcomes)
    _tell(failed)
    if failed:
        note("Call it again, when the cause is mended: it goes on with what is left.")
    elif urlsplit(here.settings.public_url).hostname in _HERE:
        note("Only a PBX on this machine reaches public_url: set it to what the PBX can reach.")
    return not failures and not failed


async def check_drift(orders: Iterable[Order]) -> bool:
    """Tell where a PBX is not as it should be. False: somewhere."""
    surveys, failures = await _survey(list(orders))
    wrong = [(pbx, survey) for pbx, survey in surveys if not survey.is_right]
    _print_plan([(pbx, survey, _on_pbx(survey)) for pbx, survey in wrong])
    _tell_of_others(surveys)
    _tell(failures)
    if wrong:
        note(
            f"! {len(wrong)} of {counted(len(surveys), 'extension')} to be mended: "
            "`offhook setup --known` does what is shown above"
        )
    elif surveys:
        typer.echo(f"{_as_they_should_be(len(surveys))}.")
    elif not failures:
        note("No extension was set up.")
    return not wrong and not failures


async def _survey(
    orders: Sequence[Order],
) -> tuple[list[tuple[str, Survey]], list[tuple[str, Failed[str]]]]:
    surveys: list[tuple[str, Survey]] = []
    failures: list[tuple[str, Failed[str]]] = []
    with _bar("Comparing", sum(len(order.targets) for order in orders)) as advance:
        for order in orders:
            for result in await order.registrar.survey(order.targets, advance):
                if isinstance(result, Survey):
                    surveys.append((order.pbx, result))
                else:
                    failures.append((order.pbx, Failed(result.item.extension, result.error)))
    return surveys, failures


async def _carry_out(
    orders: Sequence[Order], to_do: Sequence[tuple[str, Survey]]
) -> list[tuple[str, Outcome]]:
    """In the order of what is to do: those of one PBX stand together."""
    outcomes: list[tuple[str, Outcome]] = []
    with _bar("Setting up", len(to_do)) as advance:
        for order in orders:
            mine = [survey for pbx, survey in to_do if pbx == order.pbx]
            done = await order.registrar.carry_out(mine, advance)
            outcomes += [(order.pbx, outcome) for outcome in done]
    return outcomes


@contextmanager
def _bar(what: str, total: int) -> Iterator[Any]:
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def _new_settings(here: Site, pbx: str, survey: Survey) -> list[str]:
    """What will be on record of an extension, and is not yet; in words."""
    there = here.stored.get((pbx, survey.target.extension))
    wanted = survey.target.settings
    if wanted is None:
        return [] if there is None else ["forget it"]
    was = there or ExtensionSettings()
    new = [
        f"{field.name}: {_shown(field.name, getattr(wanted, field.name))}"
        for field in fields(ExtensionSettings)
        if getattr(wanted, field.name) != getattr(was, field.name)
    ]
    return new if new or there else ["keep it on record"]


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "all" if name == "handlers" else "none"
    return str(value) if isinstance(value, str) else ", ".join(value) or "none"


def _on_pbx(survey: Survey) -> list[str]:
    """The changes of an extension in words: `create dial-in, hangup`, `update url of answer-in`."""
    lines: dict[str, list[str]] = {}
    for change in survey.changes:
        if change.action is not Action.LEAVE:
            differs = f" {', '.join(change.differs)} of" if change.action is Action.UPDATE else ""
            lines.setdefault(change.action + differs, []).append(change.type.label)
    return [f"{what} {', '.join(types)}" for what, types in lines.items()]


def _in_words(here: Site, pbx: str, survey: Survey) -> list[str]:
    # The event types are told by what is created and deleted for them.
    new = [line for line in _new_settings(here, pbx, survey) if not line.startswith("events: ")]
    return _on_pbx(survey) + new or ["keep it on record"]


def _print_plan(rows: Iterable[tuple[str, Survey, list[str]]]) -> None:
    """Extensions to which the same is done share a row."""
    alike: dict[tuple[str, str], list[str]] = {}
    for pbx, survey, words in rows:
        alike.setdefault((pbx, "\n".join(words)), []).append(survey.target.extension)
    if alike:
        print_table(
            "PBX",
            "extension",
            "what is to be done",
            rows=[[pbx, _names(them, "\n"), words] for (pbx, words), them in alike.items()],
        )


def _names(extensions: Sequence[str], separator: str = ", ") -> str:
    """The first few of them, and how many more."""
    more = len(extensions) - _NAMED
    if more <= 1:
        return separator.join(extensions)
    return f"{separator.join(extensions[:_NAMED])}{separator}and {more} more"


def _tell_of_others(surveys: Iterable[tuple[str, Survey]]) -> None:
    others, strays = 0, Counter[str]()
    for _, survey in surveys:
        others += survey.others
        strays.update(survey.strays)
    if others:
        note(f"{counted(others, 'phone call event')} of others: left as they are.")
    for host in sorted(strays):
        note(
            f"! {counted(strays[host], 'extension')}: phone call events of another installation "
            f"of Offhook, at {host}. If that was this one, with another secret: --adopt"
        )


def _tell(failures: Iterable[tuple[str, Failed[str]]]) -> None:
    """Failures, those with the same reason together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for pbx, failed in failures:
        alike.setdefault((pbx, failed.error), []).append(failed.item)
    for (pbx, error), extensions in alike.items():
        note(f"! {pbx} {_names(extensions)}: {error}")


def _print_summary(outcomes: Sequence[tuple[str, Outcome]]) -> None:
    rows = []
    for pbx in dict.fromkeys(pbx for pbx, _ in outcomes):
        mine = [outcome for name, outcome in outcomes if name == pbx]
        done = sum((outcome.done for outcome in mine), Counter[Action]())
        failed = sum(outcome.error is not None for outcome in mine)
        counts = [len(mine), *(done[action] for action in _DONE), failed]
        rows.append([pbx, *map(str, counts)])
    columns = ("extensions", *_DONE.values(), "failed")
    print_table("PBX", *columns, rows=rows, right=columns)


def _as_they_should_be(number: int) -> str:
    is_so = "is as it should be" if number == 1 else "are as they should be"
    return f"{counted(number, 'extension')} {is_so}"
