"""PhoneCallEvents: create, list, update and delete callbacks."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from unifiedapi.resources import EventMethod, EventStatus, EventType, PhoneCallEvent
from unifiedapi.sandbox.collection import EVENTS, Entry
from unifiedapi.sandbox.refusal import Refused
from unifiedapi.sandbox.services.api_request import (
    ApiRequest,
    extension_of,
    matching,
    member,
    timestamp,
)
from unifiedapi.sandbox.store import Extension, ExtensionKind, Store

KINDS = (
    ExtensionKind.PHONE,
    ExtensionKind.QUEUE,
    ExtensionKind.CONFERENCE,
    ExtensionKind.IVR,
)
# RFC 3986, and the brackets of PHP's arrays in a query.
URL = (
    r"^[Hh][Tt][Tt][Pp][Ss]?://([A-Za-z0-9._~!$&'()*+,;=:%-]+@)?"
    r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
    r"([/?#]([A-Za-z0-9._~!$&'()*+,;=:@/?#\[\]-]|%[0-9A-Fa-f]{2})*)?$"
)
_TYPES = {str(int(each)) for each in EventType}
_FIELDS: Mapping[str, Callable[[object], Any]] = {
    "method": partial(member, kind=EventMethod, code="pce_method_invalid"),
    "url": partial(matching, pattern=URL, code="pce_url_invalid"),
    "status": partial(member, kind=EventStatus, code="pce_status_invalid"),
    "note": partial(matching, pattern=r"(?s).*", code="pce_note_invalid"),
}


def create(
    store: Store, request: ApiRequest, user: str, number: str, types: Sequence[str]
) -> Entry:
    """Create an event. v3 has its type in the body, v5 in the path."""
    extension = extension_of(store, request, user, number, *KINDS)
    found = [_type(type_) for type_ in types]
    body = request.json()
    if "type" in body or not found:
        found.append(_type(body.get("type")))
    if len(set(found)) != 1:
        raise Refused("pce_type_invalid")
    body = {"note": ""} | body
    fields = {name: check(body.get(name)) for name, check in _FIELDS.items()}
    event = store.add_event(extension.number, type=found[0], **fields)
    return _entry(request, user, extension, event)


def list_(
    store: Store, request: ApiRequest, user: str, number: str, which: Sequence[str]
) -> Entry | None:
    extension = extension_of(store, request, user, number, *KINDS)
    events = _selected(store, extension, which)
    return request.page([_entry(request, user, extension, event) for event in events], EVENTS)


def update(
    store: Store, request: ApiRequest, user: str, number: str, which: Sequence[str]
) -> Entry:
    extension = extension_of(store, request, user, number, *KINDS)
    [event] = _selected(store, extension, which, id_alone=len(which) == 1)
    body = request.json()
    if "type" in body and _type(body["type"]) != event.type:
        raise Refused("pce_type_invalid")
    changes = {name: check(body[name]) for name, check in _FIELDS.items() if name in body}
    event = store.put_event(extension.number, msgspec.structs.replace(event, **changes))
    return _entry(request, user, extension, event)


def delete(
    store: Store, request: ApiRequest, user: str, number: str, which: Sequence[str]
) -> list[Entry] | None:
    extension = extension_of(store, request, user, number, *KINDS)
    id_alone = len(which) == 1 and which[0] not in _TYPES
    events = _selected(store, extension, which, id_alone=id_alone)
    store.remove_events(extension.number, {event.id for event in events})
    entries = [_entry(request, user, extension, event) for event in events]
    return [{name: entry[name] for name in ("id", "type", "links")} for entry in entries] or None


def _selected(
    store: Store, extension: Extension, which: Sequence[str], *, id_alone: bool = False
) -> list[PhoneCallEvent]:
    """Return all events, those of one type, or the event with this type and id.

    Args:
        id_alone: `which` is an id without its type, as only the overview pages have it.
    """
    events = store.events(extension.number)
    if which and not id_alone:
        type_ = _type(which[0])
        events = [event for event in events if event.type == type_]
    if id_alone or len(which) == 2:
        events = [event for event in events if event.id == which[-1]]
        if not events:
            raise Refused("pce_id_invalid")
    return events


def _type(value: object) -> EventType:
    return member(value, EventType, "pce_type_invalid")


def _entry(request: ApiRequest, user: str, extension: Extension, event: PhoneCallEvent) -> Entry:
    own = f"{request.base}/extensions/{user}/{extension.number}/phoneCallEvents"
    return {
        "type": request.number(event.type),
        "id": event.id,
        "method": request.number(event.method),
        "url": event.url,
        "status": request.number(event.status),
        "note": event.note,
        "modified": timestamp(event.modified),
        "links": {"self": f"{own}/{int(event.type)}/{event.id}"},
    }
