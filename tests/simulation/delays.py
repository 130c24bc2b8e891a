"""What must happen in time: while there are no faults, nothing waits for the next poll."""

from typing import TYPE_CHECKING

from offhook.event import CallEvent
from offhook.inbox import keys
from offhook.inbox.leases import LEASE_MS
from tests.simulation.model import Violation
from workers.serving.reader import WAIT
from workers.serving.redeliveries import LOOK_EVERY

if TYPE_CHECKING:
    from tests.simulation.world import World

PROMPT = WAIT / 4  # seconds; what takes longer has waited for a poll
STARTED = 2.0  # seconds until the servers have begun
# Seconds after a fault until a server that took over, with nothing but polls, has done it all.
RECOVERED = LEASE_MS / 1000 + LOOK_EVERY + 2 * WAIT


class Delays:
    """Complains about events that are delivered late, and redeliveries that begin late.

    Attributes:
        calm_from: when the last fault is over and overcome.
    """

    def __init__(self, world: "World") -> None:
        self._world = world
        self._clock = world.clock
        self.calm_from = world.clock.elapsed + STARTED
        self._untroubled_from: dict[str, float] = {}  # the same for each handler

    def disturbed(self) -> None:
        """Note a fault."""
        self.calm_from = self._clock.elapsed + RECOVERED

    def troubled(self, handler: str, seconds: float) -> None:
        """Note that a handler keeps its own events waiting for so long."""
        until = self._clock.elapsed + seconds
        self._untroubled_from[handler] = max(until, self._untroubled_from.get(handler, 0.0))

    def begun(self, handler: str, event: CallEvent) -> None:
        """A handler is called with an event for the first time."""
        appended = self._world.model.appended.get(event.id, 0.0)
        took = self._clock.elapsed - appended
        calm_from = max(self.calm_from, self._untroubled_from.get(handler, 0.0))
        if took > PROMPT and appended >= calm_from:
            raise Violation(f"{handler} gets {event.id} of {event.call} {took:.1f} s late")

    def look(self) -> None:
        """Look for what is late already."""
        if self._world.reloading or self._world.plan.distance:
            self.disturbed()  # handlers come and go; all takes longer
        if self._clock.elapsed < self.calm_from:
            return
        model, late = self._world.model, self._clock.elapsed - PROMPT
        for number in range(self._world.plan.most_partitions):
            for pool in ("", *self._world.plan.handlers):
                self._look_at_redeliveries(keys.due(number, pool))
        for event_id, appended in model.appended.items():
            event = model.events[event_id]
            for handler in model.waits_for(event) if appended < late else ():
                if self._admits(handler, event):
                    raise Violation(
                        f"{handler} does not get {event_id} of {event.call}, "
                        f"{self._clock.elapsed - appended:.1f} s after it was appended"
                    )

    def _look_at_redeliveries(self, key: str) -> None:
        now = self._clock.time()
        waiting = self._world.redis.execute("ZRANGE", key, 0, 0, "WITHSCORES")
        if waiting and now - float(waiting[1]) / 1000 > PROMPT:
            late = now - float(waiting[1]) / 1000
            raise Violation(f"a redelivery of {key} is {late:.1f} s late: {waiting[0].decode()}")

    def _admits(self, handler: str, event: CallEvent) -> bool:
        """Return whether the event waits for nothing else."""
        world = self._world
        return self._clock.elapsed >= self._untroubled_from.get(handler, 0.0) and not any(
            world.redis.execute("HEXISTS", keys.parked(number), f"{handler} {event.call}")
            for number in range(world.plan.most_partitions)
        )
