"""What the sandbox PBX holds: users, extensions, agents, events, call records, apps, tokens.

All in memory. It starts from a TOML file, or from `EXAMPLE`:

    [[users]]
    id = 12
    organization = "0003"

    [[extensions]]
    number = "0003*210"
    user = 12

    [[apps]]
    id = "example-app"
    secret = "not so secret"
    user = 12
"""

import hmac
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Self
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
from unifiedapi.sandbox.call_records import Record

MAX_RECORDS = 10_000  # hardly more than the API reaches; older ones are forgotten
REFRESH_LIFETIME = 86400.0  # seconds; no document tells


class Level(StrEnum):
    """Which users' extensions an account may manage."""

    ADMINISTRATOR = "administrator"  # everybody's
    ORGANIZATION = "organization"  # those of its organization's users
    USER = "user"  # its own


class Kind(StrEnum):
    """What an extension is."""

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


class Phone(msgspec.Struct, forbid_unknown_fields=True):
    """A phone that an extension is registered on, or was.

    Attributes:
        agent: its name for itself (SIP user agent).
        expire: when the registration ends.
    """

    agent: str
    registration: RegistrationStatus = RegistrationStatus.REGISTERED
    expire: datetime | None = None


class Agent(msgspec.Struct, forbid_unknown_fields=True):
    """An agent of a queue.

    Attributes:
        number: an extension, or a public number for a remote agent.
        identifier: a remote agent's id; empty for a local one.
    """

    number: str
    status: AgentStatus = AgentStatus.LOGGED_OUT
    identifier: str = ""


class Extension(msgspec.Struct, forbid_unknown_fields=True):
    """An extension.

    Attributes:
        number: the extended one, such as 0003*210.
        user: the id of the user who owns it.
        status: what a phone terminal is doing.
        phones: of a phone terminal.
        agents: of a queue.
    """

    number: str
    user: int
    kind: Kind = Kind.PHONE
    status: PresenceStatus = PresenceStatus.ONLINE
    phones: list[Phone] = []
    agents: list[Agent] = []


class App(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An app that is registered to an account.

    Attributes:
        trusted: it may get a token without a person who agrees (client credentials).
        refresh: its tokens come with a refresh token; no document says when VoipNow gives one.
    """

    id: str
    secret: str
    user: int
    trusted: bool = True
    refresh: bool = False


class Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is in the file.

    Attributes:
        tokens: access tokens that never end, each with the id of its user.
        sessions: web sessions that never end, the `vn` cookie of each with the id of its user.
        timezone: of the PBX, such as Europe/Berlin.
    """

    users: list[User]
    extensions: list[Extension] = []
    apps: list[App] = []
    tokens: dict[str, int] = {}
    sessions: dict[str, int] = {}
    timezone: str = "UTC"


class Issued(msgspec.Struct, frozen=True):
    """A new token: the answer of the token endpoint. Lives for `expires_in` seconds."""

    access_token: str
    expires_in: int
    refresh_token: str | None = None


class _Grant(msgspec.Struct, frozen=True):
    subject: str | int  # the app of a refresh token, the user of an access token
    ends_at: float


class Store:
    """The state of a sandbox PBX. Not for several threads.

    Args:
        token_lifetime: seconds; the documents say 1 hour, older revisions of them 2.

    Raises:
        ValueError: two of the same, or an owner who does not exist.
    """

    def __init__(self, contents: Contents, *, token_lifetime: int = 3600) -> None:
        self.users = {user.id: user for user in contents.users}
        self.extensions = {extension.number: extension for extension in contents.extensions}
        self.apps = {app.id: app for app in contents.apps}
        self.token_lifetime = token_lifetime
        self.zone = _zone(contents.timezone)
        self._records: dict[str, Record] = {}
        self._sessions = contents.sessions
        self._events: dict[str, list[PhoneCallEvent]] = {number: [] for number in self.extensions}
        self._tokens = {
            token: _Grant(user, float("inf")) for token, user in contents.tokens.items()
        }
        self._refresh_tokens: dict[str, _Grant] = {}
        _check(contents)

    @classmethod
    def load(cls, path: str | Path, *, token_lifetime: int = 3600) -> Self:
        """Read a file.

        Raises:
            OSError: it cannot be read.
            ValueError: it is wrong; the message names the place.
        """
        contents = msgspec.toml.decode(Path(path).read_bytes(), type=Contents)
        return cls(contents, token_lifetime=token_lifetime)

    @classmethod
    def example(cls, *, token_lifetime: int = 3600) -> Self:
        """A small organization: the one of the documents' examples, and a queue, an IVR, ..."""
        contents = msgspec.toml.decode(EXAMPLE, type=Contents)
        return cls(contents, token_lifetime=token_lifetime)

    # Phone call events

    def events(self, extension: str) -> list[PhoneCallEvent]:
        """The phone call events of an extension, oldest first."""
        return list(self._events[extension])

    def registrations(self, extension: str, type: EventType) -> list[PhoneCallEvent]:  # noqa: A002
        """The callbacks to make when this happens to the extension: url and method of each."""
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
        """Register a callback."""
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
        """Forget these."""
        self._events[extension] = [e for e in self._events[extension] if e.id not in ids]

    # Call records

    def records(self) -> list[Record]:
        """The latest `MAX_RECORDS` calls that are over, in the order in which they ended."""
        return list(self._records.values())

    def add_record(self, record: Record) -> None:
        """Keep a call that is over; a call with the same id (placed from the same seed) goes."""
        self._records.pop(record.id, None)
        self._records[record.id] = record
        if len(self._records) > MAX_RECORDS:
            del self._records[next(iter(self._records))]

    # Tokens and sessions

    def app(self, client_id: str, client_secret: str) -> App | None:
        """The app with this key and secret."""
        app = self.apps.get(client_id)
        secret = app.secret if app else ""
        right = hmac.compare_digest(secret.encode(), client_secret.encode("utf-8", "replace"))
        return app if right else None

    def issue(self, app: App) -> Issued:
        """A token for the app's user. 4PSA's own client refuses tokens with other characters."""
        token = secrets.token_urlsafe(24)
        self._tokens[token] = _Grant(app.user, time.time() + self.token_lifetime)
        refresh_token = None
        if app.refresh:
            refresh_token = secrets.token_urlsafe(24)
            self._refresh_tokens[refresh_token] = _Grant(app.id, time.time() + REFRESH_LIFETIME)
        return Issued(token, self.token_lifetime, refresh_token)

    def use_refresh_token(self, app: App, refresh_token: str) -> bool:
        """Whether it is good for this app; it is not, after that."""
        grant = self._refresh_tokens.get(refresh_token)
        if grant is None or grant.subject != app.id:
            return False
        del self._refresh_tokens[refresh_token]
        return grant.ends_at > time.time()

    def user_of(self, token: str) -> User | None:
        """Whose token this is, if it has not ended."""
        grant = self._tokens.get(token)
        if grant is None or grant.ends_at <= time.time():
            return None
        return self.users[int(grant.subject)]

    def user_of_session(self, cookie: str) -> User | None:
        """Whose web session this is; the cookie's value is as in the header, not decoded."""
        user = self._sessions.get(cookie)
        return None if user is None else self.users[user]

    def revoke_tokens(self) -> None:
        """As when the app's secret is regenerated: no access token is good any more."""
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
    faults += [f"{name}: no user {user}" for name, user in owners.items() if user not in known]
    if faults:
        raise ValueError("; ".join(faults))


def _twice(what: str, names: list[str]) -> Iterator[str]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{what}: {name} is there twice"


def _zone(name: str) -> tzinfo:
    if name == "UTC":  # it needs no database of time zones
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"timezone: there is no {name}") from error


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


# The phone of 0003*210 is that of the sample in List Presence; the session is that of the curl line
# in Presence Service (v5). App, secret and tokens are for trying out, and good nowhere else.
EXAMPLE = """
[[users]]
id = 1
organization = ""
level = "administrator"

[[users]]
id = 3
organization = "0003"
level = "organization"

[[users]]
id = 12
organization = "0003"

[[users]]
id = 13
organization = "0003"

[[users]]
id = 40
organization = "0004"

[[apps]]
id = "sandbox-app"
secret = "sandbox-secret"
user = 3

[tokens]
sandbox-token-administrator = 1
sandbox-token = 3
sandbox-token-user = 12

[sessions]
"XI%2Cm-tpsEWgqBMBCNVpeAnUEaeqCpG7f" = 3

[[extensions]]
number = "0003*210"
user = 12
status = 0
[[extensions.phones]]
agent = "3CXPhone 5.0.14439.0"
registration = -1
expire = 2011-02-10T15:10:55Z

[[extensions]]
number = "0003*211"
user = 12
[[extensions.phones]]
agent = "Yealink SIP-T46S 66.86.0.15"
registration = 1
expire = 2030-01-01T00:00:00Z

[[extensions]]
number = "0003*212"
user = 13
status = 3
[[extensions.phones]]
agent = "snomD785/10.1.198.19"
registration = 1
expire = 2030-01-01T00:00:00Z
[[extensions.phones]]
agent = "Zoiper v2.10.20"
registration = -2

[[extensions]]
number = "0003*213"
user = 13
status = 0

[[extensions]]
number = "0003*400"
user = 3
kind = "queue"
[[extensions.agents]]
number = "0003*210"
status = 1
[[extensions.agents]]
number = "0003*212"
[[extensions.agents]]
number = "+442079460123"
status = 2
identifier = "7"

[[extensions]]
number = "0003*500"
user = 3
kind = "ivr"

[[extensions]]
number = "0003*600"
user = 3
kind = "conference"

[[extensions]]
number = "0003*700"
user = 3
kind = "voicemail"

[[extensions]]
number = "0004*210"
user = 40
"""
