"""`SqlLookup`: find names in SQLite, PostgreSQL, or another database that SQLAlchemy supports."""

from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Annotated, Any, ClassVar
from urllib.parse import quote

from pydantic import AfterValidator, Field
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from offhook import Context, Lookup, Number, TemporaryError
from workers.handlers.sql.call_log import first_line
from workers.handlers.sql.database_url import DatabaseUrl, readable

_CONNECTIONS = 4
_PARAMETERS = {"number", "digits"}

_starting = Lock()


def _check_parameters(value: str) -> str:
    found = set(text(value).compile().params)
    if not found or not found <= _PARAMETERS:
        raise ValueError(
            "must contain :number (such as +442079460100) or :digits (2079460100), or both, and no "
            "other :name"
        )
    return value


@dataclass(frozen=True)
class SqlLookup(Lookup):
    """Find names in a SQL database, with your own query."""

    timeout: ClassVar[int] = 10  # seconds for a connection, and for a statement (PostgreSQL)

    url: Annotated[DatabaseUrl, Field(description="the SQLAlchemy URL of the database")]
    query: Annotated[
        str,
        AfterValidator(_check_parameters),
        Field(description="the query; the first column of the first row is the name"),
    ]

    def name_of(self, number: Number, context: Context) -> str | None:
        with _starting:
            engine = self._engine
        asked = text(self.query)
        values = {"number": number.e164 or number.text, "digits": number.national}
        bound = {name: values[name] for name in asked.compile().params}
        try:
            # Never committed, so a query cannot change anything.
            with engine.connect() as connection:
                if engine.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{self.timeout}s'")
                found: Any = connection.execute(asked, bound).scalar()
        except SQLAlchemyError as error:
            raise TemporaryError(f"the database did not answer: {first_line(error)}") from error
        return None if found is None else str(found)

    @cached_property
    def _engine(self) -> Engine:
        # Only at the first query, because the workers fork and must not share a connection.
        url = readable(self.url)
        options: dict[str, Any] = {}
        if url.get_backend_name() == "sqlite":
            url, options = _read_only(url), {"timeout": self.timeout}
        elif url.get_backend_name() == "postgresql" and "connect_timeout" not in url.query:
            options = {"connect_timeout": self.timeout}
        return create_engine(
            url,
            connect_args=options,
            execution_options={"postgresql_readonly": True},
            hide_parameters=True,
            pool_size=_CONNECTIONS,
            max_overflow=0,
            pool_timeout=self.timeout,
            pool_pre_ping=True,
        )


def _read_only(url: URL) -> URL:
    """The same SQLite file, but never created when it is missing."""
    path = url.database or ""
    if path.startswith("file:"):
        return url
    return url.set(database=f"file:{quote(path)}", query={**url.query, "mode": "ro", "uri": "true"})
