"""`redeliver`: an RQ job that repeats one failed delivery. Later events of its call wait for it."""

import asyncio
import logging
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import uvloop
from redis import Redis
from rq import get_current_job
from rq.job import Job

from offhook import queues
from offhook.call import Call
from offhook.connection import opened
from offhook.errors import ConfigError, LeaseLost, PermanentError, TemporaryError
from offhook.event import CallEvent
from offhook.extensions import Extensions, ExtensionSettings
from offhook.http import Http
from offhook.inbox import Inbox, ParkedLanes, feed
from offhook.inbox.call_store import Calls
from offhook.plugins import PluggedHandler, plug_handler
from offhook.settings import Settings, load_settings
from workers import process
from workers.delivery import circuit
from workers.delivery.attempt import attempt_record, event_keys, sentence, wait_before
from workers.delivery.caller_names import CallerNames, naming
from workers.delivery.redis_memory import RedisMemory

log = logging.getLogger("offhook.redeliver")


def redeliver(handler: str, event: dict[str, Any]) -> None:
    """The RQ job. It raises if the delivery fails, and RQ retries it or keeps it as a dead letter.

    Args:
        handler: its name in the configuration.
        event: from `CallEvent.as_dict()`.
    """
    job = get_current_job()
    if job is None:
        raise RuntimeError("redeliver only runs as an RQ job")
    process.die_with_parent()
    uvloop.run(_redeliver(load_settings(), job, handler, CallEvent.from_dict(event)))


async def _redeliver(settings: Settings, job: Job, name: str, event: CallEvent) -> None:
    async with opened(settings) as (inbox, rq), naming(settings, inbox.redis) as names:
        extension = await Extensions(inbox.redis).get(event.pbx, event.extension)
        await Redelivery(settings, inbox, rq, job, name, event, extension, names).run()


class Redelivery:
    """One run of the job: at most one attempt, and its consequences."""

    def __init__(
        self,
        settings: Settings,
        inbox: Inbox,
        rq: Redis,
        job: Job,
        name: str,
        event: CallEvent,
        extension: ExtensionSettings,
        names: CallerNames | None,
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self._rq = rq
        self._job = job
        self._name = name
        self._event = event
        self._extension = extension
        self._names = names
        self._attempt = 0  # the number of the attempt, 0 before it begins
        self._keys = event_keys(event, name, 0)
        self._lanes = ParkedLanes(inbox, name)

    async def run(self) -> None:
        """Make the attempt, unless the event is no longer parked or the circuit is open.

        Raises:
            Exception: the delivery failed.
        """
        try:
            handler = self._handler()
        except ConfigError:
            self._retry_in(60.0)  # the event waits until the configuration is corrected
            raise
        open_for = await self._lanes.circuit_open_for(self._event)
        if open_for:
            self._retry_in(open_for)
            raise TemporaryError(f"{self._name}'s circuit is open")
        self._attempt = await self._lanes.begin_attempt(self._event)
        self._keys = event_keys(self._event, self._name, self._attempt)
        if not self._attempt:
            await self._end()
            return
        called = time.time()
        try:
            await self._deliver(handler)
        except Exception as error:
            down = isinstance(error, TemporaryError) and await self._is_down()
            last = self._attempt > len(handler.policy.retry) and not down
            dead = isinstance(error, PermanentError) or last
            await self._publish(called, "dead" if dead else "failed", error)
            if dead:
                await self._die(error)
            elif down:
                wait = circuit.WAITS[-1]
                await self._lanes.spare(self._event, wait)
                await self._put_off(wait, error)
            else:
                await self._put_off(handler.policy.retry[self._attempt - 1], error)
            raise
        log.info("redelivered", extra=self._keys)
        await self._publish(called, "delivered", None)
        await self._lanes.close_circuit(self._event)
        await self._advance("delivered")

    def _handler(self) -> PluggedHandler:
        if self._name not in self._settings.handlers:
            raise ConfigError(f"handlers.{self._name}: is not configured, but has redeliveries")
        return plug_handler(self._name, self._settings.handlers[self._name])

    async def _deliver(self, handler: PluggedHandler) -> None:
        if self._attempt > len(handler.policy.retry) + 1:
            raise PermanentError("the worker process died in each attempt")
        event = self._event
        if self._names is not None:
            event = await self._names.named(event)
        async with Http() as http:
            await handler.deliver(
                event,
                attempt=self._attempt,
                http=http,
                threads=ThreadPoolExecutor(1, "handler"),
                extension=self._extension,
                calls=self._call_of,
                memory=RedisMemory(self._inbox.redis, self._name),
            )

    async def _is_down(self) -> bool:
        """Return whether the circuit is not closed, in which case the event is not at fault."""
        return await self._lanes.failures(self._event) >= circuit.CONSECUTIVE

    async def _call_of(self, event: CallEvent) -> Call:
        call = await Calls(self._inbox).of(event, self._extension.kind, self._settings.region)
        return call if self._names is None else await self._names.named_call(call, event)

    async def _put_off(self, seconds: float, error: Exception) -> None:
        log.warning("redelivery failed: %s", sentence(error), extra=self._keys)
        await self._lanes.count(self._event, "failed")
        self._job.meta["error"] = sentence(error)
        self._retry_in(wait_before(seconds, error))

    async def _publish(self, called: float, outcome: str, error: Exception | None) -> None:
        record = attempt_record(self._name, self._event, self._attempt, called, outcome, error)
        await feed.publish(self._inbox.redis, [record])

    def _retry_in(self, seconds: float) -> None:
        """Set the wait before RQ retries this job, once it has raised."""
        self._job.retry_intervals = [max(1, round(seconds))]

    async def _end(self) -> None:
        """End without an attempt: the event was delivered before, or is a dead letter."""
        if await asyncio.to_thread(queues.is_dead, self._rq, self._name, self._event.id):
            # A worker was killed before RQ recorded it. If the job succeeded now, RQ would delete
            # the dead letter.
            self._job.retries_left = 0
            raise PermanentError("this delivery was already a dead letter")
        log.info("already delivered", extra=self._keys)

    async def _die(self, error: Exception) -> None:
        """Make the delivery a dead letter, then let its lane continue."""
        log.error("delivery is dead: %s", sentence(error), extra=self._keys)
        self._job.retries_left = 0
        self._job.meta |= {
            "attempt": self._attempt,
            "error": sentence(error),
            "died": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        await asyncio.to_thread(
            queues.bury,
            self._rq,
            self._name,
            self._event,
            attempt=self._attempt,
            error=sentence(error),
            trace="".join(traceback.format_exception(error)),
        )
        await self._advance("dead")

    async def _advance(self, outcome: str) -> None:
        try:
            following = await self._lanes.advance(self._event, outcome)
        except LeaseLost:
            return  # another run of this job has done it
        if following is not None:
            await asyncio.to_thread(queues.redeliver, self._rq, self._name, following, delay=0)
