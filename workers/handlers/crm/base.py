"""`Crm`: what the handler of every CRM does with a call. How its CRM does it, each one says itself.

call event → whose call it was, and with whom → the contact → **one** record of the call
"""

import asyncio
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from offhook import (
    CallEvent,
    Context,
    EventType,
    Handler,
    Lookup,
    Number,
    PermanentError,
    TemporaryError,
)
from offhook.http import Answer
from offhook.ttl_cache import Memory
from workers.handlers.crm.entry import Contact, Entry
from workers.handlers.crm.number import of_region, other_side

DAY = 86400.0
NOBODY = 30.0  # seconds that it is remembered that nobody has a number
_EARLY = 60.0  # seconds before a token expires that a new one is asked for


def _fill(template: str, **values: str) -> str:
    return template.format_map({name: quote(value, safe="") for name, value in values.items()})


def _is_recording_url(value: str) -> str:
    try:
        _fill(value, recording="", call="", pbx="")
    except (LookupError, ValueError, AttributeError):
        raise ValueError(
            "may have {recording}, {call} and {pbx} in it, and nothing else in braces"
        ) from None
    return value


def _is_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (LookupError, ValueError, OSError):
        raise ValueError("is no time zone such as Europe/London") from None
    return value


RecordingUrl = Annotated[str, AfterValidator(_is_recording_url)]
Zone = Annotated[str, AfterValidator(_is_zone)]


@dataclass(frozen=True)
class Access:
    """Where the CRM is, and what lets us in.

    Attributes:
        url: what every path comes behind.
        headers: what every request carries.
        seconds: until it expires; None: it does not.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Crm(Handler, Lookup):
    """A CRM that keeps a record of every call: made when it starts, completed when it ends.

    As a lookup it knows the names of its contacts.
    """

    events: ClassVar[Sequence[EventType]] = (
        EventType.CALL_STARTED,
        EventType.CALL_ANSWERED,
        EventType.CALL_ENDED,
        EventType.CALL_CORRECTED,
    )
    name: ClassVar[str]  # of the CRM, as its users write it

    several: Annotated[
        Literal["newest", "all", "none"],
        Field(description="whose call it is when several contacts have the number"),
    ] = "newest"
    unknown: Annotated[
        Literal["log", "create", "leave"],
        Field(description="when nobody has it: log the call alone, create a contact, or leave it"),
    ] = "log"
    internal: Annotated[bool, Field(description="log calls between extensions, too")] = False
    owners: Annotated[
        dict[str, str],
        Field(description="the CRM's user of an extension, if `offhook setup` was not told of one"),
    ] = field(default_factory=dict)
    owner: Annotated[
        str | None, Field(description="the CRM's user of all other extensions; none if not set")
    ] = None
    region: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Z]{2}$",
            description="the country of numbers that the CRM holds without one, such as GB",
        ),
    ] = None
    recording_url: Annotated[
        RecordingUrl | None,
        Field(
            pattern="^https?://",
            description="the address of a recording, with {recording}, {call} and {pbx} in it",
        ),
    ] = None
    lifetime: Annotated[
        float, Field(ge=0, description="seconds that a contact who was found is remembered")
    ] = 300.0
    timeout: Annotated[
        float, Field(gt=0, le=300, description="seconds that the CRM has for each answer")
    ] = 10.0

    # What the handler of a CRM says itself

    @abstractmethod
    async def sign_in(self, context: Context) -> Access:
        """Where the CRM is, and what lets us in: from the options, or by asking for a token."""

    @abstractmethod
    async def find(self, number: Number, context: Context) -> list[Contact]:
        """The contacts that have the number, however it is written there; the newest first."""

    @abstractmethod
    async def create(self, number: Number, entry: Entry, context: Context) -> Contact:
        """A new contact with the number. Should it have been created before, that one."""

    @abstractmethod
    async def save(self, entry: Entry, context: Context) -> None:
        """Have the CRM hold the entry. However often this runs, there is one record of the call."""

    async def user(self, owner: str, context: Context) -> str | None:
        """The CRM's id of the user who is configured as `owner`; None: there is no such user."""
        return owner

    def said(self, answer: Answer) -> str:
        """Why the CRM refused, in its own words."""
        return ""

    def expired(self, answer: Answer) -> bool:
        """Does it say that the access has expired, so that a new one is worth asking for?"""
        return answer.status == 401

    def fault(self, answer: Answer, context: Context) -> PermanentError | TemporaryError | None:
        """The error that an answer means, or None when all is well.

        Credentials, rights and an address can be put right while events wait: such errors are
        temporary, and open the circuit. A record that the CRM refuses stays refused.
        """
        said = self.said(answer)
        because = f": {said}" if said else ""
        if answer.status in (401, 403):
            return TemporaryError(
                f"{self.name} does not let us in ({answer.status}{because}): correct the "
                "credentials in the handler's options, or what they are allowed to do"
            )
        if 300 <= answer.status < 400:
            return TemporaryError(
                f"{self.name} is elsewhere ({answer.status}): correct its address"
            )
        try:
            context.check(answer)
        except TemporaryError as error:
            return TemporaryError(f"{self.name} {error}{because}", error.retry_after)
        except PermanentError as error:
            return PermanentError(f"{self.name} {error}{because}")
        return None

    # What it can do it with

    async def ask(
        self, context: Context, method: str, path: str, *, json: Any = None, **rest: Any
    ) -> Answer:
        """Make a request of the CRM: its answer, whatever that is. An expired token is renewed.

        Args:
            path: what comes behind the CRM's address.
            json: a body to send as JSON.
            rest: `params`, `data`, `headers`, as `context.http.request` takes them.

        Raises:
            TemporaryError: no answer came, or nobody let us in.
        """
        access = await self._access(context)
        answer = await self._request(access, context, method, path, json=json, **rest)
        if access.seconds is not None and self.expired(answer):
            access = await self._access(context, refused=access)
            answer = await self._request(access, context, method, path, json=json, **rest)
        return answer

    async def request(
        self, context: Context, method: str, path: str, *, json: Any = None, **rest: Any
    ) -> Any:
        """`ask`, and the answer's JSON; None when it has no body.

        Raises:
            TemporaryError, PermanentError: what `fault` says that the answer means.
        """
        answer = await self.ask(context, method, path, json=json, **rest)
        return self.read(answer, context)

    def read(self, answer: Answer, context: Context) -> Any:
        """The JSON of an answer, or the error that it means."""
        fault = self.fault(answer, context)
        if fault is not None:
            raise fault
        try:
            return answer.json() if answer.body.strip() else None
        except ValueError as error:
            raise TemporaryError(
                f"{self.name} answered {answer.status} with what is no JSON: correct its address"
            ) from error

    # What all of them do

    async def handle(self, event: CallEvent, context: Context) -> None:
        call = event.summary
        if call is None:
            raise PermanentError(
                f"{event.type} is not about a whole call: leave the handler's `events` out, "
                'or write events = ["calls"]'
            )
        if call.direction == "internal" and not self.internal:
            return
        entry = Entry(
            key=event.call,
            call=call,
            number=other_side(call, self.region),
            owner=await self._owner(event, context),
            recording=self._recording(event),
        )
        number = entry.number.text if entry.number else ""
        remembered = self._found.get(number)
        try:
            await self._log(entry, context)
        except PermanentError:
            if not remembered:
                raise
            self._found.forget(number)  # who was remembered may have been deleted or merged
            await self._log(entry, context)

    async def name_of(self, number: Number, context: Context) -> str | None:
        """The name of the contact who has the number; of several, as the options choose."""
        found = await self.find(of_region(number, self.region), context)
        if not found or (len(found) > 1 and self.several == "none"):
            return None
        return found[0].name

    async def _log(self, entry: Entry, context: Context) -> None:
        contacts = await self._contacts(entry, context)
        if contacts is not None:
            await self.save(replace(entry, contacts=contacts), context)

    async def _contacts(self, entry: Entry, context: Context) -> tuple[Contact, ...] | None:
        """Whose call it is, as the options choose; None: it is to be left out."""
        number = entry.number
        if number is None:
            internal = entry.call.direction == "internal"
            return None if self.unknown == "leave" and not internal else ()
        found = self._found.get(number.text)
        if found is None:
            found = await self.find(number, context)
            # Who is added while they talk shall be found when they end.
            self._found.keep(number.text, found, None if found else min(self.lifetime, NOBODY))
        if not found and self.unknown == "create":
            async with self._creating:  # two calls at once are one contact
                found = self._found.get(number.text) or [await self.create(number, entry, context)]
                self._found.keep(number.text, found)
        if not found:
            return None if self.unknown == "leave" else ()
        if len(found) > 1:
            context.log.info("%d contacts have the number: %s is taken", len(found), self.several)
            if self.several == "none":
                return ()
        return tuple(found if self.several == "all" else found[:1])

    async def _owner(self, event: CallEvent, context: Context) -> str | None:
        owner = (
            context.extension.owner
            or self.owners.get(f"{event.pbx}/{event.extension}")
            or self.owners.get(event.extension)
            or self.owner
        )
        if owner is None:
            return None
        user = self._users.get(owner)
        if user is None:
            user = await self.user(owner, context)
            if user is None:
                context.log.warning(
                    "%s has no user %s: correct the owner of %s", self.name, owner, event.extension
                )
                return None
            self._users.keep(owner, user)
        return user

    def _recording(self, event: CallEvent) -> str | None:
        recording = event.summary and event.summary.recording
        if not (self.recording_url and recording):
            return None
        return _fill(self.recording_url, recording=recording, call=event.call_id, pbx=event.pbx)

    async def _request(
        self, access: Access, context: Context, method: str, path: str, **rest: Any
    ) -> Answer:
        headers = {**access.headers, **rest.pop("headers", {})}
        return await context.http.request(
            method, access.url + path, headers=headers, timeout=self.timeout, **rest
        )

    async def _access(self, context: Context, refused: Access | None = None) -> Access:
        async with self._signing_in:  # many deliveries, one token
            access = self._accesses.get("")
            if access is None or access is refused:
                access = await self.sign_in(context)
                seconds = DAY if access.seconds is None else max(0.0, access.seconds - _EARLY)
                self._accesses.keep("", access, seconds)
            return access

    # Of this process, not of the options

    @cached_property
    def _found(self) -> Memory[str, list[Contact]]:
        return Memory(self.lifetime)

    @cached_property
    def _users(self) -> Memory[str, str]:
        return Memory(self.lifetime)

    @cached_property
    def _accesses(self) -> Memory[str, Access]:
        return Memory(DAY)

    @cached_property
    def _creating(self) -> asyncio.Lock:
        return asyncio.Lock()

    @cached_property
    def _signing_in(self) -> asyncio.Lock:
        return asyncio.Lock()


@dataclass(frozen=True, kw_only=True)
class SearchedCrm(Crm):
    """A CRM that takes no key of ours: a record is looked for first, then made or changed."""

    @abstractmethod
    async def find_record(self, entry: Entry, context: Context) -> str | None:
        """The id of the record that bears `entry.mark`; of a call that is on record, never None."""

    @abstractmethod
    async def create_record(self, entry: Entry, context: Context) -> str:
        """A new record, with `entry.mark` where `find_record` looks for it: its id."""

    @abstractmethod
    async def change_record(self, id: str, entry: Entry, context: Context) -> bool:  # noqa: A002
        """Bring the record up to date. False: it is not there any more."""

    async def save(self, entry: Entry, context: Context) -> None:
        known = self._records.get(entry.key)
        if known is not None and await self.change_record(known, entry, context):
            return
        record = await self.find_record(entry, context)
        if record is None:
            record = await self.create_record(entry, context)
        else:
            await self.change_record(record, entry, context)
        self._records.keep(entry.key, record)

    @cached_property
    def _records(self) -> Memory[str, str]:
        return Memory(DAY)
