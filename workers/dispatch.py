"""`dispatch`: serve one handler's cursor on one partition until it is quiet.

inbox → **dispatch** (one cursor per handler, each call in order) → deliver
"""

import asyncio
import logging
import signal
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Literal

import uvloop
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from offhook import queues
from offhook.call import Call
from offhook.connection import connect, connect_rq
from offhook.errors import CursorMoved, HandlerTimeout, PermanentError, TemporaryError
from offhook.event import CallEvent
from offhook.extensions import Extensions, ExtensionsCopy
from offhook.http import Http
from offhook.inbox import BLOCK_MS, Cursor, Entry, Inbox, feed
from offhook.inbox.call_store import Calls
from offhook.logs import Outage
from offhook.plugins import PluggedHandler, plug_handler
from offhook.settings import Settings, load_settings
from offhook.tasks import asked_to_end, end
from workers import process
from workers.delivery.attempt import attempt_record, event_keys, sentence, wait_before
from workers.delivery.caller_names import Names, naming
from workers.delivery.circuit import Circuit
from workers.delivery.lanes import Lane, Lanes
from workers.delivery.lease import LeaseKeeper, taken
from workers.delivery.redis_memory import RedisMemory

log = logging.getLogger("offhook.dispatch")

QUIET = 5.0  # seconds without an event, then the job ends
LONGEST = 3600.0  # seconds, then a fresh process goes on
READ_AT_ONCE = 500
# Of a delivery: done with; the lane waits for a redelivery; it is tried again from here.
Outcome = Literal["done", "parked", "kept"]

MAX_READS = 3  # an event read more often was there each time the process died: it goes on its own


def dispatch(handler: str, partition: int) -> None:
    """The RQ job.

    Args:
        handler: whose cursor to serve, by its name in the configuration.
        partition: on which stream.
    """
    process.die_with_parent()
    settings = load_settings()
    if handler not in settings.handlers:
        log.warning("handler %s is not configured any more: nothing dispatched", handler)
        return
    plugged = plug_handler(handler, settings.handlers[handler])
    uvloop.run(serve_cursor(settings, plugged, partition))


async def serve_cursor(settings: Settings, handler: PluggedHandler, partition: int) -> None:
    """Take the lease of a handler's cursor and serve it until it is quiet."""
    redis, reading = connect(settings.redis_url, tries=10), connect(settings.redis_url, tries=0)
    rq = connect_rq(settings.redis_url)
    try:
        inbox = Inbox(redis, settings.partitions)
        cursor = Cursor(inbox, handler.name, partition)
        reader = Cursor(Inbox(reading, settings.partitions), handler.name, partition, cursor.token)
        if not await taken(cursor):
            return
        async with Http() as http, naming(settings, redis) as names:
            extensions = ExtensionsCopy(Extensions(redis))
            again = await Dispatch(
                settings, handler, inbox, extensions, cursor, reader, rq, http, names
            ).run()
        if again:
            queues.wake(rq, handler.name, partition)
    finally:
        await redis.aclose()
        await reading.aclose()
        rq.close()


class Dispatch:
    """One run of the job: reads ahead, delivers many calls at a time, acknowledges in batches."""

    def __init__(
        self,
        settings: Settings,
        handler: PluggedHandler,
        inbox: Inbox,
        extensions: ExtensionsCopy,
        cursor: Cursor,
        reader: Cursor,
        rq: Redis,
        http: Http,
        names: Names | None,
    ) -> None:
        self._handler = handler
        self._inbox = inbox
        self._extensions = extensions
        self._cursor = cursor
        self._reader = reader
        self._rq = rq
        self._http = http
        self._names = names
        self._threads = ThreadPoolExecutor(handler.policy.concurrency, "handler")
        self._calls = Calls(inbox)
        self._memory = RedisMemory(inbox.redis, handler.name)
        self._region = settings.region
        self._circuit = Circuit()
        self._failures = 0  # what the server knows of it
        self._lanes = Lanes()
        self._parked: set[str] = set()  # lanes known to wait for a redelivery
        self._took_over = False  # what a dead dispatch left pending is taken in
        # Read and not yet acknowledged; a position is here until the server knows it is done.
        self._outstanding: set[bytes] = set()
        self._tried: dict[bytes, int] = {}  # how often, what a probe has left where it was
        self._most = max(1000, 2 * handler.policy.concurrency)
        self._room = asyncio.Event()
        self._done: list[bytes] = []
        self._delivered = 0
        self._something_done = asyncio.Event()
        self._delivering = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stop = asyncio.Event()
        self._hand_over = False
        self._watched = False
        self._told: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        self._lease = LeaseKeeper(
            settings.redis_url, cursor, lambda: loop.call_soon_threadsafe(self._stop.set)
        )

    async def run(self) -> bool:
        """Serve the cursor. True: another dispatch should go on at once."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        await self._extensions.refresh()
        self._failures = await self._cursor.failures()
        self._circuit.resume(self._failures, await self._cursor.circuit_open_for())
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._run()) for _ in range(self._handler.policy.concurrency)
                ]
                tasks += [group.create_task(self._acknowledge()), group.create_task(self._watch())]
                await self._read()
                await self._idle.wait()
                await end(*tasks)
            await self._flush()
            if self._outstanding:
                await self._cursor.forgive(list(self._outstanding))
            if self._stop.is_set():
                await self._cursor.rest(even_if_behind=True)
            return self._hand_over
        except BaseExceptionGroup as errors:
            # One reason is enough; the others are what it caused.
            raise errors.exceptions[0] from None
        finally:
            self._lease.stop()

    # Reading

    async def _read(self) -> None:
        """Fill the lanes until it is quiet or time to stop."""
        self._parked = await self._cursor.parked()
        began = quiet_since = time.monotonic()
        recovered = False
        outage = Outage(log, "Redis")
        while not (self._stop.is_set() or asked_to_end()):
            try:
                if not recovered:
                    await self._recover()
                    recovered = True
                entries = await self._next()
            except CursorMoved:
                recovered = False
                continue
            except (RedisConnectionError, RedisTimeoutError) as error:
                # What the server had already handed out is found again as pending.
                self._lease.check()
                outage.goes_on(error)
                await asyncio.sleep(0.2)
                recovered = False
                continue
            outage.is_over()
            now = time.monotonic()
            if entries or self._outstanding:
                quiet_since = now
            elif now - quiet_since > QUIET and await self._cursor.rest():
                return
            for entry in entries:
                await self._take_in(entry)
            if now - began > LONGEST:
                self._stop_and_hand_over()

    async def _next(self) -> list[Entry]:
        # A process that was stopped for long must not move a cursor that another one serves.
        self._lease.check()
        room = self._most - len(self._outstanding)
        if room <= 0:
            self._room.clear()
            await self._or_stop(self._room.wait())
            return []
        # Not broken off by a stop: the events of a dropped answer would lie unread until the next
        # dispatch.
        return await self._reader.read(min(room, READ_AT_ONCE), BLOCK_MS // 4)

    async def _recover(self) -> None:
        """Take in what a dead dispatch, or a lost answer, left pending."""
        after = b"0-0"
        ours = set(self._outstanding)  # one may be acknowledged while its page is on the way
        await self._reader.locate()
        while True:
            try:
                page = await self._reader.read_pending(after, READ_AT_ONCE)
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                await self._cursor.recreate()
                return
            if not page:
                self._took_over = True
                return
            if self._took_over:
                # This process lives: what it reads once more says nothing about deaths.
                await self._reader.forgive([entry.position for entry in page])
            reads = await self._reader.attempts(after, READ_AT_ONCE)
            for entry in page:
                if entry.position in ours:
                    continue
                await self._take_in(entry, suspect=reads.get(entry.position, 0) > MAX_READS)
            after = page[-1].position

    async def _take_in(self, entry: Entry, *, suspect: bool = False) -> None:
        self._outstanding.add(entry.position)
        event = entry.event
        if not self._handler.wants(event, self._extensions.get):
            self._finish(entry, delivered=False)
        elif suspect and event.call not in self._lanes:  # nor before what is delivered here of it
            await self._redeliver_alone(entry)
        elif event.call in self._parked and event.call not in self._lanes:
            if await self._cursor.park_behind(entry):
                self._forget(entry)
            else:
                self._parked.discard(event.call)
                self._lanes.add(entry)
        else:
            self._lanes.add(entry)

    # Delivering

    async def _run(self) -> None:
        """Work on one lane after the other."""
        while not asked_to_end():
            lane = await self._lanes.take()
            if self._circuit.state != "closed":
                await self._circuit.passage()
            if self._stop.is_set():
                return
            self._delivering += 1
            self._idle.clear()
            try:
                await self._work_on(lane)
            finally:
                self._delivering -= 1
                if not self._delivering:
                    self._idle.set()
            self._lanes.give_back(lane)

    async def _work_on(self, lane: Lane) -> None:
        """Deliver what a lane holds, until it is empty, must wait, or the circuit is not closed."""
        while lane.entries:
            entry = lane.entries.popleft()
            outcome = await self._deliver(entry)
            if outcome == "kept":
                lane.entries.appendleft(entry)
                return
            if outcome == "done":
                if self._stop.is_set() or self._circuit.state != "closed":
                    return
                continue
            self._parked.add(lane.call)
            while lane.entries:
                if not await self._cursor.park_behind(lane.entries[0]):
                    self._parked.discard(lane.call)
                    return
                self._forget(lane.entries.popleft())
            return

    async def _deliver(self, entry: Entry) -> Outcome:
        """Run the handler once."""
        event = entry.event
        if self._names is not None:
            event = await self._names.named(event)
        self._lease.check()
        attempt = self._tried.pop(entry.position, 0) + 1
        called = time.time()
        try:
            await self._handler.deliver(
                event,
                attempt=attempt,
                http=self._http,
                threads=self._threads,
                extension=self._extensions.get(event.pbx, event.extension),
                calls=self._call_of,
                memory=self._memory,
            )
        except PermanentError as error:
            await self._record_success()  # the other side is there: it said no
            self._tell(entry, attempt, called, "dead", error)
            await self._bury(entry, attempt, error)
            return "done"
        except Exception as error:  # noqa: BLE001 - a handler may raise anything
            self._tell(entry, attempt, called, "failed", error)
            hung = isinstance(error, HandlerTimeout) and error.hung
            if hung:
                self._stop_and_hand_over()  # its thread is lost: a fresh process has all of them
            await self._record_failure()
            if isinstance(error, TemporaryError) and not hung and self._circuit.state != "closed":
                # The other side is down: that is not the event's fault. Another call probes next.
                self._tried[entry.position] = attempt
                await self._say_failed(entry, attempt, error)
                return "kept"
            return await self._put_off(entry, attempt, error)
        await self._record_success()
        self._tell(entry, attempt, called, "delivered", None)
        self._finish(entry, delivered=True)
        return "done"

    async def _call_of(self, event: CallEvent) -> Call:
        kind = self._extensions.get(event.pbx, event.extension).kind
        call = await self._calls.of(event, kind, self._region)
        return call if self._names is None else await self._names.named_call(call, event)

    async def _put_off(self, entry: Entry, attempt: int, error: Exception) -> Outcome:
        """Park the lane behind a redelivery of its own, unless there is no attempt left for one."""
        waits = self._handler.policy.retry
        if not waits:
            await self._bury(entry, attempt, error)
            return "done"
        await self._say_failed(entry, attempt, error)
        await self._park(entry, 1, wait_before(waits[0], error), sentence(error))
        return "parked"

    async def _say_failed(self, entry: Entry, attempt: int, error: Exception) -> None:
        log.warning(
            "delivery failed, to be tried again: %s",
            sentence(error),
            extra=event_keys(entry.event, self._handler.name, attempt),
        )
        await self._cursor.count("failed")

    async def _redeliver_alone(self, entry: Entry) -> None:
        """Deliver what may have killed this process before in a process of its own."""
        log.error(
            "the process died %s times with this event in flight; it is delivered on its own",
            MAX_READS,
            extra=event_keys(entry.event, self._handler.name, 1),
        )
        self._parked.add(entry.event.call)
        await self._park(entry, 0, 0, "the worker process died while this event was in flight")

    async def _park(self, entry: Entry, attempts: int, delay: float, error: str) -> None:
        if await self._cursor.park(entry, attempts):
            await asyncio.to_thread(
                queues.redeliver,
                self._rq,
                self._handler.name,
                entry.event,
                delay=delay,
                error=error,
            )
        self._forget(entry)

    async def _bury(self, entry: Entry, attempt: int, error: Exception) -> None:
        log.error(
            "delivery is dead: %s",
            sentence(error),
            extra=event_keys(entry.event, self._handler.name, attempt),
        )
        await asyncio.to_thread(
            queues.bury,
            self._rq,
            self._handler.name,
            entry.event,
            attempt=attempt,
            error=sentence(error),
            trace="".join(traceback.format_exception(error)),
        )
        await self._cursor.count("dead")
        self._finish(entry, delivered=False)

    async def _record_success(self) -> None:
        self._circuit.record(ok=True)
        if self._failures:
            await self._note_failures()

    async def _record_failure(self) -> None:
        seconds = self._circuit.record(ok=False)
        if seconds is not None:
            log.error(
                "circuit open: deliveries to %s keep failing; next probe in %g s",
                self._handler.name,
                seconds,
            )
            await self._cursor.open_circuit(seconds)
        await self._note_failures()

    async def _note_failures(self) -> None:
        self._failures = self._circuit.failures
        await self._cursor.note_failures(self._failures)

    # Acknowledging

    def _finish(self, entry: Entry, *, delivered: bool) -> None:
        self._done.append(entry.position)
        self._delivered += delivered
        self._something_done.set()

    def _forget(self, entry: Entry) -> None:
        """It was acknowledged together with being parked."""
        self._outstanding.discard(entry.position)
        self._room.set()

    async def _acknowledge(self) -> None:
        while not asked_to_end():
            await self._something_done.wait()
            self._something_done.clear()
            await self._flush()

    async def _flush(self) -> None:
        done, self._done = self._done, []
        delivered, self._delivered = self._delivered, 0
        told, self._told = self._told, []
        if done:
            await self._cursor.acknowledge(done, delivered)
            self._outstanding.difference_update(done)
            self._room.set()
        if told:
            await feed.publish(self._inbox.redis, told)

    # Being watched, and stopping

    async def _watch(self) -> None:
        while not asked_to_end():
            with suppress(RedisConnectionError, RedisTimeoutError):
                self._watched = await feed.is_watched(self._inbox.redis)
                await self._extensions.refresh()
                # Lanes that a dead letter, sent again, has parked meanwhile.
                self._parked |= await self._cursor.parked()
            await asyncio.sleep(1)

    def _tell(
        self, entry: Entry, attempt: int, called: float, outcome: str, error: Exception | None
    ) -> None:
        if self._watched:
            name = self._handler.name
            self._told.append(attempt_record(name, entry.event, attempt, called, outcome, error))
            self._something_done.set()

    def _stop_and_hand_over(self) -> None:
        self._hand_over = True
        self._stop.set()

    async def _or_stop(self, waiting: Any) -> None:
        tasks = [asyncio.ensure_future(waiting), asyncio.ensure_future(self._stop.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
