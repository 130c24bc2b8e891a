"""Shows events and deliveries as they happen: for `dev`, `tail` and `demo`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from offhook.call import Party
from offhook.event import CALLBACKS, CallEvent
from offhook.inbox import Inbox, feed
from offhook.logs import printable
from offhook.tasks import end

_MARKS = {
    "delivered": "[green]✓[/]",
    "failed": "[yellow]↻[/]",
    "dead": "[red]✗[/]",
}

Attempt = dict[str, Any]


class Lines:
    """Prints a line for each event and each attempt at a delivery."""

    def __init__(self, console: Console) -> None:
        self.console = console
        # In a terminal, lines break between words; in a file, never.
        self.print = partial(console.print, soft_wrap=not console.is_terminal)

    def legend(self) -> None:
        self.print(
            "\n[dim]● an event from the PBX   ◆ an event about the whole call\n"
            "✓ delivered   ↻ failed, will be retried   ✗ a dead letter[/]"
        )

    def event(self, event: CallEvent) -> None:
        mark = "●" if event.type in CALLBACKS else "◆"
        status = event.status or (event.summary and event.summary.outcome) or ""
        self._line(
            f"  [cyan]{mark}[/] {event.received.astimezone():%H:%M:%S.%f}"[:-3]
            + f"  [cyan]{event.type:<13}[/] {event.extension}  [dim]{status:<8}[/]  ",
            Text(printable(f"{_party(event.caller)} → {_party(event.called)}")),
        )

    def attempt(self, attempt: Attempt) -> None:
        what = f"{attempt['type']:<13} {attempt['extension']}"
        if attempt["outcome"] != "delivered":
            how = f"{attempt['error']}; later events of this call wait"
            if attempt["outcome"] == "dead":
                how = f"{attempt['error']}; a dead letter: see `offhook dead list`"
        elif attempt["attempt"] == 1:
            how = f"after {ms(attempt['waited'])}, took {ms(attempt['took'])}"
        else:
            how = f"at attempt {attempt['attempt']}"
        self._line(
            f"      {_MARKS[attempt['outcome']]} [bold]{attempt['handler']:<9}[/] {what}  ",
            Text(printable(how), style="dim"),
        )

    def _line(self, head: str, rest: Text) -> None:
        """Print a line. If it is too long, `rest` wraps next to `head`."""
        if not self.console.is_terminal:
            self.print(Text.from_markup(head) + rest)
            return
        grid = Table.grid()
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(Text.from_markup(head), rest)
        self.print(grid)


@asynccontextmanager
async def watched(
    inbox: Inbox,
    event: Callable[[CallEvent], object],
    attempt: Callable[[Attempt], object],
    tenant: str = "",
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Call these functions with each event of a tenant and each attempt, while in this context.

    Yields:
        A function that waits, and raises `RedisError` when Redis fails.
    """

    async def events() -> None:
        async for each in feed.watch_events(inbox, tenant):
            event(each)

    async def deliveries() -> None:
        async for each in feed.watch_deliveries(inbox.redis, tenant):
            attempt(each)

    watching = [asyncio.create_task(events()), asyncio.create_task(deliveries())]

    async def until_it_fails() -> None:
        done, _ = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    try:
        while not any(task.done() for task in watching) and not await feed.is_watched(inbox.redis):
            await asyncio.sleep(0.02)
        yield until_it_fails
    finally:
        await end(*watching)
        for task in watching:
            if not task.cancelled():
                task.exception()  # so that asyncio does not report it, too


def ms(seconds: float) -> str:
    """Format a duration in milliseconds."""
    milliseconds = seconds * 1000
    return f"{milliseconds:.1f} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"


def _party(party: Party) -> str:
    number = party.number or party.extension or "unknown"
    return f"{number} ({party.name})" if party.name else number
