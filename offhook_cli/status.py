"""`offhook status`: show the progress of each handler, and what is wrong."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from offhook.connection import opened
from offhook.operations.status import HandlerStatus, Status
from offhook.operations.status import status as read_status
from offhook.settings import load_settings
from offhook_cli.options import Json, Tenant, settings_of
from offhook_cli.screen import Rows, counted, print_json

_EVERY = 1.0  # seconds


def status(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Refresh every second until Ctrl-C.")
    ] = False,
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Show the progress of each handler, and what is wrong.

    \b
      lag        events the handler has not read yet
      in flight  events read and not yet delivered
      waiting    calls that wait for a redelivery
      delivered  deliveries so far
      failed     failed attempts that were retried
      dead       dead letters: out of attempts, see `offhook dead`
      circuit    closed: delivering; open: the target is down; paused: a
                 person paused it, see `offhook handlers pause`
      process    where it runs, if not all handlers share their processes

    A line that begins with ! is a problem (`problems` in JSON). Exits with 1
    if Redis does not answer.

    \b
    Examples:
      offhook status
      offhook status --watch
      offhook status --json | jq -e '.problems == []'
      offhook status --json | jq '.handlers[] | select(.lag > 1000)'
    """
    if watch:
        _watch(tenant, as_json)
    elif as_json:
        print_json(_read(tenant).as_dict())
    else:
        Console(highlight=False).print(_rendered(_read(tenant)), soft_wrap=True)


def _read(tenant: str) -> Status:
    return asyncio.run(_read_it(tenant))


async def _read_it(tenant: str) -> Status:
    settings = settings_of(tenant)
    async with opened(settings) as (inbox, rq):
        return await read_status(inbox, rq, load_settings(), tenant)


def _watch(tenant: str, as_json: bool) -> None:
    try:
        if as_json:
            while True:
                print_json(_read(tenant).as_dict())
                time.sleep(_EVERY)
        with Live(_rendered(_read(tenant)), console=Console(highlight=False)) as live:
            while True:
                time.sleep(_EVERY)
                live.update(_rendered(_read(tenant)), refresh=True)
    except KeyboardInterrupt:
        return


def _rendered(status: Status) -> RenderableType:
    columns = ["handler", "lag", "in flight", "waiting", "delivered", "failed", "dead", "circuit"]
    rows = [_row(handler) for handler in status.handlers]
    processes = ["own" if each.apart else each.process for each in status.handlers]
    if set(processes) - {"shared"}:
        columns.append("process")
        rows = [[*row, process] for row, process in zip(rows, processes, strict=True)]
    table = Rows(columns, rows, right=columns[1:7])
    lines = [_inbox(status), _workers(status), *_versions(status)]
    problems = [Text(f"! {problem}", style="yellow") for problem in status.problems]
    return Group(*([table] if status.handlers else []), *map(Text, lines), *problems)


def _row(handler: HandlerStatus) -> list[str]:
    counts = (
        handler.lag,
        handler.in_flight,
        handler.waiting,
        handler.delivered,
        handler.failed,
        handler.dead,
    )
    circuit = "closed" if handler.circuit is None else f"open, probe in {handler.circuit:.0f} s"
    if handler.paused is not None:
        circuit = "paused"
    return [handler.name, *map(str, counts), circuit]


def _inbox(status: Status) -> str:
    kept = counted(sum(status.partitions), "event")
    return f"inbox: {kept} kept in {counted(len(status.partitions), 'partition')}"


def _workers(status: Status) -> str:
    running = sum(map(len, status.workers.values()))
    served = sum(map(bool, status.workers.values()))
    scheduler = "scheduler running" if status.scheduler else "no scheduler"
    return (
        f"workers: {running}, on {served} of {counted(len(status.workers), 'queue')}; {scheduler}"
    )


def _versions(status: Status) -> Iterator[str]:
    """A line for each version that processes run."""
    who: dict[str, Counter[str]] = {}
    for each in status.versions:
        who.setdefault(each.version, Counter())[f"{each.program} on {each.host}"] += 1
    for version, programs in who.items():
        names = (
            f"{name} ({count} processes)" if count > 1 else name for name, count in programs.items()
        )
        yield f"version {version}: {', '.join(names)}"
