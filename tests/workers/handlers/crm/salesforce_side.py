"""A stand-in for Salesforce."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qs

from tests.workers.handlers.crm.serving import Answered, Asked, StandIn
from tests.workers.handlers.crm.side import Record, Side
from workers.handlers.crm.salesforce import Salesforce

KEY, SECRET = "3MVG9consumer", "hush-secret"
DATA = "/services/data/v68.0"
JANE, JOE, APP = (f"005J000000000{n:02}AAA" for n in (1, 2, 3))
PREFIXES = {"Task": "00T", "Contact": "003", "Lead": "00Q", "User": "005"}
FIELDS = {
    "Task": {"Subject", "Status", "TaskSubtype", "ActivityDate", "CallType", "CallObject"}
    | {"CallDurationInSeconds", "CallDisposition", "Description", "WhoId", "OwnerId"},
    "Contact": {"Name", "Phone", "MobilePhone", "HomePhone", "OtherPhone"},
    "Lead": {"Name", "LastName", "Company", "Phone", "MobilePhone", "OwnerId"}
    | {"IsConverted", "ConvertedContactId"},
    "User": {"Username", "Email", "IsActive"},
}
PHONES = ("Phone", "MobilePhone", "HomePhone", "OtherPhone")
ONLY_NEW = {"TaskSubtype"}  # can be given to a new record, and never be changed


def error(status: int, code: str, message: str, *fields: str) -> Answered:
    return Answered(status, [{"message": message, "errorCode": code, "fields": list(fields)}])


class SalesforceSide(Side, StandIn):
    """Salesforce, with the two custom fields that the docs have made; `unique` are those that are
    marked as such. Its search is late: a lead that was created by a request is not found before
    `index()`. A query is not. It is always `now`."""

    description = "salesforce.json"
    handler = Salesforce
    find = f"GET {DATA}/search/"
    write = f"POST {DATA}/sobjects/Task"
    jane_id = JANE
    severals = ("newest", "none")
    too_many = error(
        403,
        "REQUEST_LIMIT_EXCEEDED",
        "ConcurrentRequests (Concurrent API Requests) Limit exceeded.",
    )
    daily = error(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
    broken = error(400, "STRING_TOO_LONG", "Subject: data value too large", "Subject")
    users: ClassVar = {
        JANE: {"Username": "jane@acme.example", "Email": "jane@example.com", "IsActive": True},
        JOE: {"Username": "joe@example.com", "Email": "joe@acme.example", "IsActive": False},
        APP: {"Username": "app@acme.example", "Email": "it@acme.example", "IsActive": True},
    }

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 11, 21, 19, 30, 1, tzinfo=UTC)  # a sample call has just begun
        self.custom = {"Task": {"Offhook_Call__c"}, "Lead": {"Offhook_Number__c"}}
        self.unique = {"Offhook_Call__c", "Offhook_Number__c"}
        self.fuzzy = False  # its search finds too much
        self.sessions: set[str] = set()
        self.objects: dict[str, dict[str, dict[str, Any]]] = {
            "Task": {},
            "Contact": {},
            "Lead": {},
            "User": {
                one: user | {"CreatedDate": self._moment(-n)}
                for n, (one, user) in enumerate(self.users.items())
            },
        }
        self.indexed: set[str] = set()
        self._made = 100

    # What the tests see

    def options(self) -> dict[str, Any]:
        return {"client_id": KEY, "client_secret": SECRET, "base_url": self.url}

    def headers(self) -> dict[str, str]:
        self.sessions.add("00D!tests")
        return {"Authorization": "Bearer 00D!tests"}

    def wrong_options(self) -> dict[str, Any]:
        return self.options() | {"client_secret": "wrong"}

    def add_contact(self, name: str, phone: str) -> str:
        return self.add("Contact", Name=name, Phone=phone)

    def add(self, kind: str, **fields: Any) -> str:
        """Add a record, as a person would."""
        fields = {"IsConverted": False} | fields if kind == "Lead" else fields
        one = self._create(kind, fields)
        self.indexed.add(one)
        return one

    def delete_contact(self, contact: str) -> None:
        for kind in ("Contact", "Lead"):
            self.objects[kind].pop(contact, None)

    def index(self) -> None:
        self.indexed = {*self.objects["Contact"], *self.objects["Lead"]}

    def contacts(self) -> dict[str, str]:
        people = self.objects["Contact"] | self.objects["Lead"]
        return {one: person["Name"] for one, person in people.items()}

    def records(self) -> list[Record]:
        return [
            Record(
                key=task["Offhook_Call__c"],
                title=task["Subject"],
                ended=task["Status"] == "Completed",
                contacts=frozenset({task["WhoId"]} if task.get("WhoId") else ()),
                owner=None if task["OwnerId"] == APP else task["OwnerId"],
            )
            for task in self.objects["Task"].values()
        ]

    def forget_records(self) -> None:
        self.objects["Task"].clear()

    # What Salesforce answers

    def refusal(self, asked: Asked) -> Answered | None:
        if asked.path == "/services/oauth2/token":
            return None
        if asked.headers.get("authorization", "").removeprefix("Bearer ") in self.sessions:
            return None
        return error(401, "INVALID_SESSION_ID", "Session expired or invalid")

    def answer(self, asked: Asked) -> Answered:
        match asked.method, asked.path.removeprefix(DATA).strip("/").split("/"):
            case "POST", ["services", "oauth2", "token"]:
                return self._token(asked)
            case "GET", ["search"]:
                return self._search(asked.query["q"])
            case "GET", ["query"]:
                return self._query(asked.query["q"])
            case "POST", ["sobjects", kind]:
                return self._insert(kind, asked.json)
            case method, ["sobjects", kind, one]:
                if one not in self.objects[kind]:
                    return error(404, "NOT_FOUND", "The requested resource does not exist")
                if method == "GET":
                    return Answered(200, self._shown(kind, one, asked.query["fields"].split(",")))
                return self._update(kind, one, asked.json)
        raise AssertionError(asked.line)

    def _token(self, asked: Asked) -> Answered:
        form = {name: value for name, (value,) in parse_qs(asked.body.decode()).items()}
        if (form["client_id"], form["client_secret"]) != (KEY, SECRET):
            wrong = {
                "error": "invalid_client",
                "error_description": "invalid client credentials",
            }
            return Answered(400, wrong)
        session = f"00D!{len(self.sessions)}.{len(self.requests)}"
        self.sessions.add(session)
        token = {"access_token": session, "instance_url": self.url, "token_type": "Bearer"}
        return Answered(200, token | {"issued_at": "1795289400000", "scope": "api"})

    def _search(self, search: str) -> Answered:
        parsed = re.fullmatch(r"FIND \{(.+)\} IN PHONE FIELDS RETURNING (.+)", search)
        if not parsed:
            return error(400, "MALFORMED_SEARCH", "No search term found")
        phrases = re.findall(r'"((?:\\.|[^"\\])+)"(?: OR |$)', parsed[1])
        if not phrases or any(re.search(r"(?<!\\)[?&|!{}\[\]()^~*:'+-]", each) for each in phrases):
            return error(400, "MALFORMED_SEARCH", "a reserved character is not escaped")
        numbers = {_digits(phrase) for phrase in phrases}
        found = []
        for kind, inside in re.findall(r"(\w+)\(([^)]+)\)", parsed[2]):
            fields = re.split(r" (?=WHERE|ORDER BY)", inside)[0].split(", ")
            unknown = self._unknown(kind, fields)
            if unknown:
                return unknown
            found += [
                self._shown(kind, one, fields)
                for one, record in self.objects[kind].items()
                if one in self.indexed
                and not ("IsConverted = false" in inside and record["IsConverted"])
                and (
                    self.fuzzy
                    or any(_digits(record.get(phone) or "") in numbers for phone in PHONES)
                )
            ]
        return Answered(200, {"searchRecords": found})

    def _query(self, query: str) -> Answered:
        form = r"SELECT (.+) FROM (\w+) WHERE (.+) ORDER BY CreatedDate LIMIT (\d+)"
        parsed = re.fullmatch(form, query)
        if not parsed:
            return error(400, "MALFORMED_QUERY", "unexpected token")
        fields, kind, where, limit = parsed[1].split(", "), parsed[2], parsed[3], int(parsed[4])
        bare = re.sub(r"'(?:\\.|[^'\\])*'", "?", where)
        if not re.fullmatch(r"(\w+ (= (\?|true|false)|> [0-9TZ:-]+)| AND | OR |[()])+", bare):
            return error(400, "MALFORMED_QUERY", "unexpected token")
        unknown = self._unknown(kind, [*fields, *re.findall(r"(\w+) [=>]", bare)])
        if unknown:
            return unknown
        found = [
            one for one, record in self.objects[kind].items() if all(_conditions(where, record))
        ]
        found.sort(key=lambda one: self.objects[kind][one]["CreatedDate"])
        shown = [self._shown(kind, one, fields) for one in found[:limit]]
        return Answered(200, {"totalSize": len(shown), "done": True, "records": shown})

    def _insert(self, kind: str, fields: dict[str, Any]) -> Answered:
        refused = self._refused(kind, fields)
        if refused:
            return refused
        new: dict[str, Any] = {"OwnerId": APP} | fields
        if kind == "Lead":
            new |= {"Name": fields["LastName"], "IsConverted": False, "ConvertedContactId": None}
        one = self._create(kind, new)
        return Answered(201, {"id": one, "success": True, "errors": []})

    def _update(self, kind: str, one: str, fields: dict[str, Any]) -> Answered:
        for field in ONLY_NEW & set(fields):
            message = f"Unable to create/update fields: {field}."
            return error(400, "INVALID_FIELD_FOR_INSERT_UPDATE", message, field)
        refused = self._refused(kind, fields, one)
        if refused:
            return refused
        self.objects[kind][one] |= fields
        return Answered(204)

    def _refused(self, kind: str, fields: dict[str, Any], one: str = "") -> Answered | None:
        unknown = self._unknown(kind, list(fields))
        if unknown:
            return unknown
        who, owner = fields.get("WhoId"), fields.get("OwnerId", APP)
        if who is not None and who not in self.objects["Contact"] | self.objects["Lead"]:
            message = "Name ID: id value of incorrect type: " + who
            return error(400, "FIELD_INTEGRITY_EXCEPTION", message, "WhoId")
        if who is not None and self.objects["Lead"].get(who, {}).get("IsConverted"):
            return error(400, "CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead")
        if owner not in self.users:
            return error(400, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
        for field in self.unique & set(fields):
            for other, record in self.objects[kind].items():
                if other != one and record.get(field) == fields[field]:
                    message = f"duplicate value found: {field} duplicates value on record: {other}"
                    return error(400, "DUPLICATE_VALUE", message)
        return None

    def _unknown(self, kind: str, fields: list[str]) -> Answered | None:
        known = FIELDS[kind] | self.custom.get(kind, set()) | {"Id", "CreatedDate"}
        for field in fields:
            if field not in known:
                message = f"No such column '{field}' on entity '{kind}'."
                return error(400, "INVALID_FIELD", message, field)
        return None

    def _create(self, kind: str, fields: dict[str, Any]) -> str:
        self._made += 1
        one = f"{PREFIXES[kind]}J{self._made:011}AAA"
        self.objects[kind][one] = fields | {"CreatedDate": self._moment(self._made)}
        return one

    def _shown(self, kind: str, one: str, fields: list[str]) -> dict[str, Any]:
        record = self.objects[kind][one] | {"Id": one}
        attributes = {"type": kind, "url": f"{DATA}/sobjects/{kind}/{one}"}
        return {"attributes": attributes} | {field: record.get(field) for field in fields}

    def _moment(self, number: int) -> str:
        moment = self.now + timedelta(milliseconds=number)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}+0000"


def _conditions(where: str, record: dict[str, Any]) -> list[bool]:
    """One for each part of a condition that has to hold."""
    alternatives = re.search(r"\((.+)\)", where)
    if alternatives:
        rest = where.replace(alternatives[0], "").removesuffix(" AND ")
        return [*_conditions(rest, record), any(_conditions(alternatives[1], record))]
    held = []
    for field, text, flag, since in re.findall(
        r"(\w+) (?:= '((?:\\.|[^'\\])*)'|= (true|false)|> ([0-9TZ:-]+))", where
    ):
        if since:
            held.append(record[field] > since)
        elif flag:
            held.append(record[field] is (flag == "true"))
        else:
            held.append((record.get(field) or "").lower() == re.sub(r"\\(.)", r"\1", text).lower())
    return held


def _digits(text: str) -> str:
    return re.sub("[^0-9]", "", text)
