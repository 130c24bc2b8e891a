"""The agents handler against a sandbox PBX, over HTTP."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from offhook import Call, EventType, Leg, Party, PermanentError, TemporaryError
from offhook.connection import connect
from offhook.errors import ConfigError
from offhook.handler_memory import LocalMemory, Memory
from offhook.http import Http
from offhook.plugins import PluggedHandler
from offhook.settings import HandlerSettings
from offhook.testing import configured, deliver, sample_call, sample_event
from tests.offhook.sandbox import Sandbox, sandbox
from unifiedapi.resources import AgentStatus
from workers.delivery.redis_memory import RedisMemory
from workers.handlers.agents import Agents

QUEUE, OTHER = "0003*400", "0003*401"
AGENT, COLLEAGUE = "0003*210", "0003*212"
ONLINE, PAUSED, AWAY = AgentStatus.ONLINE, AgentStatus.PAUSED, AgentStatus.LOGGED_OUT
T = EventType


@dataclass
class Desk:
    """An agent's phone, and the handler that gets its events."""

    pbx: Sandbox
    handler: Agents
    memory: Memory

    def set(self, status: AgentStatus, agent: str = AGENT, queue: str = QUEUE) -> None:
        self._agent(agent, queue).status = status

    def status(self, agent: str = AGENT, queue: str = QUEUE) -> AgentStatus:
        status: AgentStatus = self._agent(agent, queue).status
        return status

    def _agent(self, agent: str, queue: str) -> Any:
        return next(a for a in self.pbx.store.extensions[queue].agents if a.number == agent)

    def tell(self, type_: EventType, call: Call, **fields: Any) -> None:
        """Deliver an event of the agent's phone, with the current state of its call."""
        summary = call if type_ is T.CALL_ENDED else None
        event = sample_event(type_, **{"summary": summary, "extension": AGENT} | fields)
        event = msgspec.structs.replace(event, call_id=call.id)
        deliver(self.handler, event, call=call, memory=self.memory)

    def call_out(self, id_: str = "c1") -> None:
        self.tell(T.DIAL_OUT, out(id_))

    def hang_up(self, id_: str = "c1") -> None:
        self.tell(T.HANGUP, out(id_, ended=True))

    def updates(self) -> int:
        return len([r for r in self.pbx.changes() if "/queue/agents/" in r[1]])


def leg(
    extension: str = AGENT, direction: Any = "out", *, answered: bool = True, ended: bool = False
) -> Leg:
    now = sample_call().started
    return Leg(
        extension=extension,
        direction=direction,
        rang=now,
        answered=now if answered else None,
        ended=now if ended else None,
    )


def out(id_: str = "c1", *, answered: bool = False, ended: bool = False) -> Call:
    return sample_call(id=id_, legs=(leg(answered=answered, ended=ended),))


@contextmanager
def new_desk(memory: Memory | None = None) -> Iterator[Desk]:
    with sandbox() as pbx:
        agents = configured(Agents, host=pbx.url, queues=[QUEUE], token="sandbox-token")
        yield Desk(pbx, agents, memory or LocalMemory())


@pytest.fixture
def desk() -> Iterator[Desk]:
    with new_desk() as made:
        yield made


def test_an_agent_is_paused_during_an_outgoing_call(desk: Desk) -> None:
    desk.call_out()
    assert desk.status() is PAUSED
    desk.tell(T.ANSWER_OUT, out(answered=True))
    assert desk.status() is PAUSED
    desk.hang_up()
    assert desk.status() is ONLINE
    assert desk.updates() == 2


def test_an_agent_is_paused_when_answering_a_call(desk: Desk) -> None:
    call = sample_call(id="c1", legs=(leg(direction="in", answered=False),))
    desk.tell(T.DIAL_OUT, call)
    assert desk.status() is ONLINE
    desk.tell(T.ANSWER_IN, sample_call(id="c1", legs=(leg(direction="in"),)))
    assert desk.status() is PAUSED
    desk.tell(T.HANGUP, sample_call(id="c1", legs=(leg(direction="in", ended=True),)))
    assert desk.status() is ONLINE


@pytest.mark.parametrize("before", [PAUSED, AWAY])
def test_a_paused_or_logged_out_agent_stays_so(desk: Desk, before: AgentStatus) -> None:
    desk.set(before)
    desk.call_out()
    desk.hang_up()
    assert desk.status() is before
    assert desk.updates() == 0


def test_an_agent_who_resumes_during_the_call_is_left_alone(desk: Desk) -> None:
    desk.call_out()
    desk.set(ONLINE)
    desk.tell(T.ANSWER_OUT, out(answered=True))
    assert desk.status() is ONLINE
    desk.set(AWAY)
    desk.hang_up()
    assert desk.status() is AWAY


def test_a_pause_by_hand_before_a_later_call_is_kept(desk: Desk) -> None:
    desk.call_out()
    desk.hang_up()
    desk.set(PAUSED)
    desk.call_out("c2")
    desk.hang_up("c2")
    assert desk.status() is PAUSED


def test_the_last_of_two_overlapping_calls_ends_the_pause(desk: Desk) -> None:
    desk.call_out("c1")
    desk.call_out("c2")
    desk.hang_up("c1")
    assert desk.status() is PAUSED
    desk.hang_up("c1")  # a redelivery
    assert desk.status() is PAUSED
    desk.hang_up("c2")
    assert desk.status() is ONLINE


def test_the_last_leg_of_a_call_ends_the_pause(desk: Desk) -> None:
    asking = leg(ended=True)
    desk.tell(T.ANSWER_IN, sample_call(id="c1", legs=(leg(direction="in"),)))
    desk.tell(T.HANGUP, sample_call(id="c1", legs=(leg(direction="in"), asking)))
    assert desk.status() is PAUSED
    desk.tell(T.HANGUP, sample_call(id="c1", legs=(leg(direction="in", ended=True), asking)))
    assert desk.status() is ONLINE


@pytest.mark.parametrize("known", ["leg", "caller"])
def test_a_call_through_the_queue_does_not_pause(desk: Desk, known: str) -> None:
    waiting = leg(QUEUE, "in")
    legs = (waiting, leg(direction="in")) if known == "leg" else (leg(direction="in"),)
    fields = {"caller": Party(extension=QUEUE)} if known == "caller" else {}
    desk.tell(T.ANSWER_IN, sample_call(id="c1", legs=legs), **fields)
    assert desk.status() is ONLINE
    assert desk.updates() == 0


def test_a_call_later_known_to_be_the_queues_ends_the_pause(desk: Desk) -> None:
    desk.tell(T.ANSWER_IN, sample_call(id="c1", legs=(leg(direction="in"),)))
    assert desk.status() is PAUSED
    desk.tell(T.ANSWER_IN, sample_call(id="c1", legs=(leg(QUEUE, "in"), leg(direction="in"))))
    assert desk.status() is ONLINE


def test_the_end_of_a_call_ends_the_pause_without_a_hangup(desk: Desk) -> None:
    desk.call_out()
    desk.tell(T.CALL_ENDED, out(), extension=COLLEAGUE)
    assert desk.status() is ONLINE


def test_a_late_event_does_not_pause(desk: Desk) -> None:
    """A redelivery, or an event from before the workers started: the call is over already."""
    desk.tell(T.DIAL_OUT, out(ended=True))
    desk.tell(T.ANSWER_OUT, out(answered=True, ended=True))
    assert desk.updates() == 0


def test_other_agents_are_left_alone(desk: Desk) -> None:
    desk.set(ONLINE, COLLEAGUE)
    desk.call_out()
    assert desk.status(COLLEAGUE) is ONLINE
    nobody = "0003*211"  # no agent
    desk.tell(T.DIAL_OUT, sample_call(id="c9", legs=(leg(nobody),)), extension=nobody)
    assert desk.updates() == 1


def test_an_agent_is_paused_in_each_queue_where_they_are_online(desk: Desk) -> None:
    first = desk.pbx.store.extensions[QUEUE]
    agents = [msgspec.structs.replace(agent) for agent in first.agents]
    desk.pbx.store.extensions[OTHER] = msgspec.structs.replace(first, number=OTHER, agents=agents)
    options = {"host": desk.pbx.url, "token": "sandbox-token"}
    desk.handler = configured(Agents, queues=[QUEUE, OTHER], **options)
    desk.set(PAUSED, queue=OTHER)
    desk.call_out()
    assert (desk.status(), desk.status(queue=OTHER)) == (PAUSED, PAUSED)
    desk.hang_up()
    assert (desk.status(), desk.status(queue=OTHER)) == (ONLINE, PAUSED)


def test_an_agent_removed_from_the_queue_is_not_an_error(desk: Desk) -> None:
    desk.call_out()
    queue = desk.pbx.store.extensions[QUEUE]
    queue.agents = [agent for agent in queue.agents if agent.number != AGENT]
    desk.hang_up()
    assert desk.updates() == 1


def test_the_list_of_agents_is_cached(desk: Desk) -> None:
    for n in range(5):
        desk.tell(
            T.DIAL_OUT, sample_call(id=f"c{n}", legs=(leg("0003*211"),)), extension="0003*211"
        )
    asked = [path for _, path in desk.pbx.requests if path.endswith("/queue/agents/")]
    assert len(asked) == 1


# Faults


def test_a_redelivery_finishes_after_the_pbx_died_at_any_request() -> None:
    for dies_after in range(6):
        with new_desk() as desk:
            for event, done in ((desk.call_out, PAUSED), (desk.hang_up, ONLINE)):
                desk.pbx.dies_after = len(desk.pbx.requests) + dies_after
                with suppress(TemporaryError):
                    event()
                desk.pbx.dies_after = None
                event()
                assert desk.status() is done


class Killed(BaseException):
    """The process was killed."""


class Mortal(LocalMemory):
    """A memory that kills its process at one of its steps."""

    steps = -1

    async def _step(self) -> None:
        self.steps -= 1
        if self.steps == 0:
            raise Killed

    async def set(self, name: str, value: str, seconds: float) -> None:
        await self._step()
        await super().set(name, value, seconds)
        await self._step()

    async def delete(self, name: str) -> None:
        await self._step()
        await super().delete(name)
        await self._step()


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_redelivery_finishes_after_a_kill_at_any_step(by_hand: bool) -> None:
    for steps in range(1, 11):
        memory = Mortal()
        with new_desk(memory) as desk:
            desk.set(PAUSED if by_hand else ONLINE)
            memory.steps = steps
            for event, done in (
                (desk.call_out, PAUSED),
                (desk.hang_up, PAUSED if by_hand else ONLINE),
            ):
                for _ in range(2):  # the redelivery
                    try:
                        event()
                        break
                    except Killed:
                        memory._locks.clear()
                assert desk.status() is done, steps


def test_an_agent_who_resumes_after_a_kill_is_left_alone(desk: Desk) -> None:
    desk.memory = memory = Mortal()
    memory.steps = 7  # before the pause is saved
    with pytest.raises(Killed):
        desk.call_out()
    assert desk.status() is PAUSED
    memory._locks.clear()
    desk.call_out()
    desk.set(ONLINE)
    desk.tell(T.ANSWER_OUT, out(answered=True))
    assert desk.status() is ONLINE


def test_a_redelivery_after_the_end_of_the_call_resumes() -> None:
    for steps in range(1, 11):
        memory = Mortal()
        with new_desk(memory) as desk:
            memory.steps = steps
            try:
                desk.call_out()
            except Killed:
                memory._locks.clear()
            memory.steps = -1
            desk.tell(T.DIAL_OUT, out(ended=True))
            desk.hang_up()
            assert desk.status() is ONLINE, steps


async def test_concurrent_calls_pause_and_resume_once(desk: Desk, redis_url: str) -> None:
    """In several tasks, with the workers' memory in Redis."""
    agents = PluggedHandler.of("agents", HandlerSettings(use="agents"), desk.handler)

    async def tell(memory: Memory, http: Http, type_: EventType, call: Call) -> None:
        async def found(event: Any) -> Call:
            return call

        await agents.deliver(
            msgspec.structs.replace(sample_event(type_), call_id=call.id),
            attempt=1,
            http=http,
            threads=ThreadPoolExecutor(1),
            calls=found,
            memory=memory,
        )

    ids = [f"c{n}" for n in range(4)]
    async with connect(redis_url) as redis, Http() as http:
        memory = RedisMemory(redis, "agents")
        await asyncio.gather(*(tell(memory, http, T.DIAL_OUT, out(id_)) for id_ in ids))
        assert desk.status() is PAUSED
        ends = [tell(memory, http, T.HANGUP, out(id_, ended=True)) for id_ in ids]
        last = ends.pop()
        await asyncio.gather(*ends)
        assert desk.status() is PAUSED
        await last
        names = [key async for key in redis.scan_iter("offhook:memory:agents:paused*")]
    assert names == []
    assert desk.status() is ONLINE
    assert desk.updates() == 2


def test_an_unknown_queue_is_permanent(desk: Desk) -> None:
    options = {"host": desk.pbx.url, "token": "sandbox-token"}
    desk.handler = configured(Agents, queues=["0003*999"], **options)
    with pytest.raises(PermanentError, match="the PBX refuses"):
        desk.call_out()


def test_a_wrong_token_is_temporary(desk: Desk) -> None:
    desk.handler = configured(Agents, host=desk.pbx.url, queues=[QUEUE], token="expired-token")
    with pytest.raises(TemporaryError, match="the PBX refuses") as raised:
        desk.call_out()
    assert "expired-token" not in str(raised.value)
    desk.handler = configured(
        Agents,
        host=desk.pbx.url,
        queues=[QUEUE],
        client_id="sandbox-app",
        client_secret="wrong",
    )
    with pytest.raises(TemporaryError, match="gives no token"):
        desk.call_out()


def test_it_requires_one_way_to_sign_in() -> None:
    both = {"client_id": "x", "client_secret": "y", "token": "z"}
    for names in ((), ("client_id",), ("client_secret",), ("client_id", "token"), tuple(both)):
        options = {name: both[name] for name in names}
        with pytest.raises(ConfigError, match="needs either client_id and client_secret, or a tok"):
            configured(Agents, host="https://pbx", queues=[QUEUE], **options)
