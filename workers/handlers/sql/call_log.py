"""`CallLog`: the connections to the database of a call log, and writing to it."""

import os
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Insert,
    Table,
    create_engine,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.event import listen
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from offhook import Call, CallEvent, Number, PermanentError, TemporaryError
from workers.handlers.sql.migrations import NotOurs, prepare
from workers.handlers.sql.tables import call_row, event_row, leg_rows, tables, with_tenant

CONNECT_TIMEOUT = 5  # seconds, PostgreSQL
POOL_TIMEOUT = 10.0  # seconds to wait for a connection

_preparing = Lock()  # alembic is not thread-safe


class CallLog:
    """The tables and the connections to them.

    Args:
        lock_timeout: seconds to wait for another writer (SQLite) or migration.
    """

    def __init__(self, url: URL, prefix: str, lock_timeout: float) -> None:
        self.engine = _engine(url, lock_timeout)
        self._lock_timeout = lock_timeout
        self.tables = tables(prefix)
        self._insert = _insert(self.tables.events, self.engine)
        self._prepared = False
        self._where = f"{url.get_backend_name()} ({url.host or url.database})"

    def add(self, event: CallEvent) -> None:
        """Write the call of an event, unless the table has a newer version; or a raw event.

        Raises:
            PermanentError: the database refuses these values.
            TemporaryError: any other fault, such as a missing column or permission, because an
                operator can correct it while the event waits.
        """
        event = with_tenant(event)
        try:
            self._prepare()
        except (NotOurs, SQLAlchemyError) as error:
            raise self._not_written(error) from error
        try:
            if event.summary is None:
                self._add_event(event)
            else:
                self._add_call(event, event.summary)
        except (DataError, IntegrityError) as error:
            raise PermanentError(
                f"{self._where} refuses this event's values: {first_line(error)}"
            ) from error
        except SQLAlchemyError as error:
            self._prepared = False  # a table may have been dropped
            raise self._not_written(error) from error

    def erase(self, number: Number) -> int:
        """Delete the calls of a number with their legs and events. Returns how many rows.

        Raises:
            TemporaryError: the database did not delete all of them.
        """
        try:
            self._prepare()
            with self.engine.begin() as connection:
                if self.engine.dialect.name == "sqlite":  # or the file keeps what was in the rows
                    connection.exec_driver_sql("PRAGMA secure_delete = ON")
                erased = self._erase(connection, number)
            if self.engine.dialect.name == "sqlite":
                with self.engine.connect() as connection:
                    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        except (NotOurs, SQLAlchemyError) as error:
            raise TemporaryError(f"{self._where} erased nothing: {first_line(error)}") from error
        return erased

    def _erase(self, connection: Connection, number: Number) -> int:
        tables = (self.tables.legs, self.tables.events, self.tables.calls)
        found: set[tuple[str, str]] = set()
        for table in tables[1:]:
            for column in table.columns:
                if not column.name.endswith(("_number", "_e164", "_did")):
                    continue
                written = connection.execute(select(column).distinct()).scalars()
                for value in [each for each in written if each and number.is_in(each)]:
                    rows = select(table.c.pbx, table.c.call_id).where(column == value)
                    found |= {(pbx, call) for pbx, call in connection.execute(rows)}
        erased = 0
        for pbx, call in found:
            for table in tables:
                this = (table.c.pbx == pbx, table.c.call_id == call)
                erased += connection.execute(delete(table).where(*this)).rowcount
        return erased

    def _prepare(self) -> None:
        if self._prepared:
            return
        with _preparing:
            if not self._prepared:
                with self.engine.begin() as connection:
                    prepare(connection, self.tables, self._lock_timeout)
                self._prepared = True

    def _add_event(self, event: CallEvent) -> None:
        try:
            with self.engine.begin() as connection:
                connection.execute(self._insert, event_row(event))
        except IntegrityError:
            events = self.tables.events
            with self.engine.connect() as connection:
                there = connection.execute(
                    select(events.c.id).where(events.c.id == event.id)
                ).first()
            if there is None:
                raise

    def _add_call(self, event: CallEvent, call: Call) -> None:
        try:
            self._write(event, call)
        except IntegrityError:  # another process has just inserted it
            self._write(event, call)

    def _write(self, event: CallEvent, call: Call) -> None:
        """Write the call and its legs in one transaction, which starts by locking the call."""
        calls, legs = self.tables.calls, self.tables.legs
        row = call_row(event, call)
        this = (calls.c.pbx == call.pbx, calls.c.call_id == call.id)
        with self.engine.begin() as connection:
            newer = update(calls).where(*this, calls.c.version <= row["version"]).values(row)
            if connection.execute(newer).rowcount == 0:
                if connection.execute(select(calls.c.version).where(*this)).first():
                    return  # the table has a newer version
                connection.execute(insert(calls), row)
            connection.execute(
                delete(legs).where(legs.c.pbx == call.pbx, legs.c.call_id == call.id)
            )
            if call.legs:
                connection.execute(insert(legs), leg_rows(call))

    def _not_written(self, error: Exception) -> TemporaryError:
        return TemporaryError(f"{self._where} did not accept the event: {first_line(error)}")


def _engine(url: URL, lock_timeout: float) -> Engine:
    arguments: dict[str, Any] = {"hide_parameters": True, "pool_timeout": POOL_TIMEOUT}
    if url.get_backend_name() == "sqlite":
        # One connection: SQLite has one writer, and threads wait for it more fairly.
        engine = create_engine(
            url,
            pool_size=1,
            max_overflow=0,
            connect_args={"timeout": lock_timeout},
            **arguments,
        )
        listen(engine, "do_connect", _private)
        listen(engine, "connect", _write_ahead)
        return engine
    if url.get_backend_name() == "postgresql" and "connect_timeout" not in url.query:
        arguments["connect_args"] = {"connect_timeout": CONNECT_TIMEOUT}
    return create_engine(url, pool_size=4, max_overflow=12, pool_pre_ping=True, **arguments)


def _private(_: object, __: object, arguments: Sequence[Any], options: dict[str, Any]) -> None:
    """Create a SQLite database for its owner only: it has names and numbers."""
    if options.get("uri"):
        return
    with suppress(OSError):  # SQLite says it better
        os.close(os.open(arguments[0], os.O_RDWR | os.O_CREAT, 0o600))


def _write_ahead(connection: Any, _: object) -> None:
    # So that readers and the writer do not block each other. Commits are still synced: a delivered
    # event survives a power cut.
    connection.execute("PRAGMA journal_mode=WAL").close()


def _insert(table: Table, engine: Engine) -> Insert:
    """An INSERT that skips an existing row, where the database supports that."""
    if engine.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=["id"])
    if engine.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing(index_elements=["id"])
    return insert(table)


def first_line(error: Exception) -> str:
    """The database's message, without the statement and the lines that quote values."""
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__
