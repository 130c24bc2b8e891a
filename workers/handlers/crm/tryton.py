"""Log calls in Tryton: a note for each, on the party who has the number.

Read in trytond 7.0, 8.0 and 8.2: protocols/dispatcher.py and jsonrpc.py (paths, errors),
res/user.py and ir/session.py (signing in), ir/note.py and ir/resource.py (what may be done with a
note); and in trytond_party: contact_mechanism.py (how a number is kept).
"""

import json
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr

from offhook import Context, PermanentError, TemporaryError
from offhook.http import Answer
from workers.handlers.crm import Access, Contact, Crm, Entry, Number, TokenFile, Zone

DAY = 86400.0
# A session's life is the server's choice (30 days), and no answer tells it. Should a day be too
# long, a 401 has it renewed.
SESSION = DAY
# So long Tryton remembers a wrong password ([session] timeout). Each attempt lengthens it.
SIGN_IN_WAIT = 300.0
_LEFT = 120.0  # seconds that a session must have left when it is read

_PHONES = ["phone", "mobile", "fax", "other"]
_MOST = 1000  # numbers that contain the digits of another
_TELLING = 7  # digits at the end of a number, by which it is looked for
_CONTEXT = {"language": "en"}  # of what is said: it can only be told apart by its words


@dataclass(frozen=True, kw_only=True)
class Tryton(Crm):
    """Log every call as a note in Tryton, on the party who has the number."""

    name: ClassVar[str] = "Tryton"

    database: Annotated[str, Field(pattern=r"^[\w.-]+$", description="the name of the database")]
    login: Annotated[
        str, Field(pattern="^[^:]+$", description="the login of a user who may change parties")
    ]
    password: Annotated[SecretStr, Field(description="that user's password")]
    tokens: Annotated[
        str, Field(min_length=1, description="the folder in which the workers share a session")
    ] = "tokens"
    unknown_party: Annotated[
        str,
        Field(min_length=1, description="the name or code of the party that has nobody's calls"),
    ] = "Unknown callers"
    zone: Annotated[Zone, Field(description="the time zone of the times in a note")] = "UTC"
    base_url: Annotated[str, Field(pattern="^https?://[^/]+$", description="where Tryton is")]

    async def sign_in(self, context: Context) -> Access:
        whose = f"{self.base_url} {self.database} {self.login}"
        return await TokenFile(self.tokens, whose).access(
            _LEFT, self._accesses.get(""), partial(self._new_access, context)
        )

    async def find(self, number: Number, context: Context) -> list[Contact]:
        # Tryton keeps a number in full only if it has the library `phonenumbers`, and knows the
        # country. So whatever has the digits in this order is looked at.
        digits = "%".join(number.national[-_TELLING:])
        found = await self._call(
            context,
            "party.contact_mechanism.search_read",
            [
                ["type", "in", _PHONES],
                ["value", "like", f"%{digits}%"],
                ["party.active", "=", True],
            ],
            0,
            _MOST,
            [["id", "DESC"]],
            ["value", "party", "party.name"],
        )
        theirs = {each["party"]: each for each in found if number.is_same(each["value"])}
        return [
            Contact(str(party), "party", theirs[party]["party."]["name"])
            for party in sorted(theirs, reverse=True)
        ]

    async def create(self, number: Number, entry: Entry, context: Context) -> Contact:
        async with context.memory.lock("create"):  # calls at once, of all workers, are one party
            found = await self.find(number, context)
            if found:
                return found[0]
            text = number.e164 or number.text
            name = _clean((entry.call.caller if entry.incoming else entry.call.called).name or text)
            try:
                made = await self._create_party(context, name, "phone", text)
            except PermanentError:  # it takes no phone number that is not in its tables
                made = await self._create_party(context, name, "other", text)
            return Contact(str(made), "party", name)

    async def save(self, entry: Entry, context: Context) -> None:
        # Tryton searches the notes of given parties only: so it is remembered whom a call was put
        # to, before it is. It is also looked for with nobody, should the memory be lost.
        memory = f"parties/{entry.key}"
        earlier = json.loads(await context.memory.get(memory) or "[]")
        there = await self._there(earlier, context)
        nobody = min((id for id, known in there.items() if known), default=None)  # noqa: A001
        theirs = [int(contact.id) for contact in entry.contacts]
        if not theirs:
            if nobody is None:
                raise TemporaryError(
                    f"Tryton has no party {self.unknown_party}, which calls of unknown numbers are "
                    'put to: make one, or write unknown = "leave" in the handler\'s options'
                )
            theirs = [nobody]
        if not set(theirs) <= set(earlier):
            await context.memory.set(memory, json.dumps([*earlier, *theirs]), DAY)

        # A note's message cannot be changed. The new one comes first: never is there none.
        message = self._message(entry)
        missing, outdated = dict.fromkeys(map(_resource, theirs)), []
        for note in await self._notes(entry, {*theirs, *there}, context):
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
        """The user's name, which is what a note shows."""
        same: list[Any] = ["OR", ["login", "=", owner], ["email", "ilike", owner]]
        if owner.isdecimal():
            same.append(["id", "=", int(owner)])
        found = await self._call(
            context,
            "res.user.search_read",
            same,
            0,
            None,
            [["id", "ASC"]],
            ["name", "login", "email"],
        )
        for each in found:
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
                f"Tryton is elsewhere ({answer.status}), or has no database {self.database}: "
                "correct the handler's options"
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
            return TemporaryError(f"Tryton was busy with the same: {said}")
        return TemporaryError(
            f"Tryton answered {answer.status}, but failed: {said}. Its log says why; "
            "does the database have the module party?"
        )

    def _message(self, entry: Entry) -> str:
        zone = ZoneInfo(self.zone)
        *facts, mark = entry.facts
        lines = [entry.title, f"Began {entry.call.started.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"]
        if entry.call.ended:
            lines.append(f"Ended {entry.call.ended.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}")
        if entry.owner:
            lines.append(f"User: {entry.owner}")
        return "\n".join(map(_clean, (*lines, *facts, mark)))

    async def _there(self, earlier: list[int], context: Context) -> dict[int, bool]:
        """Those of the earlier parties that are still there, and the one that has nobody's calls
        (True)."""
        found = await self._call(
            context,
            "party.party.search_read",
            [
                "OR",
                ["id", "in", earlier],
                ["name", "=", self.unknown_party],
                ["code", "=", self.unknown_party],
            ],
            0,
            None,
            [["id", "ASC"]],
            ["name", "code"],
            active_test=False,
        )
        return {each["id"]: self.unknown_party in (each["name"], each["code"]) for each in found}

    async def _notes(
        self, entry: Entry, parties: Iterable[int], context: Context
    ) -> list[dict[str, Any]]:
        """The notes of the call on these parties, the oldest first. Only our own: somebody may have
        copied a line of ours."""
        found = await self._call(
            context,
            "ir.note.search_read",
            [
                ["resource", "in", list(map(_resource, parties))],
                ["create_uid.login", "=", self.login],
                ["message", "like", f"%{entry.mark}"],
            ],
            0,
            None,
            [["id", "ASC"]],
            ["resource", "message"],
        )
        return [note for note in found if note["message"].split("\n")[-1] == entry.mark]

    async def _create_party(self, context: Context, name: str, kind: str, number: str) -> int:
        mechanism = {"type": kind, "value": number}
        party = {"name": name, "contact_mechanisms": [["create", [mechanism]]]}
        made = await self._call(context, "party.party.create", [party])
        return int(made[0])

    async def _new_access(self, context: Context) -> Access:
        # Before 8.0 it answers at another path, and says 405 to this one.
        for path in (f"/{self.database}/rpc/", f"/{self.database}/"):
            url = self.base_url + path
            password = {"password": self.password.get_secret_value()}
            answer = await context.http.post(
                url,
                json={
                    "id": 0,
                    "method": "common.db.login",
                    "params": [self.login, password, "en"],
                },
                timeout=self.timeout,
            )
            if answer.status != 405:
                break
        if answer.status == 429:
            raise TemporaryError(
                "Tryton lets nobody sign in as this user for five minutes, after too many wrong "
                "passwords: correct the credentials in the handler's options",
                SIGN_IN_WAIT,
            )
        id, key, *_ = self._result(answer, context)  # noqa: A001
        session = b64encode(f"{self.login}:{id}:{key}".encode()).decode()
        return Access(url, {"Authorization": f"Session {session}"}, SESSION)

    async def _call(self, context: Context, method: str, *params: Any, **more: Any) -> Any:
        """What a method of a model answers. `more` goes into its context."""
        request = {"id": 0, "method": f"model.{method}", "params": [*params, _CONTEXT | more]}
        return self._result(await self.ask(context, "POST", "", json=request), context)

    def _result(self, answer: Answer, context: Context) -> Any:
        answered = self.read(answer, context)
        if not isinstance(answered, dict) or "result" not in answered:
            raise TemporaryError("Tryton answered with what is no JSON-RPC: correct its address")
        return answered["result"]


def _resource(party: int) -> str:
    return f"party.party,{party}"


def _clean(line: str) -> str:
    """PostgreSQL refuses some characters, and a line break would make a line of somebody else's."""
    return "".join(c if c.isprintable() else " " for c in line)


def _error(answer: Answer) -> tuple[str, str] | None:
    """What is wrong: its kind, or "" for a fault of the server, and what Tryton says about it.

    Tryton answers 200 all the same.
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
        case [said, *_]:  # and, of a server in development, a traceback
            return "", str(said)
    return "", str(error)
