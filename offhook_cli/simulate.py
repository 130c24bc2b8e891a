"""`offhook simulate`: place simulated calls, by sending their callbacks to a receiver."""

import asyncio
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from enum import StrEnum
from itertools import cycle, islice, product
from random import Random
from typing import Annotated, Any, Literal

import typer
from msgspec.structs import replace

from offhook.callback_url import callback_url, revoked_urls
from offhook.errors import ConfigError
from offhook.event import TROUBLE, EventType
from offhook.http.callbacks import callbacks
from offhook.settings import load_settings
from offhook.testing import sample_event
from offhook_cli.options import Json
from offhook_cli.screen import note, print_json, print_table, progress
from unifiedapi.resources import EventType as CallbackType
from unifiedapi.sandbox.pbx import Pbx, Registration, Tally, registered_in
from unifiedapi.sandbox.scenarios import QUEUE, Scenario, ScriptedCall, random_calls

_EXTENSION = re.compile(r"[0-9*]+")
_URL = re.compile(r"https?://[^\s?#]+")
_HINTS: Mapping[int | str, str] = {
    404: "404: the receiver does not know these URLs; check that it has the same secret",
    503: "503: the receiver cannot store events; GET /health/ready says why",
    "no connection": "no connection: start `offhook serve`, or set --url",
    "TLS": "TLS: the receiver's certificate is not trusted",
}


class CallbackMethod(StrEnum):
    """The HTTP method of the callbacks; `both`: alternate between event types."""

    GET = "GET"
    POST = "POST"
    BOTH = "both"


_METHODS: Mapping[CallbackMethod, Sequence[Literal["GET", "POST"]]] = {
    CallbackMethod.GET: ["GET"],
    CallbackMethod.POST: ["POST"],
    CallbackMethod.BOTH: ["GET", "POST"],
}


def simulate(
    url: Annotated[
        str | None,
        typer.Option(
            help="URL of the receiver.",
            show_default="the setting public_url",
            metavar="URL",
        ),
    ] = None,
    pbx: Annotated[str, typer.Option(help="Name of the calling PBX.", metavar="NAME")] = "main",
    calls: Annotated[int, typer.Option(min=1, metavar="N", help="Number of calls.")] = 20,
    rate: Annotated[
        float, typer.Option(min=0.001, metavar="N", help="Calls started per second.")
    ] = 5.0,
    extensions: Annotated[
        str, typer.Option(help="Extensions of the phones, separated by commas.", metavar="LIST")
    ] = "0003*210,0003*211,0003*212,0003*213",
    queue: Annotated[
        str, typer.Option(help="Extension of the queue.", metavar="EXTENSION")
    ] = QUEUE,
    scenario: Annotated[
        list[Scenario] | None,
        typer.Option(
            help=f"Kind of call: {', '.join(Scenario)}. May be repeated.",
            show_default="all",
            metavar="NAME",
        ),
    ] = None,
    method: Annotated[
        CallbackMethod, typer.Option(case_sensitive=False, help="HTTP method of the callbacks.")
    ] = CallbackMethod.BOTH,
    speed: Annotated[
        float,
        typer.Option(
            min=0.001, metavar="FACTOR", help="Time lapse: with 20, two minutes take six seconds."
        ),
    ] = 20.0,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Random seed: the same seed makes the same calls and CallIDs.",
            show_default="random",
            metavar="N",
        ),
    ] = None,
    trouble: Annotated[
        EventType | None,
        typer.Option(
            help=f"Send a test event of this type instead of calls: {', '.join(TROUBLE)}.",
            metavar="TYPE",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Place simulated calls: send the callbacks that a PBX would send.

    Needs no PBX. The receiver and the handlers treat these calls as real.
    The URLs are signed with the secret of this configuration, so the
    receiver must have the same secret.

    Exits with 1 if a callback was not accepted, with 2 if none was sent.

    \b
    Examples:
      offhook simulate
      offhook simulate --scenario missed --extensions '0003*210' --calls 1
      offhook simulate --calls 10000 --rate 500 --speed 1000
      offhook simulate --trouble handler-failing
    """
    if trouble is not None:
        _announce(trouble)
        return
    phones = list(dict.fromkeys(filter(None, map(str.strip, extensions.split(",")))))
    scenarios = scenario or [each for each in Scenario if each.phones <= len(phones)]
    _check(url, phones, queue, scenarios)
    registrations = _registrations(url, pbx, [*phones, queue], method)
    placed = islice(random_calls(Random(seed), phones, scenarios, queue), calls)
    began = time.monotonic()
    sender = Pbx(callbacks, registered_in(registrations), speed=speed)
    asyncio.run(_place(sender, placed, calls, rate, quiet=as_json))
    seconds = time.monotonic() - began
    if as_json:
        print_json(_as_dict(sender.tally, seconds))
    else:
        _show(sender.tally, seconds)
    if sender.tally.accepted < sender.tally.sent:
        raise typer.Exit(1)


def _announce(type_: EventType) -> None:
    """Append a test event about the operator's trouble to the inbox."""
    if type_ not in TROUBLE:
        raise ConfigError(f"--trouble: {type_} is not one of {', '.join(TROUBLE)}")
    from offhook.announcements import announce
    from offhook.connection import opened

    settings = load_settings()
    event = replace(sample_event(type_), received=datetime.now(UTC))
    said = event.parameters | {"test": "yes", "text": f"Test: {event.parameters['text']}"}

    async def run() -> None:
        async with opened(settings) as (inbox, _):
            await announce(settings, inbox, [replace(event, parameters=said)])

    asyncio.run(run())
    typer.echo(f"Sent {type_} to the handlers that get it: {said['text']}")


def _check(
    url: str | None, phones: Sequence[str], queue: str, scenarios: Sequence[Scenario]
) -> None:
    """Raise ConfigError if the options do not allow a call."""
    problems = [
        f"{extension!r} is not an extension: use digits and *, such as 0003*210"
        for extension in [*phones, queue]
        if not _EXTENSION.fullmatch(extension)
    ]
    if not phones:
        problems.append("--extensions: name at least one")
    problems += [
        f"--scenario {scenario}: needs {scenario.phones} phones, --extensions has {len(phones)}"
        for scenario in scenarios
        if scenario.phones > len(phones)
    ]
    if url is not None and not _URL.fullmatch(url):
        problems.append("--url: must start with http:// or https:// and contain no ? or #")
    if problems:
        raise ConfigError(problems)


def _registrations(
    url: str | None, pbx: str, extensions: Sequence[str], method: CallbackMethod
) -> dict[tuple[str, CallbackType], Registration]:
    """Register every event type on each extension, with the URLs that `offhook setup` uses."""
    settings = load_settings()
    secret = settings.secret.get_secret_value()
    revoked = revoked_urls(settings.revoked_file)
    methods = cycle(_METHODS[method])
    return {
        (extension, event_type): Registration(
            callback_url(
                url or settings.public_url,
                secret,
                pbx,
                extension,
                event_type.label,
                revoked.version(pbx, extension, event_type.label),
            ),
            next(methods),
        )
        for extension, event_type in product(extensions, CallbackType)
    }


async def _place(
    sender: Pbx, calls: Iterable[ScriptedCall], total: int, rate: float, *, quiet: bool
) -> None:
    with nullcontext(lambda done: None) if quiet else progress("Placing calls", total) as advance:
        async with sender, asyncio.TaskGroup() as group:
            load = group.create_task(sender.load(calls, rate))
            while not load.done():
                await asyncio.wait([load], timeout=0.1)
                advance(sender.tally.calls)


def _as_dict(tally: Tally, seconds: float) -> dict[str, Any]:
    return {
        "calls": tally.calls,
        "callbacks": tally.sent,
        "accepted": tally.accepted,
        "refused": {str(status): count for status, count in tally.refused.items()},
        "failed": dict(tally.failed),
        "seconds": round(seconds, 3),
        "callbacks_per_second": round(tally.sent / seconds, 1),
    }


def _show(tally: Tally, seconds: float) -> None:
    row = [
        str(tally.calls),
        str(tally.sent),
        str(tally.accepted),
        _counted(tally.refused),
        _counted(tally.failed),
        f"{tally.sent / seconds:.1f}",
    ]
    columns = ("Calls", "Callbacks", "Accepted", "Refused", "Failed", "Callbacks/s")
    print_table(*columns, rows=[row], right=columns)
    for reason, hint in _HINTS.items():
        if reason in tally.refused or reason in tally.failed:
            note(hint)


def _counted(counter: Mapping[int, int] | Mapping[str, int]) -> str:
    return "\n".join(f"{count} × {reason}" for reason, count in counter.items()) or "0"
