"""The contents of the sandbox PBX: users, extensions, agents, events, call records, apps, tokens.

Everything is in memory. The PBX starts from a TOML file such as `example.toml`.
"""

import hmac
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from unifiedapi.resources import (
    AgentStatus,
    EventMethod,
    EventStatus,
    EventType,
    PhoneCallEvent,
    PresenceStatus,
    RegistrationStatus,
)
from unifiedapi.sandbox.call_records import StoredRecord

EXAMPLE = Path(__file__).with_name("example.toml")
MAX_RECORDS = 10_000  # a little more than the API can return
REFRESH_LIFETIME = 86400.0  # seconds; not documented


class Level(StrEnum):
    """The users whose extensions an account may manage."""

    ADMINISTRATOR = "administrator"  # all users
    ORGANIZATION = "organization"  # the users of its organization
    USER = "user"  # itself


class ExtensionKind(StrEnum):
    """The kinds of extensions."""

    PHONE = "phone"
    QUEUE = "queue"
    IVR = "ivr"
    CONFERENCE = "conference"
    VOICEMAIL = "voicemail"


class User(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An account.

    Attributes:
        organization: the part of extension numbers before the `*`, such as 0003.
    """

    id: int
    organization: str
    level: Level = Level.USER


class Device(msgspec.Struct, forbid_unknown_fields=True):
    """A phone that is or was registered to an extension."""

    agent: str  # SIP user agent
    registration: RegistrationStatus = RegistrationStatus.REGISTERED
    expire: datetime | None = None  # when the registration expires


class Agent(msgspec.Struct, forbid_unknown_fields=True):
    """An agent of a queue.

    Attributes:
        number: an extension, or a public number for a remote agent.
        identifier: a remote agent's id; empty for a local agent.
    """

    number: str
    status: AgentStatus = AgentStatus.LOGGED_OUT
    identifier: str = ""


class Extension(msgspec.Struct, forbid_unknown_fields=True):
    """An extension.

    Attributes:
        number: the extended number, such as 0003*210.
        user: the id of the owner.
        status: of a phone terminal, like `phones`.
        agents: of a queue.
    """

    number: str
    user: int
    kind: ExtensionKind = ExtensionKind.PHONE
    status: PresenceStatus = PresenceStatus.ONLINE
    phones: list[Device] = []
    agents: list[Agent] = []


class App(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An app that is registered under an account.

    Attributes:
        trusted: whether it may get a token without a person's consent (client credentials).
        refresh: whether it gets refresh tokens; VoipNow does not document when it issues them.
    """

    id: str
    secret: str
    user: int
    trusted: bool = True
    refresh: bool = False


class Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The TOML file.

    Attributes:
        tokens: access tokens that never expire, with user ids.
        sessions: web sessions that never expire: `vn` cookies with user ids.
        timezone: the PBX's, such as Europe/Berlin.
    """

    users: list[User]
    extensions: list[Extension] = []
    apps: list[App] = []
    tokens: dict[str, int] = {}
    sessions: dict[str, int] = {}
    timezone: str = "UTC"


class IssuedToken(msgspec.Struct, frozen=True, omit_defaults=True):
    """The response of the token endpoint."""

    access_token: str
    expires_in: int  # seconds
    token_type: Literal["Bearer"]
    refresh_token: str | None = None


class OrderedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that was ordered through the API.

    Attributes:
        id: of the PhoneCall; the `CallAPIID` of its callbacks.
        source, destination: who rings first, and then.
        published: when it was ordered.
    """

    id: str
    source: str
    destination: str
    published: datetime


class _Grant(msgspec.Struct, frozen=True):
    subject: str | int  # the app of a refresh token, the user of an access token
    expires_at: float


class Store:
    """The state of a sandbox PBX. Not thread-safe.

    Args:
        token_lifetime: seconds; the documents say 1 hour, older revisions 2.
        max_records: number of call records to keep.

    Raises:
        ValueError: the contents have duplicates, or an owner who does not exist.
    """

    def __init__(
        self, contents: Contents, *, token_lifetime: int = 3600, max_records: int = MAX_RECORDS
    ) -> None:
        self.users = {user.id: user for user in contents.users}
        self.extensions = {extension.number: extension for extension in contents.extensions}
        self.apps = {app.id: app for app in contents.apps}
        self.token_lifetime = token_lifetime
        self.zone = _zone(contents.timezone)
        self._records: dict[str, StoredRecord] = {}
        self._max_records = max_records
        self._sessions = contents.sessions
        self.placing: Callable[[OrderedCall], None] = lambda ordered: None
        self._events: dict[str, list[PhoneCallEvent]] = {number: [] for number in self.extensions}
        self._tokens = {
            token: _Grant(user, float("inf")) for token, user in contents.tokens.items()
        }
        self._refresh_tokens: dict[str, _Grant] = {}
        _check(contents)

    @classmethod
    def load(cls, path: str | Path, *, token_lifetime: int = 3600) -> Self:
        """Read a TOML file.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is not valid; the message says where.
        """
        contents = msgspec.toml.decode(Path(path).read_bytes(), type=Contents)
        return cls(contents, token_lifetime=token_lifetime)

    @classmethod
    def example(cls, *, token_lifetime: int = 3600) -> Self:
        """Return a small organization with phones, a queue and an IVR."""
        return cls.load(EXAMPLE, token_lifetime=token_lifetime)

    def numbers(self, *kinds: ExtensionKind) -> list[str]:
        """Return the numbers of the extensions of these kinds."""
        return [number for number, found in self.extensions.items() if found.kind in kinds]

    # Phone call events

    def events(self, extension: str) -> list[PhoneCallEvent]:
        """Return the phone call events of an extension, oldest first."""
        return list(self._events[extension])

    def registrations(self, extension: str, type: EventType) -> list[PhoneCallEvent]:  # noqa: A002
        """Return the enabled phone call events of this type."""
        return [
            event
            for event in self._events.get(extension, [])
            if event.type == type and event.status == EventStatus.ENABLED
        ]

    def add_event(
        self,
        extension: str,
        *,
        type: EventType,  # noqa: A002 - the API's word
        method: EventMethod,
        url: str,
        status: EventStatus = EventStatus.ENABLED,
        note: str = "",
    ) -> PhoneCallEvent:
        event = PhoneCallEvent(
            type=type,
            id=secrets.token_hex(8),
            method=method,
            url=url,
            status=status,
            note=note,
            modified=_now(),
        )
        self._events[extension].append(event)
        return event

    def put_event(self, extension: str, event: PhoneCallEvent) -> PhoneCallEvent:
        """Replace the event with the same id."""
        events = self._events[extension]
        place = [known.id for known in events].index(event.id)
        events[place] = msgspec.structs.replace(event, modified=_now())
        return events[place]

    def remove_events(self, extension: str, ids: set[str]) -> None:
        self._events[extension] = [e for e in self._events[extension] if e.id not in ids]

    # Calls

    def order(self, source: str, destination: str) -> OrderedCall:
        """Order a call. It is placed if `placing` has been set; else it rings nowhere."""
        ordered = OrderedCall(
            id=secrets.token_hex(16), source=source, destination=destination, published=_now()
        )
        self.placing(ordered)
        return ordered

    # Call records

    def records(self) -> list[StoredRecord]:
        """Return the latest calls, in the order in which they ended."""
        return list(self._records.values())

    def add_record(self, record: StoredRecord) -> None:
        """Add a call that ended. It replaces one with the same id (placed from the same seed)."""
        self._records.pop(record.id, None)
        self._records[record.id] = record
        if len(self._records) > self._max_records:
            del self._records[next(iter(self._records))]

    # Tokens and sessions

    def app(self, client_id: str, client_secret: str) -> App | None:
        """Return the app with this key and secret, or None."""
        app = self.apps.get(client_id)
        secret = app.secret if app else ""
        right = hmac.compare_digest(secret.encode(), client_secret.encode("utf-8", "replace"))
        return app if right else None

    def issue(self, app: App) -> IssuedToken:
        """Issue a token for the app's user."""
        token = secrets.token_urlsafe(24)  # 4PSA's own client refuses other characters
        self._tokens[token] = _Grant(app.user, time.time() + self.token_lifetime)
        refresh_token = None
        if app.refresh:
            refresh_token = secrets.token_urlsafe(24)
            self._refresh_tokens[refresh_token] = _Grant(app.id, time.time() + REFRESH_LIFETIME)
        return IssuedToken(token, self.token_lifetime, "Bearer", refresh_token)

    def use_refresh_token(self, app: App, refresh_token: str) -> bool:
        """Return whether the token is valid for this app, and invalidate it."""
        grant = self._refresh_tokens.get(refresh_token)
        if grant is None or grant.subject != app.id:
            return False
        del self._refresh_tokens[refresh_token]
        return grant.expires_at > time.time()

    def user_of(self, token: str) -> User | None:
        """Return the user of a token that has not expired, or None."""
        grant = self._tokens.get(token)
        if grant is None or grant.expires_at <= time.time():
            return None
        return self.users[int(grant.subject)]

    def user_of_session(self, cookie: str) -> User | None:
        """Return the user of a web session, or None. The cookie is not decoded."""
        user = self._sessions.get(cookie)
        return None if user is None else self.users[user]

    def revoke_tokens(self) -> None:
        """Invalidate all access tokens, as when an app's secret is regenerated."""
        self._tokens.clear()


def _check(contents: Contents) -> None:
    faults = [
        *_twice("users", [str(user.id) for user in contents.users]),
        *_twice("extensions", [extension.number for extension in contents.extensions]),
        *_twice("apps", [app.id for app in contents.apps]),
    ]
    known = {user.id for user in contents.users}
    owners = {
        **{f"extension {extension.number}": extension.user for extension in contents.extensions},
        **{f"app {app.id}": app.user for app in contents.apps},
        **{f"token {n}": user for n, user in enumerate(contents.tokens.values(), 1)},
        **{f"session {n}": user for n, user in enumerate(contents.sessions.values(), 1)},
    }
    faults += [
        f"{name}: there is no user {user}" for name, user in owners.items() if user not in known
    ]
    if faults:
        raise ValueError("; ".join(faults))


def _twice(what: str, names: list[str]) -> Iterator[str]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{what}: {name} occurs twice"


def _zone(name: str) -> tzinfo:
    if name == "UTC":  # works without a time zone database
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"timezone: {name} is not a known time zone") from error


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
