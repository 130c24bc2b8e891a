"""`offhook pbx`: manage the phone call events of an extension, by any software; make a call."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from offhook.callback_url import read_callback_url
from offhook.errors import ConfigError
from offhook.provisioning.api import chosen
from offhook.provisioning.plan import Installation
from offhook_cli import completion
from offhook_cli.options import (
    Json,
    PbxName,
    Tenant,
    UserId,
    Yes,
    group,
    id_argument,
    ids_argument,
    settings_of,
)
from offhook_cli.pbx_api import in_words, pbx_api
from offhook_cli.pbx_list import ListRequest, read, with_list_options
from offhook_cli.screen import confirm, counted, fail, local, note, print_json, print_table
from unifiedapi.client import UnifiedApi
from unifiedapi.resources import EventMethod, EventStatus, EventType, PhoneCallEvent

pbx = group("Manage what is registered on the PBX; make a call.")
events = group("List, create, change and delete phone call events.")
pbx.add_typer(events, name="events")

_TYPES = {each.label: each for each in EventType}
_METHODS = {"GET": EventMethod.GET, "POST": EventMethod.POST}


@pbx.command("dial")
def dial(
    extension: Annotated[
        str,
        typer.Argument(
            help="The extension whose phone rings first.",
            metavar="EXTENSION",
            autocompletion=completion.extensions,
        ),
    ],
    number: Annotated[
        str,
        typer.Argument(help="The number that is called then, or an extension.", metavar="NUMBER"),
    ],
    pbx: PbxName = None,
    user: UserId = None,
    tenant: Tenant = "",
) -> None:
    """Ring an extension's phone; when it is picked up, call a number.

    \b
    Examples:
      offhook pbx dial '0003*210' +442079460100
      offhook pbx dial '0003*210' '0003*211'
    """
    asyncio.run(_dialled(extension, number, pbx, user, tenant))
    note(f"The phone of {extension} rings. Pick it up, and the PBX calls {number}.")


async def _dialled(
    extension: str, number: str, pbx: str | None, user: str | None, tenant: str
) -> None:
    async with pbx_api(pbx, user, tenant) as (api, user_id):
        await api.phone_calls.create(extension, number, user=user_id)


def _event_type(name: str) -> EventType:
    if name not in _TYPES:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(_TYPES)}")
    return _TYPES[name]


Extension = Annotated[
    str,
    typer.Argument(
        help="An extension, such as 0003*210.",
        metavar="EXTENSION",
        autocompletion=completion.extensions,
    ),
]
OneType = typer.Option(
    "--type",
    parser=_event_type,
    metavar="TYPE",
    help=f"One of {', '.join(_TYPES)}.",
    autocompletion=completion.event_types,
)
OnlyType = Annotated[EventType | None, OneType]
MethodName = Literal["GET", "POST"]
Others = Annotated[
    bool, typer.Option("--others", help="Also those that this Offhook did not create.")
]
Urls = Annotated[
    bool, typer.Option("--urls", help="Show whole URLs, which may contain secrets, not only hosts.")
]


@dataclass(frozen=True)
class _Events:
    """The phone call events of one extension.

    Attributes:
        is_ours: whether this installation of Offhook created an event.
    """

    api: UnifiedApi
    user: str
    extension: str
    is_ours: Callable[[PhoneCallEvent], bool]

    async def find(self, ids: Sequence[str] = ()) -> list[PhoneCallEvent]:
        """Return the events with these ids, by default all."""
        listing = self.api.phone_call_events.list(self.extension, user=self.user)
        found = [event async for event in listing if not ids or event.id in ids]
        if missing := [id_ for id_ in ids if id_ not in {event.id for event in found}]:
            fail(f"{self.extension} has no phone call event {', '.join(missing)}")
        return found

    def check_ours(self, found: Sequence[PhoneCallEvent], *, others: bool) -> None:
        """Exit unless all events are ours, or others may be changed."""
        foreign = [event for event in found if not self.is_ours(event)]
        if foreign and not others:
            which = ", ".join(f"{event.id} (to {_host(event.url)})" for event in foreign)
            fail(f"this Offhook did not create {which}: to change it all the same, add --others")


@asynccontextmanager
async def _events(
    extension: str, name: str | None, user: str | None, tenant: str
) -> AsyncIterator[_Events]:
    settings = settings_of(tenant)
    where, installation = chosen(settings, name), Installation.of(settings)

    def is_ours(event: PhoneCallEvent) -> bool:
        url = read_callback_url(event.url or "")
        is_short = url is not None and url.extension.endswith(f"*{extension}")
        return installation.owns(event, where, url.extension if url and is_short else extension)

    async with pbx_api(name, user, tenant) as (api, user_id):
        yield _Events(api, user_id, extension, is_ours)


@events.command("list")
@with_list_options
def list_(
    extension: Extension,
    event_type: OnlyType = None,
    *,
    request: ListRequest,
    urls: Urls = False,
    pbx: PbxName = None,
    user: UserId = None,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """List the phone call events of an extension, by any software.

    The fields are id, type, method, url, status, note and modified. The PBX
    sorts by url.

    \b
    Examples:
      offhook pbx events list '0003*210'
      offhook pbx events list '0003*210' --type hangup --urls --json
      offhook pbx events list '0003*210' --filter-by note --filter-op contains --filter-value CRM
    """

    async def listed() -> list[dict[str, Any]]:
        async with _events(extension, pbx, user, tenant) as its:
            listing = its.api.phone_call_events.list(
                extension, event_type, user=its.user, **request.options
            )
            found = await read(listing, request.count)
            return [_as_dict(event, its.is_ours(event), urls=urls) for event in found]

    found = asyncio.run(listed())
    if request.fields:
        shown = {"id", "type", *request.fields}
        shown |= {"created_by"} if "url" in shown else set()
        found = [{name: each[name] for name in each if name in shown} for each in found]
    if as_json:
        print_json(found)
    elif not found:
        note(f"{extension} has no phone call events.")
    else:
        rows = [[_cell(value) for value in each.values()] for each in found]
        print_table(*(name.replace("_", " ") for name in found[0]), rows=rows)


@events.command()
def create(
    extension: Extension,
    event_type: Annotated[EventType, OneType],
    url: Annotated[str, typer.Option(help="The URL that the PBX calls.", metavar="URL")],
    method: Annotated[MethodName, typer.Option(help="The HTTP method.")] = "POST",
    text: Annotated[str, typer.Option("--note", help="A note for people.", metavar="TEXT")] = "",
    disabled: Annotated[bool, typer.Option("--disabled", help="Create it disabled.")] = False,
    pbx: PbxName = None,
    user: UserId = None,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Create a phone call event with any URL. For Offhook's own use `offhook setup`.

    \b
    Examples:
      offhook pbx events create '0003*210' --type hangup --url https://crm.example.com/calls
    """

    async def made() -> dict[str, Any]:
        async with _events(extension, pbx, user, tenant) as its:
            event = await its.api.phone_call_events.create(
                extension,
                type=event_type,
                url=url,
                method=_METHODS[method],
                status=EventStatus.DISABLED if disabled else EventStatus.ENABLED,
                note=text,
                user=its.user,
            )
            return _as_dict(event, its.is_ours(event))

    event = asyncio.run(made())
    if as_json:
        print_json(event)
    else:
        typer.echo(f"Created {event['id']}.")


@events.command()
def change(
    extension: Extension,
    id_: Annotated[str, id_argument()],
    url: Annotated[str | None, typer.Option(help="The new URL.", metavar="URL")] = None,
    method: Annotated[MethodName | None, typer.Option(help="The new HTTP method.")] = None,
    text: Annotated[
        str | None, typer.Option("--note", help="The new note.", metavar="TEXT")
    ] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Turn the callback on or off.")
    ] = None,
    others: Others = False,
    pbx: PbxName = None,
    user: UserId = None,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Change a phone call event. One that other software created needs --others.

    \b
    Examples:
      offhook pbx events change '0003*210' 5d1f0c6b2a9e4783 --disable
      offhook pbx events change '0003*210' 5d1f0c6b2a9e4783 --note 'old CRM' --others
    """
    if all(each is None for each in (url, method, text, enabled)):
        raise ConfigError("say what to change: --url, --method, --note, --enable or --disable")

    async def changed() -> dict[str, Any]:
        async with _events(extension, pbx, user, tenant) as its:
            [event] = found = await its.find([id_])
            its.check_ours(found, others=others)
            after = await its.api.phone_call_events.update(
                extension,
                event.type,
                event.id,
                url=url,
                method=None if method is None else _METHODS[method],
                status=None if enabled is None else EventStatus(int(enabled)),
                note=text,
                user=its.user,
            )
            return _as_dict(after, its.is_ours(after))

    event = asyncio.run(changed())
    if as_json:
        print_json(event)
    else:
        typer.echo(f"Changed {event['id']}.")


@events.command()
def delete(
    extension: Extension,
    ids: Annotated[list[str] | None, ids_argument()] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that this Offhook created.")
    ] = False,
    event_type: OnlyType = None,
    others: Others = False,
    yes: Yes = False,
    pbx: PbxName = None,
    user: UserId = None,
    tenant: Tenant = "",
) -> None:
    """Delete phone call events. Those that other software created need --others.

    \b
    Examples:
      offhook pbx events delete '0003*210' 5d1f0c6b2a9e4783
      offhook pbx events delete '0003*210' --all --type answer-out
      offhook pbx events delete '0003*210' --all --others
    """
    if bool(ids) is everything:
        raise typer.BadParameter("choose events by id, or all of them with --all")
    if ids and event_type is not None:
        raise typer.BadParameter("use --type only with --all")

    async def run() -> None:
        async with _events(extension, pbx, user, tenant) as its:
            found = [e for e in await its.find(ids or ()) if event_type in (None, e.type)]
            if ids:
                its.check_ours(found, others=others)
            doomed = [event for event in found if others or its.is_ours(event)]
            foreign = sum(not its.is_ours(event) for event in found)
            if foreign and not others:
                note(f"Left alone: {counted(foreign, 'phone call event')} of other software.")
            if not doomed:
                note("There is nothing to delete.")
                return
            of_others = f", {foreign} of other software" if foreign and others else ""
            count = counted(len(doomed), "phone call event")
            confirm(f"Delete {count} of {extension}{of_others}?", yes=yes)
            for event in doomed:
                await its.api.phone_call_events.delete(
                    extension, event.type, event.id, user=its.user
                )
                typer.echo(f"Deleted {event.id}.")

    asyncio.run(run())


def _as_dict(event: PhoneCallEvent, is_ours: bool, *, urls: bool = False) -> dict[str, Any]:
    return {
        "id": event.id,
        "type": event.type.label,
        "method": None if event.method is None else event.method.name,
        "status": in_words(event.status),
        "url": event.url if urls or event.url is None else f"{_host(event.url)}/…",
        "created_by": "Offhook" if is_ours else "others",
        "note": event.note,
        "modified": event.modified,
    }


def _cell(value: Any) -> str:
    return str(value or "-") if not hasattr(value, "astimezone") else local(value)


def _host(url: str | None) -> str:
    try:
        parts = urlsplit(url or "")
    except ValueError:
        return "?"
    return f"{parts.scheme}://{parts.hostname}" if parts.hostname else "?"
