"""`Execution`: executes commands on the nodes of a cluster, while slots move and nodes fail."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from offhook.redis_servers.slots import Address, slot_of

if TYPE_CHECKING:
    from offhook.redis_servers.client import Cluster

_MOST_REDIRECTIONS = 16
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.5  # seconds
_SCRIPTS = ("EVAL", "EVALSHA")
# The command was not executed, and will be when the slot has been moved or a replica promoted.
_LATER = (AskError, BusyLoadingError, ClusterDownError, ReadOnlyError, TryAgainError)
_LATER_IN_WORDS = ("non local key", "UNBLOCKED", "cluster is down")
_UNANSWERED = (RedisConnectionError, RedisTimeoutError, OSError)

Command = tuple[Sequence[Any], Mapping[str, Any]]  # arguments, options of redis-py


@dataclass
class _Unit:
    """Commands that are sent together: one with a key, and those without a key behind it."""

    slot: int | None
    commands: list[Command] = field(default_factory=list)
    at: list[int] = field(default_factory=list)  # where their results go
    asking: Address | None = None  # the node that is to have the slot, and has the key


class Execution:
    """Executes commands.

    Args:
        atomic: as a transaction.
        scripts: that the commands use, if they are a transaction.
    """

    def __init__(
        self,
        cluster: "Cluster",
        commands: Sequence[Command],
        *,
        atomic: bool = False,
        scripts: Sequence[Any] = (),
    ) -> None:
        self._cluster = cluster
        self._atomic = atomic
        self._scripts = scripts
        self._results: list[Any] = [None] * len(commands)
        self._units = _units(commands, atomic=atomic)
        self._redirections = self._waits = 0

    async def run(self) -> list[Any]:
        """The results of the commands, each an exception if it failed."""
        if not self._cluster.nodes.is_known:
            await self._cluster.nodes.look()
        while self._units:
            places: dict[Address | None, list[_Unit]] = {}
            for unit in self._units:
                address = unit.asking or self._cluster.nodes.address(unit.slot)
                places.setdefault(address, []).append(unit)
            sent = [self._send(address, units) for address, units in places.items()]
            answers = await asyncio.gather(*sent) if len(sent) > 1 else [await sent[0]]
            await self._judge(
                [
                    (address, unit, answer)
                    for (address, units), found in zip(places.items(), answers, strict=True)
                    for unit, answer in zip(units, found, strict=True)
                ]
            )
        return self._results

    async def go_on(self, address: Address | None, error: Exception) -> list[Any]:
        """As `run`, for a command that was sent to a node and failed."""
        await self._judge([(address, self._units[0], [error])])
        return await self.run()

    async def _send(self, address: Address | None, units: Sequence[_Unit]) -> list[list[Any]]:
        """Send units to a node. Return the results of each."""
        try:
            async with self._cluster.nodes.client(address).pipeline(self._atomic) as pipeline:
                pipeline.scripts.update(self._scripts)
                for unit in units:
                    for args, options in unit.commands:
                        if unit.asking is not None:
                            pipeline.execute_command("ASKING")
                        pipeline.execute_command(*args, **options)
                found = iter(await pipeline.execute(raise_on_error=False))
        except (RedisError, OSError) as error:
            return [[error] * len(unit.at) for unit in units]
        return [
            [(next(found), next(found))[1] if unit.asking else next(found) for _ in unit.at]
            for unit in units
        ]

    async def _judge(self, answers: Sequence[tuple[Address | None, _Unit, list[Any]]]) -> None:
        """Keep the results of what was executed, and what to repeat, after a wait if need be."""
        self._units = []
        failed: list[tuple[Address | None, Exception]] = []
        for address, unit, results in answers:
            unit.asking = None
            error = next((each for each in results if isinstance(each, Exception)), None)
            again = False
            if error is not None:
                again = await self._redirected(unit, address, error)
                if not again and _is_passing(error):
                    again = self._waits < self._cluster.tries
                    failed.append((address, error))
                    error = _as_outage(error)
                    results = [error if isinstance(each, Exception) else each for each in results]
            if again:
                self._units.append(unit)
            else:
                for at, result in zip(unit.at, results, strict=True):
                    self._results[at] = result
        if failed:
            await self._wait(failed[0][0])

    async def _redirected(self, unit: _Unit, address: Address | None, error: Exception) -> bool:
        """Whether the unit can be executed elsewhere, or here, at once."""
        self._redirections += 1
        if self._redirections > _MOST_REDIRECTIONS * max(1, len(self._results)):
            return False
        args = unit.commands[0][0]
        match error:
            case MovedError():
                self._cluster.nodes.moved(error.slot_id, _where(error, address))
                return True
            case AskError() if args[0] not in _SCRIPTS and not self._atomic:
                unit.asking = _where(error, address)
                return True
            case NoScriptError() if address is not None:
                return await self._load(address, unit)
        return False

    async def _load(self, address: Address, unit: _Unit) -> bool:
        loaded = False
        for args, _ in unit.commands:
            if args[0] == "EVALSHA":
                try:
                    loaded |= await self._cluster.load(address, args[1])
                except (RedisError, OSError):
                    return True  # the command itself will fail
        return loaded

    async def _wait(self, doubtful: Address | None) -> None:
        looking = self._cluster.nodes.look_soon(doubtful)
        if self._units:
            await asyncio.wait((looking,))
            await asyncio.sleep(min(_LONGEST_WAIT, _FIRST_WAIT * 2**self._waits))
            self._waits += 1


def _units(commands: Sequence[Command], *, atomic: bool) -> list[_Unit]:
    units: list[_Unit] = []
    for index, command in enumerate(commands):
        slot = slot_of(command[0])
        if not units or (slot is not None and not atomic):
            units.append(_Unit(slot))
        elif atomic and slot not in (None, units[0].slot):
            raise ResponseError(f"CROSSSLOT keys of a transaction in two slots: {command[0][:2]}")
        units[-1].commands.append(command)
        units[-1].at.append(index)
    return units


def _where(error: AskError, asked: Address | None) -> Address:
    """Where a node redirects to; a host that it leaves open is its own."""
    host = error.host or (asked[0] if asked else "")
    return host, error.port


def _is_passing(error: Exception) -> bool:
    """Whether a command may be executed later."""
    return isinstance(error, (*_LATER, *_UNANSWERED)) or (
        isinstance(error, ResponseError) and any(each in str(error) for each in _LATER_IN_WORDS)
    )


def _as_outage(error: Exception) -> Exception:
    if isinstance(error, _UNANSWERED):
        return error
    outage = RedisConnectionError(f"the cluster cannot execute this now: {error}")
    outage.__cause__ = error
    return outage
