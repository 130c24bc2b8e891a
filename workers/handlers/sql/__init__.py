"""`Sql`: keep a call log in SQLite, PostgreSQL, or another database that SQLAlchemy supports."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Annotated, ClassVar

from pydantic import Field, SecretStr

from offhook import CALLBACKS, CALLS, CallEvent, Context, EventType, Handler, Number
from workers.handlers.sql.call_log import CallLog
from workers.handlers.sql.database_url import DatabaseUrl, readable

_starting = Lock()


@dataclass(frozen=True)
class Sql(Handler):
    """Keep a call log in a SQL database: its calls, their legs, and the raw events."""

    events: ClassVar[Sequence[EventType]] = (*CALLBACKS, *CALLS)
    lock_timeout: ClassVar[float] = 10.0  # seconds to wait for another writer or migration

    url: Annotated[
        DatabaseUrl,
        Field(description="the SQLAlchemy URL of the database; missing tables are created"),
    ] = SecretStr("sqlite:///offhook-events.db")  # noqa: RUF009 - immutable
    prefix: Annotated[
        str,
        Field(
            pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,31})?$",
            description="the prefix of table names: `support_` creates support_calls, ...",
        ),
    ] = ""

    def handle(self, event: CallEvent, context: Context) -> None:
        with _starting:
            log = self._log
        log.add(event)

    def erase(self, number: Number) -> int:
        """Delete the calls of a number with their legs and events. Returns how many rows.

        Raises:
            TemporaryError: the database did not delete all of them.
        """
        with _starting:
            log = self._log
        return log.erase(number)

    @cached_property
    def _log(self) -> CallLog:
        # Only at the first event, because the workers fork and must not share a connection.
        return CallLog(readable(self.url), self.prefix, self.lock_timeout)
