"""`Crm`: the base of CRM handlers. Each subclass adds the requests that its CRM understands.

call event → the owner and the number → the contacts → **one** record of the call
"""

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, ClassVar, Literal
from urllib.parse import quote

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
from offhook.ttl_cache import TtlCache
from workers.handlers.crm.crm_api import DAY, CrmApi
from workers.handlers.crm.entry import Contact, CrmEntry, outside_number


def _fill(template: str, **values: str) -> str:
    return template.format_map({name: quote(value, safe="") for name, value in values.items()})


def _check_recording_url(value: str) -> str:
    try:
        _fill(value, recording="", call="", pbx="")
    except (LookupError, ValueError, AttributeError):
        raise ValueError(
            "may contain {recording}, {call} and {pbx}, and nothing else in braces"
        ) from None
    return value


_SEVERAL = Field(description="the contact of a call when several have the number")
RecordingUrl = Annotated[str, AfterValidator(_check_recording_url)]
BaseUrl = Annotated[str, Field(pattern="^https?://[^/]+$")]
# For a CRM whose records belong to one contact.
OneContact = Annotated[Literal["newest", "none"], _SEVERAL]


@dataclass(frozen=True, kw_only=True)
class Crm(CrmApi, Handler, Lookup):
    """A CRM that keeps one record per call: created at its start, completed at its end.

    As a lookup, it finds the names of its contacts.
    """

    events: ClassVar[Sequence[EventType]] = (
        EventType.CALL_STARTED,
        EventType.CALL_ANSWERED,
        EventType.CALL_ENDED,
        EventType.CALL_CORRECTED,
    )
    not_found_lifetime: ClassVar[float] = 30.0  # seconds to remember that no contact has a number

    several: Annotated[Literal["newest", "all", "none"], _SEVERAL] = "newest"
    unknown: Annotated[
        Literal["log", "create", "leave"],
        Field(description="for an unknown number: log the call, create a contact, or skip it"),
    ] = "log"
    internal: Annotated[bool, Field(description="also log calls between extensions")] = False
    owners: Annotated[
        dict[str, str],
        Field(description="the CRM user of each extension, unless `offhook setup` set its owner"),
    ] = field(default_factory=dict)
    owner: Annotated[
        str | None, Field(description="the CRM user of all other extensions; none if not set")
    ] = None
    region: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Z]{2}$",
            description="the country of the CRM's numbers without a country code, such as GB",
        ),
    ] = None
    recording_url: Annotated[
        RecordingUrl | None,
        Field(
            pattern="^https?://",
            description="the URL of a recording, with {recording}, {call} and {pbx} in it",
        ),
    ] = None
    lifetime: Annotated[
        float, Field(ge=0, description="seconds to remember the contacts of a number")
    ] = 300.0
    timeout: Annotated[
        float, Field(gt=0, le=300, description="seconds to wait for each response of the CRM")
    ] = 10.0

    # To be written for each CRM

    @abstractmethod
    async def find(self, number: Number, context: Context) -> list[Contact]:
        """Find the contacts with this number, in whatever form; the newest first."""

    @abstractmethod
    async def create(self, number: Number, entry: CrmEntry, context: Context) -> Contact:
        """Create a contact with this number, unless an earlier attempt did."""

    @abstractmethod
    async def save(self, entry: CrmEntry, context: Context) -> None:
        """Save the entry. However often this runs, the CRM has one record of the call."""

    async def user(self, owner: str, context: Context) -> str | None:
        """Return the CRM's id of the user configured as `owner`; None: there is no such user."""
        return owner

    # The same for all CRMs

    async def handle(self, event: CallEvent, context: Context) -> None:
        call = event.summary
        if call is None:
            raise PermanentError(
                f"{event.type} is not an event of a whole call: remove the handler's `events`, "
                'or write events = ["calls"]'
            )
        if call.direction == "internal" and not self.internal:
            return
        entry = CrmEntry(
            key=event.call,
            call=call,
            number=outside_number(call, self.region),
            owner=await self._owner(event, context),
            recording=self._recording(event),
        )
        try:
            await self._log_anew(entry, context)
        except (PermanentError, TemporaryError) as error:
            # The CRM may quote what it refuses, and no log has numbers and names.
            error.args = (entry.without_caller(str(error)),)
            raise

    async def name_of(self, number: Number, context: Context) -> str | None:
        """Find names among the CRM's contacts."""
        found = await self.find(number.in_region(self.region), context)
        if not found or (len(found) > 1 and self.several == "none"):
            return None
        return found[0].name

    async def _log_anew(self, entry: CrmEntry, context: Context) -> None:
        """Log the call; once more, with contacts found anew, if the CRM refuses those known."""
        number = entry.number.text if entry.number else ""
        cached = self._found.get(number)
        try:
            await self._log(entry, context)
        except PermanentError:
            if not cached:
                raise
            self._found.forget(number)  # the contact may have been deleted or merged
            await self._log(entry, context)

    async def _log(self, entry: CrmEntry, context: Context) -> None:
        contacts = await self._contacts(entry, context)
        if contacts is not None:
            await self.save(replace(entry, contacts=contacts), context)

    async def _contacts(self, entry: CrmEntry, context: Context) -> tuple[Contact, ...] | None:
        """The contacts of the call, as the options choose; None: do not log the call."""
        number = entry.number
        if number is None:
            internal = entry.call.direction == "internal"
            return None if self.unknown == "leave" and not internal else ()
        found = self._found.get(number.text)
        if found is None:
            found = await self.find(number, context)
            # Short, so that a contact added during the call is found at its end.
            short = min(self.lifetime, self.not_found_lifetime)
            self._found.keep(number.text, found, None if found else short)
        if not found and self.unknown == "create":
            async with self._creating:  # one contact for concurrent calls
                found = self._found.get(number.text) or [await self.create(number, entry, context)]
                self._found.keep(number.text, found)
        if not found:
            return None if self.unknown == "leave" else ()
        if len(found) > 1:
            context.log.info("%d contacts have the number: using %s", len(found), self.several)
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

    # State of this process, not options

    @cached_property
    def _found(self) -> TtlCache[str, list[Contact]]:
        return TtlCache(self.lifetime)

    @cached_property
    def _users(self) -> TtlCache[str, str]:
        return TtlCache(self.lifetime)

    @cached_property
    def _creating(self) -> asyncio.Lock:
        return asyncio.Lock()


@dataclass(frozen=True, kw_only=True)
class SearchedCrm(Crm):
    """A CRM that has no upsert: a record is searched for first, then created or changed."""

    @abstractmethod
    async def find_record(self, entry: CrmEntry, context: Context) -> str | None:
        """Return the id of the record with `entry.mark`. It must never miss an existing record."""

    @abstractmethod
    async def create_record(self, entry: CrmEntry, context: Context) -> str:
        """Create a record with `entry.mark` where `find_record` searches, and return its id."""

    @abstractmethod
    async def change_record(self, id: str, entry: CrmEntry, context: Context) -> bool:  # noqa: A002
        """Update the record. Return whether it still exists."""

    async def save(self, entry: CrmEntry, context: Context) -> None:
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
    def _records(self) -> TtlCache[str, str]:
        return TtlCache(DAY)
