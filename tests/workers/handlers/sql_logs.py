"""Call logs for tests: handlers whose connections are closed after the test, and their rows."""

from typing import Any

from sqlalchemy import Row, Table, select

from offhook.testing import configured
from workers.handlers.sql import Sql
from workers.handlers.sql.call_log import CallLog

_opened: list[Sql] = []


class Impatient(Sql):
    """Waits 0.1 s for other writers and migrations."""

    lock_timeout = 0.1


def handler(url: str, kind: type[Sql] = Sql, **options: str) -> Sql:
    made = configured(kind, url=url, **options)
    _opened.append(made)
    return made


def log_of(sql: Sql) -> CallLog:
    return sql._log


def rows(sql: Sql, table: str = "events") -> list[Row[Any]]:
    """All rows of one of the log's tables, ordered by key."""
    log = log_of(sql)
    found: Table = getattr(log.tables, table)
    with log.engine.connect() as connection:
        return list(connection.execute(select(found).order_by(*found.primary_key)))


def close_all() -> None:
    while _opened:
        opened = _opened.pop()
        if "_log" in vars(opened):
            log_of(opened).engine.dispose()
