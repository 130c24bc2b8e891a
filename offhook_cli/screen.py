"""What the commands print with: results on standard output, everything else on standard error."""

import json
import os
from collections.abc import Iterator, Sequence
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
    """Print a table: as wide as the terminal, or, into a file or a pipe, a row a line.

    Args:
        right: the names of columns to align on the right.
    """
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _ENDLESS
    console.print(Rows(columns, rows, right))


class Rows:
    """What is shown as a table of plain text: nothing in it is taken for markup.

    Its first column is never broken into lines, the others only between words. Where that is too
    wide each row becomes a paragraph. A rich renderable.
    """

    def __init__(
        self, columns: Sequence[str], rows: list[list[str]], right: Sequence[str] = ()
    ) -> None:
        self._columns = columns
        self._rows = [["\n".join(map(printable, cell.split("\n"))) for cell in row] for row in rows]
        self._right = right

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.cells import cell_len

        needed, wanted = [], []
        for title, *cells in zip(self._columns, *self._rows, strict=True):
            wanted.append(max(cell_len(line) for cell in (title, *cells) for line in _lines(cell)))
            needed.append(max(cell_len(word) for cell in (title, *cells) for word in _words(cell)))
        needed[0] = wanted[0]
        room = options.max_width - 3 * len(self._columns) + 1  # for what stands between them
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
            table.add_column(
                title, justify="right" if title in self._right else "left", width=width
            )
        for row in self._rows:
            table.add_row(*map(Text, row))
        return table

    def _paragraphs(self, width: int) -> Iterator[Any]:
        from rich.cells import cell_len
        from rich.padding import Padding
        from rich.text import Text

        for first, *rest in self._rows:
            yield Text(first, style="bold")
            line = ""
            for title, cell in zip(self._columns[1:], rest, strict=True):
                if not cell:
                    continue
                field = f"{title} {', '.join(_lines(cell))}".strip()
                if line and cell_len(line) + 3 + cell_len(field) > width - 4:
                    yield Padding(Text(line), (0, 0, 0, 4), expand=False)
                    line = field
                else:
                    line = f"{line}   {field}" if line else field
            yield Padding(Text(line), (0, 0, 0, 4), expand=False)


_ENDLESS = 10_000  # columns


def _lines(cell: str) -> list[str]:
    return cell.split("\n")


def _words(cell: str) -> list[str]:
    return cell.split() or [""]


def _widths(needed: list[int], wanted: list[int], room: int) -> list[int]:
    """Share the room: who wants little more than is needed gets that, the others go halves."""
    widths, spare = list(needed), room - sum(needed)
    hungry = sorted(range(len(needed)), key=lambda n: wanted[n] - needed[n])
    for served, n in enumerate(hungry):
        more = min(wanted[n] - needed[n], spare // (len(hungry) - served))
        widths[n] += more
        spare -= more
    return widths


def local(moment: datetime) -> str:
    """A moment in the time zone of whoever reads it."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def counted(number: int, thing: str) -> str:
    """`1 event`, `2 events`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
