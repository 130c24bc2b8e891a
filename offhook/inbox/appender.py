"""`Appender`: appends batches of events to the inbox, each event to the partition of its call."""

import time
from collections.abc import Iterable
from typing import Any, Literal

import msgspec
from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, RedisError, ResponseError

from offhook.errors import InboxUnavailable
from offhook.inbox import keys
from offhook.inbox.entries import Batch
from offhook.inbox.numbering import Numbering, name_of
from offhook.inbox.scripts import script

BLOCK_MS = 2_000  # the longest time that a command of ours blocks
_MEMORY_CHECK_EVERY = 0.05  # seconds; a check costs as much as two appends
_TRIES = 5  # the number of partitions hardly changes more often while a batch is appended

Durability = Literal["server", "disk", "replica"]


class _EpochIsOver(Exception):
    """The number of partitions has changed since an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__(epoch)
        self.epoch = epoch


class Appender:
    """Appends batches.

    Args:
        redis: a client that returns bytes.
        durability, replicas: as of `Inbox`.
    """

    def __init__(
        self, redis: Redis, numbering: Numbering, durability: Durability, replicas: int
    ) -> None:
        self._redis = redis
        self._numbering = numbering
        self._durability = durability
        self._replicas = replicas
        self._check_memory_at = 0.0
        self._append: AsyncScript = redis.register_script(script("append"))

    async def append(self, batch: Batch, duplicate_window: float, patience: float) -> set[int]:
        """Append a batch without repeats. Idempotent: a batch is appended once.

        It is one step, unless its calls are in several partitions.

        Args:
            duplicate_window: seconds; 0 turns the detection of repeats off.
            patience: seconds that a disk or a replica has to confirm it.

        Returns:
            The indices of the repeats.

        Raises:
            InboxUnavailable: the append is not confirmed. The events may be in the inbox and be
                delivered all the same; append the same batch again.
        """
        repeats: set[int] = set()
        left = dict.fromkeys(range(len(batch.events)))
        for _ in range(_TRIES):
            try:
                await self._numbering.know()
                epoch = self._numbering.epoch
                parts = await self._parts(batch, list(left))
                if not self._numbering.holds(epoch):
                    continue
                for part, indices in parts:
                    found = await self._send(part, epoch, duplicate_window, patience)
                    repeats |= {indices[index] for index in found}
                    for index in indices:
                        del left[index]
                return repeats
            except _EpochIsOver as over:
                self._numbering.is_over(over.epoch)
            except (RedisError, OSError) as error:
                raise InboxUnavailable(f"Redis did not take the events: {error}") from error
        raise InboxUnavailable("the number of partitions keeps changing")

    async def _parts(self, batch: Batch, left: list[int]) -> list[tuple[Batch, list[int]]]:
        """The batches to append, one for each partition, and the indices of their events."""
        if self._numbering.settled and len(left) == len(batch.events):
            return [(batch, left)]
        names = [name_of(batch.events[index]) for index in left]
        places = await self._numbering.places(names)
        parts: dict[int, list[int]] = {}
        for index, name in zip(left, names, strict=True):
            parts.setdefault(places[name], []).append(index)
        if parts.keys() == {batch.partition} and len(left) == len(batch.events):
            return [(batch, left)]
        # Numbers count for a writer and a partition. So that another part of a batch, which has the
        # same number, is no repeat of this one, each lane of a writer is a writer, in each epoch.
        writer = f"{batch.writer}.{batch.partition}.{self._numbering.epoch}"
        return [
            (
                msgspec.structs.replace(batch.only(indices), writer=writer, partition=partition),
                indices,
            )
            for partition, indices in parts.items()
        ]

    async def _send(
        self, batch: Batch, epoch: int, duplicate_window: float, patience: float
    ) -> Iterable[int]:
        """Append a batch to the partition that it has in an epoch. Return indices of repeats."""
        partition = batch.partition
        script_keys = [
            keys.written(partition, batch.writer),
            keys.ready(partition),
            keys.unfinished(partition),
            keys.epoch(partition),
        ]
        window = int(duplicate_window * 1000)
        now = time.monotonic()
        check = now >= self._check_memory_at
        prefix = keys.partition_prefix(partition)
        arguments: list[Any] = [window, prefix, batch.number, int(check), epoch]
        tenants = batch.tenants or [""] * len(batch.events)
        for tenant, mark, stored in zip(tenants, batch.marks, batch.events, strict=True):
            arguments += (tenant, mark, bytes(stored))
        try:
            if self._durability == "server":
                repeats: list[int] = await self._append(keys=script_keys, args=arguments)
            else:
                repeats = await self._append_and_wait(script_keys, arguments, patience)
        except ResponseError as error:
            if str(error).startswith("EPOCH"):
                raise _EpochIsOver(epoch) from error
            raise
        if check:  # only after an append that found room
            self._check_memory_at = now + _MEMORY_CHECK_EVERY
        return repeats

    async def _append_and_wait(
        self, script_keys: list[str], arguments: list[Any], patience: float
    ) -> list[int]:
        milliseconds = max(1, int(min(patience * 1000, BLOCK_MS) * 0.9))
        # WAIT and WAITAOF wait for writes of the same connection, so all goes through one pipeline.
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.evalsha(self._append.sha, len(script_keys), *script_keys, *arguments)
            if self._durability == "disk":
                pipeline.execute_command("WAITAOF", 1, 0, milliseconds)
            else:
                pipeline.execute_command("WAIT", self._replicas, milliseconds)
            appended, confirmed = await pipeline.execute(raise_on_error=False)
        if isinstance(appended, NoScriptError):
            await self._redis.script_load(script("append"))
            return await self._append_and_wait(script_keys, arguments, patience)
        for answer in (appended, confirmed):
            if isinstance(answer, Exception):
                raise answer
        if self._durability == "disk":
            if not confirmed[0]:
                raise InboxUnavailable(f"its disk has not had them within {milliseconds} ms")
        elif confirmed < self._replicas:
            raise InboxUnavailable(
                f"{confirmed} of {self._replicas} replicas have had them within {milliseconds} ms"
            )
        repeats: list[int] = appended
        return repeats
