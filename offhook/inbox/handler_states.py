"""`HandlerStates`: how far each handler has come in the inbox, and what holds it up."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from redis.commands.core import AsyncScript

from offhook.inbox import keys
from offhook.inbox.entries import HandlerState, StreamFigures, circuit_seconds
from offhook.inbox.scripts import script
from offhook.inbox.stream import Inbox

_HANDLERS_AT_ONCE = 250  # and tenants


class HandlerStates:
    """The states of handlers, as Redis has them."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._redis = inbox.redis
        self._figures: AsyncScript = inbox.redis.register_script(script("figures"))

    async def figures(
        self, handlers: Mapping[str, Sequence[str]], partition: int
    ) -> dict[str, StreamFigures]:
        """The streams of some tenants in one partition, and how far their handlers have come."""
        found = {tenant: StreamFigures(0, 0, {}) for tenant in handlers}
        for step in _steps(handlers):
            arguments: list[Any] = [keys.partition_prefix(partition)]
            for tenant, names in step:
                arguments += [tenant, len(names), *names]
            answer: Any = await self._figures(keys=[keys.read(partition)], args=arguments)
            at = 0
            for tenant, names in step:
                figures = found[tenant]
                figures.last, figures.length = answer[at : at + 2]
                at += 2
                for name in names:
                    figures.handlers[name] = HandlerState(*answer[at : at + 6])
                    at += 6
        return found

    async def states(
        self, handlers: Sequence[str], partition: int, tenant: str = ""
    ) -> dict[str, HandlerState]:
        """How far each of the handlers has come in one partition."""
        return (await self.figures({tenant: handlers}, partition))[tenant].handlers

    async def state(self, handler: str, partition: int, tenant: str = "") -> HandlerState:
        """How far the handler has come in one partition."""
        return (await self.states([handler], partition, tenant))[handler]

    async def parked(self) -> Counter[str]:
        """How many calls of each handler wait for a redelivery."""
        found: Counter[str] = Counter()
        for partition in range(self._inbox.partitions):
            members: Any = await self._redis.hkeys(keys.parked(partition))
            found.update(member.decode().partition(" ")[0] for member in members)
        return found

    async def circuit_open_for(self, handler: str) -> float | None:
        """Seconds until the next probe while the handler's circuit is open."""
        left = await self._redis.pttl(keys.circuit(handler))
        return circuit_seconds(left) or None


def _steps(handlers: Mapping[str, Sequence[str]]) -> Iterator[list[tuple[str, Sequence[str]]]]:
    """Divide the handlers of tenants: the server answers no one else during a step."""
    step: list[tuple[str, Sequence[str]]] = []
    room = _HANDLERS_AT_ONCE
    for tenant, names in handlers.items():
        for at in range(0, max(1, len(names)), _HANDLERS_AT_ONCE):
            some = names[at : at + _HANDLERS_AT_ONCE]
            if step and len(some) >= room:
                yield step
                step, room = [], _HANDLERS_AT_ONCE
            step.append((tenant, some))
            room -= len(some) + 1
    yield step
