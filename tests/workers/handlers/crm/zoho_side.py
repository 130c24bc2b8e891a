"""A stand-in for Zoho CRM and Zoho Accounts."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.workers.handlers.crm.serving import Answered, Asked, StandIn
from tests.workers.handlers.crm.side import Record, Side
from workers.handlers.crm.zoho import Zoho

CLIENT, SECRET, REFRESH = "1000.CLIENT", "hush-secret", "1000.hush.refresh"
JANE, JOE, ADMIN = (f"487687600000001000{n}" for n in (1, 2, 3))
PHONES = ("Phone", "Mobile", "Home_Phone", "Other_Phone")
AT_ONCE, ALIVE = 10, 15  # tokens in ten minutes, and alive at once


def error(status: int, code: str, message: str, **details: Any) -> Answered:
    return Answered(status, refusal(code, message, **details))


def refusal(code: str, message: str, **details: Any) -> dict[str, Any]:
    return {"code": code, "details": details, "message": message, "status": "error"}


def refused(code: str, message: str, **details: Any) -> Answered:
    """What it says of a record."""
    return Answered(400, {"data": [refusal(code, message, **details)]})


class ZohoSide(Side, StandIn):
    """Zoho, with the two external fields that the docs have made (`external`: module and name). Its
    search is late: a contact that was created by a request is not found before `index()`. What a
    module has no field for is left out without a word."""

    description = "zoho.json"
    handler = Zoho
    find = "GET /crm/v8/Contacts/search"
    write = "POST /crm/v8/Calls"
    jane_id = JANE
    severals = ("newest", "none")
    first = "call-answered"
    too_many = error(429, "TOO_MANY_REQUESTS", "Too many requests fired in a short time")
    daily = error(429, "LIMIT_EXCEEDED", "The API credits of 24 hours are used up")
    broken = refused("INVALID_DATA", "invalid data", api_name="Subject", maximum_length=255)

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path()  # where the handler keeps tokens
        self.external = {"Calls.Offhook_Call", "Contacts.Offhook_Number"}
        self.tokens: list[str] = []  # alive, the oldest first
        self.given = 0  # in the last ten minutes
        self.page = 200
        self.fuzzy = False  # its search finds too much
        self.users = {
            ADMIN: {"email": "admin@example.com", "status": "active"},
            JOE: {"email": "joe@example.com", "status": "disabled"},
            JANE: {"email": "jane@example.com", "status": "active"},
        }
        self.modules: dict[str, dict[str, dict[str, Any]]] = {
            "Calls": {},
            "Contacts": {},
            "Leads": {},
        }
        self.indexed: set[str] = set()
        self._made = 0

    # What the tests see

    def options(self) -> dict[str, Any]:
        return {
            "client_id": CLIENT,
            "client_secret": SECRET,
            "refresh_token": REFRESH,
            "tokens": str(self.folder / "tokens"),
            "accounts_url": self.url,
            "base_url": self.url,
        }

    def headers(self) -> dict[str, str]:
        self.tokens.append("1000.tests")
        return {"Authorization": "Zoho-oauthtoken 1000.tests"}

    def wrong_options(self) -> dict[str, Any]:
        return self.options() | {"refresh_token": "1000.wrong"}

    def add_contact(self, name: str, phone: str) -> str:
        return self.add("Contacts", Full_Name=name, Phone=phone)

    def add(self, module: str, **fields: Any) -> str:
        """Add a record, as a person would."""
        one = self._create(module, fields)
        self.indexed.add(one)
        return one

    def delete_contact(self, contact: str) -> None:
        for module in ("Contacts", "Leads"):
            self.modules[module].pop(contact, None)

    def index(self) -> None:
        self.indexed = {*self.modules["Contacts"], *self.modules["Leads"]}

    def contacts(self) -> dict[str, str]:
        people = self.modules["Contacts"] | self.modules["Leads"]
        return {one: person["Full_Name"] for one, person in people.items()}

    def records(self) -> list[Record]:
        return [
            Record(
                key=call["Offhook_Call"].replace(":", "/"),
                title=call["Subject"],
                ended="Description" in call,
                contacts=frozenset(
                    call[kind]["id"] for kind in ("Who_Id", "What_Id") if kind in call
                ),
                owner=None if call["Owner"]["id"] == ADMIN else call["Owner"]["id"],
            )
            for call in self.modules["Calls"].values()
        ]

    def forget_records(self) -> None:
        self.modules["Calls"].clear()

    # What Zoho answers

    def refusal(self, asked: Asked) -> Answered | None:
        if asked.path == "/oauth/v2/token":
            return None
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        if scheme == "Zoho-oauthtoken" and token in self.tokens:
            return None
        return error(401, "INVALID_TOKEN", "invalid oauth token")

    def answer(self, asked: Asked) -> Answered:
        parts = [unquote(part) for part in asked.path.split("/")[3:]]
        external = asked.headers.get("x-external")
        match asked.method, parts:
            case "POST", ["token"]:
                return self._token(asked)
            case "GET", ["users"]:
                return self._users(asked.query.get("type"), int(asked.query["page"]))
            case "GET", [module, "search"]:
                return self._search(module, asked.query["phone"])
            case _ if external is not None and external not in self.external:
                return error(400, "INVALID_DATA", "invalid external field", header="X-EXTERNAL")
            case "POST", [module]:
                assert external
                return self._insert(module, asked.json["data"][0], external.partition(".")[2])
            case "GET", [module, value]:
                return self._read(module, value, external)
            case "PUT", [module, one]:
                return self._update(module, one, asked.json["data"][0])
        raise AssertionError(asked.line)

    def _token(self, asked: Asked) -> Answered:
        form = {name: value for name, (value,) in parse_qs(asked.body.decode()).items()}
        if form["client_id"] != CLIENT or form["client_secret"] != SECRET:
            return Answered(200, {"error": "invalid_client"})
        if form["refresh_token"] != REFRESH:
            return Answered(200, {"error": "invalid_code"})
        if self.given == AT_ONCE:
            said = "You have made too many requests continuously. Please try again after some time."
            body = {"error": "Access Denied", "error_description": said, "status": "failure"}
            return Answered(400, body)
        self.given += 1
        self.tokens = [*self.tokens, f"1000.{len(self.requests)}.{self.given}"][-ALIVE:]
        token = {"access_token": self.tokens[-1], "api_domain": self.url, "expires_in": 3600}
        return Answered(200, token | {"token_type": "Bearer", "scope": "ZohoCRM.modules.ALL"})

    def _users(self, kind: str | None, page: int) -> Answered:
        found = [
            {"id": one, "email": user["email"]}
            for one, user in self.users.items()
            if kind != "ActiveUsers" or user["status"] == "active"
        ]
        shown = found[(page - 1) * self.page : page * self.page]
        info = {"page": page, "count": len(shown), "more_records": page * self.page < len(found)}
        return Answered(200, {"users": shown, "info": info})

    def _search(self, module: str, phone: str) -> Answered:
        found = [
            self._shown(module, one)
            for one, record in self.modules[module].items()
            if one in self.indexed
            and (
                self.fuzzy
                or any(_digits(record.get(kind) or "") == _digits(phone) for kind in PHONES)
            )
        ]
        return Answered(200, {"data": found}) if found else Answered(204)

    def _read(self, module: str, value: str, external: str | None) -> Answered:
        key = external.partition(".")[2] if external else "id"
        for one, record in self.modules[module].items():
            if ({"id": one} | record).get(key) == value:
                return Answered(200, {"data": [self._shown(module, one)]})
        if external:
            return error(
                400, "INVALID_DATA", "the id given seems to be invalid", resource_path_index=1
            )
        return Answered(204)

    def _insert(self, module: str, fields: dict[str, Any], key: str) -> Answered:
        for one, record in self.modules[module].items():
            if record[key] == fields[key]:
                return refused("DUPLICATE_DATA", "duplicate data", api_name=key, id=one)
        if module == "Contacts":
            fields = fields | {"Full_Name": fields["Last_Name"]}
        elif fields["Call_Type"] != "Missed" and "Call_Duration" not in fields:
            return refused("INVALID_DATA", "invalid data", api_name="Call_Duration")
        wrong = self._wrong(fields)
        if wrong:
            return wrong
        one = self._create(module, {"Owner": {"id": ADMIN}} | fields)
        return self._done(201, "record added", one)

    def _update(self, module: str, one: str, fields: dict[str, Any]) -> Answered:
        if one not in self.modules[module]:
            return error(400, "INVALID_DATA", "the id given seems to be invalid")
        for name in ("Call_Type", "Owner", "Call_Start_Time"):  # its calls are completed
            if name in fields:
                return refused("INVALID_DATA", "invalid data", api_name=name)
        if self.modules[module][one]["Call_Type"] == "Missed" and "Call_Duration" in fields:
            return refused("INVALID_DATA", "invalid data", api_name="Call_Duration")
        wrong = self._wrong(fields)
        if wrong:
            return wrong
        self.modules[module][one] |= fields
        return self._done(200, "record updated", one)

    def _wrong(self, fields: dict[str, Any]) -> Answered | None:
        if fields.get("Owner", {"id": ADMIN})["id"] not in self.users:
            return refused("INVALID_DATA", "invalid data", api_name="Owner")
        for name, module in (("Who_Id", "Contacts"), ("What_Id", fields.get("$se_module"))):
            if name in fields and fields[name]["id"] not in self.modules.get(module or "", {}):
                return refused("INVALID_DATA", "the related id given seems wrong", api_name=name)
        return None

    def _done(self, status: int, message: str, one: str) -> Answered:
        details = {"id": one, "Created_Time": self._created(one)}
        done = {"code": "SUCCESS", "details": details, "message": message, "status": "success"}
        return Answered(status, {"data": [done]})

    def _created(self, one: str) -> str:
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=int(one[-6:]))
        return f"{moment:%Y-%m-%dT%H:%M:%S}+00:00"

    def _create(self, module: str, fields: dict[str, Any]) -> str:
        self._made += 1
        one = f"4876876000{self._made:09}"
        self.modules[module][one] = fields
        return one

    def _shown(self, module: str, one: str) -> dict[str, Any]:
        return self.modules[module][one] | {"id": one, "Created_Time": self._created(one)}


def _digits(text: str) -> str:
    return re.sub("[^0-9]", "", text)
