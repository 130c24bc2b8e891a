"""A stand-in for HubSpot."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import unquote

from phonenumbers import NumberParseException, national_significant_number, parse

from tests.workers.handlers.crm.serving import Answered, Asked, StandIn
from tests.workers.handlers.crm.side import Record, Side
from workers.handlers.crm.hubspot import HubSpot

TOKEN = "pat-eu1-hush"
CONNECTED = "f240bbac-87c9-4f6e-bf70-924b57d47db7"
NO_ANSWER = "73a0d17f-1163-4015-bdd5-ec830791da20"
BUSY = "9d9162e7-6cf3-4944-bf63-4dff82258764"

# The properties that calls and contacts have, and what each must look like.
PROPERTIES = {
    "calls": {
        "hs_timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z|\d{13}",
        "hs_call_title": ".*",
        "hs_call_body": "(?s:.*)",
        "hs_call_direction": "INBOUND|OUTBOUND",
        "hs_call_status": (
            "BUSY|CALLING_CRM_USER|CANCELED|COMPLETED|CONNECTING|FAILED|IN_PROGRESS|NO_ANSWER|"
            "QUEUED|RINGING"
        ),
        "hs_call_duration": r"\d+",
        "hs_call_from_number": ".*",
        "hs_call_to_number": ".*",
        "hs_call_disposition": f"{CONNECTED}|{NO_ANSWER}|{BUSY}",
        "hs_call_recording_url": "https://.*",
        "hubspot_owner_id": "11349275740",
    },
    "contacts": {
        "firstname": ".*",
        "lastname": ".*",
        "phone": ".*",
        "mobilephone": ".*",
        "hubspot_owner_id": "11349275740",
    },
}
OWNERS = {"jane@example.com": "11349275740"}


def error(status: int, message: str, category: str = "VALIDATION_ERROR") -> Answered:
    return Answered(
        status,
        {
            "status": "error",
            "message": message,
            "correlationId": "aeb5f871-7f07-4993-9211-075dc63e7cbf",
            "category": category,
        },
    )


def limited(policy: str) -> Answered:
    body = {
        "status": "error",
        "message": f"You have reached your {policy.lower()} limit.",
        "errorType": "RATE_LIMIT",
        "correlationId": "aeb5f871-7f07-4993-9211-075dc63e7cbf",
        "policyName": policy,
    }
    return Answered(429, body)


class HubSpotSide(Side, StandIn):
    """HubSpot, with the two properties that the docs have made. Its search is late: a contact that
    was created by a request is not found before `index()`."""

    description = "hubspot.json"
    handler = HubSpot
    find = "POST /crm/v3/objects/contacts/search"
    write = "POST /crm/v3/objects/calls/batch/upsert"
    jane_id = "11349275740"
    too_many = limited("SECONDLY")
    daily = limited("DAILY")
    broken = error(400, "Property values were not valid")
    unique: ClassVar = {"calls": "offhook_call", "contacts": "offhook_number"}

    def __init__(self) -> None:
        super().__init__()
        self.unique_there = True
        self.objects: dict[str, dict[str, dict[str, str]]] = {"calls": {}, "contacts": {}}
        self.indexed: set[str] = set()
        self.associations: set[tuple[str, str]] = set()
        self._made = 100

    # What the tests see

    def options(self) -> dict[str, Any]:
        return {"token": TOKEN, "base_url": self.url}

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {TOKEN}"}

    def wrong_options(self) -> dict[str, Any]:
        return self.options() | {"token": "pat-eu1-wrong"}

    def add_contact(self, name: str, phone: str) -> str:
        first, _, last = name.partition(" ")
        properties = {"firstname": first, "lastname": last, "phone": phone}
        contact = self._create("contacts", properties)
        self.indexed.add(contact)
        return contact

    def delete_contact(self, contact: str) -> None:
        del self.objects["contacts"][contact]

    def index(self) -> None:
        self.indexed = set(self.objects["contacts"])

    def contacts(self) -> dict[str, str]:
        return {
            key: f"{p.get('firstname', '')} {p.get('lastname', '')}".strip()
            for key, p in self.objects["contacts"].items()
        }

    def records(self) -> list[Record]:
        return [
            Record(
                key=call["offhook_call"],
                title=call["hs_call_title"],
                ended=call["hs_call_status"] not in ("RINGING", "IN_PROGRESS"),
                contacts=frozenset(to for one, to in self.associations if one == key),
                owner=call.get("hubspot_owner_id"),
            )
            for key, call in self.objects["calls"].items()
        ]

    def forget_records(self) -> None:
        self.objects["calls"].clear()

    # What HubSpot answers

    def refusal(self, asked: Asked) -> Answered | None:
        if asked.headers.get("authorization") == f"Bearer {TOKEN}":
            return None
        message = "Authentication credentials not found. This API supports OAuth 2.0"
        return error(401, message, "INVALID_AUTHENTICATION")

    def answer(self, asked: Asked) -> Answered:
        parts = asked.path.split("/")
        if asked.path == "/crm/v3/owners":
            return self._owners(asked.query.get("email"))
        if parts[2] == "v4":
            return self._associate(parts[5], parts[9])
        if parts[-1] == "search":
            return self._search(asked.json)
        if parts[-1] == "upsert":
            return self._upsert(parts[4], asked.json["inputs"])
        return self._read(parts[4], unquote(parts[5]), asked.query.get("idProperty"))

    def _owners(self, email: str | None) -> Answered:
        found = [
            {"id": user, "email": mail, "type": "PERSON", "archived": False} | _dates(0)
            for mail, user in OWNERS.items()
            if email in (None, mail)
        ]
        return Answered(200, {"results": found})

    def _associate(self, call: str, contact: str) -> Answered:
        if call not in self.objects["calls"] or contact not in self.objects["contacts"]:
            return error(404, "no such object", "OBJECT_NOT_FOUND")
        self.associations.add((call, contact))
        status = {"status": "COMPLETE", "completedAt": _moment(0), "startedAt": _moment(0)}
        return Answered(200, {"results": [{}]} | status)

    def _read(self, kind: str, value: str, key: str | None) -> Answered:
        if key is not None and not self._is_unique(kind, key):
            return error(400, f"Property {key} does not exist or is not unique")
        for each, properties in self.objects[kind].items():
            if (properties.get(key) if key else each) == value:
                return Answered(200, self._shown(kind, each))
        return Answered(404, body=b"<html>Not found</html>")

    def _upsert(self, kind: str, inputs: list[dict[str, Any]]) -> Answered:
        results = []
        for each in inputs:
            key, properties = each.get("idProperty"), each["properties"]
            if key is None or not self._is_unique(kind, key):
                return error(400, f"Property {key} does not exist or is not unique")
            for name, value in properties.items():
                form = PROPERTIES[kind].get(name)
                if form is None:
                    return error(400, f'Property "{name}" does not exist (PROPERTY_DOESNT_EXIST)')
                if not re.fullmatch(form, value):
                    return error(400, f"{value} is not a valid {name}")
            there = [one for one, p in self.objects[kind].items() if p.get(key) == each["id"]]
            if not there and kind == "calls" and "hs_timestamp" not in properties:
                return error(400, "hs_timestamp is required (REQUIRED_PROPERTY_MISSING)")
            one = there[0] if there else self._create(kind, {key: each["id"]})
            self.objects[kind][one] |= properties
            results.append(self._shown(kind, one) | {"new": not there})
        status = {"status": "COMPLETE", "completedAt": _moment(0), "startedAt": _moment(0)}
        return Answered(200, {"results": results} | status)

    def _search(self, search: dict[str, Any]) -> Answered:
        found = [
            self._shown("contacts", one)
            for one, properties in self.objects["contacts"].items()
            if one in self.indexed
            and any(
                all(_passes(properties, each) for each in group["filters"])
                for group in search["filterGroups"]
            )
        ]
        return Answered(200, {"total": len(found), "results": found[: search["limit"]]})

    def _is_unique(self, kind: str, name: str) -> bool:
        return self.unique_there and self.unique[kind] == name

    def _create(self, kind: str, properties: dict[str, str]) -> str:
        self._made += 1
        self.objects[kind][str(self._made)] = properties
        return str(self._made)

    def _shown(self, kind: str, one: str) -> dict[str, Any]:
        properties = self.objects[kind][one] | {"createdate": _moment(int(one))}
        return {"id": one, "archived": False, "properties": properties} | _dates(int(one))


def _passes(properties: dict[str, str], condition: dict[str, Any]) -> bool:
    name, operator = condition["propertyName"], condition["operator"]
    calculated = re.fullmatch(r"hs_searchable_calculated_(phone|mobile)_number", name)
    if calculated:
        value = _calculated(properties.get(calculated[1].replace("mobile", "mobilephone"), ""))
    else:
        value = properties.get(name, "")
    if operator == "EQ":
        return bool(value == condition["value"])
    assert operator == "IN", "the handler asks for no other"
    return value in condition["values"]


def _calculated(typed: str) -> str:
    """Area code and number. The account's country is Romania."""
    try:
        return national_significant_number(parse(typed, "RO"))
    except NumberParseException:
        return ""


def _moment(number: int) -> str:
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.000Z"


def _dates(number: int) -> dict[str, str]:
    return {"createdAt": _moment(number), "updatedAt": _moment(number)}
