"""The queries in the documents, run on calls of which the answers are known."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from offhook import Call, Gap, Kind, Leg, Outcome, Party
from offhook.testing import deliver, sample_call, sample_event
from tests.workers.handlers.sql_logs import handler, log_of
from workers.handlers.sql import Sql
from workers.handlers.sql.tables import tables

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "reports.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def queries(section: str) -> dict[str, str]:
    """The queries of a section by the database that they are for; `""`: for both."""
    found = re.findall(r"```sql\n(?:-- (\w+)\n)?(.*?)```", section, re.DOTALL)
    return {database.lower(): query for database, query in found}


REPORTS = {name: queries(section) for name, section in SECTIONS.items() if queries(section)}

# 22:30 UTC is half past midnight, the next day, in Bucharest.
DAY = datetime(2026, 11, 10, 8, 0, tzinfo=UTC)
EVENING = datetime(2026, 11, 10, 22, 30, tzinfo=UTC)
ANN, BOB, CAT = (
    Party(number=f"02079460{n}", e164=f"+4420794600{n}") for n in ("101", "102", "103")
)
SALES = Party(did="+40318100200", extension="0003*500")
DESK = Party(did="+40318100210", extension="0003*210")


def call(
    number: int,
    began: datetime,
    caller: Party,
    called: Party,
    *legs: tuple[str, Kind | None, float | None, float | None],
    outcome: Outcome | None = Outcome.ANSWERED,
    **fields: Any,
) -> Call:
    """A call; each leg with its extension, its kind, and the seconds that it rang and talked."""
    parts = [
        Leg(
            extension=extension,
            kind=kind,
            direction=(fields.get("direction") == "out" and "out") or "in",
            rang=began,
            answered=began + timedelta(seconds=rang or 0) if talked is not None else None,
            ended=began + timedelta(seconds=(rang or 0) + (talked or 0)),
            status="ANSWER" if talked is not None else "NOANSWER",
        )
        for extension, kind, rang, talked in legs
    ]
    return sample_call(
        outcome,
        **{
            "id": f"{number}",
            "caller": caller,
            "called": called,
            "started": began,
            "ring_seconds": min(rang for _, _, rang, _ in legs if rang is not None),
            "talk_seconds": float(sum(t or 0 for _, kind, _, t in legs if kind != Kind.QUEUE)),
            "legs": tuple(parts),
        }
        | fields,
    )


CALLS = [
    # Ann is missed twice, then called back; Bob waits in a queue and gives up, at night.
    call(1, DAY, ANN, DESK, ("0003*210", None, 20, None), outcome=Outcome.MISSED),
    call(2, DAY, ANN, DESK, ("0003*210", None, 30, None), outcome=Outcome.BUSY),
    call(
        3,
        DAY + timedelta(hours=2),
        Party(extension="0003*210"),
        Party(number="+44 20 7946 0101", e164=ANN.e164),
        ("0003*210", Kind.PHONE, 10, 600),
        direction="out",
    ),
    call(
        4,
        EVENING,
        BOB,
        SALES,
        ("0003*500", Kind.QUEUE, 90, None),
        ("0003*211", Kind.PHONE, 90, None),
        outcome=Outcome.CANCELLED,
        gaps=(Gap.HANGUP, Gap.LATE),
        closed_by="silence",
    ),
    # Cat gets through: the queue rings one who does not answer, then another one.
    call(
        5,
        EVENING,
        CAT,
        SALES,
        ("0003*500", Kind.QUEUE, 1, 200),
        ("0003*211", Kind.PHONE, 15, None),
        ("0003*210", Kind.PHONE, 20, 180),
        ring_seconds=20.0,
        talk_seconds=180.0,
    ),
    # Of this one no callback came, and the next one still rings.
    call(6, DAY + timedelta(hours=4), CAT, DESK, ("0003*210", None, 4, 60), recovered=True),
    call(7, EVENING, ANN, DESK, ("0003*210", None, 5, None), outcome=None),
    # Before the time that is asked for.
    call(8, DAY - timedelta(days=40), BOB, SALES, ("0003*500", Kind.QUEUE, 5, 5)),
]

EXPECTED: dict[str, list[tuple[Any, ...]]] = {
    "Missed calls per day": [("2026-11-10", 3, 2), ("2026-11-11", 2, 1)],
    "Answer rate": [("+40318100210", 3, 33.3, 4), ("+40318100200", 2, 50, 20)],
    "Busiest hours": [("00", 3), ("10", 2), ("14", 1)],
    "Talk time per extension": [("0003*210", 3, 14, 12)],
    "Calls per queue": [("0003*500", 2, 1, 90, 3)],
    "Callers to call back": [("02079460102", 1, "2026-11-10 22:30")],
    "Incomplete calls": [("hangup,late", "silence", False, 1)],
}


@pytest.fixture
def log(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sql]:
    """A database with those calls; its machine stands in Bucharest."""
    monkeypatch.setenv("TZ", "Europe/Bucharest")
    time.tzset()
    sql = handler(url)
    for each in CALLS:
        deliver(sql, sample_event("call-ended" if each.ended else "call-started", summary=each))
    yield sql
    monkeypatch.undo()
    time.tzset()


def plain(value: Any) -> Any:
    """A value as a person reads it, whatever the database's type."""
    match value:
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
        case date():
            return value.isoformat()
        case Decimal():
            return float(value)
        case str() if value.endswith("+00:00"):
            return value[:16]
        case _:
            return value


def test_every_report_has_an_expected_result() -> None:
    assert set(EXPECTED) == set(REPORTS)


@pytest.mark.parametrize("name", REPORTS)
def test_the_report_is_right(name: str, log: Sql) -> None:
    engine = log_of(log).engine
    query = REPORTS[name].get("") or REPORTS[name][engine.dialect.name]
    with engine.connect() as connection:
        found = [tuple(map(plain, row)) for row in connection.execute(text(query))]
    assert found == EXPECTED[name]


def test_the_queries_of_the_handlers_page_run(log: Sql) -> None:
    section = re.search(r"^## `sql`.*?(?=^## )", (DOCS / "handlers.md").read_text(), re.S | re.M)
    assert section
    asked, deleted = re.findall(r"```sql\n(.*?)```", section[0], re.DOTALL)
    engine = log_of(log).engine
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            now = "'2026-11-11 08:00:00'"
            assert "'now'" in asked
            found = connection.execute(text(asked.replace("'now'", now))).all()
        assert [row.caller_number for row in found] == ["02079460101", "02079460101", "02079460102"]
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.execute(text("PRAGMA foreign_keys = ON"))
        connection.execute(text(deleted.replace("2026-01-01", "2026-11-01")))
        for table in ("calls", "legs"):
            assert not connection.scalar(text(f"SELECT 1 FROM {table} WHERE call_id = '8'"))  # noqa: S608
            assert connection.scalar(text(f"SELECT 1 FROM {table} WHERE call_id = '1'"))  # noqa: S608


def test_the_docs_explain_every_column_and_no_other() -> None:
    described = dict(
        re.findall(r"^### `(\w+)`\n(.*?)(?=^### |\Z)", SECTIONS["The columns"], re.S | re.M)
    )
    expected = {table.name: table.columns.keys() for table in tables("").metadata.sorted_tables}
    assert set(described) == set(expected)
    for name, section in described.items():
        cells = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
        named = [column for cell in cells for column in re.findall(r"`(\w+)`", cell)]
        assert sorted(named) == sorted(expected[name])
