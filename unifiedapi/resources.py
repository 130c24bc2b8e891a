"""PhoneCallEvent, Presence, QueueAgent and CallRecord as the API has them, and their enumerations.

The examples of the documents write numbers as strings, `"0"`, and sometimes as numbers; both are
read, enumerations hold ints. A value or a field that no document names is kept.

Sources: VoipNow wiki, PhoneCallEvents Resource, Presence Resource, Agent Resource, CDR Resource and
PhoneCalls Resource (v3), the v5 pages of the same services, and the samples in List Presence.
"""

from datetime import UTC, datetime, tzinfo
from enum import IntEnum
from typing import Any, Self, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import fields, replace

from unifiedapi.errors import UnexpectedAnswer


class _Number(IntEnum):
    """An enumeration that takes any other number too, under the name `UNDOCUMENTED_n`."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNDOCUMENTED_{value}"
        member._value_ = value
        return member


class EventType(_Number):
    """When the PBX makes the callback. The v3 pages stop at 2."""

    DIAL_IN = 0
    DIAL_OUT = 1
    HANGUP = 2
    ANSWER_IN = 3
    ANSWER_OUT = 4

    @property
    def label(self) -> str:
        """The type in words, such as `dial-in`."""
        return self.name.lower().replace("_", "-")


class EventMethod(_Number):
    """How the PBX makes the callback."""

    GET = 0
    POST = 1


class EventStatus(_Number):
    """Whether the PBX makes the callback."""

    DISABLED = 0
    ENABLED = 1


class PresenceStatus(_Number):
    """What an extension, or a phone, is doing."""

    UNKNOWN = 0
    ONLINE = 1
    RINGING = 2
    BUSY = 3


class RegistrationStatus(_Number):
    """Whether a phone is registered."""

    EXPIRED = -2
    NOT_REGISTERED = -1
    UNKNOWN = 0
    REGISTERED = 1
    NOT_NECESSARY = 2


class AgentStatus(_Number):
    """Whether a queue gives calls to an agent."""

    LOGGED_OUT = 0
    ONLINE = 1
    PAUSED = 2


class Flow(_Number):
    """Which way a call went."""

    LOCAL = 2
    OUTGOING = 4  # to a public number
    INCOMING = 8  # from a public number


class Disposition(_Number):
    """How a call ended."""

    ANSWERED = 0
    BUSY = 1
    FAILED = 2
    NO_ANSWER = 3
    UNKNOWN = 4
    NOT_ALLOWED = 5


class Resource(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the API's objects share.

    What an answer leaves out (or asked-for `fields` leave out) is None, or unknown where the API
    has a value for that.

    Attributes:
        extra: fields that no document names, as they came.
    """

    extra: dict[str, Any] = {}

    @classmethod
    def read(cls, data: object) -> Self:
        """The resource in a JSON object. Empty values count as absent.

        Raises:
            UnexpectedAnswer: it is not such a resource.
        """
        if not isinstance(data, dict):
            raise UnexpectedAnswer(f"not a {cls.__name__}: {type(data).__name__}")
        types = {field.encode_name: field.type for field in fields(cls)}
        values: dict[str, Any] = {"extra": {}}
        for name, value in data.items():
            if name not in types or name == "extra":
                values["extra"][name] = value
            elif value not in (None, ""):
                values[name] = _as(types[name], value)
        try:
            return msgspec.convert(values, cls, strict=False)
        except msgspec.ValidationError as error:
            raise UnexpectedAnswer(f"not a {cls.__name__}: {error}") from error


def _as(kind: Any, value: object) -> object:
    """Mend what `convert` would refuse: a number for a text, one for several, what is nested."""
    if kind in (str, str | None) and type(value) is int:
        return str(value)
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        values = value if isinstance(value, list) else [value]
        if issubclass(inner, Resource):
            return tuple(inner.read(each) for each in values)
        return tuple(_as(inner, each) for each in values)
    if get_origin(kind) is list and isinstance(value, dict):
        # The entries of call records come as an object, each under its id.
        return [
            {"id": key} | each if isinstance(each, dict) else each for key, each in value.items()
        ]
    return value


class Links(msgspec.Struct, frozen=True, rename={"self_": "self"}):
    """Where a resource lives.

    Attributes:
        self_: its own URL.
    """

    self_: str | None = None


class PhoneCallEvent(Resource, frozen=True, kw_only=True):
    """A callback that the PBX makes for one type of event of one extension.

    Attributes:
        id: made by the PBX, alphanumeric, 1 to 255 characters.
        url: where the callback goes. It may hold a secret, so `repr` shows only its host.
        modified: the last change.
    """

    type: EventType
    id: str
    method: EventMethod | None = None
    url: str | None = None
    status: EventStatus | None = None
    note: str = ""
    modified: datetime | None = None
    links: Links | None = None

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        hidden = {"url": _origin(self.url)}
        return [(name, hidden.get(name, getattr(self, name))) for name in self.__struct_fields__]

    def __repr__(self) -> str:
        return f"PhoneCallEvent({', '.join(f'{n}={v!r}' for n, v in self.__rich_repr__())})"


class PhoneRegistration(Resource, frozen=True, kw_only=True):
    """One phone of an extension.

    Attributes:
        agent: the phone's name for itself (its SIP user agent).
        expire: when the registration ends; absent once it has.
        status: in the documents' field table, but in none of their samples.
    """

    registration: RegistrationStatus = RegistrationStatus.UNKNOWN
    agent: str | None = None
    expire: datetime | None = None
    status: PresenceStatus | None = None


class Presence(Resource, frozen=True, kw_only=True):
    """What an extension is doing, and the phones it is registered on."""

    extension: str
    status: PresenceStatus = PresenceStatus.UNKNOWN
    registration: tuple[PhoneRegistration, ...] = ()


class QueueAgent(Resource, frozen=True, kw_only=True):
    """An agent of a queue.

    Attributes:
        agent_number: an extension, or a public number for a remote agent.
        queue: v5 only, as are `type` and `identifier`; no document that was seen explains them.
    """

    agent_number: str
    status: AgentStatus | None = None
    queue: str | None = None
    type: str | None = None
    identifier: str | None = None
    links: Links | None = None


class CallLeg(Resource, frozen=True, kw_only=True):
    """One party's part in a recorded call: PhoneCallView in the documents.

    That a record has these, with source and destination, is in CDR Resource's sample; flow,
    disposition and `answered` are PhoneCallView's in PhoneCalls Resource. `duration` is in no
    document: a client of a PBX that descends from VoipNow reads it there.

    Attributes:
        extension: whose part it is.
        source: who called, an extension or a public number; as a rule one.
        destination: who was called, likewise; not the number that was dialled.
        duration: inferred to be seconds.
    """

    id: str | None = None
    extension: str | None = None
    source: tuple[str, ...] = ()
    destination: tuple[str, ...] = ()
    flow: Flow | None = None
    disposition: Disposition | None = None
    answered: datetime | None = None
    duration: float | None = None


class CallRecord(Resource, frozen=True, kw_only=True):
    """A call in the PBX's history (CDR). Every time in it has a zone.

    Attributes:
        id: the PhoneCall's. Inferred: it is the `CallAPIID` of the call's callbacks. The documents
            do not say so; a receiver for a PBX that descends from VoipNow keeps both under one key.
        extension: the one that is charged; it need not have taken part.
        owner_id: the organization's.
        published: when the call entered the PBX.
        answered: None when nobody did.
        legs: `phoneCallView` in the answer.
        call_id: the `CallID` of the callbacks, should the record have it. (Inferred name, `callId`;
            in no document and no sample.)
    """

    id: str
    extension: str | None = None
    owner_id: str | None = None
    owner_name: str | None = None
    published: datetime | None = None
    answered: datetime | None = None
    legs: tuple[CallLeg, ...] = msgspec.field(default=(), name="phoneCallView")
    call_id: str | None = None

    @classmethod
    def read(cls, data: object, zone: tzinfo = UTC) -> Self:
        """The record in a JSON object. A time that comes without a zone is the PBX's, `zone`.

        Raises:
            UnexpectedAnswer: it is no record.
        """
        record = super().read(data)
        return replace(
            record,
            published=_aware(record.published, zone),
            answered=_aware(record.answered, zone),
            legs=tuple(replace(leg, answered=_aware(leg.answered, zone)) for leg in record.legs),
        )


class Page(Resource, frozen=True, kw_only=True):
    """One page of a collection, its entries not yet read.

    Attributes:
        start_index: the index of the first entry, from 0.
        total_results: how many entries match in all.
    """

    start_index: int = 0
    total_results: int | None = None
    items_per_page: int | None = None
    filtered: bool | None = None
    sorted: bool | None = None
    entry: list[dict[str, Any]]


def _aware(moment: datetime | None, zone: tzinfo) -> datetime | None:
    if moment is None or moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=zone)


def _origin(url: str | None) -> str | None:
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname}/…"
    except ValueError:
        return "…"
