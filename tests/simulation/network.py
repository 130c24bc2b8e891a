"""The network between simulated processes and the server, and a redis-py client that uses it."""

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ExecAbortError, ResponseError, WatchError

from tests.simulation.faults import Fault, Faults
from tests.simulation.loop import PROCESS
from tests.simulation.server import Server

Commands = Sequence[tuple[Any, ...]]
Versions = dict[str, object]  # of keys


class Network:
    """Carries commands to the server and answers back, each after a delay.

    Args:
        executed: called after each command that was executed.
    """

    def __init__(self, server: Server, faults: Faults, executed: Callable[[], None]) -> None:
        self._server = server
        self._faults = faults
        self._executed = executed
        self._blocked: list[_Blocked] = []

    async def ask(
        self, commands: Commands, *, atomic: bool, watched: Versions | None = None
    ) -> list[Any]:
        """Send commands, and return their answers.

        Args:
            watched: of the keys that must not have changed.

        Raises:
            ConnectionError: it is not known which of them were or will be executed.
        """
        loop = asyncio.get_running_loop()
        process = PROCESS.get()
        assert process is not None
        fault = self._faults.command(process, commands)
        answer: asyncio.Future[list[Any]] = loop.create_future()
        if fault.kind == "crash before":
            self._faults.kill(process)
            return await answer  # never
        executed = not (fault.kind == "lost" or self._faults.down)
        if executed:
            sent = (commands, atomic, watched, fault, answer)
            loop.call_later(fault.delay, self._arrive, *sent, context=_NOBODY)
        if not executed or fault.kind == "late":
            loop.call_later(fault.back, _fail, answer, context=_NOBODY)
        if fault.kind == "crash after":
            loop.call_later(fault.delay, self._faults.kill, process, context=_NOBODY)
        return await answer

    def cut(self) -> None:
        """Break the connections of the commands that block."""
        blocked, self._blocked = self._blocked, []
        for each in blocked:
            _fail(each.answer)

    def _arrive(
        self,
        commands: Commands,
        atomic: bool,
        watched: Versions | None,
        fault: Fault,
        answer: "asyncio.Future[list[Any]]",
    ) -> None:
        if self._faults.down:
            _fail(answer)
            return
        if commands[0][0] == "BZMPOP":
            self._block(commands[0], fault, answer)
            return
        if fault.kind == "half" and not atomic:
            commands = commands[: len(commands) // 2]
        if watched is not None and self._server.versions(watched) != watched:
            loop = asyncio.get_running_loop()
            loop.call_later(fault.back, _answer, answer, [WatchError("Watched variable changed.")])
            return
        found = self._executed_all(commands, atomic=atomic)
        self._executed()
        self._wake()
        loop = asyncio.get_running_loop()
        if fault.kind in ("half", "unanswered"):
            loop.call_later(fault.back, _fail, answer)
        else:
            loop.call_later(fault.back, _answer, answer, found)

    def _executed_all(self, commands: Commands, *, atomic: bool) -> list[Any]:
        refused = [self._faults.refusal(each) for each in commands]
        if atomic and any(refused):
            return [ExecAbortError("Transaction discarded.")] * len(commands)
        execute = self._server.execute
        return [no or execute(*each) for no, each in zip(refused, commands, strict=True)]

    # Commands that block

    def _block(self, command: Sequence[Any], fault: Fault, answer: Any) -> None:
        seconds, *rest = command[1:]
        blocked = _Blocked(("ZMPOP", *rest), fault, answer)
        self._blocked.append(blocked)
        asyncio.get_running_loop().call_later(float(seconds), self._give_up, blocked)
        self._wake()

    def _wake(self) -> None:
        for blocked in list(self._blocked):
            if not self._server.has(blocked.key):
                continue
            found = self._server.execute(*blocked.command)
            if found is not None:
                self._blocked.remove(blocked)
                loop = asyncio.get_running_loop()
                if blocked.fault.kind == "unanswered":
                    loop.call_later(blocked.fault.back, _fail, blocked.answer)
                else:
                    loop.call_later(blocked.fault.back, _answer, blocked.answer, [found])

    def _give_up(self, blocked: "_Blocked") -> None:
        if blocked in self._blocked:
            self._blocked.remove(blocked)
            _answer(blocked.answer, [None])


class _Blocked:
    def __init__(self, command: Sequence[Any], fault: Fault, answer: Any) -> None:
        self.command = command
        self.key = command[2]
        self.fault = fault
        self.answer = answer


def _fail(answer: "asyncio.Future[list[Any]]") -> None:
    if not answer.done():
        answer.set_exception(RedisConnectionError("Connection closed by server."))


def _answer(answer: "asyncio.Future[list[Any]]", found: list[Any]) -> None:
    if not answer.done():
        answer.set_result(found)


_TEMPLATE: Redis = Redis(protocol=2)


class Client(Redis):
    """A client that retries as that of `offhook.connection.connect`."""

    def __init__(self, network: Network, tries: int) -> None:
        self.__dict__.update(_TEMPLATE.__dict__)  # to make one anew takes a millisecond
        self.network = network
        self.tries = tries

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        (found,) = await retried(self.tries, self.network, [args], atomic=True)
        if isinstance(found, ResponseError):
            raise found
        return await self._parsed(args[0], found, options)

    async def _parsed(self, name: Any, found: Any, options: dict[str, Any]) -> Any:
        options.pop("keys", None)
        if name in self.response_callbacks and not isinstance(found, Exception):
            found = self.response_callbacks[name](found, **options)
            return await found if inspect.isawaitable(found) else found
        return found

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> "_Pipeline":
        return _Pipeline(
            self, self.connection_pool, self.response_callbacks, transaction, shard_hint
        )


class _Pipeline(Pipeline):
    def __init__(self, client: Client, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._client = client
        self._watched: Versions | None = None

    async def watch(self, *names: Any) -> bool:  # type: ignore[override]
        asked = [("WATCH", *names)]
        [versions] = await retried(self._client.tries, self._client.network, asked, atomic=True)
        self._watched = versions
        return True

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands, scripts = self.command_stack, self.scripts
        self.command_stack, self.scripts = [], set()
        if not commands:
            return []
        if scripts:
            await self._load(sorted(scripts, key=lambda each: each.sha))
        found = await self._found([args for args, _ in commands])
        for answer in found:
            if isinstance(answer, Exception) and raise_on_error:
                raise answer
        return [
            await self._client._parsed(args[0], answer, dict(options))
            for (args, options), answer in zip(commands, found, strict=True)
        ]

    async def _found(self, commands: Commands) -> list[Any]:
        network, watched = self._client.network, self._watched
        if watched is None:
            tries = self._client.tries
            return await retried(tries, network, commands, atomic=self.is_transaction)
        try:
            return await retried(0, network, commands, atomic=True, watched=watched)
        except RedisConnectionError:  # as redis-py
            raise WatchError("the connection broke while watching") from None

    async def _load(self, scripts: list[Any]) -> None:
        exist = await self._client.script_exists(*(each.sha for each in scripts))
        for each, found in zip(scripts, exist, strict=True):
            if not found:
                each.sha = await self._client.script_load(each.script)


async def retried(
    tries: int,
    network: Network,
    commands: Commands,
    *,
    atomic: bool,
    watched: Versions | None = None,
) -> list[Any]:
    """Ask, and ask again if the connection fails."""
    commands = [tuple(_words(command)) for command in commands]
    for attempt in range(tries + 1):
        try:
            return await network.ask(commands, atomic=atomic, watched=watched)
        except RedisConnectionError:
            if attempt == tries:
                raise
            await asyncio.sleep(min(0.5, 0.05 * 2**attempt))
    raise AssertionError


def _words(command: Sequence[Any]) -> Sequence[Any]:
    """`SCRIPT LOAD` is one argument to redis-py and two words to the server."""
    return (*str(command[0]).split(), *command[1:])


def _nobody() -> Any:
    from contextvars import Context

    return Context()


_NOBODY: Any = _nobody()
