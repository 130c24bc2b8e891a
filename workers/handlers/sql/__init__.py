"""A call log in a SQL database: SQLite, PostgreSQL, or another one that SQLAlchemy speaks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Annotated, ClassVar

from pydantic import Field, SecretStr

from offhook import CALLBACKS, CALLS, CallEvent, Context, EventType, Handler
from workers.handlers.sql.call_log import CallLog
from workers.handlers.sql.database_url import DatabaseUrl, readable

_starting = Lock()


@dataclass(frozen=True)
class Sql(Handler):
    """Keep a call log in a SQL database: its calls, their legs, and the raw events."""

    events: ClassVar[Sequence[EventType]] = (*CALLBACKS, *CALLS)

    url: Annotated[
        DatabaseUrl,
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
        return CallLog(readable(self.url), self.prefix)
