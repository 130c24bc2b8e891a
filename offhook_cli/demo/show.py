"""Output of the demo: each event and delivery as it happens, and a summary."""

import shlex
import shutil
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

from offhook.event import CALLBACKS, CALLS, CallEvent
from offhook_cli.demo.target import OtherSystems
from offhook_cli.live import Lines, ms


def _command() -> str:
    """Return how to run `offhook` from here: its environment may not be active."""
    if shutil.which("offhook"):
        return "offhook"
    command = Path(sys.executable).with_name("offhook")
    here = Path.cwd()
    return str(command.relative_to(here) if command.is_relative_to(here) else command)


OFFHOOK = _command()


class Show(Lines):
    """Prints events and deliveries, and counts them."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._events: Counter[str] = Counter()
        self._outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self._waited: dict[str, list[float]] = defaultdict(list)

    def step(self, what: str) -> None:
        self.print(f"Starting {what}")

    def command(self, arguments: Sequence[str]) -> None:
        self.print(f"\n[bold]$ offhook {shlex.join(arguments)}[/]")

    def output(self, text: str) -> None:
        for line in filter(str.strip, text.splitlines()):
            self.print(f"  {line.rstrip()}", markup=False)

    @property
    def width(self) -> int | None:
        """Columns for the output of a command; None in a file: no limit."""
        return self.console.width - 2 if self.console.is_terminal else None

    def call(self, number: int, of: int, story: str) -> None:
        self.print(f"\n[bold]Call {number} of {of}: {story}[/]")

    def event(self, event: CallEvent) -> None:
        self._events[event.type] += 1
        super().event(event)

    def attempt(self, attempt: dict[str, Any]) -> None:
        handler, outcome = attempt["handler"], attempt["outcome"]
        self._outcomes[handler][outcome] += 1
        if outcome == "delivered" and attempt["attempt"] == 1:
            self._waited[handler].append(attempt["waited"])
        super().attempt(attempt)

    def summary(self, database: Path, others: OtherSystems) -> None:
        raw = {each: count for each, count in self._events.items() if each in CALLBACKS}
        derived = {each: count for each, count in self._events.items() if each in CALLS}
        self.print(
            f"\n[bold]{sum(raw.values())} events accepted[/]: {_counted(raw)}.\n"
            f"{sum(derived.values())} events about whole calls: {_counted(derived)}.\n"
        )
        table = Table(box=None, pad_edge=False)
        table.add_column("handler")
        for title in ("delivered", "retried", "dead", "median", "p99"):
            table.add_column(title, justify="right")
        for handler, outcomes in sorted(self._outcomes.items()):
            waited = self._waited[handler]
            table.add_row(
                handler,
                *(str(outcomes[outcome]) for outcome in ("delivered", "failed", "dead")),
                ms(median(waited)) if waited else "-",
                ms(_p99(waited)) if waited else "-",
            )
        self.print(table)
        self.print(
            "[dim]Times from accepting an event to calling the handler. Events of a call wait "
            "while an earlier one waits for its redelivery.[/]\n"
        )
        with closing(sqlite3.connect(database)) as connection:
            events, calls, legs = (
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
                for table in ("events", "calls", "legs")
            )
        self.print(f"The database has {events} events, {calls} calls and {legs} legs.")
        self.print(
            f"The CRM has {len(others.webhooks)} webhooks and verified every signature. "
            "It was busy once: that webhook was sent again, before the call's later ones."
        )
        self.print(f"{len(others.alerts)} alerts, one for each missed call:")
        for alert in others.alerts:
            self.print(f"  {alert}", markup=False)

    def kept(
        self, receiver: str, pbx: str, config: Path, folder: Path, console: str, password: str
    ) -> None:
        self.print(
            f"\n[bold]Look at it in a browser[/]: {console}\n"
            f"Sign in as demo with the password {password}\n"
            f"\n[bold]Still running[/]: the receiver (try {receiver}/health/ready),\n"
            f"and the PBX at {pbx}.\n"
            "In another terminal, with this demo's configuration:\n"
            f"  export OFFHOOK_CONFIG={config}\n"
            f"  {OFFHOOK} status                 the progress of each handler\n"
            f"  {OFFHOOK} setup show             the extensions that are set up\n"
            f"  {OFFHOOK} calls                  who called whom, and how it ended\n"
            f"  {OFFHOOK} sandbox call missed --speed 20 --url {pbx}\n"
            f"The database is {folder}/calls.db; the logs are in the same folder.\n"
            "Ctrl-C stops everything and removes it.",
            soft_wrap=True,  # so that lines can be copied
        )

    def next_steps(self) -> None:
        self.print(
            "\n[bold]What to try next[/]\n"
            f"  {OFFHOOK} demo --keep     keep it running, and look at the calls in a browser\n"
            f"  {OFFHOOK} init            write your own configuration\n"
            f"  {OFFHOOK} handlers        list the handlers\n"
            "To write a handler of your own, see docs/tutorial.md."
        )


def _counted(events: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(events.items()))


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]
