"""The tables of the call log, and an event or a call as rows of them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects import mysql, sqlite

from offhook import CALLS, Call, CallEvent, Leg

# MySQL and MariaDB index no text of unknown length.
KEY = Text().with_variant(String(255), "mysql", "mariadb")
# SQLite has no timestamps: it keeps text, here with the zone, as its date functions read it.
# MySQL and MariaDB keep whole seconds unless told otherwise.
MOMENT = (
    DateTime(timezone=True)
    .with_variant(
        sqlite.DATETIME(  # type: ignore[no-untyped-call]
            storage_format="%(year)04d-%(month)02d-%(day)02d "
            "%(hour)02d:%(minute)02d:%(second)02d.%(microsecond)06d+00:00"
        ),
        "sqlite",
    )
    .with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Tables:
    """The tables of one call log, as they are after the last migration."""

    prefix: str
    metadata: MetaData
    events: Table
    calls: Table
    legs: Table

    @property
    def revision(self) -> str:
        """The name of the table that says which migration was the last."""
        return f"{self.prefix}offhook_revision"


def tables(prefix: str) -> Tables:
    """The tables whose names begin with `prefix`."""
    metadata = MetaData()
    events = Table(
        f"{prefix}events",
        metadata,
        Column("id", String(64), primary_key=True),
        Column("pbx", Text, nullable=False),
        Column("call_id", KEY, nullable=False, index=True),
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
        Column("received", MOMENT, nullable=False, index=True),
        Column("parameters", JSON, nullable=False),
    )
    calls = Table(
        f"{prefix}calls",
        metadata,
        Column("pbx", KEY, primary_key=True),
        Column("call_id", KEY, primary_key=True),
        Column("direction", Text, nullable=False),
        Column("caller_number", Text),
        Column("caller_name", Text),
        Column("caller_e164", Text),
        Column("caller_extension", Text),
        Column("called_number", Text),
        Column("called_e164", Text),
        Column("called_did", Text),
        Column("called_extension", Text),
        Column("started", MOMENT, nullable=False, index=True),
        Column("answered", MOMENT),
        Column("ended", MOMENT),
        Column("answered_by", Text),
        Column("ring_seconds", Double),
        Column("talk_seconds", Double),
        Column("outcome", Text),
        Column("gaps", Text, nullable=False),
        Column("closed_by", Text),
        Column("recovered", Boolean, nullable=False),
        Column("recording", Text),
        Column("version", BigInteger, nullable=False),
    )
    legs = Table(
        f"{prefix}legs",
        metadata,
        Column("pbx", KEY, primary_key=True),
        Column("call_id", KEY, primary_key=True),
        Column("leg", Integer, primary_key=True, autoincrement=False),
        Column("extension", KEY, nullable=False, index=True),
        Column("kind", Text),
        Column("direction", Text),
        Column("rang", MOMENT),
        Column("answered", MOMENT),
        Column("ended", MOMENT),
        Column("ring_seconds", Double),
        Column("talk_seconds", Double),
        Column("status", Text),
        Column("leg_id", Text),
        ForeignKeyConstraint(
            ["pbx", "call_id"], [calls.c.pbx, calls.c.call_id], ondelete="CASCADE"
        ),
    )
    return Tables(prefix, metadata, events, calls, legs)


def event_row(event: CallEvent) -> dict[str, Any]:
    """A row of `events`."""
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


def call_row(event: CallEvent, call: Call) -> dict[str, Any]:
    """A row of `calls`: the call as this event tells it."""
    return {
        "pbx": call.pbx,
        "call_id": call.id,
        "direction": call.direction,
        "caller_number": call.caller.number,
        "caller_name": call.caller.name,
        "caller_e164": call.caller.e164,
        "caller_extension": call.caller.extension,
        "called_number": call.called.number,
        "called_e164": call.called.e164,
        "called_did": call.called.did,
        "called_extension": call.called.extension,
        "started": call.started,
        "answered": call.answered,
        "ended": call.ended,
        "answered_by": call.answered_by,
        "ring_seconds": call.ring_seconds,
        "talk_seconds": call.talk_seconds,
        "outcome": call.outcome and call.outcome.value,
        "gaps": ",".join(call.gaps),
        "closed_by": call.closed_by,
        "recovered": call.recovered,
        "recording": call.recording,
        "version": _version(event),
    }


def leg_rows(call: Call) -> list[dict[str, Any]]:
    """The rows of `legs` that belong to a call."""
    return [
        {
            "pbx": call.pbx,
            "call_id": call.id,
            "leg": number,
            "extension": leg.extension,
            "kind": leg.kind and leg.kind.value,
            "direction": leg.direction,
            "rang": leg.rang,
            "answered": leg.answered,
            "ended": leg.ended,
            "ring_seconds": _seconds(leg.rang, leg.answered or _gave_up(leg)),
            "talk_seconds": _seconds(leg.answered, leg.ended),
            "status": leg.status,
            "leg_id": leg.id,
        }
        for number, leg in enumerate(call.legs, 1)
    ]


def _version(event: CallEvent) -> int:
    """Greater for what is told of a call later, whenever it is delivered.

    First by the kind of event, as they come in a call; then, of two corrections, by the time.
    """
    return CALLS.index(event.type) * 10**17 + (event.received - _EPOCH) // _MICROSECOND


def _gave_up(leg: Leg) -> datetime | None:
    """When an unanswered leg stopped ringing; None when only the answer's moment is missing."""
    return None if leg.status == "ANSWER" else leg.ended


def _seconds(since: datetime | None, until: datetime | None) -> float | None:
    return None if since is None or until is None else (until - since).total_seconds()
