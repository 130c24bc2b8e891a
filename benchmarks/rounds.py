"""Rounds: measure all contenders in turn, several times, and take the median of each figure."""

import argparse
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence

from benchmarks import machine

Figures = dict[str, float]


def arguments(description: str, **options: tuple[float, str]) -> argparse.Namespace:
    """Parse the command line of a benchmark.

    Args:
        options: options of this benchmark, each with its default and its help.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="run one small round, to see that it works"
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
    parser.add_argument(
        "--only",
        nargs="*",
        help="measure only contenders whose name matches one of these regular expressions",
    )
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
    """Measure all contenders in turn for some rounds, and return the median of each figure."""
    wanted = {
        name: measure
        for name, measure in contenders.items()
        if not given.only or any(re.search(part, name) for part in given.only)
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


def rate_table(title: str, found: Mapping[str, Figures]) -> None:
    """Print rates per second and per CPU-second, and how Offhook compares with each contender."""
    first = found.get("Offhook", {"per second": 0.0, "per CPU-second": 0.0})
    rows = []
    for name, figures in found.items():
        row = [name]
        for key in ("per second", "per CPU-second"):
            row += [f"{figures[key]:,.4g}", ratio(first[key], figures[key]) if first[key] else ""]
        rows.append(row)
    table(title, ("", "per second", "Offhook / it", "per CPU-second", "Offhook / it"), rows)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown."""
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
    """Return `value / base` as text, or nothing if the base is zero."""
    return f"{value / base:.2f}" if base else ""
