"""The floor: queues and the callers who wait in them, agents, and phones."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from offhook.call import Call, Kind
from offhook.extensions import Name
from offhook.operations.phone_states import phone_states
from offhook_console.parts import ConsoleParts
from offhook_console.people import View

_ORDER = ("ring", "live", "ok", "off")  # of agents, by state


@dataclass(frozen=True)
class Queue:
    """A queue, and the callers who wait in it.

    Attributes:
        longest: seconds that the first of them has waited.
    """

    label: str
    extension: str
    waiting: int
    longest: float


@dataclass(frozen=True)
class Phones:
    """How many phones are registered, and the names of those that are not."""

    known: int
    registered: int
    gone: list[str]


@dataclass(frozen=True)
class FloorAgent:
    """A phone, and what the calls say about it."""

    label: str
    state: str
    icon: str
    word: str


@dataclass(frozen=True)
class Floor:
    """What a person with this view sees of an organization.

    Attributes:
        tenant: whose it is; empty: the operator's.
    """

    parts: ConsoleParts
    tenant: str
    view: View

    def queues(self, ringing: Iterable[Call], moment: datetime) -> list[Queue]:
        """The queues, by name.

        Args:
            ringing: the calls that ring or wait at this moment.
        """
        ringing = list(ringing)
        found = []
        for (pbx, extension), settings in self.parts.feeds[self.tenant].labels.items():
            if settings.kind is not Kind.QUEUE or not self._sees(pbx, extension):
                continue
            began = [
                call.started for call in ringing if call.pbx == pbx and extension in call.extensions
            ]
            longest = (moment - min(began)).total_seconds() if began else 0.0
            found.append(Queue(settings.label or extension, extension, len(began), longest))
        return sorted(found, key=lambda queue: (-queue.longest, queue.label))

    async def phones(self) -> Phones:
        """The phones, as `watch_phones` last saw them."""
        states = await self._registered()
        gone = [
            " ".join(dict.fromkeys([extension, self._label(pbx, extension)]))
            for (pbx, extension), registered in states.items()
            if not registered
        ]
        return Phones(len(states), len(states) - len(gone), gone)

    async def agents(self) -> list[FloorAgent]:
        """The phones that were set up, those with a call first.

        What a phone does is known from its calls; whether it is free, only its PBX knows.
        """
        registered = await self._registered()
        board = self.parts.feeds[self.tenant].board
        busy: dict[Name, tuple[str, str, str]] = {}
        for call in board.lane("ringing", self.view) + board.lane("talking", self.view):
            for leg in call.legs:
                name = call.pbx, leg.extension
                if leg.ended is None and (leg.answered or name not in busy):
                    busy[name] = _doing(
                        answered=leg.answered is not None, out=leg.direction == "out"
                    )
        found = []
        for name, settings in self.parts.feeds[self.tenant].labels.items():
            if settings.kind in (None, Kind.PHONE) and self._sees(*name):
                state = busy.get(name)
                if state is None and not registered.get(name, True):
                    state = ("off", "plug", "phone gone")
                found.append(FloorAgent(self._label(*name), *(state or ("ok", "check", "no call"))))
        return sorted(found, key=lambda agent: (_ORDER.index(agent.state), agent.label))

    async def _registered(self) -> dict[Name, bool]:
        found = {}
        settings = self.parts.settings.of(self.tenant)
        for pbx in settings.pbx or ["main"]:
            for access in {"", self.tenant}:
                states = await phone_states(self.parts.inbox.redis, pbx, access)
                for extension, state in states.items():
                    if self._sees(pbx, extension):
                        found[pbx, extension] = state.registered
        return found

    def _label(self, pbx: str, extension: str) -> str:
        settings = self.parts.feeds[self.tenant].labels.get((pbx, extension))
        return (settings.label if settings else None) or extension

    def _sees(self, pbx: str, extension: str) -> bool:
        """Return whether an extension is the person's own, or one of the organization."""
        own = self.view.own
        mine = self.parts.settings.tenant_of(pbx, extension) == self.tenant
        return mine and (own is None or extension in own)


def _doing(*, answered: bool, out: bool) -> tuple[str, str, str]:
    if out:
        return "live", "out", "calling out"
    return ("live", "talking", "talking") if answered else ("ring", "bell", "ringing")
