"""What the API takes and answers, as types. The OpenAPI document follows from them."""

from datetime import datetime
from typing import Annotated

import msgspec

from offhook.call import Call, Party
from offhook.calls import MissedCaller
from offhook.event import CallEvent
from offhook.inbox.record_part import RecordedAttempt
from offhook.operations.audit import AuditEntry
from offhook.operations.bulk import BulkOperation, Kind
from offhook.operations.dead_letters import DeadLetter
from offhook.operations.status import HandlerStatus
from offhook.operations.wall_links import LONGEST_NAME, WallLink
from offhook_console.board import Figure
from offhook_console.call_query import CallQuery, Moment
from offhook_console.dialling import DIALLED
from offhook_console.directory import ListedUser
from offhook_console.missed_views import shown_calls
from offhook_console.people import View
from offhook_console.wording import number_of, shown_name, shown_number
from offhook_console.worklist_query import State

Limit = Annotated[int, msgspec.Meta(ge=1, le=500)]
DialledNumber = Annotated[str, msgspec.Meta(pattern=DIALLED, max_length=100)]
ScreenName = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)]


class CallListQuery(CallQuery, frozen=True, kw_only=True, omit_defaults=True):
    """The filters of a list of calls, and its length."""

    limit: Limit = 50


class CallList(msgspec.Struct, frozen=True):
    """Calls, newest first.

    Attributes:
        next: the value of `before` for the next page; null: there is none.
    """

    calls: list[Call]
    next: str | None


class CallDetail(msgspec.Struct, frozen=True):
    """A call, the events folded into it, and the attempts to deliver these.

    Attributes:
        events, deliveries: null if numbers are masked.
    """

    call: Call
    events: list[CallEvent] | None
    deliveries: list[RecordedAttempt] | None


class MissedQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The filters of missed callers, and the length of the list.

    Attributes:
        queue: only those who called one of these queues or phones, separated by commas.
        after: the cursor: those that come after the one whose first call has this name.
    """

    state: State = "open"
    queue: str = ""
    after: str | None = None
    limit: Limit = 50


class MissedList(msgspec.Struct, frozen=True):
    """Callers who reached no person in the last days, those first who have waited longest.

    Attributes:
        total: number that match.
        next: the value of `after` for the next page; null: there is none.
    """

    missed: list[MissedCaller]
    total: int
    next: str | None


class DialRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Call a number from an extension of one's own.

    Attributes:
        number: such as +442079460100, or an extension.
        extension: whose phone rings first; the first of the user's if not given.
    """

    number: DialledNumber
    extension: str | None = None


class DialledCall(msgspec.Struct, frozen=True):
    """A call that the PBX makes.

    Attributes:
        id: the CallAPIID of its callbacks; null if the PBX did not say.
    """

    id: str | None


class BoardQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The moment: now if it is not given.

    Attributes:
        at: ISO 8601, local time unless it has an offset; or a time of the last 24 hours as 14:00.
    """

    at: Moment | None = None


class BoardState(msgspec.Struct, frozen=True, kw_only=True):
    """The wallboard at a moment.

    Attributes:
        figures: of the day until then.
        ended: those that ended in the ten minutes before.
    """

    at: datetime
    figures: list[Figure]
    ringing: list[Call]
    talking: list[Call]
    ended: list[Call]


class HandlerList(msgspec.Struct, frozen=True):
    """All handlers."""

    handlers: list[HandlerStatus]


class DeadLetterQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The filters of dead letters, and the length of the list.

    Attributes:
        error: why the last attempt failed, verbatim.
        q: a part of the call, the extension, the event type or the error.
        after: the cursor: those that come after the one with this id.
    """

    handler: str | None = None
    error: str | None = None
    since: Moment | None = None
    q: str | None = None
    after: str | None = None
    limit: Limit = 50


class DeadLetterList(msgspec.Struct, frozen=True):
    """Dead letters, in the order of their events.

    Attributes:
        total: number that match.
        next: the value of `after` for the next page; null: there is none.
    """

    dead_letters: list[DeadLetter]
    total: int
    next: str | None


class OperationRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Retry or discard all dead letters that match.

    Attributes:
        count: the number that is expected to match; needed to discard 100 or more.
    """

    kind: Kind
    handler: str | None = None
    error: str | None = None
    since: Moment | None = None
    q: str | None = None
    ids: frozenset[str] = frozenset()
    count: int | None = None


class OperationList(msgspec.Struct, frozen=True):
    """The bulk operations that wait, run, or ended in the last hour, newest first."""

    operations: list[BulkOperation]


class RefusedCallbackDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A refused callback, without its token."""

    id: str
    received: datetime
    pbx: str
    extension: str
    event_type: str
    message: str
    request: dict[str, str]


class Quarantine(msgspec.Struct, frozen=True):
    """The refused callbacks, newest first."""

    callbacks: list[RefusedCallbackDetail]


class QuarantineOutcome(msgspec.Struct, frozen=True):
    """How a delivery from the quarantine ended: `delivered`, `repeat` or `refused`."""

    outcome: str
    message: str | None = None


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """The installation.

    Attributes:
        problems: what needs attention, a sentence each.
        live: number of calls in progress.
        quarantined: number of refused callbacks.
    """

    handlers: list[HandlerStatus]
    problems: list[str]
    live: int
    quarantined: int


class UserList(msgspec.Struct, frozen=True):
    """The users of the console, by name."""

    users: list[ListedUser]


class WallRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Make a wall link.

    Attributes:
        name: of the screen, 1 to 60 characters.
        tenant: whose calls it shows; the user's own tenant if it is not given.
    """

    name: ScreenName
    tenant: str | None = None


class WallQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whose wall link it is: the user's own tenant if it is not given."""

    tenant: str | None = None


class TenantsWallLink(msgspec.Struct, frozen=True, kw_only=True):
    """A wall link, and the tenant whose calls it shows; empty: the operator's."""

    tenant: str
    link: WallLink


class WallList(msgspec.Struct, frozen=True):
    """The wall links, newest first for each tenant."""

    walls: list[TenantsWallLink]


class MadeWallLink(msgspec.Struct, frozen=True, kw_only=True):
    """A new wall link.

    Attributes:
        url: its address, which is not kept: null in the answer to a repeated request.
    """

    link: WallLink
    url: str | None


class AuditQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whose changes: what a tenant's people did, and what was done to its handlers."""

    tenant: str = ""


class AuditLog(msgspec.Struct, frozen=True):
    """The newest changes, newest first."""

    entries: list[AuditEntry]


def seen_call(call: Call, view: View) -> Call:
    """A call as people with this view see it: its numbers masked, or not."""
    if not view.masked:
        return call
    return msgspec.structs.replace(call, caller=_masked(call.caller), called=_masked(call.called))


def seen_missed(caller: MissedCaller, view: View) -> MissedCaller:
    """A missed caller as people with this view see it."""
    current = caller.current if caller.current and view.shows(caller.current) else None
    return msgspec.structs.replace(
        caller,
        calls=tuple(seen_call(each, view) for each in shown_calls(view, caller)),
        current=seen_call(current, view) if current else None,
    )


def _masked(party: Party) -> Party:
    number = shown_number(number_of(party), masked=True)
    name = shown_name(party.name, masked=True)
    did = shown_number(party.did, masked=True)
    return Party(number=number, name=name, extension=party.extension, did=did)
