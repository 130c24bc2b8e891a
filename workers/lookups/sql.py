"""Names from a SQL database: SQLite, PostgreSQL, or another one that SQLAlchemy speaks."""

from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import AfterValidator, Field
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from offhook import Context, Lookup, Number, TemporaryError
from workers.handlers.sql.call_log import first_line
from workers.handlers.sql.database_url import DatabaseUrl, readable

PATIENCE = 10  # seconds for a connection, and a statement (PostgreSQL): a thread cannot be stopped
CONNECTIONS = 4
_PARAMETERS = {"number", "digits"}

_starting = Lock()


def _has_parameters(value: str) -> str:
    found = set(text(value).compile().params)
    if not found or not found <= _PARAMETERS:
        raise ValueError(
            "must have :number (such as +442079460100) or :digits (2079460100) in it, or both, and "
            "no other :name"
        )
    return value


@dataclass(frozen=True)
class Sql(Lookup):
    """Names from a SQL database, by a query of yours."""

    url: Annotated[DatabaseUrl, Field(description="the database, as SQLAlchemy writes it")]
    query: Annotated[
        str,
        AfterValidator(_has_parameters),
        Field(description="what to ask: the first column of the first row is the name"),
    ]

    def name_of(self, number: Number, context: Context) -> str | None:
        with _starting:
            engine = self._engine
        asked = text(self.query)
        values = {"number": number.e164 or number.text, "digits": number.national}
        bound = {name: values[name] for name in asked.compile().params}
        try:
            # Never committed: whatever the query does is taken back.
            with engine.connect() as connection:
                if engine.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{PATIENCE}s'")
                found: Any = connection.execute(asked, bound).scalar()
        except SQLAlchemyError as error:
            raise TemporaryError(f"the database did not answer: {first_line(error)}") from error
        return None if found is None else str(found)

    @cached_property
    def _engine(self) -> Engine:
        """Made at the first question: a connection must not be older than the process it serves."""
        url = readable(self.url)
        options: dict[str, Any] = {}
        if url.get_backend_name() == "sqlite":
            url, options = _read_only(url), {"timeout": PATIENCE}
        elif url.get_backend_name() == "postgresql" and "connect_timeout" not in url.query:
            options = {"connect_timeout": PATIENCE}
        return create_engine(
            url,
            connect_args=options,
            execution_options={"postgresql_readonly": True},
            hide_parameters=True,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=PATIENCE,
            pool_pre_ping=True,
        )


def _read_only(url: URL) -> URL:
    """The same SQLite file, which is not made when it is missing."""
    path = url.database or ""
    if path.startswith("file:"):
        return url
    return url.set(database=f"file:{quote(path)}", query={**url.query, "mode": "ro", "uri": "true"})
