"""`dispatch`: an RQ job that serves one handler's cursor on one partition until it is idle.

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
from offhook.connection import opened
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
from workers.delivery.caller_names import CallerNames, naming
from workers.delivery.circuit import Circuit
from workers.delivery.lanes import Lane, Lanes
from workers.delivery.lease import LeaseKeeper, taken
from workers.delivery.redis_memory import RedisMemory

log = logging.getLogger("offhook.dispatch")

QUIET = 5.0  # seconds without an event before the job ends
MAX_AGE = 3600.0  # seconds before a fresh process takes over
READ_AT_ONCE = 500
MAX_READS = 3  # an event read more often killed its process each time: redeliver it separately

# The delivery is finished; its lane waits for a redelivery; it stays in its lane and is retried.
Outcome = Literal["done", "parked", "kept"]


def dispatch(handler: str, partition: int) -> None:
    """The RQ job.

    Args:
        handler: its name in the configuration.
        partition: the number of the partition.
    """
    process.die_with_parent()
    settings = load_settings()
    if handler not in settings.handlers:
        log.warning("handler %s is no longer configured: nothing dispatched", handler)
        return
    plugged = plug_handler(handler, settings.handlers[handler])
    uvloop.run(serve_cursor(settings, plugged, partition))


async def serve_cursor(settings: Settings, handler: PluggedHandler, partition: int) -> None:
    """Take the lease of a handler's cursor and serve it until it is idle."""
    async with opened(settings, tries=10) as (inbox, rq), opened(settings, tries=0) as (once, _):
        cursor = Cursor(inbox, handler.name, partition)
        reader = Cursor(once, handler.name, partition, cursor.token)
        if not await taken(cursor):
            return
        async with Http() as http, naming(settings, inbox.redis) as names:
            extensions = ExtensionsCopy(Extensions(inbox.redis))
            again = await Dispatch(
                settings, handler, inbox, extensions, cursor, reader, rq, http, names
            ).run()
        if again:
            queues.wake(rq, handler.name, partition)


class Dispatch:
    """One run of the job: reads ahead, delivers calls concurrently, acknowledges in batches."""

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
        names: CallerNames | None,
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
        self._failures = 0  # failures in a row, as Redis has it
        self._lanes = Lanes()
        self._parked: set[str] = set()  # calls whose lane waits for a redelivery
        self._took_over = False  # whether the pending entries of a dead dispatch are read
        self._outstanding: set[bytes] = set()  # read, and not known to be acknowledged
        self._tried: dict[bytes, int] = {}  # number of attempts at entries that were "kept"
        self._max_outstanding = max(1000, 2 * handler.policy.concurrency)
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
        self._attempts: list[dict[str, Any]] = []  # records to publish
        loop = asyncio.get_running_loop()
        self._lease = LeaseKeeper(
            settings.redis_url, cursor, lambda: loop.call_soon_threadsafe(self._stop.set)
        )

    async def run(self) -> bool:
        """Serve the cursor. Return whether another dispatch should take over at once."""
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
            raise errors.exceptions[0] from None  # the others are its consequences
        finally:
            self._lease.stop()

    # Reading

    async def _read(self) -> None:
        """Fill the lanes until the cursor is idle or it is time to stop."""
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
                # Entries in a lost response are pending, so `_recover` finds them.
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
            if now - began > MAX_AGE:
                self._stop_and_hand_over()

    async def _next(self) -> list[Entry]:
        # A process that was suspended must not move a cursor that another one serves now.
        self._lease.check()
        room = self._max_outstanding - len(self._outstanding)
        if room <= 0:
            self._room.clear()
            await self._or_stop(self._room.wait())
            return []
        # Not cancelled by a stop: the entries of a dropped response would stay pending.
        return await self._reader.read(min(room, READ_AT_ONCE), BLOCK_MS // 4)

    async def _recover(self) -> None:
        """Take in the entries that a dead dispatch or a lost response left pending."""
        after = b"0-0"
        ours = set(self._outstanding)  # a copy: entries may be acknowledged during the reads
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
                # Do not count these reads: they follow from a lost response, not from a death.
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
        elif suspect and event.call not in self._lanes:  # earlier events of the call come first
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
        """Work on one lane after another."""
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
        """Deliver a lane's entries until it is empty or parked, or the circuit is not closed."""
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
        """Make one attempt."""
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
            await self._record_success()  # the target works: it rejected the event
            self._publish(entry, attempt, called, "dead", error)
            await self._bury(entry, attempt, error)
            return "done"
        except Exception as error:  # noqa: BLE001 - a handler may raise anything
            self._publish(entry, attempt, called, "failed", error)
            hung = isinstance(error, HandlerTimeout) and error.hung
            if hung:
                self._stop_and_hand_over()  # a hung thread is lost; a fresh process has all threads
            await self._record_failure()
            if isinstance(error, TemporaryError) and not hung and self._circuit.state != "closed":
                # The target is down, which costs the event no attempt. The next probe may be
                # another call's.
                self._tried[entry.position] = attempt
                await self._log_failed(entry, attempt, error)
                return "kept"
            return await self._put_off(entry, attempt, error)
        await self._record_success()
        self._publish(entry, attempt, called, "delivered", None)
        self._finish(entry, delivered=True)
        return "done"

    async def _call_of(self, event: CallEvent) -> Call:
        kind = self._extensions.get(event.pbx, event.extension).kind
        call = await self._calls.of(event, kind, self._region)
        return call if self._names is None else await self._names.named_call(call, event)

    async def _put_off(self, entry: Entry, attempt: int, error: Exception) -> Outcome:
        """Park the lane and schedule a redelivery, or give up if there is no attempt left."""
        waits = self._handler.policy.retry
        if not waits:
            await self._bury(entry, attempt, error)
            return "done"
        await self._log_failed(entry, attempt, error)
        await self._park(entry, 1, wait_before(waits[0], error), sentence(error))
        return "parked"

    async def _log_failed(self, entry: Entry, attempt: int, error: Exception) -> None:
        log.warning(
            "delivery failed, will retry: %s",
            sentence(error),
            extra=event_keys(entry.event, self._handler.name, attempt),
        )
        await self._cursor.count("failed")

    async def _redeliver_alone(self, entry: Entry) -> None:
        """Hand an event that may have killed this process to a separate process."""
        log.error(
            "the process died %s times with this event in flight; a separate process delivers it",
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
        """Drop an entry that was acknowledged when it was parked."""
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
        attempts, self._attempts = self._attempts, []
        if done:
            await self._cursor.acknowledge(done, delivered)
            self._outstanding.difference_update(done)
            self._room.set()
        if attempts:
            await feed.publish(self._inbox.redis, attempts)

    # Watching and stopping

    async def _watch(self) -> None:
        while not asked_to_end():
            with suppress(RedisConnectionError, RedisTimeoutError):
                self._watched = await feed.is_watched(self._inbox.redis)
                await self._extensions.refresh()
                # Redelivering a dead letter parks its lane.
                self._parked |= await self._cursor.parked()
            await asyncio.sleep(1)

    def _publish(
        self, entry: Entry, attempt: int, called: float, outcome: str, error: Exception | None
    ) -> None:
        if self._watched:
            record = attempt_record(
                self._handler.name, entry.event, attempt, called, outcome, error
            )
            self._attempts.append(record)
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
