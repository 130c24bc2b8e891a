"""`Pipedrive`: log calls as Pipedrive activities, with the person and the open deal.

Not as call logs, which can neither be changed nor found again. Paths and bodies: Pipedrive's
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
from workers.handlers.crm import (
    Access,
    BaseUrl,
    Contact,
    CrmEntry,
    Number,
    SearchedCrm,
    json_object,
)

_SKEW = timedelta(minutes=10)  # between Pipedrive's clock and ours


@dataclass(frozen=True, kw_only=True)
class Pipedrive(SearchedCrm):
    """Log every call as an activity in Pipedrive, with the person who has the number."""

    name: ClassVar[str] = "Pipedrive"

    token: Annotated[
        SecretStr, Field(description="the API token of a user who may see all activities")
    ]
    activity_type: Annotated[
        str, Field(pattern=r"^\w+$", description="the key of the activity type for calls")
    ] = "call"
    deals: Annotated[
        bool, Field(description="link the call to the person's open deal, if there is only one")
    ] = True
    base_url: Annotated[BaseUrl, Field(description="the URL of Pipedrive's API")] = (
        "https://api.pipedrive.com"
    )

    async def sign_in(self, context: Context) -> Access:
        return Access(self.base_url, {"x-api-token": self.token.get_secret_value()})

    async def find(self, number: Number, context: Context) -> list[Contact]:
        # Pipedrive compares parts of the text: without separators, with spaces, with hyphens.
        rest = number.groups[1:] if len("".join(number.groups[1:])) >= 6 else number.groups
        same: dict[int, dict[str, Any]] = {}
        for term in dict.fromkeys((number.national, " ".join(rest), "-".join(rest))):
            found = await self.get(
                context, "/api/v2/persons/search", term=term, fields="phone", limit="100"
            )
            for each in found["data"]["items"]:
                if any(map(number.is_same, each["item"]["phones"])):
                    same[each["item"]["id"]] = each["item"]
        return [_contact(same[key]) for key in sorted(same, reverse=True)]

    async def create(self, number: Number, entry: CrmEntry, context: Context) -> Contact:
        # The search may miss the newest persons; the list has them.
        since = entry.call.started - timedelta(hours=1)
        async for person in self._all("/api/v2/persons", since, context):
            if any(number.is_same(phone["value"]) for phone in person.get("phones") or ()):
                return _contact(person)
        person = {
            "name": entry.outside.name or entry.phone,
            "phones": [{"value": entry.phone, "primary": True, "label": "work"}],
        } | _owner(entry)
        created = await self.request(context, "POST", "/api/v2/persons", json=person)
        return _contact(created["data"])

    async def find_record(self, entry: CrmEntry, context: Context) -> str | None:
        async for activity in self._all("/api/v2/activities", entry.call.started - _SKEW, context):
            if entry.is_marked(activity.get("public_description")):
                return str(activity["id"])
        return None

    async def create_record(self, entry: CrmEntry, context: Context) -> str:
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
        created = await self.request(context, "POST", "/api/v2/activities", json=activity)
        return str(created["data"]["id"])

    async def change_record(self, id: str, entry: CrmEntry, context: Context) -> bool:  # noqa: A002
        activity = self._activity(entry)
        if entry.ended:
            activity["done"] = True
        path = f"/api/v2/activities/{id}"
        answer = await self.ask(context, "PATCH", path, json=activity)
        if answer.status in (404, 410):
            return False
        changed = self.read(answer, context)["data"]
        if entry.contacts and not changed.get("participants"):  # keep those that a person chose
            people = {"participants": _participants(entry)}
            await self.request(context, "PATCH", path, json=people)
        return True

    async def user(self, owner: str, context: Context) -> str | None:
        if "@" not in owner:
            return owner if owner.isdecimal() else None
        found = await self.get(context, "/v1/users/find", term=owner, search_by_email="1")
        same = (u["id"] for u in found["data"] or () if u["email"].lower() == owner.lower())
        return next(map(str, same), None)

    def said(self, answer: Answer) -> str:
        return str(json_object(answer).get("error", ""))[:300]

    def fault(self, answer: Answer, context: Context) -> PermanentError | TemporaryError | None:
        fault = super().fault(answer, context)
        if answer.status != 429 or not isinstance(fault, TemporaryError):
            return fault
        left = answer.headers.get("x-daily-requests-left")
        if left == "0" or "daily" in self.said(answer).lower():
            return TemporaryError(
                "Pipedrive's daily API tokens are used up: they reset at midnight UTC; "
                "a higher plan or a top-up has more",
                _until_midnight(),
            )
        reset = answer.headers.get("x-ratelimit-reset", "")
        if fault.retry_after is None and reset.isdecimal():
            fault.retry_after = float(reset)
        return fault

    def _activity(self, entry: CrmEntry) -> dict[str, Any]:
        """The fields that change during a call. The note stays free for people's notes."""
        activity: dict[str, Any] = {
            "subject": entry.title,
            "public_description": "\n".join(entry.facts),
        } | _owner(entry)
        if entry.seconds:
            minutes = ceil(entry.seconds / 60)
            activity["duration"] = f"{minutes // 60:02}:{minutes % 60:02}"
        return activity

    async def _deal(self, entry: CrmEntry, context: Context) -> int | None:
        """The person's open deal; None unless there is exactly one."""
        if not self.deals or not entry.contacts:
            return None
        person = entry.contacts[0].id
        found = await self.get(context, "/api/v2/deals", person_id=person, status="open", limit="2")
        deals = found["data"]
        return deals[0]["id"] if len(deals) == 1 else None

    async def _all(
        self, path: str, since: datetime, context: Context
    ) -> AsyncIterator[dict[str, Any]]:
        """Every object of a kind changed since then, the newest first."""
        params = {
            "updated_since": f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "sort_by": "add_time",
            "sort_direction": "desc",
            "limit": "500",
        }
        while True:
            page = await self.get(context, path, **params)
            for each in page["data"]:
                yield each
            cursor = (page.get("additional_data") or {}).get("next_cursor")
            if not cursor:
                return
            params["cursor"] = cursor


def _contact(person: dict[str, Any]) -> Contact:
    return Contact(str(person["id"]), "person", person.get("name"))


def _participants(entry: CrmEntry) -> list[dict[str, Any]]:
    return [
        {"person_id": int(contact.id), "primary": number == 0}
        for number, contact in enumerate(entry.contacts)
    ]


def _owner(entry: CrmEntry) -> dict[str, Any]:
    return {"owner_id": int(entry.owner)} if entry.owner else {}


def _until_midnight() -> float:
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight - now).total_seconds() + 60.0
