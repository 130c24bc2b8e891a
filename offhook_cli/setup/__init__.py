"""`offhook setup`: register the callbacks of extensions, and keep their settings."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from offhook.call import Kind
from offhook.errors import ConfigError, not_configured
from offhook.provisioning.api import among, chosen
from offhook.provisioning.files import (
    read_csv,
    read_events,
    read_handlers,
    read_toml,
)
from offhook.provisioning.registrar import AT_ONCE
from offhook.settings import Settings
from offhook_cli import completion
from offhook_cli.options import PbxName, Tenant, Yes, full_name, settings_of
from offhook_cli.setup import inspect
from offhook_cli.setup.arguments import AtOnce, Numbers, check_numbers
from offhook_cli.setup.owner import Owner
from offhook_cli.setup.run import Order, finish, run, site

_DEFAULT = "extensions"


class _WithDefault(TyperGroup):
    """Runs the default command unless the first word, such as `show`, names another."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        if args and args[0] in self.commands:
            return super().make_context(info_name, args, parent, **extra)
        return self.commands[_DEFAULT].make_context(info_name, args, parent, **extra)


setup = typer.Typer(cls=_WithDefault, add_completion=False, rich_markup_mode=None)


OnlyPlan = Annotated[bool, typer.Option("--dry-run", help="Show the changes without making them.")]
Adopt = Annotated[
    bool,
    typer.Option(
        "--adopt",
        help="Take over phone call events of another Offhook installation, "
        "or of this one under a former secret and public_url.",
    ),
]


@setup.command(_DEFAULT, hidden=True)
def extensions(
    numbers: Numbers = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="A CSV file of extensions: column extension; optional columns kind, events, "
            "handlers, label, owner.",
            metavar="CSV",
        ),
    ] = None,
    everyone: Annotated[
        bool, typer.Option("--all", help="All phones of the user on the PBX.")
    ] = False,
    known: Annotated[bool, typer.Option("--known", help="All extensions set up before.")] = False,
    pbx: PbxName = None,
    events: Annotated[
        str | None,
        typer.Option(
            help="Event types, separated by commas, or all.",
            show_default="unchanged; for a new phone all, for others dial-in and hangup",
            metavar="LIST",
            autocompletion=completion.separated_by_commas(completion.event_types),
        ),
    ] = None,
    kind: Annotated[
        Kind | None,
        typer.Option(
            help="Kind of the extensions. Without --events, also resets their event types.",
            show_default="unchanged; for a new extension, what the PBX reports",
        ),
    ] = None,
    method: Annotated[
        Literal["POST", "GET"] | None,
        typer.Option(
            help="HTTP method of the callbacks.",
            show_default="unchanged; for a new extension POST",
            case_sensitive=False,
        ),
    ] = None,
    handlers: Annotated[
        str | None,
        typer.Option(
            help="Handlers that get the events, separated by commas, or all.",
            show_default="unchanged; for a new extension all",
            metavar="LIST",
            autocompletion=completion.separated_by_commas(completion.handlers),
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="A name for people; '' for none.", metavar="TEXT")
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(help="CRM user who owns the calls; '' for none.", metavar="USER"),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            help="PBX user who owns the extensions: @me, @owner, or an id.",
            show_default="unchanged; for a new extension the PBX's setting user",
            metavar="ID",
        ),
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove the extensions, here and on the PBX.")
    ] = False,
    adopt: Adopt = False,
    only_plan: OnlyPlan = False,
    tenant: Tenant = "",
    yes: Yes = False,
    at_once: AtOnce = AT_ONCE,
) -> None:
    """Register the callbacks of extensions on the PBX; choose their handlers.

    Compares the PBX with the settings, shows the changes, and makes them when
    you confirm. It is safe to repeat and to interrupt. Phone call events
    registered by other software are not touched.

    Settings are kept: `offhook setup 0003*210 --owner jo` changes the owner
    and nothing else.

    \b
      offhook setup show           list the extensions
      offhook setup check          compare the PBX with the settings
      offhook setup export FILE    write the settings to a file
      offhook setup apply FILE     apply the settings in a file

    Exits with 1 if a change failed.

    \b
    Examples:
      offhook setup '0003*210' '0003*211'
      offhook setup '0003*210' --handlers crm,notify --owner jane --label 'Front desk'
      offhook setup '0003*400' --kind queue
      offhook setup --file extensions.csv --dry-run
      offhook setup --known --yes       (after the secret or public_url has changed)
      offhook setup '0003*210' --remove
    """
    settings = settings_of(tenant)
    rows = read_csv(file) if file else {}
    named = check_numbers(numbers)
    if not (named or rows or everyone or known):
        raise ConfigError("name extensions, or use --file, --all or --known")
    given: dict[str, Any] = {
        "kind": kind,
        "events": None if events is None else read_events(events),
        "method": method,
        "label": label,
        "owner": owner,
        "user": user,
    }
    given = {name: value or None for name, value in given.items() if value is not None}
    if handlers is not None:
        given["handlers"] = read_handlers(handlers)
    for each in (given, *rows.values()):
        _name_in_full(settings, each)
    _check_handlers(settings, [given, *rows.values()])
    if user is not None:
        _check_user(user)
    only_known = known and not (named or rows or everyone)
    names = among(settings, pbx) if only_known else [chosen(settings, pbx)]
    whose = Owner.of(tenant)

    async def work() -> bool:
        async with site(settings, names, at_once=at_once, adopt=adopt) as here:
            orders = []
            for name, registrar in here.registrars.items():
                found = dict.fromkeys([*named, *rows])
                whose.check(name, found)
                if known or (everyone and remove):
                    found |= dict.fromkeys(
                        n for where, n in whose.stored(here.stored) if where == name
                    )
                if everyone:
                    phones = await registrar.phones(user or here.user(name))
                    found |= dict.fromkeys(whose.among(name, phones))
                targets = [
                    here.target((name, number), given | rows.get(number, {}), remove=remove)
                    for number in found
                ]
                orders.append(Order(registrar, targets))
            return await run(here, orders, yes=yes, only_plan=only_plan)

    finish(work())


@setup.command("apply")
def apply(
    file: Annotated[
        Path,
        typer.Argument(
            help="A file in the format of `export`.", metavar="FILE", show_default=False
        ),
    ],
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove extensions that are not in the file.")
    ] = False,
    adopt: Adopt = False,
    only_plan: OnlyPlan = False,
    tenant: Tenant = "",
    yes: Yes = False,
    at_once: AtOnce = AT_ONCE,
) -> None:
    """Apply a file of extensions and their settings, here and on the PBX.

    A setting missing from the file gets its default: all handlers, no label,
    no owner, the kind that the PBX reports, the usual event types of that
    kind. Extensions not in the file stay unchanged, or are removed with --prune.

    \b
    Examples:
      offhook setup apply extensions.toml --dry-run
      offhook setup apply extensions.toml --prune --yes
    """
    settings = settings_of(tenant)
    in_file = {
        name: replace(each, handlers=_in_full(settings, each.handlers))
        for name, each in read_toml(file).items()
    }
    whose = Owner.of(tenant)
    for where, number in in_file:
        whose.check(where, [number])
    _check_handlers(settings, [asdict(each) for each in in_file.values()])
    pbxs = list(dict.fromkeys(where for where, _ in in_file))
    unknown = [where for where in pbxs if where not in settings.pbx]
    if unknown:
        raise ConfigError(
            [f"{file}: {not_configured('PBX', where, settings.pbx)}" for where in unknown]
        )

    async def work() -> bool:
        names = list(settings.pbx) if prune else pbxs
        async with site(settings, names, at_once=at_once, adopt=adopt) as here:
            there = whose.stored(here.stored) if prune else ()
            gone = [name for name in there if name not in in_file]
            orders = [
                Order(
                    registrar,
                    [
                        *(here.wanted(n, each) for n, each in in_file.items() if n[0] == name),
                        *(here.target(n, {}, remove=True) for n in gone if n[0] == name),
                    ],
                )
                for name, registrar in here.registrars.items()
            ]
            return await run(here, orders, yes=yes, only_plan=only_plan)

    finish(work())


def _in_full(settings: Settings, handlers: Sequence[str] | None) -> tuple[str, ...] | None:
    """The full names of a tenant's handlers."""
    return None if handlers is None else tuple(full_name(settings, each) for each in handlers)


def _name_in_full(settings: Settings, given: dict[str, Any]) -> None:
    if given.get("handlers") is not None:
        given["handlers"] = _in_full(settings, given["handlers"])


def _check_handlers(settings: Settings, given: Iterable[dict[str, Any]]) -> None:
    named = dict.fromkeys(handler for each in given for handler in each.get("handlers") or ())
    unknown = [handler for handler in named if handler not in settings.handlers]
    if unknown:
        raise ConfigError(
            [not_configured("handler", handler, settings.handlers) for handler in unknown]
        )


def _check_user(user: str) -> None:
    if user not in ("@me", "@viewer", "@owner") and not (user.isascii() and user.isdigit()):
        raise ConfigError(f"--user {user}: must be @me, @viewer, @owner, or a user's id")


setup.command("show")(inspect.show)
setup.command("export")(inspect.export)
setup.command("check")(inspect.check)
