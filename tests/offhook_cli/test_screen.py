"""Printed tables fit any terminal, and have one line per row in a pipe."""

import io
from collections.abc import Iterator
from random import Random

import pytest
from rich.console import Console

from offhook_cli.screen import Rows, print_json, print_json_list, print_long_table, print_table

CALL = ["main/1795289400.101", "2026-11-26 22:13:09", "Дарья [b] Иванова (+12125550149)", "missed"]
TITLES = ("call", "began", "from", "outcome")


def shown(width: int, *rows: list[str]) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(Rows(TITLES, [*rows]))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_tables_fit_the_width_without_breaking_words() -> None:
    rng = Random(4711)
    tables = [[CALL]] + [
        [["x" * rng.randint(1, 12) + " y" * rng.randint(0, 9) for _ in TITLES] for _ in range(3)]
        for _ in range(20)
    ]
    for rows in tables:
        for width in range(50, 130):
            lines = shown(width, *rows)
            assert max(map(len, lines)) <= width
            words = " ".join(lines).split()
            broken = {word for row in rows for word in " ".join(row).split()} - set(words)
            assert not broken, (width, rows)


def test_too_wide_table_prints_each_row_as_a_paragraph() -> None:
    assert shown(60, CALL, [*CALL[:2], "", "busy"]) == [
        "main/1795289400.101",
        "    began 2026-11-26 22:13:09",
        "    from Дарья [b] Иванова (+12125550149)   outcome missed",
        "main/1795289400.101",
        "    began 2026-11-26 22:13:09   outcome busy",
    ]


def test_pipe_output_has_one_line_per_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(*TITLES, rows=[[*CALL[:2], "x" * 300, "busy"]] * 3)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.split()[-1:] == ["busy"] and CALL[0] in line for line in lines) == 3


def test_escape_sequences_are_not_printed() -> None:
    assert "\x1b" not in "".join(shown(100, ["a", "b", "\x1b[2J", "d"]))


def test_a_long_table_is_printed_as_its_rows_come(capsys: pytest.CaptureFixture[str]) -> None:
    read = printed = 0

    def rows() -> Iterator[list[str]]:
        nonlocal read, printed
        for read in range(1, 2001):
            if read == 1500:
                printed = len(capsys.readouterr().out.splitlines())
            yield [str(read), "電話" if read % 2 else "\x1b[2Jx" * 9, ""]

    print_long_table("number", "label", "owner", rows=rows())
    assert printed > 900
    lines = capsys.readouterr().out.splitlines()
    assert read == 2000
    assert "\x1b" not in "".join(lines)
    assert lines[-2].split() == ["1999", "電話"]
    assert lines[-2].index("電") == lines[-1].index("[") - 1  # under `number`


def test_a_short_table_looks_as_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(*TITLES, rows=[CALL])
    expected = capsys.readouterr().out
    print_long_table(*TITLES, rows=iter([CALL]))
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("values", [[], [1], [{"a": [1, {"b": "ü\n"}]}, [], {}]])
def test_a_list_is_printed_as_json_as_its_elements_come(
    capsys: pytest.CaptureFixture[str], values: list[object]
) -> None:
    print_json(values)
    expected = capsys.readouterr().out
    print_json_list(iter(values))
    assert capsys.readouterr().out == expected
