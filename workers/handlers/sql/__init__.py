"""A call log in a SQL database: SQLite, PostgreSQL, or another one that SQLAlchemy speaks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, SecretStr
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from offhook import CALLBACKS, CALLS, CallEvent, Context, EventType, Handler
from workers.handlers.sql.log import CallLog

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
    """Keep a call log in a SQL database: its calls, their legs, and the raw events."""

    events: ClassVar[Sequence[EventType]] = (*CALLBACKS, *CALLS)

    url: Annotated[
        SecretStr,
        AfterValidator(_checked),
        Field(description="the database, as SQLAlchemy writes it; tables are made when missing"),
    ] = SecretStr("sqlite:///offhook-events.db")  # noqa: RUF009 - it cannot change
    prefix: Annotated[
        str,
        Field(
            pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,31})?$",
            description="what the tables' names begin with: `support_` makes support_calls, ...",
        ),
    ] = ""

    def handle(self, event: CallEvent, context: Context) -> None:
        with _starting:
            log = self._log
        log.add(event)

    @cached_property
    def _log(self) -> CallLog:
        """Made at the first event: a connection must not be older than the process it serves."""
        return CallLog(_readable(self.url.get_secret_value()), self.prefix)
