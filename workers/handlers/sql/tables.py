"""The tables of the call log, and the rows for an event or a call."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace
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

from offhook import CALLS, Call, CallEvent, Leg, Party

# MySQL and MariaDB cannot index text without a length.
KEY = Text().with_variant(String(255), "mysql", "mariadb")
# SQLite has no timestamps: this stores text with the zone, which its date functions read.
# MySQL and MariaDB store whole seconds by default.
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
    """The tables of one call log, after the last migration."""

    prefix: str
    metadata: MetaData
    events: Table
    calls: Table
    legs: Table

    @property
    def revision(self) -> str:
        """The name of the table that holds the last migration."""
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
        *_texts("direction", "status", "caller_number", "caller_name", "caller_extension"),
        *_texts("called_number", "called_extension", "called_did"),
        Column("received", MOMENT, nullable=False, index=True),
        Column("parameters", JSON, nullable=False),
    )
    calls = Table(
        f"{prefix}calls",
        metadata,
        Column("pbx", KEY, primary_key=True),
        Column("call_id", KEY, primary_key=True),
        Column("direction", Text, nullable=False),
        *_texts("caller_number", "caller_name", "caller_e164", "caller_extension"),
        *_texts("called_number", "called_e164", "called_did", "called_extension"),
        Column("started", MOMENT, nullable=False, index=True),
        Column("answered", MOMENT),
        Column("ended", MOMENT),
        *_texts("answered_by"),
        Column("ring_seconds", Double),
        Column("talk_seconds", Double),
        *_texts("outcome"),
        Column("gaps", Text, nullable=False),
        *_texts("closed_by"),
        Column("recovered", Boolean, nullable=False),
        *_texts("recording"),
        Column("version", BigInteger, nullable=False),
    )
    legs = Table(
        f"{prefix}legs",
        metadata,
        Column("pbx", KEY, primary_key=True),
        Column("call_id", KEY, primary_key=True),
        Column("leg", Integer, primary_key=True, autoincrement=False),
        Column("extension", KEY, nullable=False, index=True),
        *_texts("kind", "direction"),
        Column("rang", MOMENT),
        Column("answered", MOMENT),
        Column("ended", MOMENT),
        Column("ring_seconds", Double),
        Column("talk_seconds", Double),
        *_texts("status", "leg_id"),
        ForeignKeyConstraint(
            ["pbx", "call_id"], [calls.c.pbx, calls.c.call_id], ondelete="CASCADE"
        ),
    )
    return Tables(prefix, metadata, events, calls, legs)


def _texts(*names: str) -> list[Column[str]]:
    return [Column(name, Text) for name in names]


def with_tenant(event: CallEvent) -> CallEvent:
    """The event with `TENANT:PBX` as its PBX: equal CallIDs of two tenants are two calls."""
    if not event.tenant:
        return event
    pbx = f"{event.tenant}:{event.pbx}"
    return replace(event, pbx=pbx, summary=event.summary and replace(event.summary, pbx=pbx))


def event_row(event: CallEvent) -> dict[str, Any]:
    """A row of `events`."""
    same = ("id", "pbx", "call_id", "extension", "direction", "status", "received", "parameters")
    return {
        **{name: getattr(event, name) for name in same},
        "type": event.type.value,
        **_columns("caller", event.caller, "number", "name", "extension"),
        **_columns("called", event.called, "number", "extension", "did"),
    }


def call_row(event: CallEvent, call: Call) -> dict[str, Any]:
    """A row of `calls`: the call as this event tells it."""
    same = (
        *("pbx", "direction", "started", "answered", "ended", "answered_by"),
        *("ring_seconds", "talk_seconds", "closed_by", "recovered", "recording"),
    )
    return {
        **{name: getattr(call, name) for name in same},
        "call_id": call.id,
        **_columns("caller", call.caller, "number", "name", "e164", "extension"),
        **_columns("called", call.called, "number", "e164", "did", "extension"),
        "outcome": call.outcome and call.outcome.value,
        "gaps": ",".join(call.gaps),
        "version": _version(event),
    }


def _columns(prefix: str, party: Party, *names: str) -> dict[str, str | None]:
    return {f"{prefix}_{name}": getattr(party, name) for name in names}


def leg_rows(call: Call) -> list[dict[str, Any]]:
    """The rows of `legs` for a call."""
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
    """A number that grows with each event of a call, in whatever order they are delivered.

    First by event type, then (for corrections) by time.
    """
    return CALLS.index(event.type) * 10**17 + (event.received - _EPOCH) // _MICROSECOND


def _gave_up(leg: Leg) -> datetime | None:
    """When an unanswered leg stopped ringing; None when it was answered at an unknown time."""
    return None if leg.status == "ANSWER" else leg.ended


def _seconds(since: datetime | None, until: datetime | None) -> float | None:
    return None if since is None or until is None else (until - since).total_seconds()
