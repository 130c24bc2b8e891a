"""`BottleCrm`: log calls as BottleCRM interactions, on the contact, the lead, or an account.

Paths and bodies: the source of django-crm 1.35.0 (interactions, contacts, leads).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, ClassVar

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
    TtlCache,
    json_object,
)

_SKEW = timedelta(hours=1)  # between an interaction's time and the call's
_TITLE_LENGTH = 200  # maximum of a subject
_NUMBER_LENGTH = 25  # maximum of a number

_OUTCOMES = {
    Outcome.ANSWERED: "connected",
    Outcome.MISSED: "no_answer",
    Outcome.BUSY: "busy",
    Outcome.CANCELLED: "no_answer",
    Outcome.UNREACHABLE: "no_answer",
    Outcome.FAILED: "no_answer",
}
_CALLS, _CONTACTS = "/api/interactions/", "/api/contacts/"


@dataclass(frozen=True, kw_only=True)
class BottleCrm(SearchedCrm):
    """Log every call in BottleCRM, with the contact or lead who has the number."""

    name: ClassVar[str] = "BottleCRM"
    page: ClassVar[int] = 50  # interactions of up to 10,000 characters; a response fits in 1 MB

    several: OneContact = "newest"
    token: Annotated[SecretStr, Field(description="the personal access token of an admin")]
    account: Annotated[
        str,
        Field(
            pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
            description="the id of the account for calls without a contact",
        ),
    ]
    base_url: Annotated[BaseUrl, Field(description="the URL of BottleCRM's API")]

    async def sign_in(self, context: Context) -> Access:
        return Access(self.base_url, {"Authorization": f"Bearer {self.token.get_secret_value()}"})

    async def find(self, number: Number, context: Context) -> list[Contact]:
        found = [
            Contact(one["id"], kind, one["name"])
            for kind in ("contact", "lead")
            for one in await self._with_number(kind, number, context)
        ]
        self._holders.keep(number.text, found)
        return found

    async def create(self, number: Number, entry: CrmEntry, context: Context) -> Contact:
        found = await self.find(number, context)
        if found:
            return found[0]
        first, _, last = (entry.outside.name or "Unknown").rpartition(" ")
        contact: dict[str, Any] = {
            "first_name": first or last,
            "last_name": last if first else entry.phone,  # required
            "phone": entry.phone,
            "assigned_to": [entry.owner] if entry.owner else [],
        }
        created = await self.request(context, "POST", _CONTACTS, json=contact)
        return Contact(created["id"], name=f"{contact['first_name']} {contact['last_name']}")

    async def find_record(self, entry: CrmEntry, context: Context) -> str | None:
        # Also where the number was found before: its contact may have changed during the call.
        holders = (entry.number and self._holders.get(entry.number.text)) or []
        homes = [(each.kind, each.id) for each in (*entry.contacts, *holders)]
        for kind, home in dict.fromkeys([("account", self.account), *homes]):
            record = await self._marked(kind, home, entry, context)
            if record is not None:
                return record
        return None

    async def create_record(self, entry: CrmEntry, context: Context) -> str:
        return await self._create(entry, _line(entry), context)

    async def change_record(self, id: str, entry: CrmEntry, context: Context) -> bool:  # noqa: A002
        answer = await self.ask(context, "PATCH", f"{_CALLS}{id}/", json=_interaction(entry))
        if answer.status == 404:
            return False
        record = self.read(answer, context)
        body = _with_line(record["body"], entry)
        if record["home"] == "account" and entry.contacts:
            await self._move(id, body, entry, context)
        elif body != record["body"]:
            await self.request(context, "PATCH", f"{_CALLS}{id}/", json={"body": body})
        return True

    async def user(self, owner: str, context: Context) -> str | None:
        if self.unknown != "create":  # the owner of an interaction cannot be set
            return owner
        page = await self.get(context, _CONTACTS, limit="1")
        for each in page["users"]:
            if owner.lower() in (each["id"], each["user__email"].lower()):
                return str(each["id"])
        return None

    def said(self, answer: Answer) -> str:
        body = json_object(answer)
        return str(body.get("errors") or body.get("detail") or body.get("message", ""))[:300]

    def fault(self, answer: Answer, context: Context) -> PermanentError | TemporaryError | None:
        if answer.status == 400 and "occurred_at" in self.said(answer):
            return TemporaryError(
                "BottleCRM says that the call is in the future: correct the clock of its machine "
                f"or of this one. BottleCRM says: {self.said(answer)}"
            )
        return super().fault(answer, context)

    async def _with_number(
        self, kind: str, number: Number, context: Context
    ) -> list[dict[str, Any]]:
        """The contacts or leads with the number, the newest first."""
        # BottleCRM compares full numbers if it knows the country; else the last ten digits.
        forms: dict[str, str] = {}
        for form in number.forms:
            if len(form) <= _NUMBER_LENGTH:
                forms.setdefault("".join(filter(str.isdecimal, form))[-10:], form)
        lists = []
        for form in forms.values():
            path = f"/api/{kind}s/duplicates/"
            answer = await self.ask(context, "POST", path, json={"phone": form})
            if answer.status == 404:  # leads are disabled
                return []
            hits = self.read(answer, context)["duplicates"]
            lists.append([hit for hit in hits if number.is_same(hit["phone"])])
        found = {hit["id"]: hit for hits in lists for hit in hits}
        longest = max(lists, key=len, default=[])
        if len(longest) == len(found):
            return longest
        created = {each: await self._created_at(kind, each, context) for each in found}
        return [found[each] for each in sorted(found, key=created.__getitem__, reverse=True)]

    async def _created_at(self, kind: str, id: str, context: Context) -> str:  # noqa: A002
        page = await self.get(context, f"/api/{kind}s/{id}/")
        return str(page[f"{kind}_obj"]["created_at"])

    async def _marked(self, kind: str, home: str, entry: CrmEntry, context: Context) -> str | None:
        """The interaction with the entry's mark, of a contact, lead or account."""
        oldest = entry.call.started - _SKEW
        offset = 0
        while True:
            params = {kind: home, "limit": str(self.page), "offset": str(offset)}
            answer = await self.ask(context, "GET", _CALLS, params=params)
            if answer.status == 404:
                if kind != "account":
                    return None  # deleted, or merged into another
                raise TemporaryError(
                    f"BottleCRM has no account {home}, or hides it from the token's user: "
                    "correct `account` in the handler's options"
                )
            page = self.read(answer, context)["interactions"]
            for each in page:
                if entry.is_marked(each["body"]):
                    return str(each["id"])
            if len(page) < self.page or datetime.fromisoformat(page[-1]["occurred_at"]) < oldest:
                return None
            offset += self.page

    async def _create(self, entry: CrmEntry, body: str, context: Context) -> str:
        home = entry.contacts[0] if entry.contacts else Contact(self.account, "account")
        interaction = {"kind": "call", home.kind: home.id, "body": body} | _interaction(entry)
        created = await self.request(context, "POST", _CALLS, json=interaction)
        return str(created["id"])

    async def _move(self, id: str, body: str, entry: CrmEntry, context: Context) -> None:  # noqa: A002
        """Move a call from the account to the contact: create a new interaction, delete the old."""
        home = entry.contacts[0]
        there = await self._marked(home.kind, home.id, entry, context)  # by an earlier attempt
        if there is None or not await self.change_record(there, entry, context):
            await self._create(entry, body, context)
        await self.request(context, "DELETE", f"{_CALLS}{id}/")

    @cached_property
    def _holders(self) -> TtlCache[str, list[Contact]]:
        """The contacts last found for each number: a call may be on any of them."""
        return TtlCache(86400.0)


def _interaction(entry: CrmEntry) -> dict[str, Any]:
    """The fields that change during a call."""
    outcome = entry.call.outcome if entry.ended else None
    known = entry.ended and entry.call.talk_seconds is not None
    return {
        "direction": "inbound" if entry.incoming else "outbound",
        "occurred_at": entry.call.started.astimezone(UTC).isoformat(),
        "duration_seconds": entry.seconds if known else None,
        "outcome": _OUTCOMES[outcome] if outcome else "",
        "subject": entry.title[:_TITLE_LENGTH],
    }


def _line(entry: CrmEntry) -> str:
    """All facts in one line, distinct from the lines that people write."""
    return " · ".join(entry.facts)


def _with_line(body: str, entry: CrmEntry) -> str:
    """The body with our line brought up to date. All other lines are people's notes."""
    lines = body.split("\n")
    ours = [number for number, line in enumerate(lines) if entry.is_marked(line)]
    if not ours:
        return f"{body}\n{_line(entry)}" if body else _line(entry)
    lines[ours[0]] = _line(entry)
    return "\n".join(lines)
