"""The services of `UnifiedApi`: calls, phone call events, presence, queue agents, call records.

Sources: VoipNow wiki, Create, List, Update and Delete PhoneCallEvents, List Presence, List and
Update QueueAgents, List CDR, Create Simple PhoneCalls (v3) and the v5 pages of the same services.
Where they differ, this follows 4PSA's own client (mcp-voipnow): the type of a new phone call event
goes into the body, numbers are sent as strings, and paths end in a slash.
"""
# ruff: noqa: A002 - `type` and `id` are the API's words

import re
import secrets
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Any, Unpack

from unifiedapi.errors import EventIdInvalid, InvalidRequest, UnexpectedAnswer
from unifiedapi.listing import Listing, ListOptions, Requester, single
from unifiedapi.resources import (
    AgentStatus,
    CallRecord,
    Disposition,
    EventMethod,
    EventStatus,
    EventType,
    Flow,
    PhoneCall,
    PhoneCallEvent,
    Presence,
    QueueAgent,
)


class PhoneCallEvents:
    """The callbacks of a phone terminal, queue, conference or IVR.

    `user` is `@me` or `@viewer` (both: the token's user), `@owner` (the extension's), or a user id.
    """

    def __init__(self, request: Requester) -> None:
        self._request = request

    async def create(
        self,
        extension: str,
        *,
        type: EventType,
        url: str,
        method: EventMethod = EventMethod.POST,
        status: EventStatus = EventStatus.ENABLED,
        note: str = "",
        user: str | int = "@me",
    ) -> PhoneCallEvent:
        """Register a callback. This is not idempotent, so it is retried only if it was not sent."""
        sent = _strings(type=type, method=method, url=url, status=status, note=note)
        created = await self._request("POST", _events_path(user, extension), json=sent)
        if created is not None:
            return PhoneCallEvent.read(sent | _with_id(single(created)))
        # The documents allow 204, which has no id: take the newest event with this URL.
        same = [event async for event in self.list(extension, type, user=user) if event.url == url]
        if not same:
            raise UnexpectedAnswer("the new phone call event is not in the list", status=204)
        return max(same, key=_last_change)

    def list(
        self,
        extension: str,
        type: EventType | None = None,
        id: str | None = None,
        *,
        user: str | int = "@me",
        **options: Unpack[ListOptions],
    ) -> Listing[PhoneCallEvent]:
        """List all events, those of one type, or the event with this type and id."""
        path = _events_path(user, extension, type, id)
        read = PhoneCallEvent.read
        return Listing(self._request, path, read, options, identity=("type", "id"))

    async def update(
        self,
        extension: str,
        type: EventType,
        id: str,
        *,
        method: EventMethod | None = None,
        url: str | None = None,
        status: EventStatus | None = None,
        note: str | None = None,
        user: str | int = "@me",
    ) -> PhoneCallEvent:
        """Change the given fields only."""
        path = _events_path(user, extension, type, id)
        sent = _strings(method=method, url=url, status=status, note=note)
        changed = await self._request("PUT", path, json=sent)
        answer = {} if changed is None else _with_id(single(changed))
        return PhoneCallEvent.read({"type": int(type), "id": id} | sent | answer)

    async def delete(
        self, extension: str, type: EventType, id: str, *, user: str | int = "@me"
    ) -> None:
        path = _events_path(user, extension, type, id)
        try:
            await self._request("DELETE", path)
        except EventIdInvalid as error:
            # After a retry: an earlier attempt deleted the event, but its response was lost.
            if error.attempts == 1:
                raise

    async def delete_all(
        self, extension: str, type: EventType | None = None, *, user: str | int = "@me"
    ) -> tuple[str, ...]:
        """Delete all events of the extension, or of one type, no matter who created them.

        Returns:
            The ids of the deleted events.
        """
        deleted = await self._request("DELETE", _events_path(user, extension, type))
        entries = deleted if isinstance(deleted, list) else [deleted] if deleted else []
        return tuple(str(_with_id(entry)["id"]) for entry in entries)


class PresenceService:
    """The state of phone terminals and of their phones."""

    def __init__(self, request: Requester) -> None:
        self._request = request

    def list(
        self,
        extension: str = "@self",
        *,
        user: str | int = "@me",
        **options: Unpack[ListOptions],
    ) -> Listing[Presence]:
        """List one phone terminal, or with `@self` all of the user's. `@owner` needs the first."""
        if extension == "@self" and user == "@owner":
            raise InvalidRequest("@self cannot be combined with @owner: name a user or extension")
        owner, number = _user(user), _extension(extension, self_allowed=True)
        path = f"/extensions/{owner}/{number}/presence/"
        return Listing(self._request, path, Presence.read, options, identity=("extension",))


class QueueAgents:
    """The agents of a queue."""

    def __init__(self, request: Requester) -> None:
        self._request = request

    def list(
        self,
        queue: str,
        agent: str | None = None,
        *,
        user: str | int = "@me",
        **options: Unpack[ListOptions],
    ) -> Listing[QueueAgent]:
        """List all agents, or one by extension (a remote agent by number or id)."""
        path = _agents_path(user, queue, agent)
        return Listing(self._request, path, QueueAgent.read, options, identity=("agentNumber",))

    async def update(
        self, queue: str, agent: str, status: AgentStatus, *, user: str | int = "@me"
    ) -> QueueAgent:
        """Log an agent in (`ONLINE`) or out, or pause it."""
        sent = _strings(status=status)
        answer = await self._request("PUT", _agents_path(user, queue, agent), json=sent)
        changed = {} if answer is None else single(answer)
        if not isinstance(changed, dict):
            raise UnexpectedAnswer("the response is not a queue agent")
        return QueueAgent.read({"agentNumber": agent} | sent | changed)


class PhoneCalls:
    """Calls that the PBX makes."""

    def __init__(self, request: Requester) -> None:
        self._request = request

    async def create(
        self,
        extension: str,
        destination: str,
        *,
        source: str | None = None,
        caller_id: str | None = None,
        wait_for_pickup: int | None = None,
        user: str | int = "@me",
    ) -> PhoneCall:
        """Call `source`, and when it has been picked up, `destination`.

        This is not idempotent, so it is retried only if it was not sent.

        Args:
            extension: the phone terminal that is charged, one of the user's.
            destination: an extension or a public number.
            source: the phone that rings first; the extension itself if not given.
            caller_id: what `source` displays, such as `Ada <442079460100>`.
            wait_for_pickup: seconds until the call is given up; the PBX's default is 25.
        """
        view: dict[str, Any] = {
            "source": [_party(source or extension)],
            "destination": [_party(destination)],
        }
        if caller_id is not None:
            view["callerId"] = caller_id
        # The nonce is in the vendor's own client, not in the pages: it tells two calls apart.
        sent = {
            "extension": _extension(extension),
            "phoneCallView": [view],
            "nonce": secrets.token_hex(16),
        }
        created = await self._request(
            "POST",
            f"/phoneCalls/{_user(user)}/simple/",
            params=_strings(waitForPickup=wait_for_pickup),
            json=sent,
        )
        if created is None:
            return PhoneCall(extension=extension)
        answer = single(created)
        return PhoneCall.read(answer if isinstance(answer, dict) else {"id": answer})


class CallRecords:
    """The calls that the PBX has recorded (CDR)."""

    def __init__(self, request: Requester, zone: tzinfo) -> None:
        self._request = request
        self._zone = zone

    def list(
        self,
        *,
        owner: str | int | None = None,
        source: str | None = None,
        destination: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        save_start_date: datetime | None = None,
        save_end_date: datetime | None = None,
        flow: Flow | None = None,
        disposition: Disposition | None = None,
        **options: Unpack[ListOptions],
    ) -> Listing[CallRecord]:
        """List the calls that match all arguments.

        Dates must be timezone-aware. They are sent in the PBX's local time (`UnifiedApi(zone=)`),
        to the second. In the hour that occurs twice when summer time ends, the PBX decides which
        one is meant.

        `filter_by` is `source`, `destination`, `published` or `answered`. A date in `filter_value`
        is a string in the PBX's local time, such as 2024-10-05T00:00:00. According to 4PSA,
        `fields` takes names of PhoneCallStat, the statistics beside the records; they are sent
        unchanged.

        Args:
            owner: whose history: a user's number or `@me`; by default the token's user.
            source: the caller, an extended extension or a public number.
            destination: the extension or number that was called.
            start_date: answered then or later; by default since the start of the month.
            end_date: answered then or before; by default until now.
            save_start_date: recorded then or later. A call is recorded when it ends.
            save_end_date: recorded then or before.
        """
        zone = self._zone
        parameters = _strings(
            source=source,
            destination=destination,
            startDate=_local(start_date, zone),
            endDate=_local(end_date, zone),
            saveStartDate=_local(save_start_date, zone),
            saveEndDate=_local(save_end_date, zone),
            flow=flow,
            disposition=disposition,
        )
        path = "/cdr/" if owner is None else f"/cdr/{_user(owner)}/"
        read = partial(CallRecord.read, zone=zone)
        return Listing(self._request, path, read, options, parameters=parameters)


def _events_path(
    user: str | int, extension: str, type: EventType | None = None, id: str | None = None
) -> str:
    path = f"/extensions/{_user(user)}/{_extension(extension)}/phoneCallEvents/"
    if type is not None:
        path += f"{int(type)}/"
    if id is None:
        return path
    if type is None:
        raise InvalidRequest("the id of a phone call event needs its type")
    # An empty id would change the path of one event into the path of all events of its type.
    if not re.fullmatch(r"\w[\w.~-]{0,254}", id, re.ASCII):
        raise InvalidRequest(f"{id!r} is not the id of a phone call event")
    return f"{path}{id}/"


def _agents_path(user: str | int, queue: str, agent: str | None) -> str:
    path = f"/extensions/{_user(user)}/{_extension(queue)}/queue/agents/"
    if agent is None:
        return path
    if not re.fullmatch(r"[0-9*]+|[0-9+]+", agent, re.ASCII):
        raise InvalidRequest(f"{agent!r} is not an extension such as 0003*210, or a number")
    return f"{path}{agent}/"


def _user(user: str | int) -> str:
    if not re.fullmatch(r"@me|@viewer|@owner|[0-9]+", str(user), re.ASCII):
        raise InvalidRequest(f"{user!r} is not @me, @viewer, @owner or a user's number")
    return str(user)


def _extension(extension: str, *, self_allowed: bool = False) -> str:
    if extension == "@self":
        if not self_allowed:
            raise InvalidRequest("@self is not allowed here: name one extension")
    elif not re.fullmatch(r"[0-9*]+", extension, re.ASCII):
        raise InvalidRequest(f"{extension!r} is not an extension such as 0003*210 or 210")
    return extension


def _party(number: str) -> str:
    if not re.fullmatch(r"[0-9*]+|\+?[0-9]+", number, re.ASCII):
        raise InvalidRequest(f"{number!r} is neither an extension such as 0003*210 nor a number")
    return number


def _local(moment: datetime | None, zone: tzinfo) -> str | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InvalidRequest(f"{moment} has no time zone: add one, such as datetime.UTC")
    return moment.astimezone(zone).strftime("%Y-%m-%dT%H:%M:%S")


def _strings(**values: str | int | None) -> dict[str, str]:
    """Return the values that are given, numbers as strings."""
    return {
        name: str(int(value)) if isinstance(value, int) else value
        for name, value in values.items()
        if value is not None
    }


def _with_id(data: object) -> dict[str, Any]:
    """Read a phone call event. The documents only say that its id is returned."""
    if isinstance(data, str | int):
        return {"id": str(data)}
    if not isinstance(data, dict) or not data.get("id"):
        raise UnexpectedAnswer("the response has no id of the phone call event")
    return data


def _last_change(event: PhoneCallEvent) -> float:
    moment = event.modified or datetime.fromtimestamp(0, UTC)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
