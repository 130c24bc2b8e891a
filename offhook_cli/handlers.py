"""`offhook handlers`: list handlers and lookups, installed and configured, and their problems."""

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from offhook.errors import ConfigError, did_you_mean, not_configured
from offhook.event import GROUPS, EventType
from offhook.logs import printable
from offhook.plugins import (
    check_all,
    event_types,
    installed,
    load_handler,
    load_lookup,
    with_options,
)
from offhook.settings import (
    HandlerSettings,
    LookupSettings,
    load_settings,
    sound_tables,
    table_of,
)
from offhook.testing import sample_event
from offhook_cli import completion, handler_actions, handlers_new
from offhook_cli.options import (
    Json,
    Tenant,
    full_name,
    settings_of,
)
from offhook_cli.plugin_help import Installed, Option, describe, describe_lookup, is_same
from offhook_cli.screen import fail, note, print_json, print_table

handlers = typer.Typer(invoke_without_command=True, add_completion=False, rich_markup_mode=None)

_CALLS = {"in": "incoming calls", "out": "outgoing calls", "internal": "internal calls"}


@handlers.callback()
def list_(ctx: typer.Context, tenant: Tenant = "", as_json: Json = False) -> None:
    """List handlers and lookups, installed and configured, and their problems.

    Exits with 1 if the configuration has a problem.

    \b
    Examples:
      offhook handlers
      offhook handlers show webhook
      offhook handlers --json
    """
    if ctx.invoked_subcommand is not None:
        return
    points, knowing = installed("handlers"), installed("lookups")
    there = [describe(name, point, load_handler) for name, point in points.items()]
    known = [describe_lookup(name, point) for name, point in knowing.items()]
    configured, lookups, problems = _configured(tenant)
    if as_json:
        print_json(
            {
                "installed": [dataclasses.asdict(each) for each in there],
                "configured": {name: _policy(each) for name, each in configured.items()},
                "lookups": {
                    "installed": [dataclasses.asdict(each) for each in known],
                    "configured": {name: _policy(each) for name, each in lookups.items()},
                },
                "problems": problems,
            }
        )
    else:
        typer.echo(
            'Installed handlers (use = "..."; `offhook handlers show NAME` lists the options):'
        )
        _print_installed(there)
        _print_configured(configured)
        typer.echo("Lookups find the caller's name (a CRM's options are those of its handler):")
        both = {name for name in knowing if is_same(points.get(name), knowing[name])}
        _print_installed(
            [dataclasses.replace(each, options=()) if each.name in both else each for each in known]
        )
        _print_lookups(lookups)
        for problem in problems:
            note(f"! {problem}")
    if problems:
        raise typer.Exit(1)


@handlers.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="An installed handler or lookup.",
            metavar="NAME",
            autocompletion=completion.plugins,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show the help and options of an installed handler or lookup.

    \b
    Examples:
      offhook handlers show webhook
    """
    points, knowing = installed("handlers"), installed("lookups")
    if name not in {*points, *knowing}:
        fail(
            f"{name!r} is not installed; handlers: {', '.join(points)}; "
            f"lookups: {', '.join(knowing)}{did_you_mean(name, {*points, *knowing})}"
        )
    found = []
    if name in points:
        found.append(("", describe(name, points[name], load_handler)))
    if name in knowing and not is_same(points.get(name), knowing[name]):
        found.append(("a lookup ", describe_lookup(name, knowing[name])))
    if as_json:
        print_json(dataclasses.asdict(found[0][1]))
        return
    for kind, each in found:
        typer.echo(f"{each.name}, {kind}from the package {each.package}\n")
        _print_help(each)


@handlers.command()
def preview(
    name: Annotated[
        str,
        typer.Argument(
            help="A configured handler.", metavar="NAME", autocompletion=completion.handlers
        ),
    ],
    event: Annotated[
        EventType | None,
        typer.Option(
            help="Only this event type, such as hangup or call-ended.",
            show_default="all that the handler gets",
            metavar="TYPE",
        ),
    ] = None,
    tenant: Tenant = "",
) -> None:
    """Show what a configured handler would send for sample events. Sends nothing.

    \b
    Examples:
      offhook handlers preview missed
      offhook handlers preview missed --event call-started
    """
    configured = settings_of(tenant).handlers
    name = full_name(settings_of(tenant), name)
    if name not in configured:
        fail(not_configured("handler", name, configured))
    settings = configured[name]
    target = load_handler(settings.use)
    if not hasattr(target, "preview") or not isinstance(target, type):
        fail(f"{name} ({settings.use}) has no preview")
    handler: Any = with_options(target, settings.options, f"{table_of('handlers', name)}.options")
    for each in [event] if event else [one for one in EventType if one in _events(settings)]:
        typer.echo(f"--- {each}")
        for line in handler.preview(sample_event(each)).splitlines():
            typer.echo(printable(line))


@handlers.command()
def new(
    name: Annotated[
        str, typer.Argument(help="Name of the handler, such as my_crm.", metavar="NAME")
    ],
) -> None:
    """Write a new handler project, with tests, into a new folder here.

    It can be installed as it is. Existing files are never overwritten.
    docs/tutorial.md continues from there.

    \b
    Examples:
      offhook handlers new my_crm
    """
    if name in installed("handlers"):
        fail(f"a handler {name} is already installed: choose another name")
    if Path(name).exists():
        fail(f"{name} already exists; nothing was written.")
    try:
        written = handlers_new.write(name, Path(name))
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}")
    typer.echo(_WRITTEN.format(files="\n".join(f"  {each}" for each in written), name=name))


handlers.command()(handler_actions.pause)
handlers.command()(handler_actions.resume)
handlers.command("test")(handler_actions.send_test)
handlers.command("would-get")(handler_actions.would_get)


_WRITTEN = """\
Written:
{files}

Install it next to Offhook, run its tests, and check that Offhook finds it:
  pip install --editable ./{name}
  pytest {name}
  offhook handlers show {name}

Then add it to offhook.toml, and watch it with `offhook dev --reload`:
  [handlers.{name}]
  use = "{name}"
  [handlers.{name}.options]
  url = "https://crm.example.com/calls"
"""


def _configured(
    tenant: str,
) -> tuple[dict[str, HandlerSettings], dict[str, LookupSettings], list[str]]:
    """Return the configured handlers and lookups, and all problems of the configuration."""
    plugins = check_all()
    problems = [*plugins.problems, *plugins.broken.values(), *plugins.warnings]
    try:
        load_settings()
    except ConfigError:
        return *sound_tables(), problems
    settings = settings_of(tenant)
    return settings.handlers, settings.lookups, problems


def _policy(settings: HandlerSettings | LookupSettings) -> dict[str, Any]:
    """Return all settings but the options, which may contain secrets."""
    return settings.model_dump(mode="json", exclude={"options"})


def _print_installed(there: list[Installed]) -> None:
    rows = [
        [
            each.name,
            each.package,
            each.problem or each.help.partition("\n")[0],
            ", ".join(option.name for option in each.options if option.required),
        ]
        for each in there
    ]
    print_table("name", "package", "description", "required", rows=rows)


def _print_help(found: Installed) -> None:
    typer.echo(found.problem or found.help)
    if found.options:
        print_table(
            "option", "type", "description", rows=[_option_row(each) for each in found.options]
        )
    elif not found.problem:
        typer.echo("\nNo options.")


def _print_configured(configured: Mapping[str, HandlerSettings]) -> None:
    if not configured:
        typer.echo("Configured handlers: none")
        return
    rows = [
        [
            name,
            each.use,
            _filter(each),
            f"{each.concurrency} at once, {each.timeout:g} s",
            " ".join(f"{wait:g}" for wait in each.retry) or "never",
        ]
        for name, each in configured.items()
    ]
    typer.echo("Configured handlers:")
    print_table("name", "use", "events", "limits", "retries after s", rows=rows)


def _print_lookups(configured: Mapping[str, LookupSettings]) -> None:
    if not configured:
        typer.echo("Configured lookups: none")
        return
    rows = [
        [name, each.use, f"{each.timeout:g} s", _lifetime(each)]
        for name, each in configured.items()
    ]
    typer.echo("Configured lookups, in the order they are asked:")
    print_table("name", "use", "timeout", "cached", rows=rows)


def _lifetime(settings: LookupSettings) -> str:
    """Format how long a lookup's results are cached."""
    seconds = settings.lifetime
    if seconds is None:
        try:
            seconds = load_lookup(settings.use).remember
        except ConfigError:  # reported as a problem
            return "?"
    return f"{seconds:g} s" if seconds else "no"


def _filter(settings: HandlerSettings) -> str:
    """Describe a handler's filter."""
    said = [
        ", ".join(_in_groups(_events(settings))),
        _CALLS[settings.direction] if settings.direction else "",
        f"of {', '.join(settings.extensions)}" if settings.extensions else "",
        f"PBX {', '.join(sorted(settings.pbx))}" if settings.pbx else "",
    ]
    return "; ".join(filter(None, said))


def _events(settings: HandlerSettings) -> Collection[EventType]:
    """Return the event types a handler gets: from its settings, or its class's default."""
    try:
        return event_types(settings)
    except ConfigError:  # reported as a problem
        return ()


def _in_groups(events: Collection[EventType]) -> list[str]:
    """Name event types, a complete group by its name."""
    whole = [name for name, group in GROUPS.items() if set(group) <= set(events)]
    named = {each for name in whole for each in GROUPS[name]}
    return [*whole, *(each for each in EventType if each in events and each not in named)]


def _option_row(option: Option) -> list[str]:
    default = "required" if option.required else f"default: {_shown(option.default)}"
    return [option.name, f"{option.type}\n{default}", option.description]


def _shown(default: Any) -> str:
    if default is None or default == {} or default == []:
        return "none"
    return json.dumps(default, ensure_ascii=False, default=str)
