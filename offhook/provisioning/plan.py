"""What `offhook setup` does to the phone call events of an extension, decided but not done.

Pure: what is registered and what should be go in, changes come out.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import unquote

from offhook.call import Kind
from offhook.callback_url import CallbackUrl, callback_url, read_callback_url
from offhook.event import CALLBACKS, EventType
from offhook.extensions import ExtensionSettings
from offhook.settings import Settings
from unifiedapi.resources import EventMethod, EventStatus, PhoneCallEvent
from unifiedapi.resources import EventType as PbxEventType


def usual_events(kind: Kind) -> tuple[EventType, ...]:
    """What is worth knowing of such an extension.

    All of a phone. Of the others when a call came and when it left: who answered, the phones
    behind them tell.
    """
    return CALLBACKS if kind is Kind.PHONE else (EventType.DIAL_IN, EventType.HANGUP)


@dataclass(frozen=True)
class Installation:
    """This installation of Offhook: what its callback URLs are made of, and known by.

    Attributes:
        secrets: the present one first.
    """

    public_url: str
    secrets: Sequence[str] = field(repr=False)

    @classmethod
    def of(cls, settings: Settings) -> "Installation":
        """The one that is configured so."""
        secrets = [settings.secret, settings.previous_secret]
        return cls(settings.public_url, [s.get_secret_value() for s in secrets if s is not None])

    def owns(self, event: PhoneCallEvent, pbx: str, extension: str) -> bool:
        """Did this installation make it, for this extension?

        A token of one of our secrets proves it, wherever the URL leads (the host has changed), and
        so does the way to our receiver, whatever the token is (the secret has changed).
        """
        url = _names(event, pbx, extension)
        return url is not None and (url.made_with(self.secrets) or self._is_here(url.base))

    def resembles(self, event: PhoneCallEvent, pbx: str, extension: str) -> bool:
        """Did some installation make it, perhaps this one before secret and host changed?"""
        return _names(event, pbx, extension) is not None or event.note == note(pbx)

    def _is_here(self, base: str) -> bool:
        return base.rstrip("/").casefold() == self.public_url.rstrip("/").casefold()


def _names(event: PhoneCallEvent, pbx: str, extension: str) -> CallbackUrl | None:
    url = read_callback_url(event.url or "")
    return url if url is not None and (url.pbx, url.extension) == (pbx, extension) else None


def note(pbx: str) -> str:
    """The note of our phone call events: tells people on the PBX whose they are."""
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
            callback_url(installation.public_url, secret, pbx, extension, event_type.value),
            EventMethod[settings.method],
            note(pbx),
        )
        for event_type in CALLBACKS
        if event_type in (settings.events or ())
    ]


class Action(StrEnum):
    """What is done with a phone call event, in the order in which it is done.

    Deleting comes last, so that there is no moment in which an event is not called back.
    """

    CREATE = "create"
    UPDATE = "update"
    ENABLE = "enable"
    LEAVE = "leave"
    DELETE = "delete"


@dataclass(frozen=True)
class Change:
    """What to do with one phone call event.

    Attributes:
        registered: what there is; None: it is to be created.
        wanted: what there should be; None: it is to be deleted.
        differs: what an update is about: `url`, `method`, `status`.
    """

    action: Action
    registered: PhoneCallEvent | None
    wanted: Wanted | None
    differs: tuple[str, ...] = ()

    @property
    def type(self) -> PbxEventType:
        """The type of the phone call event."""
        known = self.registered or self.wanted
        assert known is not None  # noqa: S101 - a change is about something
        return known.type


def plan(registered: Iterable[PhoneCallEvent], wanted: Iterable[Wanted]) -> list[Change]:
    """What makes the first into the second.

    Args:
        registered: those of our own on one extension, and nobody else's.
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


def _change(event: PhoneCallEvent | None, want: Wanted) -> Change:
    if event is None:
        return Change(Action.CREATE, None, want)
    differs = tuple(_differences(event, want))
    if not differs:
        return Change(Action.LEAVE, event, want)
    return Change(Action.ENABLE if differs == ("status",) else Action.UPDATE, event, want, differs)


def _delete(event: PhoneCallEvent) -> Change:
    return Change(Action.DELETE, event, None)


def _differences(event: PhoneCallEvent, want: Wanted) -> Iterator[str]:
    """The note is not among them: what a person wrote there stays."""
    if unquote(event.url or "") != unquote(want.url):  # the PBX may write `*` as `%2A`
        yield "url"
    if event.method != want.method:
        yield "method"
    if event.status != EventStatus.ENABLED:
        yield "status"


def _distance(event: PhoneCallEvent, want: Wanted) -> tuple[bool, int]:
    """Of doubles, the one that has the right URL stays, and of these the one nearest to right."""
    differs = list(_differences(event, want))
    return "url" in differs, len(differs)
