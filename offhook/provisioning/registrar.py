"""`Registrar`: reads and changes the phone call events of many extensions of one PBX."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from offhook.call import Kind
from offhook.errors import ConfigError
from offhook.extensions import ExtensionSettings, Name
from offhook.provisioning.api import open_api, sentence
from offhook.provisioning.plan import (
    Action,
    EventChange,
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

AT_ONCE = 20  # extensions; leaves the PBX room to connect calls

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Target:
    """An extension, and how it should be set up.

    Attributes:
        settings: None to remove all our events. A missing kind is looked up on the PBX, and
            stays missing if the PBX does not say it.
        user: the user whose extension it is, for the API.
    """

    extension: str
    settings: ExtensionSettings | None
    user: str

    @classmethod
    def of(cls, settings: Settings, name: Name, its: ExtensionSettings) -> "Target":
        """An extension with its settings; its user, if it has none, is the one of its PBX."""
        pbx, number = name
        return cls(number, its, its.user or settings.pbx[pbx].user)


@dataclass(frozen=True)
class Survey:
    """The phone call events of one extension, and what to change.

    Attributes:
        target: with the kind, if the PBX says it, and the events in its settings.
        others: number of phone call events that are not ours.
        strays: hosts of those among them that another installation of Offhook created.
    """

    target: Target
    changes: tuple[EventChange, ...]
    others: int = 0
    strays: tuple[str, ...] = ()

    @property
    def is_right(self) -> bool:
        """Return whether nothing has to change on the PBX."""
        return all(change.action is Action.LEAVE for change in self.changes)

    @property
    def has_unknown_kind(self) -> bool:
        """Return whether the PBX was asked for the kind and did not say it."""
        settings = self.target.settings
        return settings is not None and settings.kind is None


@dataclass
class SetupOutcome:
    """What was done on one extension.

    Attributes:
        error: why it stopped early, as a sentence.
    """

    extension: str
    done: Counter[Action] = field(default_factory=Counter)
    error: str | None = None


@dataclass(frozen=True)
class Failed(Generic[T]):
    """An item that failed, and why, as a sentence."""

    item: T
    error: str


class Registrar:
    """The phone call events of one PBX.

    Args:
        pbx: its name in the configuration.
        at_once: maximum number of extensions at the same time.
        adopt: treat events that another installation of Offhook created as our own.
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
        """The phone terminals of a user."""
        return [presence.extension async for presence in self._api.presence.list(user=user)]

    async def survey(
        self, targets: Sequence[Target], done: Callable[[], object] = lambda: None
    ) -> list[Survey | Failed[Target]]:
        """Read the events of each extension and plan changes, without making any.

        Args:
            done: called after each extension.
        """
        return await self._each(targets, self._survey, done)

    async def carry_out(
        self, surveys: Sequence[Survey], done: Callable[[], object] = lambda: None
    ) -> list[SetupOutcome]:
        """Make the changes of each extension, in order, until one fails."""
        outcomes = [SetupOutcome(each.target.extension) for each in surveys]
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
        want: list[Wanted] = []
        if target.settings is not None:
            want = wanted(self._installation, self.pbx, target.extension, target.settings)
        return Survey(target, tuple(plan(ours, want)), others, tuple(strays))

    async def _completed(self, target: Target, settings: ExtensionSettings) -> ExtensionSettings:
        """The settings with the kind and the events filled in."""
        kind = settings.kind or await self._kind(target)
        events = usual_events(kind) if settings.events is None else settings.events
        return replace(settings, kind=kind, events=events)

    async def _kind(self, target: Target) -> Kind | None:
        """Ask the PBX: Presence knows only phones, QueueAgents only queues.

        None for the rest: the API does not tell a conference from an IVR.
        """
        number, user = target.extension, target.user
        if await _is_one(self._api.presence.list(number, user=user)):
            return Kind.PHONE
        if await _is_one(self._api.queue_agents.list(number, user=user)):
            return Kind.QUEUE
        return None

    async def _carry_out(self, survey: Survey, outcome: SetupOutcome) -> None:
        for change in survey.changes:
            await self._do(change, survey.target)
            outcome.done[change.action] += 1

    async def _do(self, change: EventChange, target: Target) -> None:
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
        """Do the work for each item, several at a time. A failure does not stop the others.

        Gives up if the PBX refuses us altogether, or has not answered any of the last requests.
        """
        results: list[R | Failed[T]] = [Failed(item, "") for item in items]
        waiting = iter(enumerate(items))
        hopeless = ""
        unanswered = 0

        async def work_on_items() -> None:
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
                group.create_task(work_on_items())
        return results


class ByHand:
    """The registrar of a PBX whose API Offhook cannot use: people register its events.

    The settings of its extensions are stored all the same.
    """

    def __init__(self, pbx: str) -> None:
        self.pbx = pbx

    async def phones(self, user: str) -> list[str]:
        """Raise `ConfigError`: the phones are known only to the API."""
        raise ConfigError(
            f"--all: there is no access to the API of the PBX {self.pbx}: name the phones"
        )

    async def survey(
        self, targets: Sequence[Target], done: Callable[[], object] = lambda: None
    ) -> list[Survey | Failed[Target]]:
        """Plan no changes."""
        return [Survey(target, ()) for target in targets]

    async def carry_out(
        self, surveys: Sequence[Survey], done: Callable[[], object] = lambda: None
    ) -> list[SetupOutcome]:
        """Change nothing."""
        return [SetupOutcome(each.target.extension) for each in surveys]


@asynccontextmanager
async def registrar(
    settings: Settings, pbx: str, *, at_once: int = AT_ONCE, adopt: bool = False
) -> AsyncIterator[Registrar | ByHand]:
    """Open the registrar of a configured PBX, and close its connections at the end.

    Raises:
        ConfigError: the PBX's settings are wrong.
    """
    if settings.pbx[pbx].host is None:
        yield ByHand(pbx)
        return
    async with open_api(settings, pbx) as api:
        yield Registrar(api, Installation.of(settings), pbx, at_once=at_once, adopt=adopt)


async def _is_one(listing: AsyncIterable[object]) -> bool:
    """Return whether the PBX lists the extension, and does not refuse it as one of another kind."""
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


def _without_tokens(text: str, changes: Iterable[EventChange]) -> str:
    """Hide tokens: a PBX may quote the URL that it refuses."""
    for change in changes:
        if change.wanted is not None:
            text = text.replace(change.wanted.url.rpartition("/")[2], "***")
    return text
