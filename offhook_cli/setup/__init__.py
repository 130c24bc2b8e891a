"""`offhook setup`: extensions, on the PBX and here."""

import asyncio
import sys
from collections.abc import Coroutine, Iterable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from offhook.call import Kind
from offhook.errors import ConfigError
from offhook.extensions import Extensions
from offhook.provisioning.api import among, chosen, sentence
from offhook.provisioning.files import (
    check_extension,
    read_csv,
    read_events,
    read_handlers,
    read_toml,
    to_toml,
)
from offhook.provisioning.registrar import AT_ONCE
from offhook.provisioning.self_test import in_the_way
from offhook.settings import Settings, load_settings
from offhook_cli.pbx import PbxName
from offhook_cli.screen import Json, Yes, counted, fail, note, print_json, print_table
from offhook_cli.server import connected
from offhook_cli.setup.run import Order, Stored, check_drift, run, site
from unifiedapi.errors import UnifiedApiError

_DEFAULT = "extensions"


class _WithDefault(TyperGroup):
    """Extensions may follow at once; a word such as `show` is a command of its own."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        if args and args[0] in self.commands:
            return super().make_context(info_name, args, parent, **extra)
        return self.commands[_DEFAULT].make_context(info_name, args, parent, **extra)


setup = typer.Typer(cls=_WithDefault, add_completion=False, rich_markup_mode=None)


class Method(StrEnum):
    """How the PBX makes its callbacks."""

    POST = "POST"
    GET = "GET"


Numbers = Annotated[
    list[str] | None,
    typer.Argument(help="Such as 0003*210.", metavar="EXTENSION", show_default=False),
]
AtOnce = Annotated[
    int,
    typer.Option(
        "--at-once", min=1, max=100, metavar="N", help="Extensions to work on at the same time."
    ),
]
OnlyPlan = Annotated[bool, typer.Option("--plan", help="Show what would be done, and do nothing.")]
Adopt = Annotated[
    bool,
    typer.Option(
        "--adopt",
        help="Take over phone call events that another installation of Offhook made, "
        "or this one when it had another secret and another public_url.",
    ),
]


@setup.command(_DEFAULT, hidden=True)
def extensions(
    numbers: Numbers = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="More extensions, as CSV: a column extension, and if you like kind, events, "
            "handlers, label, owner.",
            metavar="CSV",
        ),
    ] = None,
    everyone: Annotated[
        bool, typer.Option("--all", help="Every phone that the user has on the PBX.")
    ] = False,
    known: Annotated[
        bool, typer.Option("--known", help="Every extension that was set up before.")
    ] = False,
    pbx: PbxName = None,
    events: Annotated[
        str | None,
        typer.Option(
            help="Event types, separated by commas, or all.",
            show_default="as before; at first all of a phone, dial-in and hangup of others",
            metavar="LIST",
        ),
    ] = None,
    kind: Annotated[
        Kind | None,
        typer.Option(
            help="What they are. Without --events it also says which event types they get.",
            show_default="as before; at first found out from the PBX",
        ),
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option(
            help="How the PBX makes its callbacks.",
            show_default="as before; at first POST",
            case_sensitive=False,
        ),
    ] = None,
    handlers: Annotated[
        str | None,
        typer.Option(
            help="The handlers that get the events, separated by commas, or all.",
            show_default="as before; at first all",
            metavar="LIST",
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="What people call it; '' for nothing.", metavar="TEXT")
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(help="The CRM user whose calls these are; '' for nobody.", metavar="USER"),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            help="Whose extensions they are: @me, @owner, or a user's id on the PBX.",
            show_default="as before; at first the PBX's setting user",
            metavar="ID",
        ),
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Take away what was set up, here and on the PBX.")
    ] = False,
    adopt: Adopt = False,
    only_plan: OnlyPlan = False,
    yes: Yes = False,
    at_once: AtOnce = AT_ONCE,
) -> None:
    """Set up extensions: have the PBX call here, and say who gets the events.

    Compares what is registered on the PBX with what should be, shows what it
    would do, and does it after a yes. Done twice, it changes nothing the
    second time; interrupted, call it again. Phone call events that others
    registered are not touched.

    What is said of an extension is kept: `offhook setup 0003*210 --owner jo`
    changes the owner and leaves the rest as it was.

    \b
      offhook setup show           what was set up
      offhook setup check          is the PBX still as it should be?
      offhook setup export FILE    write it all to a file
      offhook setup apply FILE     make it what the file says

    Exits with 1 if something failed.

    \b
    Examples:
      offhook setup '0003*210' '0003*211'
      offhook setup '0003*210' --handlers crm,notify --owner jane --label 'Front desk'
      offhook setup '0003*400' --kind queue
      offhook setup --file extensions.csv --plan
      offhook setup --known --yes       (after the secret or public_url has changed)
      offhook setup '0003*210' --remove
    """
    settings = load_settings()
    rows = read_csv(file) if file else {}
    named = _numbers(numbers)
    if not (named or rows or everyone or known):
        raise ConfigError("which extensions? Name them, or give --file, --all or --known")
    given: dict[str, Any] = {
        "kind": kind,
        "events": None if events is None else read_events(events),
        "method": method and method.value,
        "label": label,
        "owner": owner,
        "user": user,
    }
    given = {name: value or None for name, value in given.items() if value is not None}
    if handlers is not None:
        given["handlers"] = read_handlers(handlers)
    _check_handlers(settings, [given, *rows.values()])
    if user is not None:
        _check_user(user)
    only_known = known and not (named or rows or everyone)
    names = among(settings, pbx) if only_known else [chosen(settings, pbx)]

    async def work() -> bool:
        async with site(settings, names, at_once=at_once, adopt=adopt) as here:
            orders = []
            for name, registrar in here.registrars.items():
                found = dict.fromkeys([*named, *rows])
                if known or (everyone and remove):
                    found |= dict.fromkeys(n for where, n in here.stored if where == name)
                if everyone:
                    found |= dict.fromkeys(await registrar.phones(user or here.user(name)))
                targets = [
                    here.target((name, number), given | rows.get(number, {}), remove=remove)
                    for number in found
                ]
                orders.append(Order(registrar, targets))
            return await run(here, orders, yes=yes, only_plan=only_plan)

    _finish(work())


@setup.command("show")
def show(pbx: PbxName = None, as_json: Json = False) -> None:
    """Show the extensions that were set up, and what was said of them.

    \b
    Examples:
      offhook setup show
      offhook setup show --json | jq '.[] | select(.owner == null) | .extension'
    """
    settings = load_settings()
    stored = _of(_stored(settings), pbx)
    if as_json:
        print_json(
            [{"pbx": name[0], "extension": name[1]} | asdict(each) for name, each in stored.items()]
        )
    elif not stored:
        note("No extension was set up: `offhook setup EXTENSION` does it.")
    else:
        rows = [
            [
                number,
                where,
                each.label or "",
                each.owner or "",
                each.kind or "",
                "all" if each.handlers is None else ", ".join(each.handlers) or "none",
                ", ".join(each.events or ()),
                each.method,
            ]
            for (where, number), each in stored.items()
        ]
        columns = ("PBX", "label", "owner", "kind", "handlers", "events", "method")
        print_table("extension", *columns, rows=rows)


@setup.command("export")
def export(
    file: Annotated[str, typer.Argument(help="Where to; - is standard output.", metavar="FILE")],
    pbx: PbxName = None,
) -> None:
    """Write the extensions to a file, to keep it under version control.

    No secret is in it. `offhook setup apply` reads it.

    \b
    Examples:
      offhook setup export extensions.toml
      offhook setup export - --pbx main
    """
    stored = _of(_stored(load_settings()), pbx)
    if file == "-":
        sys.stdout.write(to_toml(stored))
        return
    try:
        Path(file).write_text(to_toml(stored), "utf-8")
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}.")
    note(f"Wrote {counted(len(stored), 'extension')} to {file}.")


@setup.command("apply")
def apply(
    file: Annotated[
        Path, typer.Argument(help="As `export` writes it.", metavar="FILE", show_default=False)
    ],
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove extensions that are not in the file.")
    ] = False,
    adopt: Adopt = False,
    only_plan: OnlyPlan = False,
    yes: Yes = False,
    at_once: AtOnce = AT_ONCE,
) -> None:
    """Make the PBX, and what is known of extensions here, what a file says.

    What the file does not say of an extension has its default: all handlers,
    no label, no owner, the kind that is found out, the event types that are
    usual for it. Extensions that are not in the file stay as they are, or go
    with --prune.

    \b
    Examples:
      offhook setup apply extensions.toml --plan
      offhook setup apply extensions.toml --prune --yes
    """
    settings = load_settings()
    told = read_toml(file)
    _check_handlers(settings, [asdict(each) for each in told.values()])
    in_file = list(dict.fromkeys(where for where, _ in told))
    unknown = [where for where in in_file if where not in settings.pbx]
    if unknown:
        raise ConfigError([f"{file}: no PBX is configured as {where!r}" for where in unknown])

    async def work() -> bool:
        names = list(settings.pbx) if prune else in_file
        async with site(settings, names, at_once=at_once, adopt=adopt) as here:
            gone = [name for name in here.stored if name not in told] if prune else []
            orders = [
                Order(
                    registrar,
                    [
                        *(here.wanted(n, each) for n, each in told.items() if n[0] == name),
                        *(here.target(n, {}, remove=True) for n in gone if n[0] == name),
                    ],
                )
                for name, registrar in here.registrars.items()
            ]
            return await run(here, orders, yes=yes, only_plan=only_plan)

    _finish(work())


@setup.command("check")
def check(numbers: Numbers = None, pbx: PbxName = None, at_once: AtOnce = AT_ONCE) -> None:
    """Compare the PBX with what was set up, and see whether it can call here.

    It changes nothing. Whether callbacks arrive is tried with a callback URL
    for tests, of which no event comes. That tells whether this machine reaches
    public_url and finds a receiver with this secret there; the PBX may sit
    behind another firewall.

    Exits with 1 if something is not as it should be.

    \b
    Examples:
      offhook setup check
      offhook setup check '0003*210'
    """
    settings = load_settings()
    named = set(_numbers(numbers))
    if pbx is not None:
        among(settings, pbx)
    problems: list[str] = []

    async def work() -> bool:
        async with site(settings, settings.pbx, at_once=at_once) as here:
            stored = {
                name: each
                for name, each in _of(here.stored, pbx).items()
                if not named or name[1] in named
            }
            problems.extend(f"{number} was not set up" for number in named - {n for _, n in stored})
            problems.extend(_stale(settings, stored))
            right = await check_drift(
                Order(r, [here.wanted(n, each) for n, each in stored.items() if n[0] == name])
                for name, r in here.registrars.items()
            )
        obstacle = await in_the_way(settings)
        if obstacle is None:
            typer.echo(f"Callbacks can arrive: {settings.public_url} answers, with this secret.")
        else:
            problems.append(obstacle)
        for problem in problems:
            note(f"! {problem}")
        return right and not problems

    _finish(work())


def _numbers(words: list[str] | None) -> list[str]:
    """The extensions among the arguments."""
    for word in words or ():
        if word.isalpha():
            commands = [each.name for each in setup.registered_commands if not each.hidden]
            raise ConfigError(
                f"{word!r} is neither an extension, such as 0003*210, nor one of "
                f"{', '.join(filter(None, commands))}"
            )
    return [check_extension(word) for word in dict.fromkeys(words or ())]


def _check_handlers(settings: Settings, given: Iterable[dict[str, Any]]) -> None:
    named = dict.fromkeys(handler for each in given for handler in each.get("handlers") or ())
    unknown = [handler for handler in named if handler not in settings.handlers]
    if unknown:
        raise ConfigError(
            [
                f"no handler is configured as {handler!r}: "
                f"there are {', '.join(settings.handlers) or 'none'}"
                for handler in unknown
            ]
        )


def _check_user(user: str) -> None:
    if user not in ("@me", "@viewer", "@owner") and not (user.isascii() and user.isdigit()):
        raise ConfigError(f"--user {user}: must be @me, @viewer, @owner, or a user's id")


def _stale(settings: Settings, stored: Stored) -> list[str]:
    """What the configuration does not have any more, and extensions still name."""
    pbxs = sorted({where for where, _ in stored if where not in settings.pbx})
    handlers = sorted(
        {h for each in stored.values() for h in each.handlers or () if h not in settings.handlers}
    )
    return [
        *(f"PBX {name} is not configured, but extensions of it are set up" for name in pbxs),
        *(f"no handler is configured as {name!r}, but extensions name it" for name in handlers),
    ]


def _stored(settings: Settings) -> Stored:
    async def read() -> Stored:
        async with connected(settings) as (inbox, _):
            return await Extensions(inbox.redis).all()

    return asyncio.run(read())


def _of(stored: Stored, pbx: str | None) -> Stored:
    return {name: each for name, each in stored.items() if pbx in (None, name[0])}


def _finish(work: Coroutine[Any, Any, bool]) -> None:
    """Do it; exit with 1 unless all of it went well."""
    try:
        well = asyncio.run(work)
    except UnifiedApiError as error:
        fail(sentence(error))
    if not well:
        raise typer.Exit(1)
