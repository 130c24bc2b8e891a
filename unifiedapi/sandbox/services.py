"""What each API request does and answers. Plain functions on the store: no HTTP in here.

The order of the checks is ours, for none is documented: user, extension, type and id in the path,
body or query. Whatever is wrong is a `Refused`.

Sources: VoipNow wiki, Create, List, Update and Delete PhoneCallEvents, List Presence, List and
Update QueueAgents, List CDR and CDR Resource (v3), and the v5 pages of the same services.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from enum import IntEnum
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from unifiedapi.resources import (
    AgentStatus,
    Disposition,
    EventMethod,
    EventStatus,
    EventType,
    Flow,
    PhoneCallEvent,
)
from unifiedapi.sandbox.call_records import Leg, Record
from unifiedapi.sandbox.collection import (
    AGENTS,
    EVENTS,
    PRESENCE,
    RECORDS,
    Entry,
    Names,
    Query,
    collect,
    neighbours,
    page_of,
    read_query,
    select,
)
from unifiedapi.sandbox.refusal import Refused
from unifiedapi.sandbox.store import Agent, Extension, Kind, Level, Store, User

Number = TypeVar("Number", bound=IntEnum)

WITH_EVENTS = frozenset({Kind.PHONE, Kind.QUEUE, Kind.CONFERENCE, Kind.IVR})
# Of a phone call event: RFC 3986, and the brackets that PHP's arrays have in a query.
URL = (
    r"^[Hh][Tt][Tt][Pp][Ss]?://([A-Za-z0-9._~!$&'()*+,;=:%-]+@)?"
    r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
    r"([/?#]([A-Za-z0-9._~!$&'()*+,;=:@/?#\[\]-]|%[0-9A-Fa-f]{2})*)?$"
)
# Of a call record's source and destination: an extended extension or a public number.
NUMBER = r"^\+?[0-9*]{1,40}$"
# Of a date parameter: that a month has such a day, no pattern says.
DATE = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]$"
)
# PhoneCallStat: how many calls of each disposition.
_STATISTIC = {
    Disposition.ANSWERED: "answered",
    Disposition.NO_ANSWER: "unanswered",
    Disposition.BUSY: "busy",
    Disposition.FAILED: "failed",
    Disposition.UNKNOWN: "unknown",
    Disposition.NOT_ALLOWED: "unallowed",
}
COUNTED = ("total", *_STATISTIC.values())


@dataclass(frozen=True)
class Call:
    """One API request of a user whose token is good.

    Attributes:
        path: the segments after `/uapi`, decoded.
        query: names and values, in their order.
        base: the URL of `/uapi`, as the client sees it.
        numbers: whether to answer with numbers, where the documents' samples have strings.
    """

    user: User
    method: str
    path: Sequence[str]
    query: Sequence[tuple[str, str]]
    body: bytes
    base: str
    numbers: bool = False

    def page_url(self, start: int) -> str:
        """The same request, from another entry on."""
        query = [(name, value) for name, value in self.query if name != "startIndex"]
        path = "/".join(quote(segment, safe="@*+") for segment in self.path)
        return f"{self.base}/{path}?{urlencode([*query, ('startIndex', start)])}"


def answer(store: Store, call: Call) -> Any:
    """The JSON that answers the call; None: nothing to return.

    Raises:
        Refused: it is an error.
    """
    match (call.method, *call.path):
        case "POST", "extensions", user, number, "phoneCallEvents":
            return _create_event(store, call, user, number, None)
        case "POST", "extensions", user, number, "phoneCallEvents", type_:
            return _create_event(store, call, user, number, type_)
        case "GET", "extensions", user, number, "phoneCallEvents", *which if len(which) <= 2:
            return _list_events(store, call, user, number, which)
        case "PUT", "extensions", user, number, "phoneCallEvents", type_, id_:
            return _update_event(store, call, user, number, [type_, id_])
        case "DELETE", "extensions", user, number, "phoneCallEvents", *which if len(which) <= 2:
            return _delete_events(store, call, user, number, which)
        # Presence Service (v5) shows the list as a curl line with a body, pasted from another page:
        # that makes it a POST. That it is answered as the GET is, is inferred from that line.
        case "GET" | "POST", "extensions", user, number, "presence":
            return _list_presence(store, call, user, number)
        # The overview page alone has queueAgent; every other page has queue/agents.
        case ("GET", "extensions", user, number, "queue", "agents", *which) | (
            "GET",
            "extensions",
            user,
            number,
            "queueAgent",
            *which,
        ) if len(which) <= 1:
            return _list_agents(store, call, user, number, which)
        case ("PUT", "extensions", user, number, "queue", "agents", agent) | (
            "PUT",
            "extensions",
            user,
            number,
            "queueAgent",
            agent,
        ):
            return _update_agent(store, call, user, number, agent)
        case "GET", "cdr", *owner if len(owner) <= 1:
            return _list_records(store, call, owner[0] if owner else "@me")
        case _:
            raise Refused("request_not_implemented")


# Phone call events


def _create_event(store: Store, call: Call, user: str, number: str, type_: str | None) -> Entry:
    extension = _one(store, call, user, number, WITH_EVENTS)
    types = [] if type_ is None else [_required(type_, EventType, "pce_type_invalid")]
    body = _object(call.body)
    if "type" in body or not types:
        types.append(_required(body.get("type"), EventType, "pce_type_invalid"))
    if len(set(types)) != 1:
        raise Refused("pce_type_invalid")
    event = store.add_event(
        extension.number,
        type=types[0],
        method=_required(body.get("method"), EventMethod, "pce_method_invalid"),
        url=_url(body.get("url")),
        status=_required(body.get("status"), EventStatus, "pce_status_invalid"),
        note=_note(body.get("note", "")),
    )
    return _event_entry(call, user, extension, event)


def _list_events(
    store: Store, call: Call, user: str, number: str, which: Sequence[str]
) -> Entry | None:
    extension = _one(store, call, user, number, WITH_EVENTS)
    events = _chosen(store, extension, which)
    return _page(call, [_event_entry(call, user, extension, event) for event in events], EVENTS)


def _update_event(store: Store, call: Call, user: str, number: str, which: Sequence[str]) -> Entry:
    extension = _one(store, call, user, number, WITH_EVENTS)
    [event] = _chosen(store, extension, which)
    body = _object(call.body)
    changes: dict[str, Any] = {}
    if "type" in body and _number(body["type"], EventType) != event.type:
        raise Refused("pce_type_invalid")
    if "method" in body:
        changes["method"] = _required(body["method"], EventMethod, "pce_method_invalid")
    if "url" in body:
        changes["url"] = _url(body["url"])
    if "status" in body:
        changes["status"] = _required(body["status"], EventStatus, "pce_status_invalid")
    if "note" in body:
        changes["note"] = _note(body["note"])
    event = store.put_event(extension.number, msgspec.structs.replace(event, **changes))
    return _event_entry(call, user, extension, event)


def _delete_events(
    store: Store, call: Call, user: str, number: str, which: Sequence[str]
) -> list[Entry] | None:
    extension = _one(store, call, user, number, WITH_EVENTS)
    events = _chosen(store, extension, which)
    store.remove_events(extension.number, {event.id for event in events})
    entries = [_event_entry(call, user, extension, event) for event in events]
    return [{name: entry[name] for name in ("id", "type", "links")} for entry in entries] or None


def _chosen(store: Store, extension: Extension, which: Sequence[str]) -> list[PhoneCallEvent]:
    """All phone call events, those of one type, or the one with this type and id."""
    events = store.events(extension.number)
    if which:
        type_ = _required(which[0], EventType, "pce_type_invalid")
        events = [event for event in events if event.type == type_]
    if len(which) == 2:
        events = [event for event in events if event.id == which[1]]
        if not events:
            raise Refused("pce_id_invalid")
    return events


def _event_entry(call: Call, user: str, extension: Extension, event: PhoneCallEvent) -> Entry:
    own = f"{call.base}/extensions/{user}/{extension.number}/phoneCallEvents"
    return {
        "type": _wire(call, event.type),
        "id": event.id,
        "method": _wire(call, event.method),
        "url": event.url,
        "status": _wire(call, event.status),
        "note": event.note,
        "modified": _date(event.modified),
        "links": {"self": f"{own}/{int(event.type)}/{event.id}"},
    }


# Presence


def _list_presence(store: Store, call: Call, user: str, number: str) -> Entry | None:
    phones = frozenset({Kind.PHONE})
    if number == "@self":
        extensions = _all(store, call, user, phones)
    else:
        extensions = [_one(store, call, user, number, phones)]
    return _page(call, [_presence_entry(call, extension) for extension in extensions], PRESENCE)


def _presence_entry(call: Call, extension: Extension) -> Entry:
    return {
        "extension": extension.number,
        # A bare number beside strings: so it is in the samples of both versions.
        "status": int(extension.status),
        "registration": [
            {
                "agent": phone.agent,
                "registration": _wire(call, phone.registration),
                **({"expire": _date(phone.expire)} if phone.expire else {}),
            }
            for phone in extension.phones
        ],
    }


# Queue agents


def _list_agents(
    store: Store, call: Call, user: str, number: str, which: Sequence[str]
) -> Entry | None:
    queue = _one(store, call, user, number, frozenset({Kind.QUEUE}))
    agents = [_agent(call, queue, which[0])] if which else queue.agents
    return _page(call, [_agent_entry(call, user, queue, agent) for agent in agents], AGENTS)


def _update_agent(store: Store, call: Call, user: str, number: str, which: str) -> list[Entry]:
    queue = _one(store, call, user, number, frozenset({Kind.QUEUE}))
    agent = _agent(call, queue, which)
    agent.status = _required(_object(call.body).get("status"), AgentStatus, "status_invalid")
    return [_agent_entry(call, user, queue, agent)]


def _agent(call: Call, queue: Extension, which: str) -> Agent:
    """A local agent by its extension, short or extended, a remote one by its number or id."""
    names = {which, f"{call.user.organization}*{which}"}
    for agent in queue.agents:
        if agent.number in names or (agent.identifier and agent.identifier == which):
            return agent
    raise Refused("qag_agent_invalid")


def _agent_entry(call: Call, user: str, queue: Extension, agent: Agent) -> Entry:
    own = f"{call.base}/extensions/{user}/{queue.number}/queue/agents"
    return {
        "agentNumber": agent.number,
        "status": _wire(call, agent.status),
        # v5 has these three; what they hold is inferred from their names.
        "queue": queue.number,
        "type": "remote" if agent.identifier else "local",
        "identifier": agent.identifier or agent.number,
        "links": {"self": f"{own}/{agent.number}"},
    }


# Call records


def _list_records(store: Store, call: Call, owner: str) -> Entry | None:
    """The calls in which an extension of the owner had a part.

    Inferred: a call that nobody answered is dated by when it entered the PBX; `source`,
    `destination`, `flow` and `disposition` must fit one and the same leg.
    """
    context = _context(store, call, owner)
    if context is None:  # @owner: of which extension?
        raise Refused("user_invalid")
    given = dict(call.query)
    (start, end), (save_start, save_end) = _periods(given, store.zone)
    wanted = _wanted(given)
    query = _record_query(call)
    mine = {e.number for e in store.extensions.values() if _manages(context, store.users[e.user])}
    rows = [
        _record_row(record, store.zone)
        for record in store.records()
        if start <= _local(record.answered or record.published, store.zone) <= end
        and save_start <= _local(record.saved, store.zone) <= save_end
        and any(leg.extension in mine for leg in record.legs)
        and any(all(getattr(leg, n) == v for n, v in wanted.items()) for leg in record.legs)
    ]
    found = select(rows, query, RECORDS)
    collection = page_of(found, query)
    if collection is None:
        return None
    page = [_record_entry(store, call, row["record"]) for row in collection["entry"]]
    statistics = _statistics([row["record"] for row in found])
    collection["entry"] = {entry["id"]: query.narrowed(entry) for entry in page}
    collection["phoneCallStat"] = [query.narrowed(part) for part in statistics]
    return _with_paging(call, collection)


def _periods(given: Mapping[str, str], zone: tzinfo) -> tuple[tuple[str, str], tuple[str, str]]:
    """When the calls were answered and when they were saved, as texts in the PBX's local time."""
    now = _local(datetime.now(UTC), zone)
    answered = (
        _date_text(given.get("startDate", f"{now[:7]}-01T00:00:00"), "cdr_start_date_invalid"),
        _date_text(given.get("endDate", now), "cdr_end_date_invalid"),
    )
    saved = (
        _date_text(
            given.get("saveStartDate", "0001-01-01T00:00:00"), "cdr_save_start_date_invalid"
        ),
        _date_text(given.get("saveEndDate", "9999-12-31T23:59:59"), "cdr_save_end_date_invalid"),
    )
    if answered[0] > answered[1] or saved[0] > saved[1]:
        raise Refused("cdr_invalid_date_parameters")
    return answered, saved


def _wanted(given: Mapping[str, str]) -> dict[str, object]:
    """What a leg must have."""
    wanted: dict[str, object] = {}
    if "source" in given:
        wanted["source"] = _party(given["source"], "cdr_source_invalid")
    if "destination" in given:
        wanted["destination"] = _party(given["destination"], "cdr_destination_invalid")
    if "flow" in given:
        wanted["flow"] = _required(given["flow"], Flow, "cdr_flow_invalid")
    if "disposition" in given:
        code = "cdr_disposition_invalid"
        wanted["disposition"] = _required(given["disposition"], Disposition, code)
    return wanted


def _record_query(call: Call) -> Query:
    query = read_query(call.query, RECORDS)
    if query.filter_by is not None and query.filter_op != "present":
        check = _party if query.filter_by in ("source", "destination") else _date_text
        for value in query.filter_value:
            check(value, f"cdr_invalid_filter_by_{query.filter_by}")
    return query


def _record_row(record: Record, zone: tzinfo) -> Entry:
    """What the standard parameters filter and sort by, and the record."""
    return {
        "source": [leg.source for leg in record.legs],
        "destination": [leg.destination for leg in record.legs],
        "published": _local(record.published, zone),
        "answered": _local(record.answered, zone) if record.answered else "",
        "record": record,
    }


def _record_entry(store: Store, call: Call, record: Record) -> Entry:
    """As in CDR Resource's sample. What is null is left out, as PhoneCalls Resource has it."""
    here = [leg.extension for leg in record.legs if leg.extension in store.extensions]
    charged = store.extensions[here[0]]
    organization = _organization(store, store.users[charged.user])
    entry = {
        "id": record.id,
        "extension": charged.number,
        "ownerId": _wire(call, organization.id),
        "ownerName": organization.organization,
        "published": _date(record.published),
        "answered": _date(record.answered),
        "phoneCallView": [_leg_entry(call, n, leg) for n, leg in enumerate(record.legs)],
    }
    return {name: value for name, value in entry.items() if value is not None}


def _leg_entry(call: Call, number: int, leg: Leg) -> Entry:
    entry = {
        "id": f"{number:02}",
        "extension": leg.extension,
        "source": leg.source,
        "destination": leg.destination,
        "flow": _wire(call, leg.flow),
        "disposition": _wire(call, leg.disposition),
        "answered": _date(leg.answered),
        "duration": _wire(call, leg.duration),
    }
    return {name: value for name, value in entry.items() if value is not None}


def _organization(store: Store, user: User) -> User:
    """The account of the user's organization; the user's own if there is none."""
    for other in store.users.values():
        if other.level is Level.ORGANIZATION and other.organization == user.organization:
            return other
    return user


def _statistics(records: Iterable[Record]) -> list[Entry]:
    """PhoneCallStat, of incoming calls (0) and of the others (1). CDR Resource's sample has both
    numbers and strings; here they are numbers."""
    parts: list[Entry] = [{"type": n, **dict.fromkeys(COUNTED, 0)} for n in (0, 1)]
    for record in records:
        part = parts[0 if record.legs[0].flow is Flow.INCOMING else 1]
        part["total"] += 1
        part[_STATISTIC[record.disposition]] += 1
    return parts


# Users and extensions


def _context(store: Store, call: Call, user: str) -> User | None:
    """The user whose extensions are meant; None for `@owner`, who is the extension's."""
    if user in ("@me", "@viewer"):
        return call.user
    if user == "@owner":
        return None
    if not re.fullmatch(r"[0-9]{1,18}", user, re.ASCII) or int(user) not in store.users:
        raise Refused("user_invalid")
    meant = store.users[int(user)]
    if not _manages(call.user, meant):
        raise Refused("access_denied")
    return meant


def _one(store: Store, call: Call, user: str, number: str, kinds: frozenset[Kind]) -> Extension:
    """The extension with this number. A short one is of the token's user's organization."""
    context = _context(store, call, user)
    full = number if "*" in number else f"{call.user.organization}*{number}"
    extension = store.extensions.get(full)
    if extension is None or extension.kind not in kinds:
        raise Refused("extension_invalid")
    owner = store.users[extension.user]
    if context is None:
        if not _manages(call.user, owner):
            raise Refused("access_denied")
    elif not _manages(context, owner):
        raise Refused("extension_invalid")
    return extension


def _all(store: Store, call: Call, user: str, kinds: frozenset[Kind]) -> list[Extension]:
    context = _context(store, call, user)
    if context is None:  # @self of @owner: whose, without an extension?
        raise Refused("extension_invalid")
    return [
        extension
        for extension in store.extensions.values()
        if extension.kind in kinds and _manages(context, store.users[extension.user])
    ]


def _manages(user: User, other: User) -> bool:
    return (
        user.level is Level.ADMINISTRATOR
        or user.id == other.id
        or (user.level is Level.ORGANIZATION and user.organization == other.organization)
    )


# Values


def _page(call: Call, entries: Sequence[Entry], names: Names) -> Entry | None:
    collection = collect(entries, read_query(call.query, names), names)
    return None if collection is None else _with_paging(call, collection)


def _with_paging(call: Call, collection: Entry) -> Entry:
    links = {direction: call.page_url(start) for direction, start in neighbours(collection).items()}
    return collection | ({"paging": links} if links else {})


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused("request_invalid") from error
    if not isinstance(data, dict):
        raise Refused("request_invalid")
    return data


def _number(value: object, kind: type[Number]) -> Number | None:
    """A member of the enumeration, given as a number or as a string."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return {str(int(member)): member for member in kind}.get(str(value))


def _required(value: object, kind: type[Number], code: str) -> Number:
    number = _number(value, kind)
    if number is None:
        raise Refused(code)
    return number


def _url(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(URL, value):
        raise Refused("pce_url_invalid")
    return value


def _note(value: object) -> str:
    if not isinstance(value, str):
        raise Refused("pce_note_invalid")
    return value


def _party(value: str, code: str) -> str:
    if not re.fullmatch(NUMBER, value, re.ASCII):
        raise Refused(code)
    return value


def _date_text(value: str, code: str) -> str:
    """A date and time without a zone, checked."""
    try:
        if re.fullmatch(DATE, value, re.ASCII):
            datetime.fromisoformat(value)
            return value
    except ValueError:  # a month has no such day
        pass
    raise Refused(code)


def _local(moment: datetime, zone: tzinfo) -> str:
    return moment.astimezone(zone).strftime("%Y-%m-%dT%H:%M:%S")


def _wire(call: Call, number: int | None) -> int | str | None:
    if number is None:
        return None
    return int(number) if call.numbers else str(int(number))


def _date(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
