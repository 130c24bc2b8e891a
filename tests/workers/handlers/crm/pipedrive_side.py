"""A stand-in for Pipedrive."""

from datetime import UTC, datetime
from typing import Any

from tests.workers.handlers.crm.serving import Answered, Asked, StandIn
from tests.workers.handlers.crm.side import Record, Side
from workers.handlers.crm.pipedrive import Pipedrive

TOKEN = "hush0123456789"
USERS = {"jane@example.com": 7, "joe@example.com": 8}
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def error(status: int, message: str, **headers: str) -> Answered:
    body = {"success": False, "error": message, "error_info": "see developers.pipedrive.com"}
    return Answered(status, body, headers)


class PipedriveSide(Side, StandIn):
    """Pipedrive. Its search is late: a person that was created by a request is not found before
    `index()`. A list comes in pages of at most `page`. It is always `now`."""

    description = "pipedrive.json"
    handler = Pipedrive
    find = "GET /api/v2/persons/search"
    write = "POST /api/v2/activities"
    jane_id = "7"
    too_many = error(429, "Too many requests")
    daily = error(429, "Daily API token budget exceeded")
    broken = error(400, "Validation failed: subject: Invalid input")

    def __init__(self) -> None:
        super().__init__()
        self.page = 500
        self.now = datetime(2026, 11, 21, 19, 30, 1, tzinfo=UTC)  # a sample call has just begun
        self.persons: dict[int, dict[str, Any]] = {}
        self.indexed: set[int] = set()
        self.activities: dict[int, dict[str, Any]] = {}
        self.deals: dict[int, dict[str, Any]] = {}
        self._made = 0

    # What the tests see

    def options(self) -> dict[str, Any]:
        return {"token": TOKEN, "base_url": self.url}

    def headers(self) -> dict[str, str]:
        return {"x-api-token": TOKEN}

    def wrong_options(self) -> dict[str, Any]:
        return self.options() | {"token": "wrong"}

    def add_contact(self, name: str, phone: str) -> str:
        phones = [{"value": phone, "primary": True, "label": "work"}]
        person = self._create(self.persons, {"name": name, "phones": phones}, LONG_AGO)
        self.indexed.add(person)
        return str(person)

    def add_deal(self, person: str, status: str = "open") -> int:
        deal = {"person_id": int(person), "status": status}
        return self._create(self.deals, deal, LONG_AGO)

    def add_activity(self, **fields: Any) -> int:
        return self._create(self.activities, fields, self.now)

    def delete_contact(self, contact: str) -> None:
        del self.persons[int(contact)]

    def index(self) -> None:
        self.indexed = set(self.persons)

    def contacts(self) -> dict[str, str]:
        return {str(key): person["name"] for key, person in self.persons.items()}

    def records(self) -> list[Record]:
        return [
            Record(
                key=activity["public_description"].rpartition("Call ")[2],
                title=activity["subject"],
                ended=activity["done"],
                contacts=frozenset(str(p["person_id"]) for p in activity.get("participants", ())),
                owner=str(activity["owner_id"]) if "owner_id" in activity else None,
            )
            for activity in self.activities.values()
            if activity["type"] == "call"
        ]

    def forget_records(self) -> None:
        self.activities.clear()

    # What Pipedrive answers

    def refusal(self, asked: Asked) -> Answered | None:
        if asked.headers.get("x-api-token") == TOKEN:
            return None
        return error(401, "unauthorized access")

    def answer(self, asked: Asked) -> Answered:
        match asked.method, asked.path.split("/")[3:]:
            case "GET", ["persons", "search"]:
                return self._search(asked.query["term"])
            case "GET", ["persons"]:
                return self._listed(self.persons, asked.query)
            case "POST", ["persons"]:
                return self._write(self.persons, None, asked.json)
            case "GET", ["activities"]:
                return self._listed(self.activities, asked.query)
            case "POST", ["activities"]:
                return self._write(self.activities, None, asked.json)
            case "PATCH", ["activities", id]:
                if int(id) not in self.activities:
                    return error(404, "Activity not found")
                return self._write(self.activities, int(id), asked.json)
            case "GET", ["deals"]:
                return self._listed(self.deals, asked.query)
            case _:
                assert asked.path == "/v1/users/find"
                term = asked.query["term"].lower()
                found = [{"id": user, "email": m} for m, user in USERS.items() if term in m]
                return Answered(200, {"success": True, "data": found or None})

    def _search(self, term: str) -> Answered:
        items = [
            {
                "result_score": 1.0,
                "item": {
                    "id": key,
                    "type": "person",
                    "name": person["name"],
                    "phones": [phone["value"] for phone in person["phones"]],
                },
            }
            for key, person in self.persons.items()
            if key in self.indexed and any(term in phone["value"] for phone in person["phones"])
        ]
        return Answered(200, {"success": True, "data": {"items": items}})

    def _listed(self, things: dict[int, dict[str, Any]], query: dict[str, str]) -> Answered:
        since = datetime.fromisoformat(query.get("updated_since", "2000-01-01T00:00:00Z"))
        found = [
            {"id": key} | {k: v for k, v in thing.items() if k != "updated"}
            for key, thing in things.items()
            if thing["updated"] >= since
            and ("status" not in query or thing.get("status") == query["status"])
            and ("person_id" not in query or thing.get("person_id") == int(query["person_id"]))
        ]
        if query.get("sort_direction") == "desc":
            found.reverse()
        begin = int(query.get("cursor", "0"))
        end = begin + min(self.page, int(query.get("limit", "100")))
        cursor = str(end) if end < len(found) else None
        additional = {"next_cursor": cursor}
        return Answered(
            200, {"success": True, "data": found[begin:end], "additional_data": additional}
        )

    def _write(
        self, things: dict[int, dict[str, Any]], key: int | None, fields: dict[str, Any]
    ) -> Answered:
        if fields.get("owner_id", 7) not in USERS.values():
            return error(400, "Validation failed: owner_id: no such user")
        if any(p["person_id"] not in self.persons for p in fields.get("participants", ())):
            return error(400, "Validation failed: participants: no such person")
        if fields.get("type", "call") not in ("call", "task", "meeting", "phone"):
            return error(400, "Validation failed: type: no such activity type")
        if key is None:
            key = self._create(things, {"done": False} | fields, self.now)
        else:
            things[key] |= fields | {"updated": self.now}
        shown = {k: v for k, v in things[key].items() if k != "updated"}
        return Answered(200, {"success": True, "data": {"id": key} | shown})

    def _create(
        self, things: dict[int, dict[str, Any]], fields: dict[str, Any], now: datetime
    ) -> int:
        self._made += 1
        things[self._made] = fields | {"updated": now}
        return self._made
