"""`Tryton`: log calls as Tryton notes, on the party who has the number.

Read in trytond 7.0, 8.0 and 8.2: protocols/dispatcher.py and jsonrpc.py (paths, errors),
res/user.py and ir/session.py (signing in), ir/note.py and ir/resource.py (what may be done with a
note); and in trytond_party: contact_mechanism.py (how a number is stored).
"""

import json
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr

from offhook import Context, PermanentError, TemporaryError
from offhook.http import Answer
from workers.handlers.crm import Access, BaseUrl, Contact, Crm, CrmEntry, Number, TokenFile
from workers.handlers.time_zone import TimeZone

DAY = 86400.0
# The server chooses how long a session lasts (30 days), and no response says it. If it is shorter
# than a day, a 401 renews the session.
SESSION = DAY
# Tryton remembers wrong passwords for this long ([session] timeout). Each attempt extends it.
SIGN_IN_WAIT = 300.0
_SESSION_LEFT = 120.0  # seconds that a saved session must still last

_PHONES = ["phone", "mobile", "fax", "other"]
_CANDIDATES = 1000  # maximum of numbers that may be the same
_TELLING = 7  # last digits of a number that a search compares
_LANGUAGE = {"language": "en"}  # of error messages, which are recognized by their words


@dataclass(frozen=True, kw_only=True)
class Tryton(Crm):
    """Log every call as a note in Tryton, on the party who has the number."""

    name: ClassVar[str] = "Tryton"

    database: Annotated[str, Field(pattern=r"^[\w.-]+$", description="the name of the database")]
    login: Annotated[
        str, Field(pattern="^[^:]+$", description="the login of a user who may change parties")
    ]
    password: Annotated[SecretStr, Field(description="that user's password")]
    tokens: Annotated[Path, Field(description="the folder where the workers share a session")] = (
        Path("tokens")
    )
    unknown_party: Annotated[
        str,
        Field(min_length=1, description="the name or code of the party for unknown numbers"),
    ] = "Unknown callers"
    zone: Annotated[TimeZone, Field(description="the time zone of the times in a note")] = "UTC"
    base_url: Annotated[BaseUrl, Field(description="the URL of Tryton")]

    async def sign_in(self, context: Context) -> Access:
        whose = f"{self.base_url} {self.database} {self.login}"
        return await TokenFile(self.tokens, whose).access(
            _SESSION_LEFT, self._accesses.get(""), partial(self._new_access, context)
        )

    async def find(self, number: Number, context: Context) -> list[Contact]:
        # Tryton stores a full number only if it has the library `phonenumbers` and knows the
        # country. So this searches for the digits in order, with anything between them.
        digits = "%".join(number.national[-_TELLING:])
        found = await self._search(
            context,
            "party.contact_mechanism",
            [
                ["type", "in", _PHONES],
                ["value", "like", f"%{digits}%"],
                ["party.active", "=", True],
            ],
            ["value", "party", "party.name"],
            limit=_CANDIDATES,
            order="DESC",
        )
        same = {each["party"]: each for each in found if number.is_same(each["value"])}
        return [
            Contact(str(party), "party", same[party]["party."]["name"])
            for party in sorted(same, reverse=True)
        ]

    async def create(self, number: Number, entry: CrmEntry, context: Context) -> Contact:
        async with context.memory.lock("create"):  # one party for concurrent calls of all workers
            found = await self.find(number, context)
            if found:
                return found[0]
            name = _clean(entry.outside.name or entry.phone)
            try:
                created = await self._create_party(context, name, "phone", entry.phone)
            except PermanentError:  # not a valid phone number to Tryton
                created = await self._create_party(context, name, "other", entry.phone)
            return Contact(str(created), "party", name)

    async def save(self, entry: CrmEntry, context: Context) -> None:
        # Tryton searches only the notes of given parties. So the parties are remembered before a
        # note is created on them. The unknown party is always searched, in case they are lost.
        memory = f"parties/{entry.key}"
        earlier = json.loads(await context.memory.get(memory) or "[]")
        there = await self._existing(earlier, context)
        unknown = min((id for id, is_unknown in there.items() if is_unknown), default=None)  # noqa: A001
        parties = [int(contact.id) for contact in entry.contacts]
        if not parties:
            if unknown is None:
                raise TemporaryError(
                    f"Tryton has no party {self.unknown_party} for calls of unknown numbers: "
                    'create it, or write unknown = "leave" in the handler\'s options'
                )
            parties = [unknown]
        if not set(parties) <= set(earlier):
            await context.memory.set(memory, json.dumps([*earlier, *parties]), DAY)

        # A note cannot be changed. The new one is created first, so there is always one.
        message = self._message(entry)
        missing, outdated = dict.fromkeys(map(_resource, parties)), []
        for note in await self._notes(entry, {*parties, *there}, context):
            if note["message"] == message and note["resource"] in missing:
                del missing[note["resource"]]
            else:
                outdated.append(note["id"])
        if missing:
            notes = [{"resource": resource, "message": message} for resource in missing]
            await self._call(context, "ir.note.create", notes)
        if outdated:
            try:
                await self._call(context, "ir.note.delete", outdated)
            except PermanentError as error:
                raise TemporaryError(f"an earlier note cannot be deleted: {error}") from error

    async def user(self, owner: str, context: Context) -> str | None:
        """Return the user's name, which a note shows."""
        same: list[Any] = ["OR", ["login", "=", owner], ["email", "ilike", owner]]
        if owner.isdecimal():
            same.append(["id", "=", int(owner)])
        for each in await self._search(context, "res.user", same, ["name", "login", "email"]):
            named = {str(each["id"]), each["login"], (each["email"] or "").lower()}
            if owner in named or owner.lower() in named:
                return str(each["name"])
        return None

    def said(self, answer: Answer) -> str:
        _, said = _error(answer) or ("", "")
        return said[:300]

    def fault(self, answer: Answer, context: Context) -> PermanentError | TemporaryError | None:
        if answer.status in (404, 405):
            return TemporaryError(
                f"Tryton is not at this address ({answer.status}), or has no database "
                f"{self.database}: correct the handler's options"
            )
        error = _error(answer)
        if answer.status >= 300 or error is None:
            return super().fault(answer, context)
        kind, said = error[0], self.said(answer)
        if kind == "LoginException":
            return super().fault(replace(answer, status=401), context)
        if kind in ("UserError", "UserWarning"):
            if "not allowed" in said:
                return super().fault(replace(answer, status=403), context)
            return PermanentError(f"Tryton answered {answer.status}, but refused: {said}")
        if kind == "ConcurrencyException":
            return TemporaryError(f"Tryton was busy with the same record: {said}")
        return TemporaryError(
            f"Tryton answered {answer.status}, but failed: {said}. See its log for the reason, "
            "and check that the database has the module party"
        )

    def _message(self, entry: CrmEntry) -> str:
        zone = ZoneInfo(self.zone)
        lines = [entry.title, f"Began {entry.call.started.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"]
        if entry.call.ended:
            lines.append(f"Ended {entry.call.ended.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}")
        if entry.owner:
            lines.append(f"User: {entry.owner}")
        return "\n".join(map(_clean, (*lines, *entry.facts)))

    async def _existing(self, earlier: list[int], context: Context) -> dict[int, bool]:
        """The earlier parties that still exist, and the unknown party (True)."""
        name = self.unknown_party
        found = await self._search(
            context,
            "party.party",
            ["OR", ["id", "in", earlier], ["name", "=", name], ["code", "=", name]],
            ["name", "code"],
            active_test=False,
        )
        return {each["id"]: name in (each["name"], each["code"]) for each in found}

    async def _notes(
        self, entry: CrmEntry, parties: Iterable[int], context: Context
    ) -> list[dict[str, Any]]:
        """Our own notes of the call on these parties, the oldest first."""
        found = await self._search(
            context,
            "ir.note",
            [
                ["resource", "in", list(map(_resource, parties))],
                ["create_uid.login", "=", self.login],  # a person may have copied our text
                ["message", "like", f"%{entry.mark}"],
            ],
            ["resource", "message"],
        )
        return [note for note in found if note["message"].split("\n")[-1] == entry.mark]

    async def _create_party(self, context: Context, name: str, kind: str, number: str) -> int:
        mechanism = {"type": kind, "value": number}
        party = {"name": name, "contact_mechanisms": [["create", [mechanism]]]}
        created = await self._call(context, "party.party.create", [party])
        return int(created[0])

    async def _new_access(self, context: Context) -> Access:
        password = {"password": self.password.get_secret_value()}
        login = {"id": 0, "method": "common.db.login", "params": [self.login, password, "en"]}
        # Before 8.0, Tryton had the second path, and answers 405 at the first.
        for path in (f"/{self.database}/rpc/", f"/{self.database}/"):
            url = self.base_url + path
            answer = await context.http.post(url, json=login, timeout=self.timeout)
            if answer.status != 405:
                break
        if answer.status == 429:
            raise TemporaryError(
                "Tryton locks this user out for five minutes, after too many wrong passwords: "
                "correct the credentials in the handler's options",
                SIGN_IN_WAIT,
            )
        id, key, *_ = self._result(answer, context)  # noqa: A001
        session = b64encode(f"{self.login}:{id}:{key}".encode()).decode()
        return Access(url, {"Authorization": f"Session {session}"}, SESSION)

    async def _search(
        self,
        context: Context,
        model: str,
        domain: list[Any],
        fields: list[str],
        *,
        limit: int | None = None,
        order: str = "ASC",
        **more: Any,
    ) -> list[dict[str, Any]]:
        """The fields of the records in a domain, by id. `more` is added to the call's context."""
        arguments = (domain, 0, limit, [["id", order]], fields)
        found: list[dict[str, Any]] = await self._call(
            context, f"{model}.search_read", *arguments, **more
        )
        return found

    async def _call(self, context: Context, method: str, *params: Any, **more: Any) -> Any:
        request = {"id": 0, "method": f"model.{method}", "params": [*params, _LANGUAGE | more]}
        return self._result(await self.ask(context, "POST", "", json=request), context)

    def _result(self, answer: Answer, context: Context) -> Any:
        answered = self.read(answer, context)
        if not isinstance(answered, dict) or "result" not in answered:
            raise TemporaryError("Tryton answered without JSON-RPC: correct its address")
        return answered["result"]


def _resource(party: int) -> str:
    return f"party.party,{party}"


def _clean(line: str) -> str:
    """Replace characters that PostgreSQL refuses, and line breaks."""
    return "".join(c if c.isprintable() else " " for c in line)


def _error(answer: Answer) -> tuple[str, str] | None:
    """The kind of an error ("" for a fault of the server) and its text; None: there is none.

    Tryton answers errors with status 200.
    """
    try:
        error = answer.json()["error"]
    except (ValueError, LookupError, TypeError):
        return None
    match error:
        case [str(kind), [*texts]]:
            return kind, ": ".join(text for text in texts if isinstance(text, str) and text)
        case ["ConcurrencyException", str(said)]:
            return "ConcurrencyException", said
        case [said, *_]:  # in development mode, a traceback follows
            return "", str(said)
    return "", str(error)
