"""Log calls in Salesforce: a task of subtype Call for each, with the contact or lead.

Paths, bodies, fields and errors: Salesforce's REST API Developer Guide (rows, query, search, status
codes), its Object Reference (Task, Contact, Lead, User), and Help on the client credentials flow.
"""

import re
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr

from offhook import Context, PermanentError, TemporaryError
from offhook.http import Answer
from workers.handlers.crm import Access, Contact, Entry, Number, SearchedCrm, Zone

# A session's life is the organisation's choice, and no answer tells it. Should this be too long, a
# 401 has it renewed.
SESSION = 3600.0
# Requests count for 24 hours from when each was made: so asked again every hour.
DAILY_WAIT = 3600.0

_DIRECTIONS = {"in": "Inbound", "out": "Outbound", "internal": "Internal"}
_LONGEST = 255  # characters of a subject


@dataclass(frozen=True, kw_only=True)
class Salesforce(SearchedCrm):
    """Log every call as a task in Salesforce, with the contact or lead who has the number."""

    name: ClassVar[str] = "Salesforce"

    # A task is with one contact or lead.
    several: Annotated[
        Literal["newest", "none"],
        Field(description="whose call it is when several contacts have the number"),
    ] = "newest"
    client_id: Annotated[str, Field(min_length=1, description="the app's consumer key")]
    client_secret: Annotated[SecretStr, Field(description="the app's consumer secret")]
    call_field: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z]\w{0,79}$",
            description="the field of tasks that holds what names a call; unique, made once",
        ),
    ] = "Offhook_Call__c"
    lead_field: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z]\w{0,79}$",
            description='the same of leads, for unknown = "create"; it holds their number',
        ),
    ] = "Offhook_Number__c"
    open_status: Annotated[
        str, Field(min_length=1, description="the status of a task whose call goes on")
    ] = "In Progress"
    ended_status: Annotated[
        str, Field(min_length=1, description="the status of a task whose call has ended")
    ] = "Completed"
    zone: Annotated[Zone, Field(description="the time zone that says which day a call was on")] = (
        "UTC"
    )
    version: Annotated[
        str, Field(pattern=r"^[1-9][0-9]\.0$", description="the version of Salesforce's API")
    ] = "68.0"
    base_url: Annotated[
        str,
        Field(
            pattern="^https?://[^/]+$",
            description="your My Domain, such as https://acme.my.salesforce.com",
        ),
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
        if answer.status == 400:  # what OAuth says when it is the credentials that are wrong
            answer = replace(answer, status=401)
        token = self.read(answer, context)["access_token"]
        url = f"{self.base_url}/services/data/v{self.version}"
        return Access(url, {"Authorization": f"Bearer {token}"}, SESSION)

    async def find(self, number: Number, context: Context) -> list[Contact]:
        phrases = " OR ".join(f'"{_escaped(form)}"' for form in number.forms)
        newest = "ORDER BY CreatedDate DESC LIMIT 100"
        found = await self.request(
            context,
            "GET",
            "/search/",
            params={
                "q": f"FIND {{{phrases}}} IN PHONE FIELDS RETURNING "
                "Contact(Id, Name, CreatedDate, Phone, MobilePhone, HomePhone, OtherPhone "
                f"{newest}), "
                "Lead(Id, Name, CreatedDate, Phone, MobilePhone "
                f"WHERE IsConverted = false {newest})"
            },
        )
        theirs = [
            record
            for record in found["searchRecords"]
            if any(
                number.is_same(record.get(kind) or "")
                for kind in ("Phone", "MobilePhone", "HomePhone", "OtherPhone")
            )
        ]
        theirs.sort(key=lambda record: record["CreatedDate"], reverse=True)
        return [Contact(r["Id"], r["attributes"]["type"], r.get("Name")) for r in theirs]

    async def create(self, number: Number, entry: Entry, context: Context) -> Contact:
        # A search finds a new lead late; a query at once.
        text = number.e164 or number.text
        found = await self._query(
            context, "Lead", "Id, Name, ConvertedContactId", f"{self.lead_field} = {_quoted(text)}"
        )
        if found:
            lead = found[0]
            if lead.get("ConvertedContactId"):
                return Contact(lead["ConvertedContactId"], "Contact", lead.get("Name"))
            return Contact(lead["Id"], "Lead", lead.get("Name"))
        name = (entry.call.caller if entry.incoming else entry.call.called).name or text
        lead = {"LastName": name[:80], "Company": "[not provided]", "Phone": text}
        if entry.owner:
            lead["OwnerId"] = entry.owner
        made = await self.request(
            context,
            "POST",
            "/sobjects/Lead",
            json=lead | {self.lead_field: text},
            headers={"Sforce-Duplicate-Rule-Header": "allowSave=true"},
        )
        return Contact(made["id"], "Lead", name)

    async def find_record(self, entry: Entry, context: Context) -> str | None:
        # The date is for a `call_field` without an index: those of dates always have one.
        since = entry.call.started.astimezone(UTC) - timedelta(days=1)
        found = await self._query(
            context,
            "Task",
            "Id",
            f"{self.call_field} = {_quoted(entry.key)} "
            f"AND CreatedDate > {since:%Y-%m-%dT%H:%M:%SZ}",
        )
        return str(found[0]["Id"]) if found else None

    async def create_record(self, entry: Entry, context: Context) -> str:
        task = {"Status": self.open_status} | self._task(entry)
        task |= {
            self.call_field: entry.key,
            "TaskSubtype": "Call",  # can only be given to a new task
            "ActivityDate": f"{entry.call.started.astimezone(ZoneInfo(self.zone)):%Y-%m-%d}",
        }
        if entry.contacts:
            task["WhoId"] = entry.contacts[0].id
        if entry.ended:
            task["Description"] = "\n".join(entry.facts)
        return str((await self.request(context, "POST", "/sobjects/Task", json=task))["id"])

    async def change_record(self, id: str, entry: Entry, context: Context) -> bool:  # noqa: A002
        path = f"/sobjects/Task/{id}"
        answer = await self.ask(context, "GET", path, params={"fields": "WhoId,Description"})
        if answer.status == 404:
            return False
        there = self.read(answer, context)
        task = self._task(entry)
        if entry.contacts and not there.get("WhoId"):  # never instead of whom somebody chose
            task["WhoId"] = entry.contacts[0].id
        if entry.ended and not there.get("Description"):  # nor of what somebody wrote
            task["Description"] = "\n".join(entry.facts)
        await self.request(context, "PATCH", path, json=task)
        return True

    async def user(self, owner: str, context: Context) -> str | None:
        if "@" not in owner:
            return owner if re.fullmatch(r"005\w{12}(\w{3})?", owner) else None
        text = _quoted(owner)
        found = await self._query(
            context,
            "User",
            "Id, Username",
            f"IsActive = true AND (Username = {text} OR Email = {text})",
        )
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
                    "Salesforce has taken all requests of 24 hours: it goes on as the day passes; "
                    "Salesforce sells a higher limit",
                    DAILY_WAIT,
                )
            answer = replace(answer, status=429)  # too many at once
        elif codes & {"INVALID_FIELD", "INVALID_FIELD_FOR_INSERT_UPDATE", "INVALID_TYPE"}:
            return TemporaryError(
                "Salesforce has no such field, or does not let the app's user write it: make it, "
                f"or give the user the right to it. It said: {self.said(answer)}"
            )
        elif "DUPLICATE_VALUE" in codes and re.search(
            rf"\b({self.call_field}|{self.lead_field})\b", answer.text
        ):
            return TemporaryError("Salesforce has just got this from an earlier attempt")
        elif "UNABLE_TO_LOCK_ROW" in codes:
            answer = replace(answer, status=503)
        return super().fault(answer, context)

    async def _query(
        self, context: Context, kind: str, fields: str, where: str
    ) -> list[dict[str, Any]]:
        """The records of a kind, the oldest first. Unlike a search it knows what is new."""
        query = f"SELECT {fields} FROM {kind} WHERE {where} ORDER BY CreatedDate LIMIT 100"  # noqa: S608 - values are quoted
        found = await self.request(context, "GET", "/query/", params={"q": query})
        return list(found["records"])

    def _task(self, entry: Entry) -> dict[str, Any]:
        """What changes while the call goes on. The comments are left to whoever takes notes."""
        call = entry.call
        task: dict[str, Any] = {
            "Subject": entry.title[:_LONGEST],
            "CallType": _DIRECTIONS[call.direction],
        }
        if entry.owner:
            task["OwnerId"] = entry.owner
        if entry.ended:
            task["Status"] = self.ended_status  # never open again what somebody has closed
        if entry.ended and call.outcome:
            task["CallDisposition"] = call.outcome.capitalize()
            if call.talk_seconds is not None:
                task["CallDurationInSeconds"] = entry.seconds
        return task


def _escaped(text: str) -> str:
    """For a phrase of SOSL."""
    return re.sub(r"""([?&|!{}\[\]()^~*:\\"'+-])""", r"\\\1", text)


def _quoted(text: str) -> str:
    """A string of SOQL."""
    return "'" + re.sub(r"([\\'])", r"\\\1", text) + "'"


def _errors(answer: Answer) -> list[dict[str, Any]]:
    """What it says is wrong: a list, or from the token endpoint an object."""
    if answer.status < 400:
        return []
    try:
        body = answer.json()
    except ValueError:
        return []
    return [e for e in (body if isinstance(body, list) else [body]) if isinstance(e, dict)]
