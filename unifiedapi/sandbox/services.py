"""What each API request does and answers. Plain functions on the store: no HTTP in here.

The order of the checks is ours, for none is documented: user, extension, type and id in the path,
body or query. Whatever is wrong is a `Refused`.

Sources: VoipNow wiki, Create, List, Update and Delete PhoneCallEvents, List Presence, List and
Update QueueAgents (v3), and the v5 pages of the same services.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from unifiedapi.resources import (
    AgentStatus,
    EventMethod,
    EventStatus,
    EventType,
    PhoneCallEvent,
)
from unifiedapi.sandbox.collection import (
    AGENTS,
    EVENTS,
    PRESENCE,
    Entry,
    Names,
    collect,
    neighbours,
    read_query,
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
        case "GET", "extensions", user, number, "presence":
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
    if collection is None:
        return None
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


def _wire(call: Call, number: int | None) -> int | str | None:
    if number is None:
        return None
    return int(number) if call.numbers else str(int(number))


def _date(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
