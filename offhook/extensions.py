"""The settings of each extension from `offhook setup`, in Redis.

    offhook:extensions   hash: `PBX/EXTENSION` -> JSON; `version` -> number of changes;
                         `phones PBX` -> JSON list of the phones that the PBX's presence lists

One key, so that a copy is read together with its version.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.asyncio import Redis

from offhook.call import Kind
from offhook.event import CALLBACKS, EventType
from offhook.inbox.keys import EXTENSIONS

log = logging.getLogger("offhook.extensions")

_VERSION = b"version"  # a field without a `/`, as `phones PBX` is: no extension has this name
_PHONES = "phones "

Name = tuple[str, str]  # PBX and extension


@dataclass(frozen=True)
class ExtensionSettings:
    """The settings of one extension.

    Attributes:
        label: a name for people, such as `Front desk`.
        owner: the user in the CRM, or another target, to whom its calls belong.
        handlers: the handlers that get its events; None: all.
        events: the event types that are registered on the PBX; None: it was never set up.
        method: the HTTP method of its callbacks, `GET` or `POST`.
        kind: None if unknown.
        user: the owner of the extension in the PBX's API; None: from the PBX's settings.
    """

    label: str | None = None
    owner: str | None = None
    handlers: tuple[str, ...] | None = None
    events: tuple[EventType, ...] | None = None
    method: str = "POST"
    kind: Kind | None = None
    user: str | None = None

    @property
    def has_all_events(self) -> bool:
        """Return whether all event types are registered."""
        return self.events is not None and set(CALLBACKS) <= set(self.events)


UNKNOWN = ExtensionSettings()
_decode = msgspec.json.Decoder(ExtensionSettings).decode


class Extensions:
    """The settings of all extensions, in Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def all(self) -> dict[Name, ExtensionSettings]:
        """The settings of every extension that was set up, sorted by name."""
        return _read(await self._redis.hgetall(EXTENSIONS))

    async def get(self, pbx: str, extension: str) -> ExtensionSettings:
        """The settings of one extension; `UNKNOWN` if it was not set up."""
        field = _field(pbx, extension)
        stored = await self._redis.hget(EXTENSIONS, field)
        found = _read({field.encode(): stored} if stored else {})
        return found.get((pbx, extension), UNKNOWN)

    async def change(
        self, put: Mapping[Name, ExtensionSettings], remove: Iterable[Name] = ()
    ) -> None:
        """Store and delete settings atomically. Every process sees it within seconds."""
        gone = [_field(*name) for name in remove]
        if not put and not gone:
            return
        async with self._redis.pipeline(transaction=True) as pipeline:
            for name, settings in put.items():
                pipeline.hset(EXTENSIONS, _field(*name), msgspec.json.encode(settings))
            if gone:
                pipeline.hdel(EXTENSIONS, *gone)
            pipeline.hincrby(EXTENSIONS, _VERSION.decode(), 1)
            await pipeline.execute()

    async def add_phones(self, pbx: str, numbers: Iterable[str]) -> None:
        """Remember phones that a PBX has, whether they are set up or not."""
        known = {number for name, number in await self.phones() if name == pbx}
        if known.issuperset(numbers := set(numbers)):
            return
        listed = msgspec.json.encode(sorted(known | numbers))
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(EXTENSIONS, _PHONES + pbx, listed)
            pipeline.hincrby(EXTENSIONS, _VERSION.decode(), 1)
            await pipeline.execute()

    async def phones(self) -> set[Name]:
        """The phones that the PBXs have listed."""
        stored: Any = await self._redis.hgetall(EXTENSIONS)
        return {
            (field.decode().removeprefix(_PHONES), number)
            for field, value in stored.items()
            if field.startswith(_PHONES.encode()) and b"/" not in field
            for number in msgspec.json.decode(value, type=list[str])
        }

    async def version(self) -> bytes | None:
        """A value that differs after every change."""
        version: Any = await self._redis.hget(EXTENSIONS, _VERSION.decode())
        return None if version is None else bytes(version)


class ExtensionsCopy:
    """A copy in memory, for code that needs the settings for every event."""

    def __init__(self, extensions: Extensions) -> None:
        self._extensions = extensions
        self._version: bytes | None = None
        self._copy: dict[Name, ExtensionSettings] = {}
        self._phones: set[Name] = set()

    async def refresh(self) -> bool:
        """Read the settings again if they have changed. Return whether they have."""
        version = await self._extensions.version()
        if version == self._version:
            return False
        # A change after the version was read is read again next time.
        self._copy = await self._extensions.all()
        self._phones = await self._extensions.phones()
        self._version = version
        return True

    def get(self, pbx: str, extension: str) -> ExtensionSettings:
        """The settings of one extension; `UNKNOWN` if it was not set up."""
        return self._copy.get((pbx, extension), UNKNOWN)

    def __contains__(self, name: object) -> bool:
        """Return whether an extension, named by PBX and number, is known to exist."""
        return name in self._copy or name in self._phones


def _field(pbx: str, extension: str) -> str:
    return f"{pbx}/{extension}"


def _read(stored: Any) -> dict[Name, ExtensionSettings]:
    found = {}
    for field, value in sorted(stored.items()):
        pbx, slash, extension = field.decode().partition("/")
        if not slash:
            continue
        try:
            found[pbx, extension] = _decode(value)
        except msgspec.MsgspecError as error:
            log.error("the settings of %s on %s cannot be read: %s", extension, pbx, error)
    return found
