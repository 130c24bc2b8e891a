"""PhoneCalls: make a call from an extension."""

from typing import Any

from unifiedapi.sandbox.collection import Entry
from unifiedapi.sandbox.refusal import Refused
from unifiedapi.sandbox.services.api_request import (
    ApiRequest,
    extension_of,
    matching,
    timestamp,
)
from unifiedapi.sandbox.store import ExtensionKind, Store

PARTY = r"^([0-9*]{1,40}|\+?[0-9]{1,40})$"

_TEXT = {"type": "string"}
_PARTIES = {"type": "array", "items": {"type": "string", "pattern": PARTY}, "minItems": 1}
_VIEW = {
    "type": "object",
    "properties": {"source": _PARTIES, "destination": _PARTIES},
    "required": ["source", "destination"],
}
# For the OpenAPI description.
SCHEMAS: dict[str, Any] = {
    "NewPhoneCall": {
        "type": "object",
        "properties": {
            "extension": {"type": "string", "pattern": "^[0-9*]{1,40}$"},
            "phoneCallView": {"type": "array", "items": _VIEW, "minItems": 1, "maxItems": 1},
            "nonce": _TEXT,
        },
        "required": ["extension", "phoneCallView"],
    },
    "PhoneCall": {
        "type": "object",
        "properties": {
            "id": _TEXT,
            "extension": _TEXT,
            "published": {"type": "string", "format": "date-time"},
            "phoneCallView": {"type": "array", "items": _VIEW},
        },
        "required": ["id", "extension", "published", "phoneCallView"],
        "additionalProperties": False,
    },
}


def create(store: Store, request: ApiRequest, user: str) -> list[Entry]:
    """Order a call: its first source rings, then its first destination.

    Create Simple PhoneCalls documents the request, and that the answer is an array of PhoneCall.
    The codes of its errors were not visible: these are ours.
    """
    body = request.json()
    number = matching(body.get("extension"), r"[0-9*]{1,40}", "extension_invalid")
    extension = extension_of(store, request, user, number, ExtensionKind.PHONE)
    views = body.get("phoneCallView")
    if not isinstance(views, list) or len(views) != 1 or not isinstance(views[0], dict):
        raise Refused("request_invalid")
    source = _first(views[0].get("source"), "phonecall_source_invalid")
    destination = _first(views[0].get("destination"), "phonecall_destination_invalid")
    ordered = store.order(_full(request, source), _full(request, destination))
    return [
        {
            "id": ordered.id,
            "extension": extension.number,
            "published": timestamp(ordered.published),
            "phoneCallView": [{"source": [source], "destination": [destination]}],
        }
    ]


def _first(value: Any, code: str) -> str:
    """The first of an array of numbers. That the others are tried later is not simulated."""
    if not isinstance(value, list) or not value:
        raise Refused(code)
    first, *_ = [matching(each, PARTY, code) for each in value]
    return first


def _full(request: ApiRequest, number: str) -> str:
    """The extended number of a short one, in the token user's organization."""
    short = len(number) <= 3 and "*" not in number
    return f"{request.user.organization}*{number}" if short else number
