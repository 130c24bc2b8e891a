"""The OpenAPI 3.1 description of one sandbox.

It is exact: it names this sandbox's users, extensions and agents, and has its form of responses
(strings or numbers, bare or in an array).
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from unifiedapi.resources import (
    AgentStatus,
    Disposition,
    EventMethod,
    EventStatus,
    EventType,
    Flow,
    PresenceStatus,
    RegistrationStatus,
)
from unifiedapi.sandbox.collection import (
    AGENTS,
    EVENTS,
    LIMIT,
    OPERATORS,
    PRESENCE,
    RECORDS,
    FieldNames,
)
from unifiedapi.sandbox.services.cdr import COUNTED, DATE, NUMBER
from unifiedapi.sandbox.services.phone_call_events import KINDS, URL
from unifiedapi.sandbox.services.phone_calls import SCHEMAS
from unifiedapi.sandbox.store import ExtensionKind, Store

Json = dict[str, Any]

_PARTIES = ("source", "destination")
_DATES = ("startDate", "endDate", "saveStartDate", "saveEndDate")


def describe(store: Store, *, numbers: bool, wrapped: bool) -> Json:
    """Return the description of a sandbox with the same arguments."""
    agents = sorted({a.number for e in store.extensions.values() for a in e.agents})
    users = _path("userId", ["@me", "@viewer", "@owner", *map(str, store.users)])

    event_type = _path("eventType", [str(int(member)) for member in EventType])
    event_id = {**_path("eventId", []), "schema": {"type": "string", "pattern": "^[0-9a-z]{16}$"}}
    events = [users, _path("extension", store.numbers(*KINDS))]
    queue = [users, _path("extension", store.numbers(ExtensionKind.QUEUE))]
    agent = _path("agentId", agents)
    base = "/uapi/extensions/{userId}/{extension}"

    list_events = _list("PhoneCallEvent", EVENTS, wrapped)
    delete_events = _operation(_json({"type": "array", "items": _ref("DeletedEvent")}), or_204=True)
    one_event = _json(_in_array(_ref("PhoneCallEvent"), wrapped))
    list_agents = _list("QueueAgent", AGENTS, wrapped)
    list_presence = _list("Presence", PRESENCE, wrapped)
    list_records = _list("CallRecord", RECORDS, wrapped)
    list_records["parameters"] += [
        *(_query(name, {"type": "string", "pattern": NUMBER}) for name in _PARTIES),
        *(_query(name, {"type": "string", "pattern": DATE}) for name in _DATES),
        _query("flow", {"enum": [int(member) for member in Flow]}),
        _query("disposition", {"enum": [int(member) for member in Disposition]}),
    ]
    # Links for test tools: a new event can be listed, changed and deleted.
    links = {
        name: {
            "operationId": name,
            "parameters": {
                "userId": "$request.path.userId",
                "extension": "$request.path.extension",
                "eventType": f"$response.body#{'/0' if wrapped else ''}/type",
                "eventId": f"$response.body#{'/0' if wrapped else ''}/id",
            },
        }
        for name in ("listOneEvent", "updateEvent", "deleteEvent")
    }

    paths = {
        f"{base}/phoneCallEvents": {
            "parameters": events,
            "get": {"operationId": "listEvents", **list_events},
            "post": {
                "operationId": "createEvent",
                "requestBody": _body("NewPhoneCallEvent"),
                **_operation(one_event, links),
            },
            "delete": {"operationId": "deleteEvents", **delete_events},
        },
        f"{base}/phoneCallEvents/{{eventType}}": {
            "parameters": [*events, event_type],
            "get": {"operationId": "listEventsOfType", **list_events},
            "delete": {"operationId": "deleteEventsOfType", **delete_events},
        },
        f"{base}/phoneCallEvents/{{eventType}}/{{eventId}}": {
            "parameters": [*events, event_type, event_id],
            "get": {"operationId": "listOneEvent", **list_events},
            "put": {
                "operationId": "updateEvent",
                "requestBody": _body("PhoneCallEventChange"),
                **_operation(one_event),
            },
            "delete": {"operationId": "deleteEvent", **delete_events},
        },
        f"{base}/presence": {
            "parameters": [
                users,
                _path("extension", [*store.numbers(ExtensionKind.PHONE), "@self"]),
            ],
            "get": {"operationId": "listPresence", **list_presence},
            "post": {
                "operationId": "listPresenceAsCurlDoes",
                "description": "Same as GET, for the documents' curl line. The body is ignored.",
                **list_presence,
            },
        },
        f"{base}/queue/agents": {
            "parameters": queue,
            "get": {"operationId": "listAgents", **list_agents},
        },
        f"{base}/queue/agents/{{agentId}}": {
            "parameters": [*queue, agent],
            "get": {"operationId": "listOneAgent", **list_agents},
            "put": {
                "operationId": "updateAgent",
                "requestBody": _body("QueueAgentChange"),
                **_operation(_json({"type": "array", "items": _ref("QueueAgent")})),
            },
        },
        "/uapi/phoneCalls/{userId}/simple": {
            "parameters": [users],
            "post": {
                "operationId": "createPhoneCall",
                "requestBody": _body("NewPhoneCall"),
                **_operation(_json({"type": "array", "items": _ref("PhoneCall")})),
            },
        },
        "/uapi/cdr": {"get": {"operationId": "listRecords", **list_records}},
        "/uapi/cdr/{ownerId}": {
            "parameters": [_path("ownerId", ["@me", "@viewer", *map(str, store.users)])],
            "get": {"operationId": "listRecordsOfOwner", **list_records},
        },
        "/oauth/token.php": {"post": _token_request()},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sandbox of VoipNow UnifiedAPI", "version": "3 and 5"},
        "security": [{"bearer": []}, {"session": [], "xsrf": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "vn"},
                "xsrf": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "x-xsrf-token",
                    "description": "Must equal the cookie xsrf-token.",
                },
            },
            "responses": {"Error": _json(_ref("Error"))},
            "schemas": _schemas(numbers),
        },
    }


def _schemas(numbers: bool) -> Json:
    text = {"type": "string"}
    date = {"type": "string", "format": "date-time"}
    integer: Json = {"type": "string", "pattern": "^[0-9]+$"}
    if numbers:
        integer = {"type": "integer", "minimum": 0}
    links = _object({"self": {"type": "string", "format": "uri"}})
    url = {"type": "string", "pattern": URL}
    event = {
        "type": _answered(EventType, numbers),
        "id": {"type": "string", "pattern": "^[A-Za-z0-9]{1,255}$"},
        "method": _answered(EventMethod, numbers),
        "url": text,
        "status": _answered(EventStatus, numbers),
        "note": text,
        "modified": date,
        "links": links,
    }
    change = {
        "method": _sent(EventMethod),
        "url": url,
        "status": _sent(EventStatus),
        "note": text,
    }
    phone = {
        "agent": text,
        "registration": _answered(RegistrationStatus, numbers),
        "expire": date,
    }
    presence = {
        "extension": text,
        "status": _answered(PresenceStatus, numbers=True),  # as in the samples of both versions
        "registration": {"type": "array", "items": _object(phone, ["agent", "registration"])},
    }
    agent = {
        "agentNumber": text,
        "status": _answered(AgentStatus, numbers),
        "queue": text,
        "type": {"enum": ["local", "remote"]},
        "identifier": text,
        "links": links,
    }
    leg = {
        "id": text,
        "extension": text,
        "source": text,
        "destination": text,
        "flow": _answered(Flow, numbers),
        "disposition": _answered(Disposition, numbers),
        "answered": date,
        "duration": integer,
    }
    record = {
        "id": text,
        "extension": text,
        "ownerId": integer,
        "ownerName": text,
        "published": date,
        "answered": date,
        "phoneCallView": {
            "type": "array",
            "items": _object(leg, leg.keys() - {"answered"}),
            "minItems": 1,
        },
    }
    return {
        **SCHEMAS,
        "PhoneCallEvent": _object(event),
        "DeletedEvent": _object({name: event[name] for name in ("id", "type", "links")}),
        "NewPhoneCallEvent": _open(
            {"type": _sent(EventType), **change}, ["type", "method", "url", "status"]
        ),
        "PhoneCallEventChange": _open(change, []),
        "Presence": _object(presence),
        "QueueAgent": _object(agent),
        "QueueAgentChange": _open({"status": _sent(AgentStatus)}, ["status"]),
        # With `fields`, entries have only the requested fields.
        "PhoneCallEventCollection": _collection(event),
        "PresenceCollection": _collection(presence),
        "QueueAgentCollection": _collection(agent),
        "CallRecordCollection": _record_collection(record),
        "Error": _object({"error": _object({"code": text, "message": text})}),
        "Token": _object(
            {
                "access_token": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{10,}$"},
                "expires_in": {"type": "integer", "minimum": 1},
                "token_type": {"const": "Bearer"},
                "refresh_token": text,
            },
            ["access_token", "expires_in", "token_type"],
        ),
        "OAuthError": _object({"error": text, "error_description": text}),
    }


def _collection(fields: Json) -> Json:
    index = {"type": "integer", "minimum": 0}
    return _object(
        {
            "startIndex": index,
            "totalResults": index,
            "itemsPerPage": {"type": "integer", "minimum": 1, "maximum": LIMIT - 1},
            "filtered": {"type": "boolean"},
            "sorted": {"type": "boolean"},
            "entry": {"type": "array", "items": _object(fields, []), "minItems": 1},
            "paging": _object({name: {"type": "string"} for name in ("next", "prev")}, []),
        },
        ["startIndex", "totalResults", "itemsPerPage", "filtered", "sorted", "entry"],
    )


def _record_collection(fields: Json) -> Json:
    """Describe a collection whose entries are not an array, but an object by id."""
    collection = _collection(fields)
    count = {"type": "integer", "minimum": 0}
    statistics = {"type": {"enum": [0, 1]}, **dict.fromkeys(COUNTED, count)}
    collection["properties"] |= {
        "entry": {
            "type": "object",
            "additionalProperties": _object(fields, []),
            "minProperties": 1,
        },
        "phoneCallStat": {"type": "array", "items": _object(statistics, [])},
    }
    collection["required"] += ["phoneCallStat"]
    return collection


def _list(kind: str, names: FieldNames, wrapped: bool) -> Json:
    number = {"type": "integer", "maximum": LIMIT - 1}
    parameters = [
        _query("count", {**number, "minimum": 1, "default": 20}),
        _query("startIndex", {**number, "minimum": 0, "default": 0}),
        _query("filterBy", {"enum": sorted(names.filter_by)}),
        _query("filterOp", {"enum": list(OPERATORS)}),
        _query("filterValue", {"type": "string"}),
        {
            **_query(
                "fields", {"type": "array", "items": {"enum": sorted(names.fields)}, "minItems": 1}
            ),
            "style": "form",
            "explode": False,
        },
        _query("sortOrder", {"enum": ["ascending", "descending", "asc", "desc"]}),
    ]
    collection = _in_array(_ref(f"{kind}Collection"), wrapped)
    return {"parameters": parameters, **_operation(_json(collection), or_204=True)}


def _operation(success: Json, links: Json | None = None, *, or_204: bool = False) -> Json:
    responses = {"200": success | ({"links": links} if links else {})}
    if or_204:
        responses["204"] = {"description": "Nothing to return."}
    for status in ("400", "401", "501"):
        responses[status] = {"$ref": "#/components/responses/Error"}
    return {"responses": responses}


def _token_request() -> Json:
    text = {"type": "string", "minLength": 1}
    app = {
        "client_id": text,
        "client_secret": text,
        "type": {"const": "unifiedapi"},
        "redirect_uri": {"type": "string"},
    }
    needed = ["grant_type", "client_id", "client_secret"]
    grants = [
        _open({"grant_type": {"const": "client_credentials"}, **app}, needed),
        _open(
            {"grant_type": {"const": "refresh_token"}, "refresh_token": text, **app},
            [*needed, "refresh_token"],
        ),
    ]
    form = {"oneOf": grants}
    error = _json(_ref("OAuthError"))
    return {
        "operationId": "getToken",
        "security": [],
        "requestBody": {
            "required": True,
            "content": {"application/x-www-form-urlencoded": {"schema": form}},
        },
        "responses": {"200": _json(_ref("Token")), "400": error, "401": error},
    }


def _path(name: str, values: list[str]) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"enum": values}}


def _query(name: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "schema": schema}


def _sent(kind: type[IntEnum]) -> Json:
    """Describe a number in a request, where both forms are accepted."""
    values = [int(member) for member in kind]
    return {"enum": [*values, *map(str, values)]}


def _answered(kind: type[IntEnum], numbers: bool) -> Json:
    return {"enum": [int(member) if numbers else str(int(member)) for member in kind]}


def _object(properties: Json, required: Iterable[str] | None = None) -> Json:
    """Describe an object with only these properties, by default all required."""
    return {**_open(properties, required), "additionalProperties": False}


def _open(properties: Json, required: Iterable[str] | None = None) -> Json:
    needed = list(properties if required is None else required)
    return {"type": "object", "properties": properties, "required": needed}


def _in_array(schema: Json, wrapped: bool) -> Json:
    if not wrapped:
        return schema
    return {"type": "array", "items": schema, "minItems": 1, "maxItems": 1}


def _body(schema: str) -> Json:
    return {"required": True, "content": {"application/json": {"schema": _ref(schema)}}}


def _json(schema: Json) -> Json:
    return {"description": "JSON.", "content": {"application/json": {"schema": schema}}}


def _ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}
