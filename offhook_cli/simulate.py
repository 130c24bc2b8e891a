"""`offhook simulate`: place simulated calls, as a PBX would, with whatever receiver there is."""

import asyncio
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import cycle, islice, product
from random import Random
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from offhook.callback_url import callback_url
from offhook.errors import ConfigError
from offhook.http.callbacks import callbacks
from offhook.settings import load_settings
from offhook_cli.screen import Json, note, print_json, print_table
from unifiedapi.resources import EventType
from unifiedapi.sandbox.pbx import Pbx, Registration, Tally, registered_in
from unifiedapi.sandbox.scenarios import QUEUE, Call, Scenario, random_calls

_EXTENSION = re.compile(r"[0-9*]+")
_URL = re.compile(r"https?://[^\s?#]+")
_HINTS: Mapping[int | str, str] = {
    404: "404: the receiver does not know these URLs; does it have the same secret?",
    503: "503: the receiver cannot store events; its /health/ready says why",
    "no connection": "no connection: no receiver is there; start `offhook serve`, or give --url",
    "TLS": "TLS: the receiver's certificate is not one that a PBX would trust",
}


class Method(StrEnum):
    """How the callbacks are made; `both`: some event types this way, some the other."""

    GET = "GET"
    POST = "POST"
    BOTH = "both"


_METHODS: Mapping[Method, Sequence[Literal["GET", "POST"]]] = {
    Method.GET: ["GET"],
    Method.POST: ["POST"],
    Method.BOTH: ["GET", "POST"],
}


def simulate(
    url: Annotated[
        str | None,
        typer.Option(
            help="The receiver, as the PBX reaches it.",
            show_default="the setting public_url",
            metavar="URL",
        ),
    ] = None,
    pbx: Annotated[
        str, typer.Option(help="Name of the PBX that the calls come from.", metavar="NAME")
    ] = "main",
    calls: Annotated[int, typer.Option(min=1, metavar="N", help="How many calls to place.")] = 20,
    rate: Annotated[
        float, typer.Option(min=0.001, metavar="N", help="Calls to begin per second.")
    ] = 5.0,
    extensions: Annotated[
        str, typer.Option(help="The phones, separated by commas.", metavar="LIST")
    ] = "0003*210,0003*211,0003*212,0003*213",
    queue: Annotated[
        str, typer.Option(help="The extension of the queue in queue calls.", metavar="EXTENSION")
    ] = QUEUE,
    scenario: Annotated[
        list[Scenario] | None,
        typer.Option(
            help=f"What happens in the calls: {', '.join(Scenario)}. Repeat it for a mix.",
            show_default="all of them",
            metavar="NAME",
        ),
    ] = None,
    method: Annotated[
        Method, typer.Option(case_sensitive=False, help="How the PBX makes its callbacks.")
    ] = Method.BOTH,
    speed: Annotated[
        float,
        typer.Option(
            min=0.001, metavar="FACTOR", help="20 makes a call of two minutes last six seconds."
        ),
    ] = 20.0,
    seed: Annotated[
        int | None,
        typer.Option(
            help="The same seed makes the same calls, CallIDs too.",
            show_default="other calls every time",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Place simulated calls: make the callbacks that a PBX would make.

    No PBX is needed. To the receiver and its handlers these calls are
    real: whatever is plugged in hears of them. The URLs are signed with
    the secret of this configuration; the receiver must have the same.

    Exits with 1 if a callback was not accepted, with 2 if none was made.

    \b
    Examples:
      offhook simulate
      offhook simulate --scenario missed --extensions '0003*210' --calls 1
      offhook simulate --calls 10000 --rate 500 --speed 1000
    """
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


def _check(
    url: str | None, phones: Sequence[str], queue: str, scenarios: Sequence[Scenario]
) -> None:
    """Raise a `ConfigError` unless calls can be made of these options."""
    problems = [
        f"{extension!r} is no extension: digits and *, such as 0003*210"
        for extension in [*phones, queue]
        if not _EXTENSION.fullmatch(extension)
    ]
    if not phones:
        problems.append("--extensions: there is none")
    problems += [
        f"--scenario {scenario}: takes {scenario.phones} phones, --extensions has {len(phones)}"
        for scenario in scenarios
        if scenario.phones > len(phones)
    ]
    if url is not None and not _URL.fullmatch(url):
        problems.append("--url: must begin with http:// or https:// and have no ? or #")
    if problems:
        raise ConfigError(problems)


def _registrations(
    url: str | None, pbx: str, extensions: Sequence[str], method: Method
) -> dict[tuple[str, EventType], Registration]:
    """A phone call event of every type on each extension, with the URLs of `offhook setup`."""
    settings = load_settings()
    secret = settings.secret.get_secret_value()
    methods = cycle(_METHODS[method])
    return {
        (extension, event_type): Registration(
            callback_url(url or settings.public_url, secret, pbx, extension, event_type.label),
            next(methods),
        )
        for extension, event_type in product(extensions, EventType)
    }


async def _place(
    sender: Pbx, calls: Iterable[Call], total: int, rate: float, *, quiet: bool
) -> None:
    columns = (
        TextColumn("Placing calls"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("over"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task("", total=total)
        async with sender, asyncio.TaskGroup() as group:
            load = group.create_task(sender.load(calls, rate))
            while not load.done():
                await asyncio.wait([load], timeout=0.1)
                bar.update(task, completed=sender.tally.calls)


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
