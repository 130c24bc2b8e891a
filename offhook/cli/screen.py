"""What the commands print with: results on standard output, everything else on standard error."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, NoReturn

import typer

from offhook.logs import printable

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def note(message: str) -> None:
    """Tell something that is no result."""
    typer.echo(message, err=True)


def fail(message: str, code: int = 1) -> NoReturn:
    """End the command with a sentence."""
    note(message)
    raise typer.Exit(code)


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless it was answered with `--yes`; end the command on a no."""
    if not yes:
        typer.confirm(question, abort=True, err=True)


def print_json(value: Any) -> None:
    """Print it for programs. ASCII only: a caller's name may hold anything."""
    typer.echo(json.dumps(value, indent=2, default=str))


def print_table(*columns: str, rows: list[list[str]], right: Sequence[str] = ()) -> None:
    """Print a table. The first column is never broken into lines.

    Args:
        right: the names of columns to align on the right.
    """
    from rich.console import Console

    Console(highlight=False).print(make_table(*columns, rows=rows, right=right))


def make_table(*columns: str, rows: list[list[str]], right: Sequence[str] = ()) -> Any:
    """A rich table of plain text: nothing in it is taken for markup."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=number == 0,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text("\n".join(map(printable, cell.split("\n")))) for cell in row))
    return table


def local(moment: datetime) -> str:
    """A moment in the time zone of whoever reads it."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def counted(number: int, thing: str) -> str:
    """`1 event`, `2 events`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
