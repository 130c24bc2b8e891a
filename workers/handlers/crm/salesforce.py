"""`Salesforce`: log calls as Salesforce tasks of subtype Call, with the contact or lead.

Paths, bodies, fields and errors: Salesforce's REST API Developer Guide (rows, query, search, status
codes), its Object Reference (Task, Contact, Lead, User), and Help on the client credentials flow.
"""

import re
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from typing import Annotated, Any, ClassVar
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr

from offhook import Context, PermanentError, TemporaryError
from offhook.http import Answer
from workers.handlers.crm import (
    Access,
    BaseUrl,
    Contact,
    CrmEntry,
    Number,
    OneContact,
    SearchedCrm,
)
from workers.handlers.time_zone import TimeZone

# The organization chooses how long a session lasts, and no response says it. If it is shorter, a
# 401 renews the session.
SESSION = 3600.0
DAILY_WAIT = 3600.0  # the limit counts the requests of the last 24 hours

_DIRECTIONS = {"in": "Inbound", "out": "Outbound", "internal": "Internal"}
_SUBJECT_LENGTH = 255
_PHONES = ("Phone", "MobilePhone", "HomePhone", "OtherPhone")


FieldName = Annotated[str, Field(pattern=r"^[A-Za-z]\w{0,79}$")]


@dataclass(frozen=True, kw_only=True)
class Salesforce(SearchedCrm):
    """Log every call as a task in Salesforce, with the contact or lead who has the number."""

    name: ClassVar[str] = "Salesforce"

    several: OneContact = "newest"
    client_id: Annotated[str, Field(min_length=1, description="the app's consumer key")]
    client_secret: Annotated[SecretStr, Field(description="the app's consumer secret")]
    call_field: Annotated[
        FieldName,
        Field(description="the unique field of tasks that identifies a call; create it once"),
    ] = "Offhook_Call__c"
    lead_field: Annotated[
        FieldName,
        Field(description='the unique field of leads with the number, for unknown = "create"'),
    ] = "Offhook_Number__c"
    open_status: Annotated[
        str, Field(min_length=1, description="the status of a task during the call")
    ] = "In Progress"
    ended_status: Annotated[
        str, Field(min_length=1, description="the status of a task after the call")
    ] = "Completed"
    zone: Annotated[TimeZone, Field(description="the time zone of a task's date")] = "UTC"
    version: Annotated[
        str, Field(pattern=r"^[1-9][0-9]\.0$", description="the version of Salesforce's API")
    ] = "68.0"
    base_url: Annotated[
        BaseUrl, Field(description="your My Domain, such as https://acme.my.salesforce.com")
    ]

    async def sign_in(self, context: Context) -> Access:
        answer = await context.http.post(
            f"{self.base_url}/services/oauth2/token",
            data={
                "grant_type": "client_credentials",
                "client_id": self.client_id,
                "client_secret": self.client_secret.get_secret_value(),
            },
            timeout=self.timeout,
        )
        if answer.status == 400:  # OAuth's status for wrong credentials
            answer = replace(answer, status=401)
        token = self.read(answer, context)["access_token"]
        url = f"{self.base_url}/services/data/v{self.version}"
        return Access(url, {"Authorization": f"Bearer {token}"}, SESSION)

    async def find(self, number: Number, context: Context) -> list[Contact]:
        phrases = " OR ".join(f'"{_escaped(form)}"' for form in number.forms)
        newest = "ORDER BY CreatedDate DESC LIMIT 100"
        found = await self.get(
            context,
            "/search/",
            q=f"FIND {{{phrases}}} IN PHONE FIELDS RETURNING "
            f"Contact(Id, Name, CreatedDate, {', '.join(_PHONES)} {newest}), "
            "Lead(Id, Name, CreatedDate, Phone, MobilePhone "
            f"WHERE IsConverted = false {newest})",
        )
        same = [
            record
            for record in found["searchRecords"]
            if any(number.is_same(record.get(kind) or "") for kind in _PHONES)
        ]
        same.sort(key=lambda record: record["CreatedDate"], reverse=True)
        return [Contact(r["Id"], r["attributes"]["type"], r.get("Name")) for r in same]

    async def create(self, number: Number, entry: CrmEntry, context: Context) -> Contact:
        # The search finds a new lead late; a query, at once.
        where = f"{self.lead_field} = {_quoted(entry.phone)}"
        found = await self._query(context, "Lead", "Id, Name, ConvertedContactId", where)
        if found:
            lead = found[0]
            if lead.get("ConvertedContactId"):
                return Contact(lead["ConvertedContactId"], "Contact", lead.get("Name"))
            return Contact(lead["Id"], "Lead", lead.get("Name"))
        name = entry.outside.name or entry.phone
        lead = {"LastName": name[:80], "Company": "[not provided]", "Phone": entry.phone}
        created = await self.request(
            context,
            "POST",
            "/sobjects/Lead",
            json=lead | _owner(entry) | {self.lead_field: entry.phone},
            headers={"Sforce-Duplicate-Rule-Header": "allowSave=true"},
        )
        return Contact(created["id"], "Lead", name)

    async def find_record(self, entry: CrmEntry, context: Context) -> str | None:
        # The date helps when `call_field` has no index: dates always have one.
        since = entry.call.started.astimezone(UTC) - timedelta(days=1)
        where = (
            f"{self.call_field} = {_quoted(entry.key)} AND CreatedDate > {since:%Y-%m-%dT%H:%M:%SZ}"
        )
        found = await self._query(context, "Task", "Id", where)
        return str(found[0]["Id"]) if found else None

    async def create_record(self, entry: CrmEntry, context: Context) -> str:
        task = {"Status": self.open_status} | self._task(entry)
        task |= {
            self.call_field: entry.key,
            "TaskSubtype": "Call",  # cannot be set later
            "ActivityDate": f"{entry.call.started.astimezone(ZoneInfo(self.zone)):%Y-%m-%d}",
        }
        if entry.contacts:
            task["WhoId"] = entry.contacts[0].id
        if entry.ended:
            task["Description"] = "\n".join(entry.facts)
        return str((await self.request(context, "POST", "/sobjects/Task", json=task))["id"])

    async def change_record(self, id: str, entry: CrmEntry, context: Context) -> bool:  # noqa: A002
        path = f"/sobjects/Task/{id}"
        answer = await self.ask(context, "GET", path, params={"fields": "WhoId,Description"})
        if answer.status == 404:
            return False
        there = self.read(answer, context)
        task = self._task(entry)
        if entry.contacts and not there.get("WhoId"):  # keep the contact that a person chose
            task["WhoId"] = entry.contacts[0].id
        if entry.ended and not there.get("Description"):  # keep what a person wrote
            task["Description"] = "\n".join(entry.facts)
        await self.request(context, "PATCH", path, json=task)
        return True

    async def user(self, owner: str, context: Context) -> str | None:
        if "@" not in owner:
            return owner if re.fullmatch(r"005\w{12}(\w{3})?", owner) else None
        text = _quoted(owner)
        where = f"IsActive = true AND (Username = {text} OR Email = {text})"
        found = await self._query(context, "User", "Id, Username", where)
        found.sort(key=lambda user: user["Username"].lower() != owner.lower())
        return str(found[0]["Id"]) if found else None

    def said(self, answer: Answer) -> str:
        names = ("errorCode", "error", "message", "error_description")
        return "; ".join(
            ": ".join(str(error[name]) for name in names if error.get(name))
            for error in _errors(answer)
        )[:300]

    def fault(self, answer: Answer, context: Context) -> PermanentError | TemporaryError | None:
        codes = {error.get("errorCode") for error in _errors(answer)}
        if "REQUEST_LIMIT_EXCEEDED" in codes:
            if "TotalRequests" in answer.text:
                return TemporaryError(
                    "Salesforce's daily request limit is used up: it counts the last 24 hours; "
                    "Salesforce sells a higher limit",
                    DAILY_WAIT,
                )
            answer = replace(answer, status=429)  # too many concurrent requests
        elif codes & {"INVALID_FIELD", "INVALID_FIELD_FOR_INSERT_UPDATE", "INVALID_TYPE"}:
            return TemporaryError(
                "Salesforce has no such field, or does not let the app's user write it: create "
                f"it, or give the user access. Salesforce says: {self.said(answer)}"
            )
        elif "DUPLICATE_VALUE" in codes and re.search(
            rf"\b({self.call_field}|{self.lead_field})\b", answer.text
        ):
            return TemporaryError("Salesforce has just saved this from an earlier attempt")
        elif "UNABLE_TO_LOCK_ROW" in codes:
            answer = replace(answer, status=503)
        return super().fault(answer, context)

    async def _query(
        self, context: Context, kind: str, fields: str, where: str
    ) -> list[dict[str, Any]]:
        """The matching records, the oldest first. Unlike the search, it finds new records."""
        query = f"SELECT {fields} FROM {kind} WHERE {where} ORDER BY CreatedDate LIMIT 100"  # noqa: S608 - values are quoted
        found = await self.get(context, "/query/", q=query)
        return list(found["records"])

    def _task(self, entry: CrmEntry) -> dict[str, Any]:
        """The fields that change during a call. The comments stay free for people's notes."""
        task: dict[str, Any] = {
            "Subject": entry.title[:_SUBJECT_LENGTH],
            "CallType": _DIRECTIONS[entry.call.direction],
        } | _owner(entry)
        if entry.ended:
            task["Status"] = self.ended_status  # never reopen a task that a person closed
        if entry.ended and entry.call.outcome:
            task["CallDisposition"] = entry.call.outcome.capitalize()
            if entry.call.talk_seconds is not None:
                task["CallDurationInSeconds"] = entry.seconds
        return task


def _owner(entry: CrmEntry) -> dict[str, Any]:
    return {"OwnerId": entry.owner} if entry.owner else {}


def _escaped(text: str) -> str:
    """Escape a phrase of SOSL."""
    return re.sub(r"""([?&|!{}\[\]()^~*:\\"'+-])""", r"\\\1", text)


def _quoted(text: str) -> str:
    """Quote a string of SOQL."""
    return "'" + re.sub(r"([\\'])", r"\\\1", text) + "'"


def _errors(answer: Answer) -> list[dict[str, Any]]:
    """The errors in a response: a list or, from the token endpoint, one object."""
    if answer.status < 400:
        return []
    try:
        body = answer.json()
    except ValueError:
        return []
    return [e for e in (body if isinstance(body, list) else [body]) if isinstance(e, dict)]
