"""A call log in a SQL database: SQLite, PostgreSQL, or another one that SQLAlchemy speaks."""

from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SecretStr
from sqlalchemy import (
    JSON,
    URL,
    Column,
    DateTime,
    Engine,
    Insert,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    insert,
    inspect,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.event import listen
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, SQLAlchemyError

from offhook import CallEvent, Context, Handler, PermanentError, TemporaryError

CONNECT_TIMEOUT = 5  # seconds, PostgreSQL
LOCK_TIMEOUT = 10.0  # seconds that SQLite waits for another writer
POOL_TIMEOUT = 10.0  # seconds that a delivery waits for a connection

_starting = Lock()


def _readable(url: str) -> URL:
    """The parsed URL, `postgresql://` with the driver that offhook[postgresql] installs."""
    parsed = make_url(url)
    if parsed.drivername in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _checked(value: SecretStr) -> SecretStr:
    try:
        url = _readable(value.get_secret_value())
        dialect = url.get_dialect()
        dialect.import_dbapi()
    except (ArgumentError, ValueError):  # what they say may show the password
        raise ValueError(
            "is not a database URL, such as sqlite:///calls.db or postgresql://user:password@host/db"
        ) from None
    except ImportError as error:
        raise ValueError(
            f"needs {error.name or 'a driver'}, which is not installed; "
            "for PostgreSQL: pip install 'offhook[postgresql]'"
        ) from error
    if dialect.is_async:
        raise ValueError("names an asyncio driver; use another one, such as postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and (url.database or ":memory:") == ":memory:":
        raise ValueError("is a database in memory, lost with its process; name a file")
    return value


@dataclass(frozen=True)
class Sql(Handler):
    """Keep a call log: one row for every event, in a table of a SQL database."""

    url: Annotated[
        SecretStr,
        AfterValidator(_checked),
        Field(description="the database, as SQLAlchemy writes it; the table is made when missing"),
    ] = SecretStr("sqlite:///offhook-events.db")  # noqa: RUF009 - it cannot change
    table: Annotated[
        str,
        Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,47}$", description="the table's name"),
    ] = "events"

    def handle(self, event: CallEvent, context: Context) -> None:
        with _starting:
            log = self._log
        log.add(event)

    @cached_property
    def _log(self) -> "CallLog":
        """Made at the first event: a connection must not be older than the process it serves."""
        return CallLog(_readable(self.url.get_secret_value()), self.table)


class CallLog:
    """The table and the connections to it."""

    def __init__(self, url: URL, table: str) -> None:
        self.engine = _engine(url)
        self.table = _table(table)
        self._insert = _insert(self.table, self.engine)
        self._made = False
        self._where = f"{url.get_backend_name()} ({url.host or url.database})"

    def add(self, event: CallEvent) -> None:
        """Write the event's row, if it is not there yet.

        Raises:
            PermanentError: the database refuses these values.
            TemporaryError: anything else, a missing column or right, too: it can be put right
                while the event waits.
        """
        try:
            if not self._made:
                self._make()
            self._add(event)
        except (DataError, IntegrityError) as error:
            raise PermanentError(
                f"{self._where} refuses this event's values: {_first_line(error)}"
            ) from error
        except SQLAlchemyError as error:
            self._made = False  # somebody may have dropped the table
            raise TemporaryError(
                f"{self._where} did not take the event: {_first_line(error)}"
            ) from error

    def _add(self, event: CallEvent) -> None:
        try:
            with self.engine.begin() as connection:
                connection.execute(self._insert, _row(event))
        except IntegrityError:
            with self.engine.connect() as connection:
                there = connection.execute(
                    select(self.table.c.id).where(self.table.c.id == event.id)
                ).first()
            if there is None:
                raise

    def _make(self) -> None:
        try:
            self.table.create(self.engine, checkfirst=True)
        except SQLAlchemyError:
            if not inspect(self.engine).has_table(self.table.name):
                raise  # otherwise another process was faster
        self._made = True


def _engine(url: URL) -> Engine:
    arguments: dict[str, Any] = {"hide_parameters": True, "pool_timeout": POOL_TIMEOUT}
    if url.get_backend_name() == "sqlite":
        # One connection: SQLite has one writer, and threads wait better than connections do.
        engine = create_engine(
            url,
            pool_size=1,
            max_overflow=0,
            connect_args={"timeout": LOCK_TIMEOUT},
            **arguments,
        )
        listen(engine, "connect", _write_ahead)
        return engine
    if url.get_backend_name() == "postgresql" and "connect_timeout" not in url.query:
        arguments["connect_args"] = {"connect_timeout": CONNECT_TIMEOUT}
    return create_engine(url, pool_size=4, max_overflow=12, pool_pre_ping=True, **arguments)


def _write_ahead(connection: Any, _: object) -> None:
    # Readers and the writer do not block each other. Commits are still synced: a row that was
    # reported as delivered outlives a power cut.
    connection.execute("PRAGMA journal_mode=WAL").close()


def _table(name: str) -> Table:
    # MySQL and MariaDB index no text of unknown length.
    key = Text().with_variant(String(255), "mysql", "mariadb")
    # SQLite has no timestamps: it keeps text, here with the zone, as its date functions read it.
    received = DateTime(timezone=True).with_variant(
        sqlite.DATETIME(  # type: ignore[no-untyped-call]
            storage_format="%(year)04d-%(month)02d-%(day)02d "
            "%(hour)02d:%(minute)02d:%(second)02d.%(microsecond)06d+00:00"
        ),
        "sqlite",
    )
    return Table(
        name,
        MetaData(),
        Column("id", String(64), primary_key=True),
        Column("pbx", Text, nullable=False),
        Column("call_id", key, nullable=False, index=True),
        Column("extension", Text, nullable=False),
        Column("type", Text, nullable=False),
        Column("direction", Text),
        Column("status", Text),
        Column("caller_number", Text),
        Column("caller_name", Text),
        Column("caller_extension", Text),
        Column("called_number", Text),
        Column("called_extension", Text),
        Column("called_did", Text),
        Column("received", received, nullable=False, index=True),
        Column("parameters", JSON, nullable=False),
    )


def _insert(table: Table, engine: Engine) -> Insert:
    """An INSERT that leaves the row of an earlier attempt alone, where the database can do that."""
    if engine.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=["id"])
    if engine.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing(index_elements=["id"])
    return insert(table)


def _row(event: CallEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "pbx": event.pbx,
        "call_id": event.call_id,
        "extension": event.extension,
        "type": event.type.value,
        "direction": event.direction,
        "status": event.status,
        "caller_number": event.caller.number,
        "caller_name": event.caller.name,
        "caller_extension": event.caller.extension,
        "called_number": event.called.number,
        "called_extension": event.called.extension,
        "called_did": event.called.did,
        "received": event.received,
        "parameters": event.parameters,
    }


def _first_line(error: SQLAlchemyError) -> str:
    """What the database said, without the statement and the lines that quote values."""
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__
