"""The floor: queues and the callers who wait in them, agents, and phones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from offhook.call import Call, Kind
from offhook.extensions import ExtensionSettings, Name
from offhook.operations.phone_states import phone_states
from offhook_console.languages import N_, gettext
from offhook_console.parts import ConsoleParts
from offhook_console.people import View
from offhook_console.wording import shown_number
from unifiedapi.resources import AgentStatus, QueueAgent

_ORDER = ("ring", "live", "ok", "hold", "off")  # of agents, by state
_Doing = tuple[str, str, str]  # state, icon, and word: a message
_STATES: Mapping[AgentStatus | None, _Doing] = {
    AgentStatus.ONLINE: ("ok", "check", N_("free")),
    AgentStatus.PAUSED: ("hold", "pause", N_("paused")),
    AgentStatus.LOGGED_OUT: ("off", "dash", N_("logged out")),
}


@dataclass(frozen=True)
class FloorAgent:
    """A phone, and what the calls or the PBX say about it."""

    label: str
    state: str
    icon: str
    word: str


@dataclass(frozen=True)
class Queue:
    """A queue, and the callers who wait in it.

    Attributes:
        longest: seconds that the first of them has waited.
        agents: who serves it, as the PBX says; none if it does not.
    """

    label: str
    extension: str
    waiting: int
    longest: float
    agents: Sequence[FloorAgent] = ()


@dataclass(frozen=True)
class Phones:
    """How many phones are registered, and the names of those that are not."""

    known: int
    registered: int
    gone: list[str]


@dataclass(frozen=True)
class Floor:
    """What a person with this view sees of an organization.

    Attributes:
        tenant: whose it is; empty: the operator's.
    """

    parts: ConsoleParts
    tenant: str
    view: View

    def queues(
        self, ringing: Iterable[Call], moment: datetime, *, past: bool = False
    ) -> list[Queue]:
        """The queues, those with the longest wait first.

        Args:
            ringing: the calls that ring or wait at this moment.
            past: whether it is a moment of the past; then nothing is known of agents.
        """
        ringing = list(ringing)
        queues = {
            name: settings
            for name, settings in self.parts.feeds[self.tenant].labels.items()
            if settings.kind is Kind.QUEUE and self._is_mine(*name)
        }
        # All of them, whatever this person sees: what is known is shared by all who look.
        agents = {} if past else self._queue_agents(queues)
        found = []
        for (pbx, extension), settings in queues.items():
            if not self._sees(pbx, extension):
                continue
            began = [
                call.started for call in ringing if call.pbx == pbx and extension in call.extensions
            ]
            longest = (moment - min(began)).total_seconds() if began else 0.0
            label = settings.label or extension
            mine = agents.get((pbx, extension), ())
            found.append(Queue(label, extension, len(began), longest, mine))
        return sorted(found, key=lambda queue: (-queue.longest, queue.label))

    def _queue_agents(
        self, queues: Mapping[Name, ExtensionSettings]
    ) -> dict[Name, list[FloorAgent]]:
        busy = self._busy()
        return {
            (pbx, queue): sorted(
                (self._queue_agent(pbx, each, busy) for each in agents),
                key=lambda agent: (_ORDER.index(agent.state), agent.label),
            )
            for (pbx, queue), agents in self.parts.agents.of(self.tenant, queues).items()
        }

    def _queue_agent(self, pbx: str, agent: QueueAgent, busy: Mapping[Name, _Doing]) -> FloorAgent:
        name = pbx, agent.agent_number
        label = self._label(*name)
        if self.view.masked and name not in self.parts.feeds[self.tenant].labels:
            # A remote agent has a public number.
            label = shown_number(agent.agent_number, masked=True) or label
        doing = busy.get(name) or _STATES.get(agent.status, ("off", "question", N_("unknown")))
        return _agent(label, doing)

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
        registered, busy = await self._registered(), self._busy()
        found = []
        for name, settings in self.parts.feeds[self.tenant].labels.items():
            if settings.kind in (None, Kind.PHONE) and self._sees(*name):
                state = busy.get(name)
                if state is None and not registered.get(name, True):
                    state = ("off", "plug", N_("phone gone"))
                doing = state or ("ok", "check", N_("no call"))
                found.append(_agent(self._label(*name), doing))
        return sorted(found, key=lambda agent: (_ORDER.index(agent.state), agent.label))

    def _busy(self) -> dict[Name, _Doing]:
        """What the calls say that extensions do."""
        board = self.parts.feeds[self.tenant].board
        busy: dict[Name, _Doing] = {}
        for call in board.lane("ringing", self.view) + board.lane("talking", self.view):
            for leg in call.legs:
                name = call.pbx, leg.extension
                if leg.ended is None and (leg.answered or name not in busy):
                    busy[name] = _doing(
                        answered=leg.answered is not None, out=leg.direction == "out"
                    )
        return busy

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
        return self._is_mine(pbx, extension) and (own is None or extension in own)

    def _is_mine(self, pbx: str, extension: str) -> bool:
        return self.parts.settings.tenant_of(pbx, extension) == self.tenant


def _agent(label: str, doing: _Doing) -> FloorAgent:
    state, icon, word = doing
    return FloorAgent(label, state, icon, gettext(word))


def _doing(*, answered: bool, out: bool) -> _Doing:
    if out:
        return "live", "out", N_("calling out")
    return ("live", "talking", N_("talking")) if answered else ("ring", "bell", N_("ringing"))


def agents_of(queues: Iterable[Queue]) -> list[FloorAgent]:
    """The agents of all queues, each once."""
    return sorted(
        {agent for queue in queues for agent in queue.agents},
        key=lambda agent: (_ORDER.index(agent.state), agent.label),
    )
