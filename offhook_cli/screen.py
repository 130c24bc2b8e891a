"""Output of the commands: results go to standard output, everything else to standard error."""

import codecs
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain, islice
from typing import Any, NoReturn

import typer

from offhook.logs import printable

_PIPE_WIDTH = 10_000  # columns: enough that no row of a table breaks
_MANY = 500  # rows, above which a table is printed as it comes: rich takes 0.5 ms for each


# What a terminal that is not UTF-8 may lack, and what it shows instead.
_PLAIN = {
    "●": "*",
    "◆": "#",
    "✓": "+",
    "↻": "~",
    "✗": "x",
    "→": "->",
    "×": "x",
    "…": "...",
    "–": "-",
    "—": "-",
    "▶": ">",
}


def write_in_any_encoding() -> None:
    """Let the output survive a terminal that is not UTF-8: write what it lacks in ASCII."""
    codecs.register_error("offhook", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="offhook")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in lacking), error.end


def note(message: str) -> None:
    """Print a message that is not a result."""
    typer.echo(message, err=True)


def fail(message: str, code: int = 1) -> NoReturn:
    """Print an error and exit."""
    note(message)
    raise typer.Exit(code)


def confirm(question: str, *, yes: bool) -> None:
    """Ask a yes/no question and exit on a no. With `--yes`, do not ask."""
    if not yes:
        typer.confirm(question, abort=True, err=True)


def print_json(value: Any) -> None:
    """Print JSON in ASCII: a caller's name may contain any character. Times are ISO 8601."""
    typer.echo(json.dumps(value, indent=2, default=_plain))


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def print_json_list(values: Iterable[Any]) -> None:
    """Print a list as `print_json` does, each element as it comes."""
    before = "["
    for value in values:
        text = json.dumps(value, indent=2, default=_plain).replace("\n", "\n  ")
        typer.echo(f"{before}\n  {text}", nl=False)
        before = ","
    typer.echo("[]" if before == "[" else "\n]")


def print_long_table(*columns: str, rows: Iterable[Sequence[str]]) -> None:
    """Print a table of any length, row by row.

    The first rows decide how wide the columns are. A short table looks like any other.
    """
    from rich.cells import cell_len

    coming = iter(rows)
    first = list(islice(coming, _MANY))
    if len(first) < _MANY:
        print_table(*columns, rows=[list(row) for row in first])
        return
    shown = (tuple(map(printable, row)) for row in chain(first, coming))
    first_shown = [columns, *islice(shown, _MANY)]
    widths = [max(map(cell_len, column)) for column in zip(*first_shown, strict=True)]
    rule = tuple("─" * width for width in widths)
    for row in chain([columns, rule], first_shown[1:], shown):
        cells = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
        )
        typer.echo("   ".join(cells).rstrip())


def print_table(*columns: str, rows: list[list[str]], right: Sequence[str] = ()) -> None:
    """Print a table as wide as the terminal; in a file or a pipe, one line per row.

    Args:
        right: columns to align on the right.
    """
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    console.print(Rows(columns, rows, right))


class Rows:
    """A table of plain text for rich. Markup and control characters have no effect.

    The first column never wraps, the others only between words, which rich's own column widths do
    not guarantee. A table too wide for the terminal becomes a list of paragraphs.
    """

    def __init__(
        self, columns: Sequence[str], rows: list[list[str]], right: Sequence[str] = ()
    ) -> None:
        self._columns = columns
        self._rows = [["\n".join(map(printable, cell.split("\n"))) for cell in row] for row in rows]
        self._right = right

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.measure import Measurement
        from rich.text import Text

        unlimited = options.update(max_width=_PIPE_WIDTH)
        measured = [
            Measurement.get(console, unlimited, Text("\n".join(column)))
            for column in zip(self._columns, *self._rows, strict=True)
        ]
        wanted = [measure.maximum for measure in measured]
        needed = [wanted[0], *(measure.minimum for measure in measured[1:])]
        room = options.max_width - 3 * len(self._columns) + 1  # between the columns
        if sum(needed) <= room:
            yield self._table(_widths(needed, wanted, room))
        else:
            yield from self._paragraphs(options.max_width)

    def _table(self, widths: list[int]) -> Any:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for title, width in zip(self._columns, widths, strict=True):
            justify: Any = "right" if title in self._right else "left"
            table.add_column(title, justify=justify, width=width)
        for row in self._rows:
            table.add_row(*map(Text, row))
        return table

    def _paragraphs(self, width: int) -> Iterator[Any]:
        from rich.cells import cell_len
        from rich.padding import Padding
        from rich.text import Text

        for first, *rest in self._rows:
            yield Text(first, style="bold")
            lines = [""]
            for title, cell in zip(self._columns[1:], rest, strict=True):
                field = f"{title} {', '.join(cell.splitlines())}".strip()
                longer = f"{lines[-1]}   {field}" if lines[-1] else field
                if cell and cell_len(longer) <= width - 4:
                    lines[-1] = longer
                elif cell:
                    lines.append(field)
            yield Padding(Text("\n".join(filter(None, lines))), (0, 0, 0, 4), expand=False)


def _widths(needed: list[int], wanted: list[int], room: int) -> list[int]:
    """Share the spare room: columns that want little get it all, the others equal parts."""
    widths, spare = list(needed), room - sum(needed)
    hungry = sorted(range(len(needed)), key=lambda n: wanted[n] - needed[n])
    for served, n in enumerate(hungry):
        more = min(wanted[n] - needed[n], spare // (len(hungry) - served))
        widths[n] += more
        spare -= more
    return widths


@contextmanager
def progress(what: str, total: float, unit: str = "") -> Iterator[Callable[[float], None]]:
    """Show a progress bar and the time left on standard error, if that is a terminal.

    Args:
        total: the amount of work; 1.0 shows percents instead of counts.
        unit: a word after the counts.

    Yields:
        A function that sets how much is done.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn(what),
        BarColumn(),
        TaskProgressColumn() if total == 1.0 else MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


def local(moment: datetime) -> str:
    """Format a moment in the reader's time zone."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def counted(number: int, thing: str) -> str:
    """Format a count: `1 event`, `2 events`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
