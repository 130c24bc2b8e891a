"""CDR: list call records."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, tzinfo
from functools import partial

from unifiedapi.resources import Disposition, Flow
from unifiedapi.sandbox.call_records import RecordedLeg, StoredRecord
from unifiedapi.sandbox.collection import RECORDS, Entry, Query, page_of, read_query, select
from unifiedapi.sandbox.refusal import Refused
from unifiedapi.sandbox.services.api_request import (
    ApiRequest,
    acting_user,
    manages,
    matching,
    member,
    timestamp,
)
from unifiedapi.sandbox.store import Level, Store, User

# Source and destination: an extended extension or a public number.
NUMBER = r"^\+?[0-9*]{1,40}$"
# Whether the month has such a day is checked separately.
DATE = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]$"
)
# The names of PhoneCallStat, which counts calls by disposition.
_STATISTIC = {
    Disposition.ANSWERED: "answered",
    Disposition.NO_ANSWER: "unanswered",
    Disposition.BUSY: "busy",
    Disposition.FAILED: "failed",
    Disposition.UNKNOWN: "unknown",
    Disposition.NOT_ALLOWED: "unallowed",
}
COUNTED = ("total", *_STATISTIC.values())

# The parameters that select legs.
_LEG: Mapping[str, Callable[[str], object]] = {
    "source": partial(matching, pattern=NUMBER, code="cdr_source_invalid"),
    "destination": partial(matching, pattern=NUMBER, code="cdr_destination_invalid"),
    "flow": partial(member, kind=Flow, code="cdr_flow_invalid"),
    "disposition": partial(member, kind=Disposition, code="cdr_disposition_invalid"),
}


def list_(store: Store, request: ApiRequest, owner: str) -> Entry | None:
    """List the calls with a leg of one of the owner's extensions.

    Inferred: an unanswered call is dated by when it entered the PBX; `source`, `destination`,
    `flow` and `disposition` must match the same leg.
    """
    acting = acting_user(store, request, owner)
    if acting is None:  # @owner is ambiguous without an extension
        raise Refused("user_invalid")
    given, zone = dict(request.query), store.zone
    (start, end), (save_start, save_end) = _periods(given, zone)
    wanted = {name: check(given[name]) for name, check in _LEG.items() if name in given}
    query = _query(request)
    own = {e.number for e in store.extensions.values() if manages(acting, store.users[e.user])}
    rows = [
        _row(record, zone)
        for record in store.records()
        if start <= _local(record.answered or record.published, zone) <= end
        and save_start <= _local(record.saved, zone) <= save_end
        and any(leg.extension in own for leg in record.legs)
        and any(all(getattr(leg, n) == v for n, v in wanted.items()) for leg in record.legs)
    ]
    found = select(rows, query, RECORDS)
    collection = page_of(found, query)
    if collection is None:
        return None
    page = [_entry(store, request, row["record"]) for row in collection["entry"]]
    statistics = _statistics([row["record"] for row in found])
    collection["entry"] = {entry["id"]: query.narrowed(entry) for entry in page}
    collection["phoneCallStat"] = [query.narrowed(part) for part in statistics]
    return request.with_paging(collection)


def _periods(given: Mapping[str, str], zone: tzinfo) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return when the calls were answered and when they were saved, in the PBX's local time."""
    now = _local(datetime.now(UTC), zone)
    answered = (
        _date(given.get("startDate", f"{now[:7]}-01T00:00:00"), "cdr_start_date_invalid"),
        _date(given.get("endDate", now), "cdr_end_date_invalid"),
    )
    saved = (
        _date(given.get("saveStartDate", "0001-01-01T00:00:00"), "cdr_save_start_date_invalid"),
        _date(given.get("saveEndDate", "9999-12-31T23:59:59"), "cdr_save_end_date_invalid"),
    )
    if answered[0] > answered[1] or saved[0] > saved[1]:
        raise Refused("cdr_invalid_date_parameters")
    return answered, saved


def _query(request: ApiRequest) -> Query:
    query = read_query(request.query, RECORDS)
    if query.filter_by is not None and query.filter_op != "present":
        code = f"cdr_invalid_filter_by_{query.filter_by}"
        for value in query.filter_value:
            if query.filter_by in ("source", "destination"):
                matching(value, NUMBER, code)
            else:
                _date(value, code)
    return query


def _row(record: StoredRecord, zone: tzinfo) -> Entry:
    """Return the record, and the fields that the standard parameters filter and sort by."""
    return {
        "source": [leg.source for leg in record.legs],
        "destination": [leg.destination for leg in record.legs],
        "published": _local(record.published, zone),
        "answered": _local(record.answered, zone) if record.answered else "",
        "record": record,
    }


def _entry(store: Store, request: ApiRequest, record: StoredRecord) -> Entry:
    """Return the JSON as in CDR Resource's sample, without nulls as in PhoneCalls Resource."""
    here = [leg.extension for leg in record.legs if leg.extension in store.extensions]
    charged = store.extensions[here[0]]
    organization = _organization(store, store.users[charged.user])
    return _without_nulls(
        {
            "id": record.id,
            "extension": charged.number,
            "ownerId": request.number(organization.id),
            "ownerName": organization.organization,
            "published": timestamp(record.published),
            "answered": timestamp(record.answered),
            "phoneCallView": [_leg_entry(request, n, leg) for n, leg in enumerate(record.legs)],
        }
    )


def _leg_entry(request: ApiRequest, number: int, leg: RecordedLeg) -> Entry:
    return _without_nulls(
        {
            "id": f"{number:02}",
            "extension": leg.extension,
            "source": leg.source,
            "destination": leg.destination,
            "flow": request.number(leg.flow),
            "disposition": request.number(leg.disposition),
            "answered": timestamp(leg.answered),
            "duration": request.number(leg.duration),
        }
    )


def _without_nulls(entry: Entry) -> Entry:
    return {name: value for name, value in entry.items() if value is not None}


def _organization(store: Store, user: User) -> User:
    """Return the account of the user's organization, or the user if there is none."""
    for other in store.users.values():
        if other.level is Level.ORGANIZATION and other.organization == user.organization:
            return other
    return user


def _statistics(records: Iterable[StoredRecord]) -> list[Entry]:
    """Return PhoneCallStat of incoming calls (type 0) and of other calls (type 1).

    CDR Resource's sample mixes numbers and strings. These are numbers.
    """
    parts: list[Entry] = [{"type": n, **dict.fromkeys(COUNTED, 0)} for n in (0, 1)]
    for record in records:
        part = parts[0 if record.legs[0].flow is Flow.INCOMING else 1]
        part["total"] += 1
        part[_STATISTIC[record.disposition]] += 1
    return parts


def _date(value: str, code: str) -> str:
    """Return a valid date and time without a zone."""
    try:
        datetime.fromisoformat(matching(value, DATE, code))
    except ValueError as error:  # the month has no such day
        raise Refused(code) from error
    return value


def _local(moment: datetime, zone: tzinfo) -> str:
    return moment.astimezone(zone).strftime("%Y-%m-%dT%H:%M:%S")
