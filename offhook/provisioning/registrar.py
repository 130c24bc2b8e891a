"""`Registrar`: reads and changes the phone call events of many extensions of one PBX, at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from offhook.call import Kind
from offhook.errors import ConfigError
from offhook.extensions import ExtensionSettings
from offhook.provisioning.api import open_api, sentence
from offhook.provisioning.plan import (
    Action,
    Change,
    Installation,
    Wanted,
    plan,
    usual_events,
    wanted,
)
from offhook.settings import Settings
from unifiedapi.client import UnifiedApi
from unifiedapi.errors import (
    ExtensionInvalid,
    NoAnswer,
    NotTrusted,
    OAuthError,
    UnifiedApiError,
)
from unifiedapi.resources import EventStatus

AT_ONCE = 20  # extensions; the PBX has calls to connect meanwhile

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Target:
    """An extension, and how it should be.

    Attributes:
        settings: None: nothing of ours shall be left. A kind that they do not say is found out.
        user: as whose extension the API knows it.
    """

    extension: str
    settings: ExtensionSettings | None
    user: str


@dataclass(frozen=True)
class Survey:
    """What there is on one extension, and what to do about it.

    Attributes:
        target: its settings now say which kind and which events.
        others: phone call events that are not ours.
        strays: the hosts of those among them that some installation of Offhook made.
    """

    target: Target
    changes: tuple[Change, ...]
    others: int = 0
    strays: tuple[str, ...] = ()

    @property
    def is_right(self) -> bool:
        """Is there nothing to do on the PBX?"""
        return all(change.action is Action.LEAVE for change in self.changes)


@dataclass
class Outcome:
    """What was done on one extension.

    Attributes:
        error: why it ended early, as a sentence.
    """

    extension: str
    done: Counter[Action] = field(default_factory=Counter)
    error: str | None = None


@dataclass(frozen=True)
class Failed(Generic[T]):
    """What could not be done, and why, as a sentence."""

    item: T
    error: str


class Registrar:
    """The phone call events of one PBX.

    Args:
        pbx: its name in the configuration.
        at_once: how many extensions to work on at the same time.
        adopt: treat those that another installation of Offhook made as our own.
    """

    def __init__(
        self,
        api: UnifiedApi,
        installation: Installation,
        pbx: str,
        *,
        at_once: int = AT_ONCE,
        adopt: bool = False,
    ) -> None:
        self.pbx = pbx
        self._api = api
        self._installation = installation
        self._at_once = at_once
        self._adopt = adopt

    async def phones(self, user: str) -> list[str]:
        """All phone terminals that a user has."""
        return [presence.extension async for presence in self._api.presence.list(user=user)]

    async def survey(
        self, targets: Sequence[Target], done: Callable[[], object] = lambda: None
    ) -> list[Survey | Failed[Target]]:
        """Read what there is on each extension and plan its changes; changes nothing.

        Args:
            done: called after each extension.
        """
        return await self._each(targets, self._survey, done)

    async def carry_out(
        self, surveys: Sequence[Survey], done: Callable[[], object] = lambda: None
    ) -> list[Outcome]:
        """Make the changes of each extension, one after the other until one fails."""
        outcomes = [Outcome(each.target.extension) for each in surveys]
        pairs = list(zip(surveys, outcomes, strict=True))
        for result in await self._each(pairs, lambda pair: self._carry_out(*pair), done):
            if isinstance(result, Failed):
                survey, outcome = result.item
                outcome.error = _without_tokens(result.error, survey.changes)
        return outcomes

    async def _survey(self, target: Target) -> Survey:
        if target.settings is not None:
            target = replace(target, settings=await self._completed(target, target.settings))
        found = self._api.phone_call_events.list(target.extension, user=target.user)
        ours, others, strays = [], 0, set()
        async for event in found:
            mine = self._installation.owns(event, self.pbx, target.extension)
            alike = not mine and self._installation.resembles(event, self.pbx, target.extension)
            if mine or (alike and self._adopt):
                ours.append(event)
                continue
            others += 1
            if alike:
                strays.add(_host(event.url))
        return Survey(target, tuple(plan(ours, self._wanted(target))), others, tuple(strays))

    def _wanted(self, target: Target) -> list[Wanted]:
        if target.settings is None:
            return []
        return wanted(self._installation, self.pbx, target.extension, target.settings)

    async def _completed(self, target: Target, settings: ExtensionSettings) -> ExtensionSettings:
        """The settings with the kind and the events that nobody has said."""
        kind = settings.kind or await self._kind(target)
        events = usual_events(kind) if settings.events is None else settings.events
        return replace(settings, kind=kind, events=events)

    async def _kind(self, target: Target) -> Kind:
        """Presence knows phones and nothing else, QueueAgents queues; the rest is taken for an IVR.

        (Nothing in the API tells a conference from it.)
        """
        number, user = target.extension, target.user
        if await _is_one(self._api.presence.list(number, user=user)):
            return Kind.PHONE
        if await _is_one(self._api.queue_agents.list(number, user=user)):
            return Kind.QUEUE
        return Kind.IVR

    async def _carry_out(self, survey: Survey, outcome: Outcome) -> None:
        for change in survey.changes:
            await self._do(change, survey.target)
            outcome.done[change.action] += 1

    async def _do(self, change: Change, target: Target) -> None:
        events, number, user = self._api.phone_call_events, target.extension, target.user
        there, want = change.registered, change.wanted
        if there is None and want is not None:
            await events.create(
                number, type=want.type, url=want.url, method=want.method, note=want.note, user=user
            )
        elif there is not None and want is None:
            await events.delete(number, there.type, there.id, user=user)
        elif there is not None and want is not None and change.differs:
            await events.update(
                number,
                there.type,
                there.id,
                url=want.url if "url" in change.differs else None,
                method=want.method if "method" in change.differs else None,
                status=EventStatus.ENABLED if "status" in change.differs else None,
                user=user,
            )

    async def _each(
        self,
        items: Sequence[T],
        work: Callable[[T], Awaitable[R]],
        done: Callable[[], object],
    ) -> list[R | Failed[T]]:
        """Do the work for each, several at once. One that fails stops no other.

        Unless it is hopeless: the PBX lets us in for none, or has answered none of the last ones.
        """
        results: list[R | Failed[T]] = [Failed(item, "") for item in items]
        waiting = iter(enumerate(items))
        hopeless = ""
        unanswered = 0

        async def one_after_the_other() -> None:
            nonlocal hopeless, unanswered
            for number, item in waiting:
                if hopeless:
                    results[number] = Failed(item, hopeless)
                    continue
                try:
                    results[number] = await work(item)
                    unanswered = 0
                except (UnifiedApiError, ConfigError) as error:
                    results[number] = Failed(item, sentence(error))
                    unanswered = unanswered + 1 if isinstance(error, NoAnswer) else 0
                    if isinstance(error, OAuthError | NotTrusted) or unanswered >= self._at_once:
                        hopeless = f"not tried: {sentence(error)}"
                done()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._at_once, len(items))):
                group.create_task(one_after_the_other())
        return results


class ByHand:
    """Stands in for the registrar of a PBX whose API is not spoken: there people register.

    What is said of its extensions is kept all the same.
    """

    def __init__(self, pbx: str) -> None:
        self.pbx = pbx

    async def phones(self, user: str) -> list[str]:
        """Raises `ConfigError`: only the API would tell."""
        raise ConfigError(f"--all: Offhook does not speak the API of {self.pbx}: name the phones")

    async def survey(
        self, targets: Sequence[Target], done: Callable[[], object] = lambda: None
    ) -> list[Survey | Failed[Target]]:
        """There is nothing to do on the PBX."""
        return [Survey(target, ()) for target in targets]

    async def carry_out(
        self, surveys: Sequence[Survey], done: Callable[[], object] = lambda: None
    ) -> list[Outcome]:
        """And nothing is done."""
        return [Outcome(each.target.extension) for each in surveys]


@asynccontextmanager
async def registrar(
    settings: Settings, pbx: str, *, at_once: int = AT_ONCE, adopt: bool = False
) -> AsyncIterator[Registrar | ByHand]:
    """The registrar of a configured PBX; its connections are closed in the end.

    Raises:
        ConfigError: its settings cannot be used.
    """
    if settings.pbx[pbx].host is None:
        yield ByHand(pbx)
        return
    async with open_api(settings, pbx) as api:
        yield Registrar(api, Installation.of(settings), pbx, at_once=at_once, adopt=adopt)


async def _is_one(listing: AsyncIterable[object]) -> bool:
    """Does the PBX list it, be it empty, or refuse the extension as one of another kind?"""
    try:
        async for _ in listing:
            break
    except ExtensionInvalid:
        return False
    return True


def _host(url: str | None) -> str:
    try:
        return urlsplit(url or "").hostname or "?"
    except ValueError:
        return "?"


def _without_tokens(text: str, changes: Iterable[Change]) -> str:
    """A PBX may quote the URL that it refuses."""
    for change in changes:
        if change.wanted is not None:
            text = text.replace(change.wanted.url.rpartition("/")[2], "***")
    return text
