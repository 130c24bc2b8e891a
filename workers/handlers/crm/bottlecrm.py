"""Log calls in BottleCRM: an interaction for each, on the contact, the lead, or an account.

Paths and bodies: the source of django-crm 1.35.0 (interactions, contacts, leads).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SecretStr

from offhook import Context, Outcome, PermanentError, TemporaryError
from offhook.http import Answer
from workers.handlers.crm import Access, Contact, Entry, Memory, Number, SearchedCrm

_SKEW = timedelta(hours=1)  # by which an interaction's time may differ from the call's
_PAGE = 50  # interactions have up to 10,000 characters each, and an answer fits in 1 MB
_TITLE = 200  # characters of a subject
_LONGEST = 25  # characters of a number

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

    # An interaction is on one record.
    several: Annotated[
        Literal["newest", "none"],
        Field(description="whose call it is when several contacts have the number"),
    ] = "newest"
    token: Annotated[SecretStr, Field(description="the personal access token of an admin")]
    account: Annotated[
        str,
        Field(
            pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
            description="the id of the account that has the calls which are no contact's",
        ),
    ]
    base_url: Annotated[
        str, Field(pattern="^https?://[^/]+$", description="where BottleCRM's API is")
    ]

    async def sign_in(self, context: Context) -> Access:
        return Access(self.base_url, {"Authorization": f"Bearer {self.token.get_secret_value()}"})

    async def find(self, number: Number, context: Context) -> list[Contact]:
        found = [
            Contact(one["id"], kind, one["name"])
            for kind in ("contact", "lead")
            for one in await self._with_number(kind, number, context)
        ]
        self._theirs.keep(number.text, found)
        return found

    async def create(self, number: Number, entry: Entry, context: Context) -> Contact:
        found = await self.find(number, context)
        if found:
            return found[0]
        text = number.e164 or number.text
        name = (entry.call.caller if entry.incoming else entry.call.called).name or "Unknown"
        first, _, last = name.rpartition(" ")
        contact: dict[str, Any] = {
            "first_name": first or last,
            "last_name": last if first else text,  # there must be one
            "phone": text,
            "assigned_to": [entry.owner] if entry.owner else [],
        }
        made = await self.request(context, "POST", _CONTACTS, json=contact)
        return Contact(made["id"], name=f"{contact['first_name']} {contact['last_name']}")

    async def find_record(self, entry: Entry, context: Context) -> str | None:
        # Whoever had the number when the call began may not be whose call it is now.
        theirs = (entry.number and self._theirs.get(entry.number.text)) or []
        homes = [(each.kind, each.id) for each in (*entry.contacts, *theirs)]
        for kind, home in dict.fromkeys([("account", self.account), *homes]):
            record = await self._marked(kind, home, entry, context)
            if record is not None:
                return record
        return None

    async def create_record(self, entry: Entry, context: Context) -> str:
        return await self._create(entry, _line(entry), context)

    async def change_record(self, id: str, entry: Entry, context: Context) -> bool:  # noqa: A002
        answer = await self.ask(context, "PATCH", f"{_CALLS}{id}/", json=_interaction(entry))
        if answer.status == 404:
            return False
        record = self.read(answer, context)
        body = _renewed(record["body"], entry)
        if record["home"] == "account" and entry.contacts:
            await self._move(id, body, entry, context)
        elif body != record["body"]:
            await self.request(context, "PATCH", f"{_CALLS}{id}/", json={"body": body})
        return True

    async def user(self, owner: str, context: Context) -> str | None:
        if self.unknown != "create":  # interactions have no owner that could be set
            return owner
        page = await self.request(context, "GET", _CONTACTS, params={"limit": "1"})
        for each in page["users"]:
            if owner.lower() in (each["id"], each["user__email"].lower()):
                return str(each["id"])
        return None

    def said(self, answer: Answer) -> str:
        try:
            body = answer.json()
            return str(body.get("errors") or body.get("detail") or body.get("message", ""))[:300]
        except (ValueError, AttributeError):
            return ""

    def fault(self, answer: Answer, context: Context) -> PermanentError | TemporaryError | None:
        if answer.status == 400 and "occurred_at" in self.said(answer):
            return TemporaryError(
                f"BottleCRM takes the call for one in the future: set its clock right, or ours; "
                f"it said: {self.said(answer)}"
            )
        return super().fault(answer, context)

    async def _with_number(
        self, kind: str, number: Number, context: Context
    ) -> list[dict[str, Any]]:
        """The contacts or leads that have the number, the newest first."""
        # It compares full numbers where it knows the country; else the last ten digits.
        forms: dict[str, str] = {}
        for form in number.forms:
            if len(form) <= _LONGEST:
                forms.setdefault("".join(filter(str.isdecimal, form))[-10:], form)
        lists = []
        for form in forms.values():
            answer = await self.ask(
                context, "POST", f"/api/{kind}s/duplicates/", json={"phone": form}
            )
            if answer.status == 404:  # leads are switched off
                return []
            hits = self.read(answer, context)["duplicates"]
            lists.append([hit for hit in hits if number.is_same(hit["phone"])])
        found = {hit["id"]: hit for hits in lists for hit in hits}
        longest = max(lists, key=len, default=[])
        if len(longest) == len(found):
            return longest
        made = {each: await self._made(kind, each, context) for each in found}
        return [found[each] for each in sorted(found, key=made.__getitem__, reverse=True)]

    async def _made(self, kind: str, id: str, context: Context) -> str:  # noqa: A002
        page = await self.request(context, "GET", f"/api/{kind}s/{id}/")
        return str(page[f"{kind}_obj"]["created_at"])

    async def _marked(self, kind: str, home: str, entry: Entry, context: Context) -> str | None:
        """The interaction of a contact, lead or account that bears the entry's mark."""
        oldest = entry.call.started - _SKEW
        offset = 0
        while True:
            params = {kind: home, "limit": str(_PAGE), "offset": str(offset)}
            answer = await self.ask(context, "GET", _CALLS, params=params)
            if answer.status == 404:
                if kind != "account":
                    return None  # deleted, or merged into another
                raise TemporaryError(
                    f"BottleCRM has no account {home}, or does not show it to the token's user: "
                    "correct `account` in the handler's options"
                )
            page = self.read(answer, context)["interactions"]
            for each in page:
                if entry.is_marked(each["body"]):
                    return str(each["id"])
            if len(page) < _PAGE or datetime.fromisoformat(page[-1]["occurred_at"]) < oldest:
                return None
            offset += _PAGE

    async def _create(self, entry: Entry, body: str, context: Context) -> str:
        home = entry.contacts[0] if entry.contacts else Contact(self.account, "account")
        interaction = {"kind": "call", home.kind: home.id, "body": body} | _interaction(entry)
        made = await self.request(context, "POST", _CALLS, json=interaction)
        return str(made["id"])

    async def _move(self, id: str, body: str, entry: Entry, context: Context) -> None:  # noqa: A002
        """Put a call of the account on the contact who is known by now, which takes a new one."""
        home = entry.contacts[0]
        there = await self._marked(home.kind, home.id, entry, context)  # an attempt before this
        if there is None or not await self.change_record(there, entry, context):
            await self._create(entry, body, context)
        await self.request(context, "DELETE", f"{_CALLS}{id}/")

    @cached_property
    def _theirs(self) -> Memory[str, list[Contact]]:
        """Who had a number when it was last looked for: a call may be on any of them."""
        return Memory(86400.0)


def _interaction(entry: Entry) -> dict[str, Any]:
    """What changes while the call goes on."""
    outcome = entry.call.outcome if entry.ended else None
    known = entry.ended and entry.call.talk_seconds is not None
    return {
        "direction": "inbound" if entry.incoming else "outbound",
        "occurred_at": entry.call.started.astimezone(UTC).isoformat(),
        "duration_seconds": entry.seconds if known else None,
        "outcome": _OUTCOMES[outcome] if outcome else "",
        "subject": entry.title[:_TITLE],
    }


def _line(entry: Entry) -> str:
    """All facts in one line, so that it can be told from what somebody writes below it."""
    return " · ".join(entry.facts)


def _renewed(body: str, entry: Entry) -> str:
    """The body with our line as it is now. The others are left to whoever takes notes."""
    lines = body.split("\n")
    ours = [number for number, line in enumerate(lines) if entry.is_marked(line)]
    if not ours:
        return f"{body}\n{_line(entry)}" if body else _line(entry)
    lines[ours[0]] = _line(entry)
    return "\n".join(lines)
