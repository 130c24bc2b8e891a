"""`Zoho`: log calls in the module Calls of Zoho CRM, with the contact or lead.

Paths, bodies and errors: Zoho's API description (github.com/zoho/crm-oas, v8: record, users), its
pages on External ID and on token validity; the fields of a call: Kaizen 38, "Calls API".
"""

import re
from dataclasses import dataclass, field, replace
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import Field, SecretStr

from offhook import Context, Outcome, PermanentError, TemporaryError
from offhook.http import Answer
from workers.handlers.crm import (
    Access,
    BaseUrl,
    Contact,
    CrmEntry,
    Number,
    OneContact,
    SearchedCrm,
    TokenFile,
    json_object,
)

# Seconds that a saved token must still last: longer than `Crm` renews it early.
_TOKEN_LEFT = 120.0
TOKENS_WAIT = 600.0  # Zoho gives ten access tokens in ten minutes
DAILY_WAIT = 3600.0  # the limit counts the credits of the last 24 hours

_TYPES = {"in": "Inbound", "internal": "Inbound", "out": "Outbound"}
_PHONES = {
    "Contacts": ("Phone", "Mobile", "Home_Phone", "Other_Phone"),
    "Leads": ("Phone", "Mobile"),
}
_EXPIRED = {"INVALID_TOKEN", "INVALID_OAUTHTOKEN"}
_FORBIDDEN = {"NO_PERMISSION", "AUTHORIZATION_FAILED", "OAUTH_SCOPE_MISMATCH", "INVALID_MODULE"}
_SUBJECT_LENGTH = 255

FieldName = Annotated[str, Field(pattern=r"^[A-Za-z]\w{0,49}$")]
Module = Literal["Contacts", "Leads"]


@dataclass(frozen=True, kw_only=True)
class Zoho(SearchedCrm):
    """Log every call in Zoho CRM, with the contact or lead who has the number."""

    name: ClassVar[str] = "Zoho"

    several: OneContact = "newest"
    client_id: Annotated[str, Field(min_length=1, description="the client's id")]
    client_secret: Annotated[SecretStr, Field(description="the client's secret")]
    refresh_token: Annotated[SecretStr, Field(description="the client's refresh token")]
    tokens: Annotated[
        Path, Field(description="the folder where the workers share access tokens")
    ] = Path("tokens")
    call_field: Annotated[
        FieldName,
        Field(description="the external field of calls that identifies a call; create it once"),
    ] = "Offhook_Call"
    contact_field: Annotated[
        FieldName,
        Field(description='the external field of contacts with the number, for unknown = "create"'),
    ] = "Offhook_Number"
    modules: Annotated[
        list[Module], Field(min_length=1, description="the modules to search for a number")
    ] = field(default_factory=lambda: ["Contacts", "Leads"])
    accounts_url: Annotated[
        BaseUrl, Field(description="the URL of Zoho Accounts in your data center")
    ] = "https://accounts.zoho.com"
    base_url: Annotated[
        BaseUrl | None,
        Field(description="the URL of Zoho's API, if not the one that Zoho Accounts names"),
    ] = None

    async def sign_in(self, context: Context) -> Access:
        whose = f"{self.accounts_url} {self.client_id} {self.refresh_token.get_secret_value()}"
        access = await TokenFile(self.tokens, whose).access(
            _TOKEN_LEFT, self._accesses.get(""), partial(self._new_access, context)
        )
        return replace(access, url=self.base_url) if self.base_url else access

    async def find(self, number: Number, context: Context) -> list[Contact]:
        same: dict[tuple[str, str], dict[str, Any]] = {}
        for module in self.modules:
            phones = _PHONES[module]
            fields = ",".join(("Full_Name", "Created_Time", *phones))
            for digits in dict.fromkeys(re.sub(r"\D", "", form) for form in number.forms):
                found = await self.get(
                    context, f"/crm/v8/{module}/search", phone=digits, fields=fields
                )
                for record in found["data"] if found else ():
                    if any(number.is_same(record.get(kind) or "") for kind in phones):
                        same[module, record["id"]] = record
        newest = sorted(
            same.items(), key=lambda found: found[1].get("Created_Time") or "", reverse=True
        )
        return [Contact(key, module, each.get("Full_Name")) for (module, key), each in newest]

    async def create(self, number: Number, entry: CrmEntry, context: Context) -> Contact:
        # The search finds a new contact late; the external field, at once.
        known = await self._by_key(context, "Contacts", self.contact_field, number.digits)
        if known is not None:
            return Contact(known["id"], "Contacts", known.get("Full_Name"))
        name = entry.outside.name or entry.phone
        contact = {"Last_Name": name[:80], "Phone": entry.phone} | _owner(entry)
        created = await self._insert(
            context, "Contacts", self.contact_field, number.digits, contact
        )
        return Contact(created, "Contacts", name)

    async def save(self, entry: CrmEntry, context: Context) -> None:
        # The type of a call can never be changed, so wait until it is known: missed or not.
        if entry.ended or entry.call.answered_by or not entry.incoming:
            await super().save(entry, context)

    async def find_record(self, entry: CrmEntry, context: Context) -> str | None:
        known = await self._by_key(context, "Calls", self.call_field, _key(entry))
        return None if known is None else str(known["id"])

    async def create_record(self, entry: CrmEntry, context: Context) -> str:
        missed = entry.incoming and entry.ended and entry.call.outcome is not Outcome.ANSWERED
        call = {
            "Subject": entry.title[:_SUBJECT_LENGTH],
            "Call_Type": "Missed" if missed else _TYPES[entry.call.direction],
            "Call_Start_Time": f"{entry.call.started.astimezone(UTC):%Y-%m-%dT%H:%M:%S}+00:00",
        } | _owner(entry)
        if not missed:
            call["Call_Duration"] = _duration(entry)
        if entry.contacts:
            call |= _related(entry.contacts[0])
        if entry.ended:
            call["Description"] = "\n".join(entry.facts)
        return await self._insert(context, "Calls", self.call_field, _key(entry), call)

    async def change_record(self, id: str, entry: CrmEntry, context: Context) -> bool:  # noqa: A002
        path = f"/crm/v8/Calls/{id}"
        fields = "Call_Type,Description,Who_Id,What_Id"
        answer = await self.ask(context, "GET", path, params={"fields": fields})
        if _is_gone(answer):
            return False
        there = self.read(answer, context)["data"][0]
        # Zoho allows no change of the type nor, for a completed call, of the owner.
        call: dict[str, Any] = {"Subject": entry.title[:_SUBJECT_LENGTH]}
        if entry.ended and there.get("Call_Type") != "Missed":
            call["Call_Duration"] = _duration(entry)
        if entry.contacts and not (there.get("Who_Id") or there.get("What_Id")):
            call |= _related(entry.contacts[0])  # keep the contact that a person chose
        if entry.ended and not there.get("Description"):  # keep what a person wrote
            call["Description"] = "\n".join(entry.facts)
        await self.request(context, "PUT", path, json={"data": [call]})
        return True

    async def user(self, owner: str, context: Context) -> str | None:
        if "@" not in owner:
            return owner if owner.isdecimal() else None
        page = 1
        while True:
            params = {"type": "ActiveUsers", "page": str(page), "per_page": "200"}
            found = await self.get(context, "/crm/v8/users", **params)
            for user in found["users"] if found else ():
                if user["email"].lower() == owner.lower():
                    return str(user["id"])
            if not found or not found["info"]["more_records"]:
                return None
            page += 1

    def said(self, answer: Answer) -> str:
        problem = _problem(answer)
        details = problem.get("details")
        where = details.get("api_name") if isinstance(details, dict) else None
        said = (problem.get("code"), where, problem.get("message"), problem.get("error"))
        return ": ".join(str(part) for part in said if part)[:300]

    def fault(self, answer: Answer, context: Context) -> PermanentError | TemporaryError | None:
        code = _problem(answer).get("code")
        if answer.status == 429 and (
            code == "LIMIT_EXCEEDED" or answer.headers.get("X-API-CREDITS-REMAINING") == "0"
        ):
            return TemporaryError(
                "Zoho's daily API credits are used up: they count the last 24 hours; "
                "Zoho sells more credits",
                DAILY_WAIT,
            )
        if code in _FORBIDDEN:
            answer = replace(answer, status=403)
        elif code is not None and answer.status < 400:  # an error with a status of success
            answer = replace(answer, status=400)
        if answer.status == 400 and re.search(
            rf"\b({self.call_field}|{self.contact_field}|X-EXTERNAL)\b", answer.text
        ):
            return TemporaryError(
                f"Zoho refuses {self.call_field} or {self.contact_field}: create this field in "
                f"the module, as an external field. Zoho says: {self.said(answer)}"
            )
        return super().fault(answer, context)

    def expired(self, answer: Answer) -> bool:
        # Not for a missing permission: a new token would not have it either, and tokens are few.
        return answer.status == 401 and _problem(answer).get("code") in _EXPIRED

    async def _new_access(self, context: Context) -> Access:
        answer = await context.http.post(
            f"{self.accounts_url}/oauth/v2/token",
            data={
                "grant_type": "refresh_token",
                "client_id": self.client_id,
                "client_secret": self.client_secret.get_secret_value(),
                "refresh_token": self.refresh_token.get_secret_value(),
            },
            timeout=self.timeout,
        )
        error = _problem(answer).get("error")
        if error == "Access Denied":
            raise TemporaryError(
                "Zoho gives no more than ten access tokens in ten minutes: check that nothing "
                "else uses the refresh token, and that all workers share the folder `tokens`",
                TOKENS_WAIT,
            )
        if error and answer.status < 500:  # even with status 200
            answer = replace(answer, status=401)
        token = self.read(answer, context)
        headers = {"Authorization": f"Zoho-oauthtoken {token['access_token']}"}
        return Access(token["api_domain"], headers, float(token["expires_in"]))

    async def _by_key(
        self, context: Context, module: str, key: str, value: str
    ) -> dict[str, Any] | None:
        """The record whose external field `key` has this value."""
        path = f"/crm/v8/{module}/{quote(value, safe='')}"
        answer = await self.ask(context, "GET", path, headers={"X-EXTERNAL": f"{module}.{key}"})
        if _is_gone(answer):
            return None
        record: dict[str, Any] = self.read(answer, context)["data"][0]
        return record

    async def _insert(
        self, context: Context, module: str, key: str, value: str, record: dict[str, Any]
    ) -> str:
        """Create a record with this value in its external field, and return its id."""
        answer = await self.ask(
            context,
            "POST",
            f"/crm/v8/{module}",
            json={"data": [record | {key: value}]},
            headers={"X-EXTERNAL": f"{module}.{key}"},
        )
        if _problem(answer).get("code") == "DUPLICATE_DATA" and key in answer.text:
            raise TemporaryError("Zoho has just saved this from an earlier attempt")
        return str(self.read(answer, context)["data"][0]["details"]["id"])


def _key(entry: CrmEntry) -> str:
    """The call's key, fit for a path: no PBX has a colon in its name."""
    return entry.key.replace("/", ":", 1)


def _owner(entry: CrmEntry) -> dict[str, Any]:
    return {"Owner": {"id": entry.owner}} if entry.owner else {}


def _related(contact: Contact) -> dict[str, Any]:
    if contact.kind == "Leads":
        return {"What_Id": {"id": contact.id}, "$se_module": "Leads"}
    return {"Who_Id": {"id": contact.id}}


def _duration(entry: CrmEntry) -> str:
    return f"{entry.seconds // 60:02}:{entry.seconds % 60:02}"


def _is_gone(answer: Answer) -> bool:
    """Return whether there is no such record, which Zoho says in several ways."""
    if answer.status in (204, 404):
        return True
    problem = _problem(answer)
    return problem.get("code") in ("INVALID_DATA", "NO_RECORDS_FOUND") and bool(
        re.search(r"\bid\b.*\binvalid|no record", str(problem.get("message")), re.IGNORECASE)
    )


def _problem(answer: Answer) -> dict[str, Any]:
    """The error of the request, or of the only record in it; empty when there is none."""
    body = json_object(answer)
    records = body.get("data")
    parts = [body, *records] if isinstance(records, list) else [body]
    wrong = (p for p in parts if isinstance(p, dict) and p.get("status") == "error")
    return body if "error" in body else next(wrong, {})
