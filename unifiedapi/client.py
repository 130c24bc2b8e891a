"""`UnifiedApi`: the typed client for PhoneCallEvents, Presence, QueueAgents and call records (CDR).

Sources: VoipNow wiki, Create, List, Update and Delete PhoneCallEvents, List Presence, List and
Update QueueAgents, List CDR (v3) and the v5 pages of the same services. Where they differ, it does
what 4PSA's own client (mcp-voipnow) does: the type of a new phone call event goes in the body,
numbers go as strings, and paths end in a slash.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypedDict, TypeVar, Unpack

from unifiedapi.errors import EventIdInvalid, InvalidRequest, UnexpectedAnswer
from unifiedapi.oauth import Auth
from unifiedapi.resources import (
    AgentStatus,
    CallRecord,
    Disposition,
    EventMethod,
    EventStatus,
    EventType,
    Flow,
    Page,
    PhoneCallEvent,
    Presence,
    QueueAgent,
    Resource,
)
from unifiedapi.transport import WAITS, Answer, Transport

MAX_COUNT = 4999  # entries on a page; the table says at most 5000, the error text below 5000

T = TypeVar("T", bound=Resource)

FilterOp = Literal["equals", "contains", "startsWith", "inArray", "present"]
SortOrder = Literal["ascending", "descending", "asc", "desc"]  # v3 and 4PSA's client; v5


class ListOptions(TypedDict, total=False):
    """The standard request parameters.

    Attributes:
        count: entries on a page, 1 to 4999; the most when not given.
        start_index: the index of the first entry, 0 to 4999.
        filter_by: the field to filter by; presence has only `extension`.
        filter_op: how to compare; the PBX's default when not given.
        filter_value: what to compare with; several for `inArray`.
        fields: the fields to answer with, all when not given. Those that say which resource it
            is always come.
        sort_order: events go by URL, presence by extension, agents by status, call records by
            `published`.
    """

    count: int
    start_index: int
    filter_by: str
    filter_op: FilterOp
    filter_value: str | Sequence[str]
    fields: Sequence[str]
    sort_order: SortOrder


class UnifiedApi:
    """The UnifiedAPI of one PBX.

    Args:
        base_url: such as `https://pbx.example.org`.
        auth: `ClientCredentials` or a `BearerToken`.
        ca_file: the only certificate authority to trust, as PEM; the well-known ones if None.
        insecure: do not check the PBX's certificate, or speak plain HTTP with another machine.
        timeout: seconds for one attempt, from connecting to the answer's last byte.
        waits: seconds to wait before each repeat of what may be repeated; none: no repeats.
        zone: the PBX's time zone, for call records: their dates are asked for in its local time.

    Every method raises `UnifiedApiError`: an `ApiError` when the PBX refused, `NoAnswer` or
    `UnexpectedAnswer` when it did not answer so, `InvalidRequest` before anything was sent.
    """

    def __init__(
        self,
        base_url: str,
        auth: Auth,
        *,
        ca_file: str | Path | None = None,
        insecure: bool = False,
        timeout: float = 10.0,
        waits: Sequence[float] = WAITS,
        zone: tzinfo = UTC,
    ) -> None:
        self.zone = zone
        self._auth = auth
        self._transport = Transport(
            base_url, ca_file=ca_file, insecure=insecure, timeout=timeout, waits=waits
        )
        self.phone_call_events = PhoneCallEvents(self)
        self.presence = PresenceService(self)
        self.queue_agents = QueueAgents(self)
        self.call_records = CallRecords(self)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: object = None,
    ) -> Any:
        """Make one request; a token that the PBX refuses is replaced once.

        POST is repeated only when it was never sent, every other method also when the PBX did not
        answer, or answered 429 or 5xx.

        Args:
            path: what comes after `/uapi`.

        Returns:
            The JSON of the answer; None for 204.
        """
        token = await self._auth.token(self._transport)
        answer = await self._send(method, path, token, params, json)
        if answer.status == 401:
            renewed = await self._auth.renew(self._transport, token)
            if renewed is not None and renewed != token:
                token = renewed
                answer = await self._send(method, path, token, params, json)
        if not 200 <= answer.status < 300:
            raise answer.refusal()
        return answer.json()

    async def _send(
        self, method: str, path: str, token: str, params: Mapping[str, str] | None, json: object
    ) -> Answer:
        return await self._transport.request(
            method,
            f"/uapi{path}",
            token=token,
            params=params,
            json=json,
            repeatable=method != "POST",
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class Listing(Generic[T]):
    """A list that is asked for page by page, as it is read: `async for entry in listing`."""

    def __init__(
        self,
        ask: Callable[[dict[str, str]], Awaitable[object]],
        read: Callable[[object], T],
        identity: Sequence[str],
        options: ListOptions,
    ) -> None:
        self._ask = ask
        self._read = read
        self._parameters = _parameters(identity, **options)

    async def pages(self) -> AsyncIterator[Page]:
        """The pages that have entries.

        `totalResults` alone decides that there are more: the documents' own sample has a page that
        is shorter than it says.
        """
        start = int(self._parameters["startIndex"])
        while True:
            data = await self._ask(self._parameters | {"startIndex": str(start)})
            if data is None:
                return
            page = Page.read(_one(data))
            if page.start_index != start:
                raise UnexpectedAnswer(
                    f"asked for entries from {start} on, got those from {page.start_index} on"
                )
            if not page.entry:
                return
            yield page
            start += len(page.entry)
            if page.total_results is not None and start >= page.total_results:
                return

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for entry in page.entry:
                yield self._read(entry)


class PhoneCallEvents:
    """The callbacks of an extension, which is a phone terminal, a queue, a conference or an IVR.

    `user` is `@me`, `@viewer` (both: the token's user), `@owner` (the extension's) or a user's id.
    """

    def __init__(self, api: UnifiedApi) -> None:
        self._api = api

    async def create(
        self,
        extension: str,
        *,
        type: EventType,  # noqa: A002 - the API's word
        url: str,
        method: EventMethod = EventMethod.POST,
        status: EventStatus = EventStatus.ENABLED,
        note: str = "",
        user: str | int = "@me",
    ) -> PhoneCallEvent:
        """Register a callback. Made twice, there are two: it is not repeated once it was sent."""
        sent = {
            "type": str(int(type)),
            "method": str(int(method)),
            "url": url,
            "status": str(int(status)),
            "note": note,
        }
        made = await self._api.request("POST", _events_path(user, extension), json=sent)
        if made is not None:
            return PhoneCallEvent.read(sent | _with_id(_one(made)))
        # 204 is documented for a new event, and does not say its id: it is the newest of its kind.
        same = [event async for event in self.list(extension, type, user=user) if event.url == url]
        if not same:
            raise UnexpectedAnswer("the new phone call event is not in the list", status=204)
        return max(same, key=_last_change)

    def list(
        self,
        extension: str,
        type: EventType | None = None,  # noqa: A002 - the API's word
        id: str | None = None,  # noqa: A002 - the API's word
        *,
        user: str | int = "@me",
        **options: Unpack[ListOptions],
    ) -> Listing[PhoneCallEvent]:
        """Those of all types, of one type, or the one with this id (which needs its type)."""
        path = _events_path(user, extension, type, id)
        return _listing(self._api, path, PhoneCallEvent.read, ("type", "id"), options)

    async def update(
        self,
        extension: str,
        type: EventType,  # noqa: A002 - the API's word
        id: str,  # noqa: A002 - the API's word
        *,
        method: EventMethod | None = None,
        url: str | None = None,
        status: EventStatus | None = None,
        note: str | None = None,
        user: str | int = "@me",
    ) -> PhoneCallEvent:
        """Change what is given, and nothing else."""
        path = _events_path(user, extension, type, _checked_id(id))
        sent: dict[str, str] = {}
        if method is not None:
            sent["method"] = str(int(method))
        if url is not None:
            sent["url"] = url
        if status is not None:
            sent["status"] = str(int(status))
        if note is not None:
            sent["note"] = note
        changed = await self._api.request("PUT", path, json=sent)
        answer = {} if changed is None else _with_id(_one(changed))
        return PhoneCallEvent.read({"type": int(type), "id": id} | sent | answer)

    async def delete(
        self,
        extension: str,
        type: EventType,  # noqa: A002 - the API's word
        id: str,  # noqa: A002 - the API's word
        *,
        user: str | int = "@me",
    ) -> None:
        """Delete one."""
        path = _events_path(user, extension, type, _checked_id(id))
        try:
            await self._api.request("DELETE", path)
        except EventIdInvalid as error:
            # The answer to an earlier attempt was lost, not the attempt: the event is gone.
            if error.attempts == 1:
                raise

    async def delete_all(
        self,
        extension: str,
        type: EventType | None = None,  # noqa: A002 - the API's word
        *,
        user: str | int = "@me",
    ) -> tuple[str, ...]:
        """Delete all of the extension, or all of one type, whoever made them: the ids."""
        deleted = await self._api.request("DELETE", _events_path(user, extension, type))
        entries = deleted if isinstance(deleted, list) else [deleted] if deleted else []
        return tuple(str(_with_id(entry)["id"]) for entry in entries)


class PresenceService:
    """What phone terminals are doing, and the phones they are registered on."""

    def __init__(self, api: UnifiedApi) -> None:
        self._api = api

    def list(
        self,
        extension: str = "@self",
        *,
        user: str | int = "@me",
        **options: Unpack[ListOptions],
    ) -> Listing[Presence]:
        """Of one phone terminal, or of all that the user has: `@self`, unless user is `@owner`."""
        if extension == "@self" and user == "@owner":
            raise InvalidRequest("@self has no @owner: name the user, or the extension")
        owner, number = _user(user), _extension(extension, self_allowed=True)
        path = f"/extensions/{owner}/{number}/presence/"
        return _listing(self._api, path, Presence.read, ("extension",), options)


class QueueAgents:
    """The agents of a queue."""

    def __init__(self, api: UnifiedApi) -> None:
        self._api = api

    def list(
        self,
        queue: str,
        agent: str | None = None,
        *,
        user: str | int = "@me",
        **options: Unpack[ListOptions],
    ) -> Listing[QueueAgent]:
        """All, or the one with this extension (a remote one: number or id)."""
        path = _agents_path(user, queue, agent)
        return _listing(self._api, path, QueueAgent.read, ("agentNumber",), options)

    async def update(
        self, queue: str, agent: str, status: AgentStatus, *, user: str | int = "@me"
    ) -> QueueAgent:
        """Log an agent in (`ONLINE`), log it out, or let it pause."""
        sent = {"status": str(int(status))}
        answer = await self._api.request("PUT", _agents_path(user, queue, agent), json=sent)
        changed = {} if answer is None else _one(answer)
        if not isinstance(changed, dict):
            raise UnexpectedAnswer("the answer is no queue agent")
        return QueueAgent.read({"agentNumber": agent} | sent | changed)


class CallRecords:
    """The calls that the PBX has recorded (CDR)."""

    def __init__(self, api: UnifiedApi) -> None:
        self._api = api

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
        """Those that fit everything given.

        Dates need a time zone. They are sent in the PBX's local time (`UnifiedApi(zone=)`), to the
        second; in the hour that is there twice when summer time ends, the PBX decides which.
        `filter_by` is `source`, `destination`, `published` or `answered`; a date in `filter_value`
        is a text, in the PBX's local time: 2024-10-05T00:00:00. 4PSA says that `fields` takes the
        names of PhoneCallStat, the statistics beside the records: they are sent as given, and
        nothing is added.

        Args:
            owner: whose history: a user's number or `@me`; the token's user if not given.
            source: who called, an extended extension or a public number.
            destination: who was called, likewise.
            start_date: answered then or later; since the month began, if not given.
            end_date: answered then or before; until now, if not given.
            save_start_date: recorded then or later, that is, when the call was over.
            save_end_date: recorded then or before.
        """
        zone = self._api.zone
        own = {
            "source": source,
            "destination": destination,
            "startDate": _local(start_date, zone),
            "endDate": _local(end_date, zone),
            "saveStartDate": _local(save_start_date, zone),
            "saveEndDate": _local(save_end_date, zone),
            "flow": None if flow is None else str(int(flow)),
            "disposition": None if disposition is None else str(int(disposition)),
        }
        path = "/cdr/" if owner is None else f"/cdr/{_user(owner)}/"
        given = {name: value for name, value in own.items() if value is not None}
        read = partial(CallRecord.read, zone=zone)
        return _listing(self._api, path, read, (), options, given)


def _listing(
    api: UnifiedApi,
    path: str,
    read: Callable[[object], T],
    identity: Sequence[str],
    options: ListOptions,
    own: Mapping[str, str] | None = None,
) -> Listing[T]:
    def ask(parameters: dict[str, str]) -> Awaitable[object]:
        return api.request("GET", path, params={**(own or {}), **parameters})

    return Listing(ask, read, identity, options)


def _parameters(
    identity: Sequence[str],
    *,
    count: int = MAX_COUNT,
    start_index: int = 0,
    filter_by: str | None = None,
    filter_op: FilterOp | None = None,
    filter_value: str | Sequence[str] | None = None,
    fields: Sequence[str] = (),
    sort_order: SortOrder | None = None,
) -> dict[str, str]:
    """The query of a list. An array is written as in the v5 page's example: `filterValue[0]=`."""
    parameters = {"count": str(count), "startIndex": str(start_index)}
    if filter_by is not None:
        parameters["filterBy"] = filter_by
    if filter_op is not None:
        parameters["filterOp"] = filter_op
    if isinstance(filter_value, str):
        parameters["filterValue"] = filter_value
    elif filter_value is not None:
        parameters |= {f"filterValue[{n}]": value for n, value in enumerate(filter_value)}
    if fields:
        parameters["fields"] = ",".join(dict.fromkeys([*identity, *fields]))
    if sort_order is not None:
        parameters["sortOrder"] = sort_order
    return parameters


def _events_path(
    user: str | int,
    extension: str,
    type_: EventType | None = None,
    id_: str | None = None,
) -> str:
    path = f"/extensions/{_user(user)}/{_extension(extension)}/phoneCallEvents/"
    if type_ is not None:
        path += f"{int(type_)}/"
    if id_ is not None:
        if type_ is None:
            raise InvalidRequest("the id of a phone call event needs its type")
        path += f"{_checked_id(id_)}/"
    return path


def _agents_path(user: str | int, queue: str, agent: str | None) -> str:
    path = f"/extensions/{_user(user)}/{_extension(queue)}/queue/agents/"
    if agent is None:
        return path
    if not re.fullmatch(r"[0-9*]+|[0-9+]+", agent, re.ASCII):
        raise InvalidRequest(f"{agent!r} is no agent: an extension such as 0003*210, or a number")
    return f"{path}{agent}/"


def _user(user: str | int) -> str:
    if not re.fullmatch(r"@me|@viewer|@owner|[0-9]+", str(user), re.ASCII):
        raise InvalidRequest(f"{user!r} is no user: @me, @viewer, @owner, or a user's number")
    return str(user)


def _extension(extension: str, *, self_allowed: bool = False) -> str:
    if extension == "@self":
        if not self_allowed:
            raise InvalidRequest("@self is not allowed here: name one extension")
    elif not re.fullmatch(r"[0-9*]+", extension, re.ASCII):
        raise InvalidRequest(f"{extension!r} is no extension, such as 0003*210 or 210")
    return extension


def _checked_id(id_: str) -> str:
    # An empty one would turn one event's path into that of all events of its type.
    if not re.fullmatch(r"\w[\w.~-]{0,254}", id_, re.ASCII):
        raise InvalidRequest(f"{id_!r} is no id of a phone call event")
    return id_


def _local(moment: datetime | None, zone: tzinfo) -> str | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InvalidRequest(f"{moment} has no time zone: give it one, such as datetime.UTC")
    return moment.astimezone(zone).strftime("%Y-%m-%dT%H:%M:%S")


def _one(data: object) -> Any:
    """One object, which v5's samples put into an array."""
    if isinstance(data, list):
        if len(data) != 1:
            raise UnexpectedAnswer(f"the answer is an array of {len(data)}, not one object")
        return data[0]
    return data


def _with_id(data: object) -> dict[str, Any]:
    """A phone call event, of which the documents say only that its id is returned."""
    if isinstance(data, str | int):
        return {"id": str(data)}
    if not isinstance(data, dict) or not data.get("id"):
        raise UnexpectedAnswer("the answer does not say the id of the phone call event")
    return data


def _last_change(event: PhoneCallEvent) -> float:
    moment = event.modified or datetime.fromtimestamp(0, UTC)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
