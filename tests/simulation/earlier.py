"""What the version before left: a consumer group for each handler, parked lanes, jobs of RQ."""

from random import Random
from typing import TYPE_CHECKING

from offhook.call import CALL_LOG
from offhook.event import CallEvent, EventType, from_stored, to_stored
from offhook.inbox import keys, partition_of

if TYPE_CHECKING:
    from tests.simulation.world import World

_CALLS, _EVENTS = 3, 3
_KINDS = (EventType.DIAL_IN, EventType.ANSWER_IN, EventType.HANGUP)


def leave(world: "World") -> None:
    """Put an inbox of the version before onto the server, in any state that it may be in."""
    streams: dict[int, list[CallEvent]] = {n: [] for n in range(world.plan.partitions)}
    for n in range(_EVENTS):
        for call in range(_CALLS):
            event = world.event(f"earlier-{call}", n, _KINDS[n])
            streams[partition_of(event, world.plan.partitions)].append(event)
    for partition, events in streams.items():
        for number, event in enumerate(events, 1):
            fields = ("e", to_stored(event), "n", number)
            world.redis.execute("XADD", keys.inbox(partition), "*", *fields)
            world.model.accepted[event.id] = event
        if events:
            world.redis.execute("SET", keys.last(partition), len(events))
            for handler in (*world.plan.handlers, CALL_LOG):
                _Left(world, partition, handler).leave(len(events))
    world.model.observe()


class _Left:
    """What is left of one handler, or of the fold of calls, in one partition."""

    def __init__(self, world: "World", partition: int, handler: str) -> None:
        self._world = world
        self._execute = world.redis.execute
        self._random = Random(f"{partition} {handler} {world.random.random()}")
        self._partition = partition
        self._handler = handler
        self._stream = keys.inbox(partition)
        self._prefix = keys.partition_prefix(partition)

    def leave(self, length: int) -> None:
        group = (self._stream, self._handler)
        self._execute("XGROUP", "CREATE", *group, "0")
        count = self._random.randint(0, length)
        if count:
            reader = ("XREADGROUP", "GROUP", self._handler, "dispatch", "COUNT", count)
            self._execute(*reader, "STREAMS", self._stream, ">")
        found = self._execute("XRANGE", self._stream, "-", "+", "COUNT", count) if count else []
        calls: dict[str, list[tuple[bytes, CallEvent]]] = {}
        for position, fields in found:
            event = from_stored(fields[1])
            calls.setdefault(event.call, []).append((position, event))
        for call, events in calls.items() if self._handler != CALL_LOG else ():
            self._leave_call(call, events)
        awake = f"{self._prefix}awake:{self._handler}"
        self._execute("SET", awake, "waking")
        if self._random.random() < 0.3:  # its process ends now
            self._execute("SET", awake, "a process", "PX", self._random.choice((200, 1500)))

    def _leave_call(self, call: str, events: list[tuple[bytes, CallEvent]]) -> None:
        """Some of its events are delivered, and the next ones parked, or still on their way."""
        policy = self._world.plan.handlers[self._handler]
        delivered = self._random.randint(0, len(events))
        done, rest = events[:delivered], events[delivered:]
        for position, event in done:
            self._execute("XACK", self._stream, self._handler, position)
            self._world.model.succeeded(self._handler, event)
        if not rest or not policy.retry or self._random.random() < 0.5:
            return
        for position, event in rest:
            self._execute("XACK", self._stream, self._handler, position)
            lane = keys.lane(self._partition, self._handler, call)
            self._execute("RPUSH", lane, to_stored(event))
        first = rest[0][1]
        self._execute("HSET", f"{self._prefix}parked:{self._handler}", call, first.id)
        self._execute("HSET", f"{self._prefix}attempts:{self._handler}", call, 1)
        self._schedule(f"{self._handler}-{first.id}")

    def _schedule(self, job: str) -> None:
        queue = f"offhook.{self._handler}.redeliver"
        self._execute("HSET", f"rq:job:{job}", "meta", "")
        if self._random.random() < 0.5:
            self._execute("RPUSH", f"rq:queue:{queue}", job)
        else:
            due = self._world.clock.time() + self._random.uniform(0.0, 2.0)
            self._execute("ZADD", f"rq:scheduled:{queue}", due, job)
