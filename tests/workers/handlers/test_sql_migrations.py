"""The tables' way from any earlier release to this one, on real databases."""

import multiprocessing
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Engine, MetaData, String, Table, inspect, text
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable

from offhook import TemporaryError
from offhook.testing import configured, deliver, sample_event
from tests.postgres import Postgres
from tests.workers.handlers.sql_logs import Impatient, handler, log_of, rows
from workers.handlers.sql import Sql
from workers.handlers.sql.migrations import HEAD, prepare
from workers.handlers.sql.tables import tables

# What the first release ran, verbatim.
FIRST_RELEASE = """
CREATE TABLE events (
    id VARCHAR(64) NOT NULL,
    pbx TEXT NOT NULL,
    call_id TEXT NOT NULL,
    extension TEXT NOT NULL,
    type TEXT NOT NULL,
    direction TEXT,
    status TEXT,
    caller_number TEXT,
    caller_name TEXT,
    caller_extension TEXT,
    called_number TEXT,
    called_extension TEXT,
    called_did TEXT,
    received {moment} NOT NULL,
    parameters JSON NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX ix_events_call_id ON events (call_id);
CREATE INDEX ix_events_received ON events (received);
INSERT INTO events (id, pbx, call_id, extension, type, received, parameters)
VALUES ('old', 'main', '1', '0003*210', 'hangup', '2026-01-31 10:00:00.250000+00:00', '{{}}');
"""


@pytest.fixture
def used(url: str) -> str:
    """A database that the first release has written to."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        connection.executescript(FIRST_RELEASE.format(moment="DATETIME"))
        connection.close()
    else:
        with psycopg.connect(url, autocommit=True) as server:
            server.execute(FIRST_RELEASE.format(moment="TIMESTAMP WITH TIME ZONE").encode())
    return url


def engine_of(sql: Sql) -> Engine:
    return log_of(sql).engine


def differences(engine: Engine, prefix: str = "") -> list[Any]:
    """Between the tables that are there and those that the code expects."""
    expected = tables(prefix)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": expected.revision, "compare_type": True}
        )
        found: list[Any] = compare_metadata(context, expected.metadata)
    return found


def test_head_is_the_last_migration() -> None:
    config = Config()
    config.set_main_option("script_location", "workers.handlers.sql:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


@pytest.mark.parametrize("prefix", ["", "support_"])
def test_migrations_create_the_tables_of_the_code(
    url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = handler(url, prefix=prefix)
    log = log_of(sql)
    monkeypatch.setattr(MetaData, "create_all", lambda *_: None)
    with log.engine.begin() as connection:
        prepare(connection, log.tables, 10.0)
    assert differences(log.engine, prefix) == []


def test_rows_of_the_first_release_are_kept(used: str) -> None:
    sql = handler(used)
    deliver(sql, sample_event(id="new"))
    deliver(sql, sample_event("call-ended"))
    assert [row.id for row in rows(sql)] == ["new", "old"]
    assert len(rows(sql, "calls")) == 1
    assert differences(engine_of(sql)) == []


def _start(url: str, number: int) -> None:
    sql = configured(Sql, url=url)
    try:
        deliver(sql, sample_event(id=f"{number}"))
    finally:
        engine_of(sql).dispose()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_concurrent_processes_migrate_once(used: str) -> None:
    forked = multiprocessing.get_context("fork")  # as RQ's workers do
    together = forked.Barrier(6)
    with ProcessPoolExecutor(6, forked, initializer=together.wait) as processes:
        for done in [processes.submit(_start, used, number) for number in range(6)]:
            done.result(timeout=60)
    sql = handler(used)
    deliver(sql, sample_event(id="last"))
    assert {row.id for row in rows(sql)} == {"old", "last", *map(str, range(6))}
    with engine_of(sql).connect() as connection:
        found = connection.scalars(text("SELECT version_num FROM offhook_revision")).all()
    assert found == [HEAD]


def test_a_foreign_table_is_temporary_and_nothing_is_created(url: str) -> None:
    sql = handler(url)
    engine = engine_of(sql)
    other = Table("calls", MetaData(), Column("id", String), Column("pbx", String))
    other.create(engine)
    with pytest.raises(
        TemporaryError, match=r"the table calls is not Offhook's: .* call_id, .*`prefix`"
    ):
        deliver(sql, sample_event())
    assert inspect(engine).get_table_names() == ["calls"]
    other.drop(engine)
    deliver(sql, sample_event())
    assert len(rows(sql)) == 1


def test_a_dropped_table_is_created_again(url: str) -> None:
    sql = handler(url)
    deliver(sql, sample_event("call-ended"))
    with engine_of(sql).begin() as connection:
        connection.execute(text("DROP TABLE legs"))
        connection.execute(text("DROP TABLE calls"))
    with pytest.raises(TemporaryError, match="calls"):
        deliver(sql, sample_event("call-ended"))
    deliver(sql, sample_event("call-ended"))
    assert len(rows(sql, "legs")) == 1


def test_tables_of_a_newer_release_are_temporary(url: str) -> None:
    deliver(handler(url), sample_event(id="before"))
    sql = handler(url)
    with engine_of(sql).begin() as connection:
        connection.execute(text("UPDATE offhook_revision SET version_num = '4711'"))
    with pytest.raises(TemporaryError, match=r"newer release of Offhook: .*'4711'"):
        deliver(sql, sample_event())
    assert [row.id for row in rows(sql)] == ["before"]


def test_a_long_migration_delays_a_delivery_briefly(
    database_server: Postgres,
) -> None:
    first, second = (handler(database_server.url, Impatient, prefix="waits_") for _ in range(2))
    with engine_of(first).begin() as connection:
        prepare(connection, log_of(first).tables, 10.0)
        with pytest.raises(TemporaryError, match="lock timeout"):
            deliver(second, sample_event())
    deliver(second, sample_event())
    assert len(rows(second)) == 1


def test_a_migration_of_sqlite_waits_for_the_writer(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/calls.db"
    first, second = handler(url, Impatient), handler(url, Impatient)
    with engine_of(first).begin() as connection:
        prepare(connection, log_of(first).tables, 10.0)
        with pytest.raises(TemporaryError, match="database is locked"):
            deliver(second, sample_event())
    deliver(second, sample_event())
    assert len(rows(second)) == 1


def test_mysql_could_index_every_key() -> None:
    """Without a server: it refuses an index on TEXT."""
    for table in tables("").metadata.sorted_tables:
        keys = {
            *table.primary_key,
            *(column for index in table.indexes for column in index.columns),
        }
        for column in keys:
            assert "TEXT" not in column.type.compile(mysql.dialect()), column
        assert "DATETIME(6)" in str(CreateTable(table).compile(dialect=mysql.dialect()))
