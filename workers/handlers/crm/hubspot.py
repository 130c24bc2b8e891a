"""`HubSpot`: log calls as HubSpot call objects, associated with the contact.

Paths and bodies: HubSpot's API descriptions of Calls, Contacts, Associations v4 and Owners
(github.com/HubSpot/HubSpot-public-api-spec-collection, v3).
"""

from dataclasses import dataclass, field, replace
from datetime import UTC
from functools import cached_property
from typing import Annotated, Any, ClassVar
from urllib.parse import quote

from pydantic import Field, SecretStr

from offhook import Context, Outcome, PermanentError, TemporaryError
from offhook.http import Answer
from workers.handlers.crm import (
    Access,
    BaseUrl,
    Contact,
    Crm,
    CrmEntry,
    Number,
    RecordingUrl,
    TtlCache,
    json_object,
)

# The limit ends at midnight in the account's time zone, which no response names.
DAILY_WAIT = 4 * 3600.0

_STATUSES = {
    Outcome.ANSWERED: "COMPLETED",
    Outcome.MISSED: "NO_ANSWER",
    Outcome.BUSY: "BUSY",
    Outcome.CANCELLED: "CANCELED",
    Outcome.UNREACHABLE: "FAILED",
    Outcome.FAILED: "FAILED",
}
# HubSpot's predefined outcomes: Connected, No answer, Busy. An account may have others.
_DISPOSITIONS = {
    Outcome.ANSWERED: "f240bbac-87c9-4f6e-bf70-924b57d47db7",
    Outcome.MISSED: "73a0d17f-1163-4015-bdd5-ec830791da20",
    Outcome.BUSY: "9d9162e7-6cf3-4944-bf63-4dff82258764",
}
Property = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,99}$")]

_CALLS, _CONTACTS = "/crm/v3/objects/calls", "/crm/v3/objects/contacts"
_PHONES = ("phone", "mobilephone")
# HubSpot's normalized copies of them, without a country code.
_SEARCHABLE = ("hs_searchable_calculated_phone_number", "hs_searchable_calculated_mobile_number")


@dataclass(frozen=True, kw_only=True)
class HubSpot(Crm):
    """Log every call in HubSpot, with the contact who has the number."""

    name: ClassVar[str] = "HubSpot"

    # HubSpot accepts only https.
    recording_url: Annotated[
        RecordingUrl | None,
        Field(
            pattern="^https://",
            description="the URL of a recording, with {recording}, {call} and {pbx} in it",
        ),
    ] = None
    token: Annotated[SecretStr, Field(description="the access token of a private app")]
    call_property: Annotated[
        Property,
        Field(description="the unique property of calls that identifies a call; create it once"),
    ] = "offhook_call"
    contact_property: Annotated[
        Property,
        Field(
            description='the unique property of contacts with the number, for unknown = "create"'
        ),
    ] = "offhook_number"
    dispositions: Annotated[
        dict[Outcome, str],
        Field(description="HubSpot's call outcome (a GUID) for each outcome; none if missing"),
    ] = field(default_factory=_DISPOSITIONS.copy)
    base_url: Annotated[BaseUrl, Field(description="the URL of HubSpot's API")] = (
        "https://api.hubapi.com"
    )

    async def sign_in(self, context: Context) -> Access:
        return Access(self.base_url, {"Authorization": f"Bearer {self.token.get_secret_value()}"})

    async def find(self, number: Number, context: Context) -> list[Contact]:
        filters: list[dict[str, Any]] = [  # any of them
            *({"propertyName": p, "operator": "EQ", "value": number.national} for p in _SEARCHABLE),
            *({"propertyName": p, "operator": "IN", "values": number.forms} for p in _PHONES),
        ]
        search = {  # HubSpot requires all of these fields
            "filterGroups": [{"filters": [each]} for each in filters],
            "properties": ["firstname", "lastname", *_PHONES, "createdate"],
            "sorts": [],
            "limit": 100,
            "after": "0",
        }
        found = await self.request(context, "POST", f"{_CONTACTS}/search", json=search)
        same = [
            contact
            for contact in found["results"]
            if any(number.is_same(contact["properties"].get(kind) or "") for kind in _PHONES)
        ]
        same.sort(key=lambda contact: contact["properties"].get("createdate") or "", reverse=True)
        return [_contact(each) for each in same]

    async def create(self, number: Number, entry: CrmEntry, context: Context) -> Contact:
        # The search finds a new contact only after seconds; the unique property, at once.
        answer = await self.ask(
            context,
            "GET",
            f"{_CONTACTS}/{quote(entry.phone, safe='')}",
            params={"idProperty": self.contact_property, "properties": "firstname,lastname"},
        )
        if answer.status != 404:
            return _contact(self.read(answer, context))
        properties = {"phone": entry.phone}
        if entry.outside.name:
            properties["lastname"] = entry.outside.name
        if entry.owner:
            properties["hubspot_owner_id"] = entry.owner
        return _contact(
            await self._upsert(context, _CONTACTS, self.contact_property, entry.phone, properties)
        )

    async def save(self, entry: CrmEntry, context: Context) -> None:
        call = await self._upsert(
            context, _CALLS, self.call_property, entry.key, self._properties(entry)
        )
        known = self._associated.get(entry.key) or frozenset()
        for contact in entry.contacts:
            if contact.id not in known:
                default = f"{call['id']}/associations/default/contacts/{contact.id}"
                await self.request(context, "PUT", f"/crm/v4/objects/calls/{default}")
        self._associated.keep(entry.key, known | {contact.id for contact in entry.contacts})

    async def user(self, owner: str, context: Context) -> str | None:
        if "@" not in owner:
            return owner
        found = await self.get(context, "/crm/v3/owners", email=owner)
        return next((each["id"] for each in found["results"]), None)

    def said(self, answer: Answer) -> str:
        body = json_object(answer)
        message = str(body.get("message", ""))[:300]
        correlation = body.get("correlationId")
        return f"{message} (correlation id {correlation})" if correlation else message

    def fault(self, answer: Answer, context: Context) -> PermanentError | TemporaryError | None:
        if answer.status == 429 and json_object(answer).get("policyName") == "DAILY":
            return TemporaryError(
                "HubSpot's daily request limit is used up: it resets at midnight in the account's "
                "time zone; HubSpot sells a higher limit",
                DAILY_WAIT,
            )
        if answer.status == 400:
            for name in (self.call_property, self.contact_property):
                if name in answer.text:
                    return TemporaryError(
                        f"HubSpot refuses the property {name}: create it, with unique values. "
                        f"HubSpot says: {self.said(answer)}"
                    )
        if answer.status in (423, 477):  # locked by another request; the account is being moved
            answer = replace(answer, status=503)
        return super().fault(answer, context)

    async def _upsert(
        self, context: Context, path: str, key: str, value: str, properties: dict[str, str]
    ) -> dict[str, Any]:
        """Create or change the object whose unique property `key` has this value."""
        record = {"idProperty": key, "id": value, "properties": properties}
        answer = await self.ask(context, "POST", f"{path}/batch/upsert", json={"inputs": [record]})
        body = self.read(answer, context)
        if not body["results"]:  # 207, with the error of this one record
            fault = replace(answer, status=400)
            raise self.fault(fault, context) or PermanentError("HubSpot saved nothing")
        result: dict[str, Any] = body["results"][0]
        return result

    def _properties(self, entry: CrmEntry) -> dict[str, str]:
        """The properties of a call. Its body stays free for people's notes."""
        call = entry.call
        properties = {
            "hs_timestamp": f"{call.started.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z",
            "hs_call_title": entry.title,
            "hs_call_direction": "INBOUND" if entry.incoming else "OUTBOUND",
            "hs_call_status": "IN_PROGRESS" if call.answered_by else "RINGING",
        }
        for name, party in (("from", call.caller), ("to", call.called)):
            number = party.e164 or party.number or party.extension
            if number:
                properties[f"hs_call_{name}_number"] = number
        if entry.ended and call.outcome:
            properties["hs_call_status"] = _STATUSES[call.outcome]
            if call.talk_seconds is not None:
                properties["hs_call_duration"] = str(round(call.talk_seconds * 1000))
            if call.outcome in self.dispositions:
                properties["hs_call_disposition"] = self.dispositions[call.outcome]
        if entry.owner:
            properties["hubspot_owner_id"] = entry.owner
        if entry.recording:
            properties["hs_call_recording_url"] = entry.recording
        return properties

    @cached_property
    def _associated(self) -> TtlCache[str, frozenset[str]]:
        """The contacts that this process has associated with each call."""
        return TtlCache(3600.0)


def _contact(record: dict[str, Any]) -> Contact:
    names = (record["properties"].get(part) for part in ("firstname", "lastname"))
    return Contact(record["id"], name=" ".join(filter(None, names)) or None)
