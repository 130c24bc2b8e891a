"""The settings of each extension from `offhook setup`, in Redis.

    offhook:extensions         hash: `PBX/EXTENSION` -> JSON
    offhook:{...}:phones:PBX   set: the phones that the PBX's presence lists
    offhook:{...}:changes      stream: the last changes; `names` -> JSON list of `PBX/EXTENSION`

There may be 100,000 of them. So a process reads those that its events name, when they first do, and
then what has changed.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from offhook.call import Kind
from offhook.event import CALLBACKS, EventType
from offhook.inbox import keys

T = TypeVar("T")

log = logging.getLogger("offhook.extensions")

AT_ONCE = 500  # extensions: a larger step would keep others waiting, here and on the server
CHANGES_KEPT = 200  # each names up to `AT_ONCE` extensions
_CHANGES_AT_ONCE = 8
_BEGINNING = b"0-0"
_MOST_ABSENT = 10_000  # names of extensions that do not exist

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

    @cached_property  # it is asked for each event that is folded
    def has_all_events(self) -> bool:
        """Return whether all event types are registered."""
        return self.events is not None and set(CALLBACKS) <= set(self.events)


UNKNOWN = ExtensionSettings()
_decode = msgspec.json.Decoder(ExtensionSettings).decode


class Extensions:
    """The settings of all extensions, in Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def each(self) -> Iterator[tuple[Name, ExtensionSettings]]:
        """The settings of every extension that was set up, sorted by name; decoded as you go on."""
        return _decoded(sorted((await self._stored()).items()))

    async def all(self) -> dict[Name, ExtensionSettings]:
        """The settings of every extension that was set up, sorted by name."""
        return dict(await self.each())

    async def names(self) -> set[Name]:
        """The extensions that were set up."""
        return {name for field in await self._stored() if (name := _name(field)) is not None}

    async def read(self, names: Sequence[Name]) -> dict[Name, ExtensionSettings]:
        """The settings of those that exist, at most `AT_ONCE`.

        A phone that was not set up, but is listed by its PBX, has `UNKNOWN`.
        """
        fields = [_field(*name) for name in names]
        by_pbx: dict[str, list[Name]] = {}
        for name in names:
            by_pbx.setdefault(name[0], []).append(name)
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hmget(keys.EXTENSIONS, fields)
            for pbx, some in by_pbx.items():
                pipeline.smismember(keys.listed_phones(pbx), [number for _, number in some])
            values, *listed = await pipeline.execute()
        found = {
            name: UNKNOWN
            for some, flags in zip(by_pbx.values(), listed, strict=True)
            for name, flag in zip(some, flags, strict=True)
            if flag
        }
        stored = zip((field.encode() for field in fields), values, strict=True)
        return found | dict(_decoded((field, value) for field, value in stored if value))

    async def change(
        self, put: Mapping[Name, ExtensionSettings], remove: Iterable[Name] = ()
    ) -> None:
        """Store and delete settings, each once. Every process sees it within seconds.

        Many are changed in steps, so that callbacks need not wait for all of them.
        """
        stored = [(_field(*name), msgspec.json.encode(each)) for name, each in put.items()]
        for some in _steps(stored):
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hset(keys.EXTENSIONS, mapping=dict(some))
                _note_change(pipeline, [field for field, _ in some])
                await pipeline.execute()
        for gone in _steps([_field(*name) for name in remove]):
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hdel(keys.EXTENSIONS, *gone)
                _note_change(pipeline, gone)
                await pipeline.execute()

    async def add_phones(self, pbx: str, numbers: Iterable[str]) -> None:
        """Remember phones that a PBX has, whether they are set up or not."""
        key = keys.listed_phones(pbx)
        for some in _steps(sorted({*numbers})):
            known: Any = await self._redis.smismember(key, some)
            new = [number for number, flag in zip(some, known, strict=True) if not flag]
            if new:
                async with self._redis.pipeline(transaction=True) as pipeline:
                    pipeline.sadd(key, *new)
                    _note_change(pipeline, [_field(pbx, number) for number in new])
                    await pipeline.execute()

    async def changes(self, since: bytes) -> tuple[bytes, set[Name] | None]:
        """Some of the changes after a position, the earliest ones.

        Returns:
            The position after them, which is `since` if there are none; and the extensions that
            they concern, or None if it is no longer known which.
        """
        entries: Any = await self._redis.xrange(
            keys.EXTENSION_CHANGES, since, count=_CHANGES_AT_ONCE
        )
        if not entries and since == _BEGINNING:
            return since, set()
        if not entries or entries[0][0] != since:
            return await self.last_change(), None
        names = {
            name
            for _, fields in entries[1:]
            for field in msgspec.json.decode(fields[b"names"], type=list[str])
            if (name := _name(field.encode())) is not None
        }
        return entries[-1][0], names

    async def last_change(self) -> bytes:
        """The position of the last change."""
        entries: Any = await self._redis.xrevrange(keys.EXTENSION_CHANGES, count=1)
        return entries[0][0] if entries else _BEGINNING

    async def _stored(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        cursor = 0
        while True:
            answer: Any = await self._redis.hscan(keys.EXTENSIONS, cursor, count=AT_ONCE)
            cursor, some = answer
            found |= some
            if not cursor:
                return found


class ExtensionsCopy:
    """A copy in memory of the extensions that events have named, for code that cannot wait.

    What `load` has read stays, and `refresh` keeps it up to date.
    """

    def __init__(self, extensions: Extensions) -> None:
        self._extensions = extensions
        self._position: bytes | None = None  # the copy has all changes up to here
        self._known: dict[Name, ExtensionSettings] = {}
        self._absent: dict[Name, None] = {}
        # What is being read may be older than a change that is being followed.
        self._reading = asyncio.Lock()
        self._wanted: set[Name] = set()  # what the next read is for
        self._next_read: asyncio.Task[None] | None = None

    async def load(self, names: Iterable[Name]) -> None:
        """Read the settings of these extensions, unless they are in the copy."""
        if not (missing := self._missing(names)):
            return
        self._wanted.update(missing)
        if self._next_read is None:
            self._next_read = asyncio.create_task(self._read_wanted())
        await asyncio.shield(self._next_read)  # others wait for it, too

    async def _read_wanted(self) -> None:
        async with self._reading:
            self._next_read = None
            wanted, self._wanted = self._missing(self._wanted), set()
            if self._position is None:
                self._position = await self._extensions.last_change()
            for some in _steps(wanted):
                await self._read(some)

    async def refresh(self, changed: Callable[[Set[Name] | None], object]) -> None:
        """Follow the changes.

        Args:
            changed: called with extensions whose settings have changed, as soon as the copy has
                them; also with some that are not in the copy, and with None if it may be any.
        """
        while self._position is not None:
            position, names = await self._extensions.changes(self._position)
            async with self._reading:
                known, absent = self._known, self._absent
                if names is None:
                    mine = [*known, *absent]
                else:
                    mine = [name for name in names if name in known or name in absent]
            for some in _steps(mine):
                async with self._reading:
                    await self._read(some)
                    changed({*some})
            changed(names)
            reached, self._position = self._position, position
            if names is None or position == reached:
                return

    def get(self, pbx: str, extension: str) -> ExtensionSettings:
        """The settings of an extension that was loaded; `UNKNOWN` if it was not set up."""
        return self._known.get((pbx, extension), UNKNOWN)

    def __contains__(self, name: object) -> bool:
        """Return whether an extension that was loaded, by PBX and number, is known to exist."""
        return name in self._known

    def _missing(self, names: Iterable[Name]) -> list[Name]:
        known, absent = self._known, self._absent
        return [name for name in {*names} if name not in known and name not in absent]

    async def _read(self, names: Sequence[Name]) -> None:
        found = await self._extensions.read(names)
        if len(self._absent) + len(names) > _MOST_ABSENT:
            self._absent.clear()
        for name in names:
            self._known.pop(name, None)
            self._absent.pop(name, None)
            if name in found:
                self._known[name] = found[name]
            else:
                self._absent[name] = None


def _steps(items: Sequence[T]) -> Iterator[list[T]]:
    return (list(items[at : at + AT_ONCE]) for at in range(0, len(items), AT_ONCE))


def _note_change(pipeline: Pipeline, fields: Sequence[str]) -> None:
    names: Any = {"names": msgspec.json.encode(fields)}
    pipeline.xadd(keys.EXTENSION_CHANGES, names, maxlen=CHANGES_KEPT, approximate=False)


def _field(pbx: str, extension: str) -> str:
    return f"{pbx}/{extension}"


def _name(field: bytes) -> Name | None:
    """The extension of a field; None for what an earlier version kept beside them."""
    pbx, slash, extension = field.decode().partition("/")
    return (pbx, extension) if slash else None


def _decoded(
    stored: Iterable[tuple[bytes, bytes]],
) -> Iterator[tuple[Name, ExtensionSettings]]:
    for field, value in stored:
        if (name := _name(field)) is None:
            continue
        try:
            yield name, _decode(value)
        except msgspec.MsgspecError as error:
            log.error("the settings of %s on %s cannot be read: %s", name[1], name[0], error)
