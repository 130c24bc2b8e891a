"""`offhook lookup`: whose number is it? Every configured lookup, asked by hand."""

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer

from offhook.call import Party
from offhook.errors import DeliveryError
from offhook.http import Http
from offhook.lookup import PluggedLookup, plug
from offhook.phone_number import Number
from offhook.settings import config_path, load_settings
from offhook.testing import sample_event
from offhook_cli.screen import Json, fail, print_json, print_table


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one lookup said: a name, or None; or why it failed. And how many seconds it took."""

    lookup: str
    use: str
    name: str | None
    error: str | None
    took: float


def lookup(
    number: Annotated[
        str, typer.Argument(help="A number outside, as the PBX says it.", metavar="NUMBER")
    ],
    as_json: Json = False,
) -> None:
    """Ask every lookup whose number it is, and show what each one says.

    They are asked anew, whatever is remembered. An event gets the name that
    the first one gives. Exits with 1 if one fails.

    \b
    Examples:
      offhook lookup +442079460100
      offhook lookup '020 7946 0100' --json
    """
    settings = load_settings()
    if not settings.lookups:
        fail(f"no lookup is configured: add a [lookups.NAME] table to {config_path()}")
    asked = Number.read(number, settings.region)
    if asked.is_nobodys:
        fail(f"{number} is no number outside, so nobody is asked about it")
    lookups = [plug(name, table) for name, table in settings.lookups.items()]
    answers = asyncio.run(_ask(lookups, asked))
    name = next((each.name for each in answers if each.name), None)
    if as_json:
        print_json(
            {
                "number": asked.e164 or number,
                "name": name,
                "lookups": [dataclasses.asdict(each) for each in answers],
            }
        )
    else:
        rows = [
            [each.lookup, each.use, _said(each), f"{1000 * each.took:.1f} ms"] for each in answers
        ]
        print_table("lookup", "use", "name", "took", rows=rows, right=("took",))
        if asked.e164 is None:
            typer.echo("The number's country is not known: set `region`, or write it with a +.")
    if any(each.error for each in answers):
        raise typer.Exit(1)


async def _ask(lookups: Sequence[PluggedLookup], number: Number) -> list[Answer]:
    event = sample_event(caller=Party(number=number.text))
    threads = ThreadPoolExecutor(1, "lookup")
    answers = []
    async with Http() as http:
        for each in lookups:
            name, why, began = None, None, time.perf_counter()
            try:
                name = await each.ask(number, event, http=http, threads=threads)
            except DeliveryError as error:
                why = str(error)
            except Exception as error:  # noqa: BLE001 - a lookup may raise anything
                why = f"{type(error).__name__}: {error}"
            took = time.perf_counter() - began
            answers.append(Answer(each.name, each.policy.use, name, why, took))
    threads.shutdown(wait=False)  # one that hangs cannot be stopped
    return answers


def _said(answer: Answer) -> str:
    return f"failed: {answer.error}" if answer.error else answer.name or "-"
