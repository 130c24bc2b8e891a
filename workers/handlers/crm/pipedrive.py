"""Log calls in Pipedrive: an activity of type call for each, with the person and the open deal.

Not its call logs: those can neither be changed nor be found again. Paths and bodies: Pipedrive's
descriptions of API v2 (activities, deals, persons) and v1 (users).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Annotated, Any, ClassVar

from pydantic import Field, SecretStr

from offhook import Context, PermanentError, TemporaryError
from offhook.http import Answer
from workers.handlers.crm import Access, Contact, Entry, Number, SearchedCrm

_SKEW = timedelta(minutes=10)  # by which Pipedrive's clock and ours may differ


@dataclass(frozen=True, kw_only=True)
class Pipedrive(SearchedCrm):
    """Log every call as an activity in Pipedrive, with the person who has the number."""

    name: ClassVar[str] = "Pipedrive"

    token: Annotated[
        SecretStr, Field(description="the API token of a user who may see all activities")
    ]
    activity_type: Annotated[
        str, Field(pattern=r"^\w+$", description="the key of the activity type that calls have")
    ] = "call"
    deals: Annotated[
        bool, Field(description="put the call on the person's open deal, if there is only one")
    ] = True
    base_url: Annotated[
        str, Field(pattern="^https?://[^/]+$", description="where Pipedrive's API is")
    ] = "https://api.pipedrive.com"

    async def sign_in(self, context: Context) -> Access:
        return Access(self.base_url, {"x-api-token": self.token.get_secret_value()})

    async def find(self, number: Number, context: Context) -> list[Contact]:
        # It compares parts of what somebody typed: in one, with blanks, with hyphens.
        rest = number.groups[1:] if len("".join(number.groups[1:])) >= 6 else number.groups
        theirs: dict[int, dict[str, Any]] = {}
        for term in dict.fromkeys((number.national, " ".join(rest), "-".join(rest))):
            found = await self.request(
                context,
                "GET",
                "/api/v2/persons/search",
                params={"term": term, "fields": "phone", "limit": "100"},
            )
            for each in found["data"]["items"]:
                if any(map(number.is_same, each["item"]["phones"])):
                    theirs[each["item"]["id"]] = each["item"]
        return [_contact(theirs[key]) for key in sorted(theirs, reverse=True)]

    async def create(self, number: Number, entry: Entry, context: Context) -> Contact:
        # A search may not know the newest yet; the list does.
        since = entry.call.started - timedelta(hours=1)
        async for person in self._all("/api/v2/persons", since, context):
            if any(number.is_same(phone["value"]) for phone in person.get("phones") or ()):
                return _contact(person)
        text = number.e164 or number.text
        name = (entry.call.caller if entry.incoming else entry.call.called).name
        person = {
            "name": name or text,
            "phones": [{"value": text, "primary": True, "label": "work"}],
        }
        made = await self.request(
            context, "POST", "/api/v2/persons", json=person | _owned(entry.owner)
        )
        return _contact(made["data"])

    async def find_record(self, entry: Entry, context: Context) -> str | None:
        async for activity in self._all("/api/v2/activities", entry.call.started - _SKEW, context):
            if entry.is_marked(activity.get("public_description")):
                return str(activity["id"])
        return None

    async def create_record(self, entry: Entry, context: Context) -> str:
        started = entry.call.started.astimezone(UTC)
        activity = self._activity(entry) | {
            "type": self.activity_type,
            "due_date": f"{started:%Y-%m-%d}",
            "due_time": f"{started:%H:%M}",
            "done": entry.ended,
        }
        if entry.contacts:
            activity["participants"] = _participants(entry)
        deal = await self._deal(entry, context)
        if deal is not None:
            activity["deal_id"] = deal
        made = await self.request(context, "POST", "/api/v2/activities", json=activity)
        return str(made["data"]["id"])

    async def change_record(self, id: str, entry: Entry, context: Context) -> bool:  # noqa: A002
        activity = self._activity(entry)
        if entry.ended:
            activity["done"] = True
        path = f"/api/v2/activities/{id}"
        answer = await self.ask(context, "PATCH", path, json=activity)
        if answer.status in (404, 410):
            return False
        changed = self.read(answer, context)["data"]
        if entry.contacts and not changed.get("participants"):  # never those that somebody chose
            people = {"participants": _participants(entry)}
            await self.request(context, "PATCH", path, json=people)
        return True

    async def user(self, owner: str, context: Context) -> str | None:
        if "@" not in owner:
            return owner if owner.isdecimal() else None
        found = await self.request(
            context, "GET", "/v1/users/find", params={"term": owner, "search_by_email": "1"}
        )
        same = (u["id"] for u in found["data"] or () if u["email"].lower() == owner.lower())
        return next(map(str, same), None)

    def said(self, answer: Answer) -> str:
        try:
            return str(answer.json()["error"])[:300]
        except (ValueError, LookupError, TypeError):
            return ""

    def fault(self, answer: Answer, context: Context) -> PermanentError | TemporaryError | None:
        fault = super().fault(answer, context)
        if answer.status != 429 or not isinstance(fault, TemporaryError):
            return fault
        if (
            "daily" in self.said(answer).lower()
            or answer.headers.get("x-daily-requests-left") == "0"
        ):
            return TemporaryError(
                "Pipedrive has given all of this day's tokens: it goes on after midnight UTC; "
                "a higher plan or a top-up has more",
                _until_midnight(),
            )
        reset = answer.headers.get("x-ratelimit-reset", "")
        if fault.retry_after is None and reset.isdecimal():
            fault.retry_after = float(reset)
        return fault

    def _activity(self, entry: Entry) -> dict[str, Any]:
        """What changes while the call goes on. The note is left to whoever takes notes."""
        activity: dict[str, Any] = {
            "subject": entry.title,
            "public_description": "\n".join(entry.facts),
        } | _owned(entry.owner)
        if entry.seconds:
            minutes = ceil(entry.seconds / 60)
            activity["duration"] = f"{minutes // 60:02}:{minutes % 60:02}"
        return activity

    async def _deal(self, entry: Entry, context: Context) -> int | None:
        """The open deal of the call's person; None when there is not exactly one."""
        if not self.deals or not entry.contacts:
            return None
        found = await self.request(
            context,
            "GET",
            "/api/v2/deals",
            params={"person_id": entry.contacts[0].id, "status": "open", "limit": "2"},
        )
        deals = found["data"]
        return deals[0]["id"] if len(deals) == 1 else None

    async def _all(
        self, path: str, since: datetime, context: Context
    ) -> AsyncIterator[dict[str, Any]]:
        """Everything of a kind that was changed since then, the newest first."""
        params = {
            "updated_since": f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "sort_by": "add_time",
            "sort_direction": "desc",
            "limit": "500",
        }
        while True:
            page = await self.request(context, "GET", path, params=params)
            for each in page["data"]:
                yield each
            cursor = (page.get("additional_data") or {}).get("next_cursor")
            if not cursor:
                return
            params["cursor"] = cursor


def _contact(person: dict[str, Any]) -> Contact:
    return Contact(str(person["id"]), "person", person.get("name"))


def _participants(entry: Entry) -> list[dict[str, Any]]:
    return [
        {"person_id": int(contact.id), "primary": number == 0}
        for number, contact in enumerate(entry.contacts)
    ]


def _owned(owner: str | None) -> dict[str, Any]:
    return {"owner_id": int(owner)} if owner else {}


def _until_midnight() -> float:
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight - now).total_seconds() + 60.0
