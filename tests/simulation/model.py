"""What must be true: the plain model that a simulation is compared with."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

from offhook.calls import from_state, terms
from offhook.event import CallEvent, EventType, from_stored
from offhook.inbox import keys
from tests.simulation.server import Server

_EMPTY = {"unfinished", "parked", "attempts", "due", "redelivering", "lane"}  # at the end
_ONCE = (EventType.CALL_STARTED, EventType.CALL_ENDED, EventType.MISSED_CALL)


class Violation(Exception):
    """A promise was broken."""


class Model:
    """Sees everything, and complains.

    Args:
        now: returns the seconds since the simulation began.
        wanted: handler -> event types that it wants.
        attempts: handler -> maximum number of attempts.
        gets: tenant -> the handlers that get its events.
        pools: handlers may run apart, which leaves records of where they have come.

    Attributes:
        accepted: ids of events whose sender got a 200, with their number in their call.
        appended: ids of events -> when they were appended to the inbox.
        sequence: call -> ids of its events, in the order of the stream.
        done: (handler, event id) delivered, or once a dead letter.
        dead: (handler, event id) of dead letters.
        owed: (handler, event id) to be replayed -> how often it had been finished before.
        made: attempts.
        unreadable: what was put into parked lanes and cannot be read.
        spares: attempts more than allowed because of faults.
    """

    def __init__(
        self,
        server: Server,
        now: Callable[[], float],
        partitions: int,
        wanted: Mapping[str, frozenset[EventType]],
        attempts: Mapping[str, int],
        gets: Mapping[str, Collection[str]],
        *,
        pools: bool,
    ) -> None:
        self._server = server
        self._now = now
        self._partitions = partitions
        self._wanted = wanted
        self._attempts = attempts
        self._pools = pools
        self._gets = gets
        self._seen: Counter[tuple[int, str]] = Counter()
        self.accepted: dict[str, CallEvent] = {}
        self.appended: dict[str, float] = {}
        self.sequence: defaultdict[str, list[str]] = defaultdict(list)
        self.lost: set[str] = set()  # events that a failover took, some of them accepted
        self.types: dict[str, EventType] = {}
        self.events: dict[str, CallEvent] = {}
        self.done: set[tuple[str, str]] = set()
        self.delivered: set[tuple[str, str]] = set()
        self.dead: dict[tuple[str, str], CallEvent] = {}
        self.again: set[tuple[str, str]] = set()  # dead letters to be delivered again
        self.requeued: set[tuple[str, str]] = set()  # whose retry is not done
        self.burials: Counter[tuple[str, str]] = Counter()
        self.finished: Counter[tuple[str, str]] = Counter()
        self.owed: dict[tuple[str, str], int] = {}
        self.made: Counter[tuple[str, str]] = Counter()
        self.unreadable: list[bytes] = []
        self.lives = 1  # of server processes
        self.spares = 0
        self.verdicts: Counter[tuple[str, EventType]] = Counter()

    # What happens

    def observe(self) -> None:
        """Look at what was appended to the inbox."""
        for name in self._places():
            stream = self._stream(*name)
            if stream is None or len(stream._ids) == self._seen[name]:
                continue
            new = stream._ids[self._seen[name] :]
            self._seen[name] = len(stream._ids)
            for position in new:
                self._appended(from_stored(stream._values_dict[position][1]), name[1])

    def _places(self) -> Iterator[tuple[int, str]]:
        """Yield partition and tenant of each stream."""
        for number in range(self._partitions):
            for tenant in self._gets:
                yield number, tenant

    def _stream(self, number: int, tenant: str = "") -> Any:
        item = self._server.database._dict.get(keys.inbox(number, tenant).encode())
        return None if item is None else item.value

    def _appended(self, event: CallEvent, tenant: str) -> None:
        if event.tenant != tenant:
            raise Violation(f"mixed: {event.id} of {event.call} is in the stream of {tenant!r}")
        if event.id in self.types:
            raise Violation(f"event {event.id} is in the inbox twice")
        self.types[event.id] = event.type
        self.events[event.id] = event
        self.appended[event.id] = self._now()
        self.sequence[event.call].append(event.id)
        self.verdicts[event.call, event.type] += 1
        if event.type in _ONCE and self.verdicts[event.call, event.type] > 1:
            raise Violation(f"{event.type} of {event.call} was told twice")

    def restored(self) -> None:
        """The server has lost its last writes."""
        self._seen.clear()
        self.sequence.clear()
        self.appended.clear()
        self.verdicts.clear()
        self.owed.clear()
        self.again.clear()
        self.unreadable.clear()
        types, self.types = self.types, {}
        self.observe()
        known = set(self.types)
        self.lost |= types.keys() - known

    def begun(self, handler: str, event: CallEvent, attempt: int) -> None:
        """A handler is called."""
        if handler not in self._gets[event.tenant]:
            raise Violation(f"mixed: {handler} gets {event.id} of {event.call}")
        name = (handler, event.id)
        self.made[name] += 1
        if attempt > self._attempts[handler]:
            raise Violation(f"attempt {attempt} at {event.id} for {handler}")
        if self.made[name] > self._attempts[handler] * self.lives + self.spares:
            raise Violation(f"{self.made[name]} attempts at {event.id} for {handler}")
        if event.id in self.lost:
            return  # from memory; what is in the inbox now was told again after the failover
        for earlier in self.sequence[event.call]:
            if earlier == event.id:
                return
            if self.types[earlier] in self._wanted[handler] and (handler, earlier) not in self.done:
                raise Violation(
                    f"{handler} gets {event.id} of {event.call} before {earlier} is finished"
                )

    def succeeded(self, handler: str, event: CallEvent) -> None:
        """A handler took an event."""
        name = (handler, event.id)
        self.done.add(name)
        self.finished[name] += 1
        self.delivered.add(name)
        self.again.discard(name)

    def buried(self, handler: str, event: CallEvent) -> None:
        """An event became a dead letter."""
        self.done.add((handler, event.id))
        self.burials[handler, event.id] += 1
        self.finished[handler, event.id] += 1
        self.dead[handler, event.id] = event
        self.requeued.discard((handler, event.id))
        self.again.discard((handler, event.id))

    def requeue(self, handler: str, event_id: str) -> None:
        """A dead letter is one no longer: its event is about to join its lane again."""
        name = (handler, event_id)
        self.spares += self._attempts[handler]
        self.again.add(name)
        self.requeued.add(name)
        self.dead.pop(name, None)

    def corrupted(self, handler: str, stored: bytes) -> None:
        """Something that cannot be read is in a parked lane: the attempts begin anew behind it."""
        self.spares += self._attempts[handler]
        self.unreadable.append(stored)

    def deleted(self, handler: str, event_id: str, burials: int) -> None:
        """The job of a retry was deleted, unless its event had died again meanwhile."""
        if self.burials[handler, event_id] == burials:
            self.requeued.discard((handler, event_id))

    def has_earlier_layout(self) -> bool:
        """Return whether a partition has not been taken over from the version before."""
        streams = map(self._stream, range(self._partitions))
        return any(stream is not None and stream._groups for stream in streams)

    def replaying(self, handler: str, since: datetime) -> dict[tuple[str, str], int]:
        """A handler is about to be set back. Return what it has finished since then, how often.

        Dead letters are left out: one whose replay its process did not survive may stay one.
        """
        self.spares += self._attempts[handler]
        found = {}
        for number, tenant in self._places():
            stream = self._stream(number, tenant) if handler in self._gets[tenant] else None
            if stream is None:
                continue
            for position in stream._ids:
                name = (handler, from_stored(stream._values_dict[position][1]).id)
                if name in self.dead or name not in self.done:
                    continue
                if position.ts >= int(since.timestamp() * 1000):
                    found[name] = self.finished[name]
        return found

    def waits_for(self, event: CallEvent) -> list[str]:
        """The handlers that have not had an event yet."""
        return [
            handler
            for handler, wanted in self._wanted.items()
            if event.type in wanted
            and handler in self._gets[event.tenant]
            and not self.made[handler, event.id]
            and (handler, event.id) not in self.done
        ]

    # The end

    def missing(self) -> list[str]:
        """What is not finished yet."""
        found = [
            f"accepted event {each} is not in the inbox"
            for each in self.accepted
            if each not in self.types and each not in self.lost
        ]
        for event_id, kind in self.types.items():
            for handler, wanted in self._wanted.items():
                if handler not in self._gets[self.events[event_id].tenant]:
                    continue
                name = (handler, event_id)
                again = name in self.again and name not in self.dead
                if kind in wanted and (name not in self.done or again):
                    found.append(
                        f"{handler} has not had {event_id} of {self.events[event_id].call}"
                    )
        for (handler, event_id), times in self.owed.items():
            if self.finished[handler, event_id] <= times:
                found.append(f"{handler} has not had {event_id} again")
        aside = {
            refused[refused.index(b"event") + 1]
            for tenant in self._gets
            for _, refused in self._server.execute("XRANGE", keys.quarantine(tenant), "-", "+")
        }
        found += [f"{each!r} is not set aside" for each in self.unreadable if each not in aside]
        return found + self._left()

    def _left(self) -> list[str]:
        left = []
        for number in range(self._partitions):
            prefix = keys.partition_prefix(number)
            for key, item in self._server.database._dict.items():
                name = key.decode().removeprefix(prefix).split(":")[0]
                if name in _EMPTY and item.value and not self._is_of_moved(key):
                    left.append(f"{key.decode()} is left: {_shown(item.value)}")
        for number, tenant in self._places():
            behind = self._server.execute("HGETALL", keys.behind(number, tenant))
            for handler, record in zip(behind[::2], behind[1::2], strict=True):
                if b" " in record or not self._pools:
                    left.append(f"{handler.decode()} is behind in {number}: {record.decode()}")
        return left

    def _is_of_moved(self, key: bytes) -> bool:
        """Return whether it says what a pool has not finished that is no longer needed."""
        return (
            self._pools
            and b":unfinished:" in key
            and not self._server.execute("HEXISTS", keys.APART, key.rpartition(b":")[2])
        )

    def check_index(self) -> None:
        """The index knows each call by its terms, and no other call."""
        execute = self._server.execute
        for number, tenant in self._places():
            calls, prefix = {}, keys.call(number, "")
            for name in execute("ZRANGE", keys.calls(number, tenant), 0, -1):
                stored = execute("GET", prefix.encode() + name)
                if stored is not None:
                    calls[name] = from_state(stored.split(b" ", 2)[2])
            expected = {(term, name) for name, state in calls.items() for term in terms(state)}
            start = keys.index(number, "", tenant).encode()
            found = {
                (key.removeprefix(start).decode(), name)
                for key in list(self._server.database._dict)
                if key.startswith(start)
                for name in execute("ZRANGE", key, 0, -1)
                if name in calls
            }
            if found != expected:
                raise Violation(f"the index of {number} is wrong: {found ^ expected}")

    def check_order(self) -> None:
        """The accepted events of a call are in the inbox in the order of their acceptance."""
        last: dict[str, int] = {}
        for call, ids in self.sequence.items():
            for event_id in ids:
                if event_id not in self.accepted:
                    continue
                number = int(self.events[event_id].parameters["n"])
                if number < last.get(call, -1):
                    raise Violation(f"{event_id} of {call} is in the inbox after a later one")
                last[call] = number

    def check_record(self) -> None:
        """Every delivery is in the record.

        Not so for a dead letter whose process was killed before it could note that.
        """
        recorded = set(self._recorded())
        for handler, event_id in self.delivered:
            name = (handler, event_id)
            if event_id in self.types and name not in recorded and not self.burials[name]:
                raise Violation(f"{handler} had {event_id}, which is not in the record")

    def _recorded(self) -> Iterator[tuple[str, str]]:
        """Handler and event id of the deliveries in the record."""
        for number in range(self._partitions):
            prefix = keys.tried(number, "").encode()
            for key, item in self._server.database._dict.items():
                for part in item.value if key.startswith(prefix) else ():
                    for event_id, _, _, attempts in json.loads(part.partition(b" ")[2]):
                        for handler, _, _, _, outcome, _ in attempts:
                            if outcome == "delivered":
                                yield handler, event_id


def _shown(value: Any) -> str:
    try:
        return str(list(value.items()) if hasattr(value, "items") else list(value))[:300]
    except TypeError:
        return str(value)[:300]
