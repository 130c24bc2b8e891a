"""`Attempts`: makes one attempt at a delivery, and decides what follows from its outcome."""

import asyncio
import logging
import time
import traceback
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from offhook import queues
from offhook.call import Call
from offhook.errors import DeliveryError, HandlerTimeout, PermanentError, TemporaryError
from offhook.event import TROUBLE, CallEvent
from offhook.inbox.record_part import AttemptMade, AttemptOutcome
from offhook.plugins import plugged
from offhook.tasks import asked_to_end
from workers.delivery.attempt import attempt_record, encodable, event_keys, sentence, wait_before
from workers.delivery.steps import StepPage, Steps
from workers.serving.lanes import Lane, Redelivery, Work
from workers.serving.served import ServedHandler

if TYPE_CHECKING:
    from workers.serving.partition_server import Server
    from workers.serving.served_partition import ServedPartition

log = logging.getLogger("offhook.deliver")

T = TypeVar("T")

_TURN = 64  # entries of a lane before others have a turn
_DIED = "the worker process died in each attempt"


@dataclass(frozen=True)
class _Again:
    """Another attempt is due, in seconds; `spared`: this one does not count."""

    wait: float
    spared: bool


class Attempts:
    """Works on lanes and redeliveries for the runners."""

    def __init__(self, server: "Server", page: StepPage) -> None:
        self._server = server
        self._page = page

    async def run(self, work: Work) -> None:
        """Deliver a lane's entries, or make a redelivery, until there is a reason to stop."""
        handler = work.handler
        if work.partition.closed or handler.apart:
            handler.circuit.release_probe()
            if isinstance(work, Redelivery):
                work.partition.redeliveries.ended(work)
            handler.finished()
            return
        work.partition.began()
        try:
            if isinstance(work, Lane):
                await self._run_lane(work)
            else:
                await self._redeliver(work)
        finally:
            work.partition.ended()

    async def _run_lane(self, lane: Lane) -> None:
        handler, served, runners = lane.handler, lane.partition, self._server.runners
        for _ in range(_TURN):
            if not lane.entries:
                del handler.lanes[served.number, lane.call]
                handler.finished()
                return
            if served.closed or handler.apart:
                handler.finished()
                return
            if handler.paused:
                handler.circuit.release_probe()
                handler.put_back(lane)
                return
            entry = lane.entries[0]
            attempt = self._try(served, handler, entry.event, entry.attempts)
            again = await self._steps(handler, entry.event, attempt)
            if again is None:
                lane.entries.popleft()
                served.done(entry)
            elif not again.spared:  # else it stays first in its lane
                _park(lane, again.wait)
                del handler.lanes[served.number, lane.call]
                handler.finished()
                return
            if handler.circuit.state != "closed" and lane.entries:
                handler.put_back(lane)
                return
            if runners.slice_is_over:
                await runners.pause()
        handler.continue_later(lane)

    async def _redeliver(self, work: Redelivery) -> None:
        """Make attempts at a parked lane's events, one after the other, until one fails."""
        handler, served = work.handler, work.partition
        name = (served.number, work.call)
        while not (served.closed or handler.apart):
            if handler.paused:
                handler.circuit.release_probe()
                handler.put_back(work)  # its lane stays parked
                return
            if handler.circuit.state == "open":
                probe_at = time.time() + handler.circuit.probe_in
                served.writer.lanes.again(handler.name, work.call, work.attempt - 1, probe_at)
                served.redeliveries.expect(probe_at)
                break
            if work.event is None:
                await served.redeliveries.set_aside(work)
            else:
                attempt = self._redeliver_once(work, work.event)
                due = await self._steps(handler, work.event, attempt)
                if due is not None:
                    served.redeliveries.expect(due)
                    break
            handler.parked[name] = True  # until it is known whether the lane is free
            self._server.runners.suspended()
            try:
                following = await served.writer.lanes.advance(work)
            finally:
                self._server.runners.resumed()
            if not following:
                self._free(work)
                break
            handler.parked[name] = False
            lane = handler.lanes.get(name)
            if lane is not None:
                served.park_behind(lane)
            work.follow(following)
        served.redeliveries.ended(work)
        handler.finished()

    async def _redeliver_once(self, work: Redelivery, event: CallEvent) -> float | None:
        """Make one attempt. Return when the next one is due, or None if the event is finished."""
        handler, served = work.handler, work.partition
        named = [(event.pbx, event.extension)]
        await self._server.until_done(partial(self._server.extensions.load, named))
        if work.lost and await self._is_dead(handler, event):
            handler.circuit.release_probe()
            return None
        made = work.attempt - 1 + self._server.guard.attempts(handler, event)
        again = await self._try(served, handler, event, made, redelivery=True)
        if again is None:
            return None
        due = time.time() + again.wait
        served.writer.lanes.again(handler.name, work.call, work.attempt - again.spared, due)
        return due

    async def _try(
        self,
        served: "ServedPartition",
        handler: ServedHandler,
        event: CallEvent,
        made: int,
        *,
        redelivery: bool = False,
    ) -> _Again | None:
        """Make the next attempt at an event. Return whether and when to make another one.

        Args:
            made: number of attempts that count.
            redelivery: whether its lane waits for it in Redis.
        """
        server, waits = self._server, handler.plugged.policy.retry
        if made > len(waits):
            handler.circuit.release_probe()
            await self._bury(handler, event, made, PermanentError(_DIED))
            now, dead = time.time(), AttemptOutcome.DEAD
            made_last = AttemptMade.of(handler.name, made, now, now, dead, _DIED)
            served.writer.record(event, made_last)
            _count(served, handler, event, dead)
            return None
        attempt = made + 1
        error, answer, called = await self._attempt(served, handler, event, attempt)
        ended = time.time()
        outcome, again = AttemptOutcome.DELIVERED, None
        if error is not None:
            answer = sentence(error)
            spared = _spares(handler, error) and bool(waits or redelivery)
            if isinstance(error, PermanentError) or (attempt > len(waits) and not spared):
                outcome = AttemptOutcome.DEAD
                await self._bury(handler, event, attempt, error)
            else:
                outcome = AttemptOutcome.CIRCUIT_OPEN if spared else AttemptOutcome.FAILED
                self._log_failed(handler, event, attempt, error)
                wait = handler.circuit.probe_in if spared else wait_before(waits[made], error)
                again = _Again(wait, spared)
        elif redelivery:
            log.info("redelivered", extra=event_keys(event, handler.name, attempt))
        elif log.isEnabledFor(logging.DEBUG):
            log.debug("delivered", extra=event_keys(event, handler.name, attempt))
        if server.records_all or error is not None or redelivery:
            last = AttemptMade.of(handler.name, attempt, called, ended, outcome, answer)
            served.writer.record(event, last)
        if outcome is AttemptOutcome.CIRCUIT_OPEN:
            outcome = AttemptOutcome.FAILED  # as those count and show that watch
        _count(served, handler, event, outcome)
        if error is None:
            served.writer.latencies.add(event.received, ended)
        if server.traces is not None:
            server.traces.attempt(event, handler.name, attempt, outcome, called, ended)
        if server.watched:
            server.records.append(
                attempt_record(handler.name, event, attempt, called, outcome, error)
            )
        return again

    def _steps(
        self, handler: ServedHandler, event: CallEvent, attempt: Coroutine[Any, Any, T]
    ) -> Steps[T]:
        about = (handler.name, event.id, event.call)
        return Steps(attempt, handler, about, self._page, self._server.runners)

    async def _attempt(
        self, served: "ServedPartition", handler: ServedHandler, event: CallEvent, attempt: int
    ) -> tuple[Exception | None, str, float]:
        """Call the handler once, and let the circuit know.

        Returns:
            Its error, the start of the target's answer, and when it began.
        """
        server = self._server
        names = server.names(event.tenant)
        if names is not None:
            event = await names.named(event)
        server.share.check_lease(served.number)
        called = time.time()
        error: Exception | None = None
        answer = ""
        if not handler.plugged.is_async:
            self._page.plain(handler.name, event.id, event.call)
        try:
            answer = await handler.plugged.deliver(
                event,
                attempt=attempt,
                http=server.http,
                threads=handler.threads,
                extension=server.extensions.get(event.pbx, event.extension),
                calls=partial(self._call_of, served.number),
                memory=handler.memory,
            )
        except asyncio.CancelledError:
            if server.runners.closing:
                raise
            error = RuntimeError("the handler's own code cancelled its task")
        except Exception as raised:  # noqa: BLE001 - a handler may raise anything
            error = raised
            if isinstance(error, HandlerTimeout) and error.hung:
                handler.replace_threads()
                server.guard.hung(handler)
        if not handler.plugged.is_async:
            self._page.plain_ended()
        if server.guard.measures:
            server.guard.measure(handler)
        if asked_to_end():
            await self._forget_cancellations()
        if error is not None or not handler.circuit.untroubled:
            self._record(handler, event, error)
        return error, answer, called

    async def _forget_cancellations(self) -> None:
        """Keep a runner that the handler's own code has cancelled."""
        task = asyncio.current_task()
        if task is None or self._server.runners.closing:
            return
        while task.uncancel():
            pass
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)  # it may not have been raised yet

    def _record(self, handler: ServedHandler, event: CallEvent, error: Exception | None) -> None:
        """Let the circuit know. A target that rejects an event works."""
        circuit = handler.circuit
        before = circuit.state
        ok = error is None or isinstance(error, PermanentError)
        if before == "closed" and not ok and not isinstance(error, TemporaryError):
            return  # a bug says nothing about the target
        handler.refused = "" if ok else event.extension
        seconds = circuit.record(ok=ok)
        if seconds is not None:
            log.error(
                "circuit open: deliveries to %s keep failing; next probe in %g s",
                handler.name,
                seconds,
                extra={"handler": handler.name},
            )
            self._server.spawn(partial(self._note_circuit, handler))
        elif before != "closed" and circuit.state == "closed":
            keys = {"handler": handler.name}
            log.error("circuit closed: %s takes deliveries again", handler.name, extra=keys)
            self._server.spawn(partial(self._note_circuit, handler))
        handler.look()

    async def _note_circuit(self, handler: ServedHandler) -> None:
        """Note the circuit as it is now, for others to see: a note may be late, and made again."""
        circuit = handler.circuit
        seconds = None if circuit.state == "closed" else circuit.probe_in
        await self._server.leases.note_circuit(handler.name, seconds)

    async def _call_of(self, partition: int, event: CallEvent) -> Call:
        server = self._server
        kind = server.extensions.get(event.pbx, event.extension).kind
        region, names = server.settings.of(event.tenant).region, server.names(event.tenant)
        call = await server.calls.of(event, kind, region, partition)
        return call if names is None else await names.named_call(call, event)

    def _free(self, work: Redelivery) -> None:
        """Deliver new events of a call directly again: its lane in Redis is empty."""
        name = (work.partition.number, work.call)
        del work.handler.parked[name]
        lane = work.handler.lanes.get(name)
        if lane is not None and lane.parked:
            lane.parked = False
            lane.started = True
            work.handler.start(lane)

    async def _is_dead(self, handler: ServedHandler, event: CallEvent) -> bool:
        """Return whether a process made it a dead letter, and ended before it noted that."""
        return await self._server.call_rq(queues.is_dead, handler.name, event.id)

    async def _bury(
        self, handler: ServedHandler, event: CallEvent, attempt: int, error: Exception
    ) -> None:
        log.error(
            "delivery is dead: %s",
            sentence(error),
            extra=event_keys(event, handler.name, attempt),
        )
        error.__traceback__ = _of_plugin(error.__traceback__)
        trace = encodable("".join(traceback.format_exception(error)))
        await self._server.call_rq(
            queues.bury,
            handler.name,
            event,
            attempt=attempt,
            error=sentence(error),
            trace=trace,
        )

    @staticmethod
    def _log_failed(
        handler: ServedHandler, event: CallEvent, attempt: int, error: Exception
    ) -> None:
        keys = event_keys(event, handler.name, attempt)
        if isinstance(error, DeliveryError):
            log.warning("delivery failed, will retry: %s", sentence(error), extra=keys)
        elif attempt == 1:
            error.__traceback__ = _of_plugin(error.__traceback__)
            log.error("a bug in the handler, will retry", exc_info=error, extra=keys)
        else:
            log.error("a bug in the handler, will retry: %s", sentence(error), extra=keys)


def _count(
    served: "ServedPartition", handler: ServedHandler, event: CallEvent, outcome: AttemptOutcome
) -> None:
    served.writer.count(handler.name, outcome)
    if event.type in TROUBLE and outcome is not AttemptOutcome.DELIVERED:
        served.writer.count(handler.name, f"{outcome}-of-trouble")  # never announced: a loop


def _park(lane: Lane, wait: float) -> None:
    """Park a lane whose first entry failed, for some seconds."""
    served = lane.partition
    lane.handler.parked[served.number, lane.call] = False
    lane.parked = True
    due = time.time() + wait
    served.writer.lanes.park(lane, 1, due)
    served.redeliveries.expect(due)


def _of_plugin(trace: TracebackType | None) -> TracebackType | None:
    """The stack trace from where our code calls the plugin's."""
    ours = trace
    while ours is not None:
        if ours.tb_frame.f_code.co_filename == plugged.__file__:
            trace = ours.tb_next or trace
        ours = ours.tb_next
    return trace


def _spares(handler: ServedHandler, error: Exception) -> bool:
    """Return whether the target is down, which costs an event no attempt."""
    hung = isinstance(error, HandlerTimeout) and error.hung
    return isinstance(error, TemporaryError) and not hung and handler.circuit.state != "closed"
