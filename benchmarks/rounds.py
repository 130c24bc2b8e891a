"""Rounds: everybody in turn, several times, and the median of what each one showed."""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence

from benchmarks import machine

Figures = dict[str, float]


def arguments(description: str, **options: tuple[float, str]) -> argparse.Namespace:
    """The command line of a benchmark.

    Args:
        options: its own, each with its default and its help.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="once and small: does it work?")
    parser.add_argument("--rounds", type=int, default=5, help="how often everybody is measured")
    parser.add_argument("--only", nargs="*", help="only those with one of these in their name")
    for name, (default, text) in options.items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=type(default), default=default, help=text)
    given = parser.parse_args()
    if given.quick:
        given.rounds = 1
    return given


def interleaved(
    contenders: Mapping[str, Callable[[], Figures]], given: argparse.Namespace
) -> dict[str, Figures]:
    """Measure everybody in turn, so many rounds: the median of each figure."""
    wanted = {
        name: measure
        for name, measure in contenders.items()
        if not given.only or any(part in name for part in given.only)
    }
    seen: dict[str, list[Figures]] = {name: [] for name in wanted}
    for number in range(given.rounds):
        for name, measure in wanted.items():
            figures = measure()
            seen[name].append(figures)
            shown = "  ".join(f"{key} {value:,.4g}" for key, value in figures.items())
            print(f"  round {number + 1}: {name}: {shown}", file=sys.stderr, flush=True)
    return {
        name: {key: statistics.median(f[key] for f in rounds) for key in rounds[0]}
        for name, rounds in seen.items()
    }


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that Markdown takes, too."""
    print(f"\n{title}\n{machine.describe()}\n")
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print(f"| {' | '.join(cells)} |")


def ratio(value: float, base: float) -> str:
    """How many times the base it is; nothing when there is none."""
    return f"{value / base:.2f}" if base else ""
