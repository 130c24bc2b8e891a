"""The sql handler against real databases: SQLite files and a PostgreSQL server."""

import multiprocessing
import sqlite3
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, text

from offhook import Party, PermanentError, TemporaryError
from offhook.errors import ConfigError
from offhook.testing import configured, deliver, sample_event, sample_events
from tests.postgres import PASSWORD, Postgres
from tests.workers.handlers.sql_logs import Impatient, handler, log_of, rows
from workers.handlers.sql import Sql
from workers.handlers.sql.call_log import CallLog


def test_a_row_has_everything_of_the_event(url: str) -> None:
    sql = handler(url)
    events = sample_events()
    for event in events:
        deliver(sql, event)
    found = {row.id: row for row in rows(sql)}
    for event in events:
        row = found[event.id]
        assert (row.pbx, row.call_id, row.extension) == (event.pbx, event.call_id, event.extension)
        assert (row.type, row.direction, row.status) == (event.type, event.direction, event.status)
        assert Party(
            number=row.caller_number, name=row.caller_name, extension=row.caller_extension
        ) == (event.caller)
        assert Party(
            number=row.called_number, extension=row.called_extension, did=row.called_did
        ) == (event.called)
        assert row.parameters == event.parameters
        assert row.received == event.received
        assert row.received.tzinfo is not None
        assert row.received.astimezone(UTC) == event.received


def test_a_redelivery_adds_no_row(url: str) -> None:
    event = sample_event()
    deliver(handler(url), event)
    deliver(handler(url), event, attempt=2)
    assert [row.id for row in rows(handler(url))] == [event.id]


def test_a_redelivery_keeps_the_row_unchanged(url: str) -> None:
    sql, event = handler(url), sample_event()
    deliver(sql, event)
    with log_of(sql).engine.begin() as connection:
        connection.execute(text("UPDATE events SET status = 'corrected'"))
    deliver(sql, event, attempt=2)
    assert [row.status for row in rows(sql)] == ["corrected"]


def test_two_logs_in_one_database_have_separate_tables(url: str) -> None:
    sales, support = handler(url), handler(url, prefix="Support_")
    deliver(sales, sample_event(id="sold"))
    deliver(support, sample_event(id="helped"))
    deliver(support, sample_event("call-ended"))
    assert [row.id for row in rows(sales)] == ["sold"]
    with log_of(support).engine.connect() as connection:
        assert connection.scalars(text('SELECT id FROM "Support_events"')).all() == ["helped"]
        assert connection.scalar(text('SELECT count(*) FROM "Support_legs"')) == 1
    assert rows(sales, "calls") == []


def _deliver_many(url: str, number: int) -> None:
    sql = configured(Sql, url=url)
    try:
        for n in range(25):
            deliver(sql, sample_event(id=f"{number}-{n}"))
            deliver(sql, sample_event(id=f"all-{n}"))
    finally:
        log_of(sql).engine.dispose()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_processes_can_start_concurrently(url: str) -> None:
    forked = multiprocessing.get_context("fork")  # as RQ's workers do
    together = forked.Barrier(6)
    with ProcessPoolExecutor(6, forked, initializer=together.wait) as processes:
        for done in [processes.submit(_deliver_many, url, number) for number in range(6)]:
            done.result(timeout=60)
    ids = {row.id for row in rows(handler(url))}
    assert ids == {f"{name}-{n}" for name in [*range(6), "all"] for n in range(25)}


def test_threads_can_start_concurrently(url: str) -> None:
    sql = handler(url)
    with ThreadPoolExecutor(16) as threads:
        for done in [
            threads.submit(deliver, sql, sample_event(id=f"{n % 100}")) for n in range(200)
        ]:
            done.result(timeout=60)
    assert len(rows(sql)) == 100


def test_threads_share_one_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def slowly(*arguments: Any, **options: Any) -> Engine:
        time.sleep(0.05)
        made.append(create_engine(*arguments, **options))
        return made[-1]

    monkeypatch.setattr("workers.handlers.sql.call_log.create_engine", slowly)
    sql = handler(f"sqlite:///{tmp_path}/calls.db")
    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(deliver, sql, sample_event()) for _ in range(8)]:
            done.result(timeout=60)
    assert len(made) == 1


def test_a_dropped_table_is_created_again(url: str) -> None:
    sql, event = handler(url), sample_event()
    deliver(sql, sample_event())
    with log_of(sql).engine.begin() as connection:
        connection.execute(text("DROP TABLE events"))
    with pytest.raises(TemporaryError, match="events"):
        deliver(sql, event)
    deliver(sql, event, attempt=2)
    assert [row.id for row in rows(sql)] == [event.id]


def test_sqlite_writes_ahead_and_keeps_the_time_zone(tmp_path: Path) -> None:
    sql, event = handler(f"sqlite:///{tmp_path}/calls.db"), sample_event()
    deliver(sql, event)
    connection = sqlite3.connect(tmp_path / "calls.db")
    mode = connection.execute("PRAGMA journal_mode").fetchone()
    stored, seconds = connection.execute(
        "SELECT received, unixepoch(received) FROM events"
    ).fetchone()
    connection.close()
    assert mode == ("wal",)
    assert stored == "2026-11-21 19:30:00.250000+00:00"
    assert seconds == int(event.received.timestamp())


def test_a_sqlite_file_is_for_its_owner_only(tmp_path: Path) -> None:
    deliver(handler(f"sqlite:///{tmp_path}/calls.db"), sample_event())
    modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    assert modes["calls.db"] == 0o600
    assert set(modes.values()) == {0o600}


def test_a_locked_sqlite_file_is_temporary(tmp_path: Path) -> None:
    sql = handler(f"sqlite:///{tmp_path}/calls.db", Impatient)
    deliver(sql, sample_event())
    other = sqlite3.connect(tmp_path / "calls.db")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TemporaryError, match="database is locked"):
        deliver(sql, sample_event())
    other.rollback()
    other.close()
    deliver(sql, sample_event())


def test_a_missing_sqlite_folder_is_temporary(tmp_path: Path) -> None:
    with pytest.raises(TemporaryError, match="unable to open database file"):
        deliver(handler(f"sqlite:///{tmp_path}/none/calls.db"), sample_event())


def test_refused_values_are_permanent(database_server: Postgres) -> None:
    sql = handler(database_server.url, prefix="refusing_")
    with pytest.raises(PermanentError, match=r"refuses this event's values: .*NUL"):
        deliver(sql, sample_event(caller=Party(name="Jane\0")))


def test_a_database_that_is_down_is_temporary_and_recovers(database_server: Postgres) -> None:
    sql, event = handler(database_server.url, prefix="restarts_"), sample_event()
    deliver(sql, sample_event())
    database_server.stop()
    try:
        for _ in range(2):
            with pytest.raises(TemporaryError, match="refused") as raised:
                deliver(sql, event)
            assert PASSWORD not in str(raised.value)
    finally:
        database_server.start()
    deliver(sql, event, attempt=2)
    assert event.id in {row.id for row in rows(sql)}


def test_a_restart_of_the_database_fails_no_delivery(database_server: Postgres) -> None:
    sql = handler(database_server.url, prefix="cut_")
    deliver(sql, sample_event())
    database_server.stop()
    database_server.start()
    deliver(sql, sample_event())
    assert len(rows(sql)) == 2


def test_a_wrong_password_is_temporary_and_hidden(database_server: Postgres) -> None:
    sql = handler(database_server.url.replace(PASSWORD, "hush-hush"))
    with pytest.raises(TemporaryError, match="password authentication failed") as raised:
        deliver(sql, sample_event())
    assert "hush" not in str(raised.value)
    assert "hush" not in repr(sql)


def test_a_missing_permission_is_temporary(database_server: Postgres) -> None:
    with psycopg.connect(database_server.url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN PASSWORD 'reader'")
    sql = handler(database_server.url.replace(f"offhook:{PASSWORD}", "reader:reader"))
    with pytest.raises(TemporaryError, match="permission denied"):
        deliver(sql, sample_event())


class _Plain(CallLog):
    """A call log on a database without a known ON CONFLICT."""

    def __init__(self, sql: Sql) -> None:
        super().__init__(log_of(sql).engine.url, sql.prefix, sql.lock_timeout)
        self._insert = self.tables.events.insert()


def test_a_redelivery_adds_no_row_without_on_conflict(url: str) -> None:
    sql, event = handler(url), sample_event()
    log = _Plain(sql)
    try:
        log.add(event)
        log.add(event)
        with pytest.raises(PermanentError, match="refuses"):
            log.add(sample_event(pbx=None))
    finally:
        log.engine.dispose()
    assert [row.id for row in rows(sql)] == [event.id]


def test_no_connection_is_made_before_the_first_event(database_server: Postgres) -> None:
    """The workers fork: what was connected before would be shared."""
    assert "_log" not in vars(handler(database_server.url))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"url": "hush"}, "url"),
        ({"url": "hush://hush"}, "url"),
        ({"url": "sqlite://"}, "url"),
        ({"url": "sqlite:///:memory:"}, "url"),
        ({"url": "postgresql+asyncpg://u:hush@h/d"}, "url"),
        ({"url": "postgresql://u:hush@h:port/d"}, "url"),
        ({"url": "mysql+pymysql://u:hush@h/d"}, "url"),
        ({"prefix": "events; DROP TABLE hush"}, "prefix"),
        ({"prefix": "1st_"}, "prefix"),
    ],
)
def test_an_error_names_a_wrong_option_and_hides_its_value(
    options: dict[str, str], name: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        configured(Sql, **options)
    (problem,) = raised.value.problems
    assert problem.startswith(f"options.{name}: ")
    assert "hush" not in problem


def test_an_asyncio_driver_is_refused() -> None:
    with pytest.raises(ConfigError, match="names an asyncio driver"):
        configured(Sql, url="postgresql+psycopg_async://u@h/d")


def test_an_error_names_a_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'offhook\[postgresql\]'"):
        configured(Sql, url="postgresql://u@h/d")
