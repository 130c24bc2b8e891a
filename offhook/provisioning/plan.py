"""What `offhook setup` will change in the phone call events of an extension. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import unquote

from offhook.call import Kind
from offhook.callback_url import (
    CallbackUrl,
    RevokedUrls,
    callback_url,
    read_callback_url,
    revoked_urls,
)
from offhook.event import CALLBACKS, EventType
from offhook.extensions import ExtensionSettings
from offhook.settings import Settings
from unifiedapi.resources import EventMethod, EventStatus, PhoneCallEvent
from unifiedapi.resources import EventType as PbxEventType


def usual_events(kind: Kind | None) -> tuple[EventType, ...]:
    """The default events of an extension of this kind; None: it is neither a phone nor a queue.

    All events of a phone; of the other kinds, when a call begins and ends: the phones behind them
    report who answered.
    """
    return CALLBACKS if kind is Kind.PHONE else (EventType.DIAL_IN, EventType.HANGUP)


@dataclass(frozen=True)
class Installation:
    """This installation of Offhook: what its callback URLs are made of and recognized by.

    Attributes:
        secrets: the current one first.
    """

    public_url: str
    secrets: Sequence[str] = field(repr=False)
    revoked: RevokedUrls = field(default_factory=RevokedUrls)

    @classmethod
    def of(cls, settings: Settings) -> "Installation":
        secrets = [settings.secret, settings.previous_secret]
        known = [s.get_secret_value() for s in secrets if s is not None]
        return cls(settings.public_url, known, revoked_urls(settings.revoked_file))

    def owns(self, event: PhoneCallEvent, pbx: str, extension: str) -> bool:
        """Return whether this installation created the event, for this extension.

        Either is proof: a token made with one of our secrets, even if the URL leads to another
        host; or a URL that leads to our receiver, even if the secret was changed since.
        """
        url = _names(event, pbx, extension)
        if url is None:
            return False
        here = self.public_url.rstrip("/").casefold()
        return url.made_with(self.secrets) or url.base.rstrip("/").casefold() == here

    def resembles(self, event: PhoneCallEvent, pbx: str, extension: str) -> bool:
        """Return whether any installation created it, perhaps this one with other settings."""
        return _names(event, pbx, extension) is not None or event.note == note(pbx)


def _names(event: PhoneCallEvent, pbx: str, extension: str) -> CallbackUrl | None:
    url = read_callback_url(event.url or "")
    return url if url is not None and (url.pbx, url.extension) == (pbx, extension) else None


def note(pbx: str) -> str:
    """The note of our phone call events, for people who see them on the PBX."""
    return f"offhook:{pbx}"


@dataclass(frozen=True)
class Wanted:
    """A phone call event as it should be. Its URL is a secret."""

    type: PbxEventType
    url: str = field(repr=False)
    method: EventMethod = EventMethod.POST
    note: str = ""


def wanted(
    installation: Installation, pbx: str, extension: str, settings: ExtensionSettings
) -> list[Wanted]:
    """The phone call events that an extension should have, in the order of their types."""
    secret = installation.secrets[0]
    return [
        Wanted(
            PbxEventType[event_type.name],
            callback_url(
                installation.public_url,
                secret,
                pbx,
                extension,
                event_type.value,
                installation.revoked.version(pbx, extension, event_type.value),
            ),
            EventMethod[settings.method],
            note(pbx),
        )
        for event_type in CALLBACKS
        if event_type in (settings.events or ())
    ]


class Action(StrEnum):
    """What to do with a phone call event, in the order in which it is done.

    Deleting comes last, so that there is no moment without a callback.
    """

    CREATE = "create"
    UPDATE = "update"
    ENABLE = "enable"
    LEAVE = "leave"
    DELETE = "delete"


@dataclass(frozen=True)
class EventChange:
    """What to do with one phone call event.

    Attributes:
        registered: the event on the PBX; None to create it.
        wanted: the event as it should be; None to delete it.
        differs: what to update: `url`, `method`, `status`.
    """

    action: Action
    registered: PhoneCallEvent | None
    wanted: Wanted | None
    differs: tuple[str, ...] = ()

    @property
    def type(self) -> PbxEventType:
        known = self.registered or self.wanted
        assert known is not None  # noqa: S101 - a change is about something
        return known.type


def plan(registered: Iterable[PhoneCallEvent], wanted: Iterable[Wanted]) -> list[EventChange]:
    """Return the changes that turn the registered events into the wanted ones.

    Args:
        registered: our own events on one extension.
        wanted: at most one of each type.
    """
    ours = list(registered)
    changes = []
    for want in wanted:
        same = sorted((e for e in ours if e.type == want.type), key=lambda e: _distance(e, want))
        changes += [_change(same[0] if same else None, want), *map(_delete, same[1:])]
        ours = [event for event in ours if event.type != want.type]
    changes += map(_delete, ours)
    return sorted(changes, key=lambda change: list(Action).index(change.action))


def _change(event: PhoneCallEvent | None, want: Wanted) -> EventChange:
    if event is None:
        return EventChange(Action.CREATE, None, want)
    differs = tuple(_differences(event, want))
    if not differs:
        return EventChange(Action.LEAVE, event, want)
    return EventChange(
        Action.ENABLE if differs == ("status",) else Action.UPDATE, event, want, differs
    )


def _delete(event: PhoneCallEvent) -> EventChange:
    return EventChange(Action.DELETE, event, None)


def _differences(event: PhoneCallEvent, want: Wanted) -> Iterator[str]:
    """The fields that differ, without the note: a person may have edited it."""
    if unquote(event.url or "") != unquote(want.url):  # the PBX may write `*` as `%2A`
        yield "url"
    if event.method != want.method:
        yield "method"
    if event.status != EventStatus.ENABLED:
        yield "status"


def _distance(event: PhoneCallEvent, want: Wanted) -> tuple[bool, int]:
    """Of duplicates, keep the one with the right URL, then the one with the fewest differences."""
    differs = list(_differences(event, want))
    return "url" in differs, len(differs)
