"""Log calls in HubSpot: a call object for each, associated with the contact.

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
from workers.handlers.crm import Access, Contact, Crm, Entry, Memory, Number, RecordingUrl

# Until midnight where the account is, which no answer says: so asked again every few hours.
DAILY_WAIT = 4 * 3600.0

_STATUSES = {
    Outcome.ANSWERED: "COMPLETED",
    Outcome.MISSED: "NO_ANSWER",
    Outcome.BUSY: "BUSY",
    Outcome.CANCELLED: "CANCELED",
    Outcome.UNREACHABLE: "FAILED",
    Outcome.FAILED: "FAILED",
}
# HubSpot's own outcomes: Connected, No answer, Busy. An account may have others.
_DISPOSITIONS = {
    Outcome.ANSWERED: "f240bbac-87c9-4f6e-bf70-924b57d47db7",
    Outcome.MISSED: "73a0d17f-1163-4015-bdd5-ec830791da20",
    Outcome.BUSY: "9d9162e7-6cf3-4944-bf63-4dff82258764",
}
_CALLS, _CONTACTS = "/crm/v3/objects/calls", "/crm/v3/objects/contacts"


@dataclass(frozen=True, kw_only=True)
class HubSpot(Crm):
    """Log every call in HubSpot, with the contact who has the number."""

    name: ClassVar[str] = "HubSpot"

    # HubSpot takes no other address.
    recording_url: Annotated[
        RecordingUrl | None,
        Field(
            pattern="^https://",
            description="the address of a recording, with {recording}, {call} and {pbx} in it",
        ),
    ] = None
    token: Annotated[SecretStr, Field(description="the access token of a private app")]
    call_property: Annotated[
        str,
        Field(
            pattern=r"^[a-z][a-z0-9_]{0,99}$",
            description="the property of calls that holds what names them; unique, made once",
        ),
    ] = "offhook_call"
    contact_property: Annotated[
        str,
        Field(
            pattern=r"^[a-z][a-z0-9_]{0,99}$",
            description='the same of contacts, for unknown = "create"; it holds their number',
        ),
    ] = "offhook_number"
    dispositions: Annotated[
        dict[Outcome, str],
        Field(description="HubSpot's call outcome (a GUID) of an outcome; none if not named"),
    ] = field(default_factory=_DISPOSITIONS.copy)
    base_url: Annotated[
        str, Field(pattern="^https?://[^/]+$", description="where HubSpot's API is")
    ] = "https://api.hubapi.com"

    async def sign_in(self, context: Context) -> Access:
        return Access(self.base_url, {"Authorization": f"Bearer {self.token.get_secret_value()}"})

    async def find(self, number: Number, context: Context) -> list[Contact]:
        # The calculated properties hold what HubSpot makes of a number, without its country; the
        # others what somebody typed. Groups are alternatives. All fields are required.
        found = await self.request(
            context,
            "POST",
            f"{_CONTACTS}/search",
            json={
                "filterGroups": [
                    *(
                        {
                            "filters": [
                                {"propertyName": p, "operator": "EQ", "value": number.national}
                            ]
                        }
                        for p in (
                            "hs_searchable_calculated_phone_number",
                            "hs_searchable_calculated_mobile_number",
                        )
                    ),
                    *(
                        {"filters": [{"propertyName": p, "operator": "IN", "values": number.forms}]}
                        for p in ("phone", "mobilephone")
                    ),
                ],
                "properties": ["firstname", "lastname", "phone", "mobilephone", "createdate"],
                "sorts": [],
                "limit": 100,
                "after": "0",
            },
        )
        theirs = [
            contact
            for contact in found["results"]
            if any(
                number.is_same(contact["properties"].get(kind) or "")
                for kind in ("phone", "mobilephone")
            )
        ]
        theirs.sort(key=lambda contact: contact["properties"].get("createdate") or "", reverse=True)
        return [_contact(each) for each in theirs]

    async def create(self, number: Number, entry: Entry, context: Context) -> Contact:
        # A search finds a new contact seconds late. This reads it by the property that is unique.
        text = number.e164 or number.text
        answer = await self.ask(
            context,
            "GET",
            f"{_CONTACTS}/{quote(text, safe='')}",
            params={"idProperty": self.contact_property, "properties": "firstname,lastname"},
        )
        if answer.status == 404:
            properties = {"phone": text}
            name = (entry.call.caller if entry.incoming else entry.call.called).name
            if name:
                properties["lastname"] = name
            if entry.owner:
                properties["hubspot_owner_id"] = entry.owner
            return _contact(
                await self._upsert(context, _CONTACTS, self.contact_property, text, properties)
            )
        return _contact(self.read(answer, context))

    async def save(self, entry: Entry, context: Context) -> None:
        call = await self._upsert(
            context, _CALLS, self.call_property, entry.key, self._properties(entry)
        )
        known = self._associated.get(entry.key) or frozenset()
        for contact in entry.contacts:
            if contact.id not in known:
                await self.request(
                    context,
                    "PUT",
                    f"/crm/v4/objects/calls/{call['id']}/associations/default/contacts/{contact.id}",
                )
        self._associated.keep(entry.key, known | {contact.id for contact in entry.contacts})

    async def user(self, owner: str, context: Context) -> str | None:
        if "@" not in owner:
            return owner
        found = await self.request(context, "GET", "/crm/v3/owners", params={"email": owner})
        return next((each["id"] for each in found["results"]), None)

    def said(self, answer: Answer) -> str:
        body = _body(answer)
        message = str(body.get("message", ""))[:300]
        correlation = body.get("correlationId")
        return f"{message} (correlation id {correlation})" if correlation else message

    def fault(self, answer: Answer, context: Context) -> PermanentError | TemporaryError | None:
        if answer.status == 429 and _body(answer).get("policyName") == "DAILY":
            return TemporaryError(
                "HubSpot has taken all requests of this day: it goes on after midnight there; "
                "HubSpot sells a higher limit",
                DAILY_WAIT,
            )
        if answer.status == 400:
            for name in (self.call_property, self.contact_property):
                if name in answer.text:
                    return TemporaryError(
                        f"HubSpot does not take {name}: does it have this property, and is it "
                        f"unique? It said: {self.said(answer)}"
                    )
        if answer.status in (423, 477):  # locked by another request; the account is being moved
            answer = replace(answer, status=503)
        return super().fault(answer, context)

    async def _upsert(
        self, context: Context, path: str, key: str, value: str, properties: dict[str, str]
    ) -> dict[str, Any]:
        """The object whose unique property `key` has this value, made or changed in one step."""
        answer = await self.ask(
            context,
            "POST",
            f"{path}/batch/upsert",
            json={"inputs": [{"idProperty": key, "id": value, "properties": properties}]},
        )
        body = self.read(answer, context)
        if not body["results"]:  # 207: what is wrong with the only one
            fault = replace(answer, status=400)
            raise self.fault(fault, context) or PermanentError("HubSpot took nothing")
        result: dict[str, Any] = body["results"][0]
        return result

    def _properties(self, entry: Entry) -> dict[str, str]:
        """HubSpot's names of all this. The body is left to whoever takes notes."""
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
    def _associated(self) -> Memory[str, frozenset[str]]:
        """The contacts that a call is associated with, as far as this process knows."""
        return Memory(3600.0)


def _contact(record: dict[str, Any]) -> Contact:
    names = (record["properties"].get(part) for part in ("firstname", "lastname"))
    return Contact(record["id"], name=" ".join(filter(None, names)) or None)


def _body(answer: Answer) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
