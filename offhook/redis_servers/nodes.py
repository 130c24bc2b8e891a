"""`Nodes`: the nodes of a cluster, and which of them has a slot."""

import asyncio
import math
import random
import ssl
import time
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from offhook.redis_servers.slots import Address, owners_of

_NEXT_AFTER = 0.3  # seconds that a node has to say who has the slots before the next one is asked
_LOOK_AFTER = 10.0  # seconds; commands without a key are never redirected


def _closable(base: type[Any]) -> type[Any]:
    """A class of connections that may be closed while one of them is about to send.

    redis-py then raises an `AttributeError` of None; here it is a `redis.ConnectionError`.
    """

    class Closable(base):  # type: ignore[misc]
        async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            try:
                await super().send_packed_command(command, check_health)
            except AttributeError as error:
                if error.obj is not None:
                    raise
                raise RedisConnectionError("the connection was closed meanwhile") from error

    return Closable


class Nodes:
    """The clients of the nodes, and what is known of the slots.

    Args:
        seeds: the nodes that are known at first.
        options: of redis-py, for every node.
    """

    def __init__(self, seeds: list[Address], options: dict[str, Any]) -> None:
        self._seeds = seeds
        self._options = options
        self._clients: dict[Address, Redis] = {}
        self._owners: list[Address | None] = []  # by slot
        self._looking: asyncio.Task[None] | None = None
        self._looked = -math.inf  # when

    @property
    def is_known(self) -> bool:
        """Whether it is known where the slots are."""
        return bool(self._owners)

    @property
    def is_old(self) -> bool:
        """Whether what is known may have changed without an error."""
        return time.monotonic() > self._looked + _LOOK_AFTER

    async def primaries(self) -> list[Redis]:
        """The nodes that have slots, by their first one."""
        if self.is_old:
            await self.look()
        return [self.client(each) for each in dict.fromkeys(filter(None, self._owners))]

    def address(self, slot: int | None) -> Address | None:
        """Where a slot is, or any node if it is None; None if that is not known."""
        if slot is None:
            return next(filter(None, self._owners), self._seeds[0])
        return self._owners[slot] if self._owners else None

    def client(self, address: Address | None) -> Redis:
        """The client of a node.

        Raises:
            redis.ConnectionError: no node has the slot.
        """
        if address is None:
            raise RedisConnectionError("no node of the cluster has the slot")
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = Redis(
                host=address[0], port=address[1], **self._options
            )
            pool = client.connection_pool
            pool.connection_class = _closable(pool.connection_class)
        return client

    def moved(self, slot: int, address: Address) -> None:
        """Note where a slot is now."""
        if self._owners:
            self._owners[slot] = address

    def look_soon(self, doubtful: Address | None = None) -> "asyncio.Task[None]":
        """Find out, in a task, where the slots are. The doubtful node is asked last."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(doubtful))
            self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._looking

    async def look(self, doubtful: Address | None = None) -> None:
        """Find out where the slots are.

        Raises:
            RedisError: no node says so.
        """
        await asyncio.shield(self.look_soon(doubtful))

    async def _look(self, doubtful: Address | None) -> None:
        known = list(self._clients)
        random.shuffle(known)
        waiting = sorted(dict.fromkeys((*known, *self._seeds)), key=lambda each: each == doubtful)
        asked: dict[asyncio.Task[bool], Address] = {}
        error: BaseException = RedisConnectionError("no node of the cluster answers")
        try:
            while waiting or asked:
                if waiting:
                    address = waiting.pop(0)
                    asked[asyncio.create_task(self._ask(address))] = address
                done, _ = await asyncio.wait(
                    asked,
                    timeout=_NEXT_AFTER if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    del asked[task]
                    failed = task.exception()
                    if failed is None and task.result():
                        return
                    untrusted = failed.__context__ if failed else None
                    if isinstance(failed, ResponseError):  # it refuses: the operator must know
                        error = failed
                    elif isinstance(untrusted, ssl.SSLError):
                        error = RedisConnectionError(f"a node cannot be trusted: {untrusted}")
                    elif failed and not isinstance(failed, (RedisError, OSError)):
                        raise failed
        finally:
            for task in asked:
                task.cancel()
            if asked:
                await asyncio.wait(asked)
        raise error

    async def _ask(self, address: Address) -> bool:
        """Ask a node. Return whether it knows where the slots are."""
        client = self.client(address)
        answer: Any = await client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
        owners, nodes = owners_of(answer, address)
        if not any(owners):
            return False  # it belongs to no cluster, or not yet
        self._owners, self._looked = owners, time.monotonic()
        for gone in self._clients.keys() - nodes:
            # Also closes connections on which a response of a failed node is awaited.
            with suppress(RedisError, OSError):
                await self._clients.pop(gone).aclose()
        return True

    async def aclose(self) -> None:
        """Close all connections."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait((self._looking,))
        for client in self._clients.values():
            await client.aclose()
