"""Defects put in on purpose: a simulation that does not find them proves nothing."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

from offhook.event import CallEvent, call_name
from offhook.inbox import numbering, scripts
from offhook.inbox.partition import Changes, Partition
from offhook.settings import HandlerSettings
from receiver import event_store
from receiver.group_commit import _Waiting
from receiver.limits import Shares, TenantUse
from tests.simulation import reloads
from tests.simulation.world import BOTH, BURST, Plan
from workers.serving.attempts import Attempts
from workers.serving.guard import Guard
from workers.serving.partition_server import Server
from workers.serving.partition_share import PartitionShare
from workers.serving.reader import Reader
from workers.serving.roster import Roster
from workers.serving.served import ServedHandler
from workers.serving.served_partition import ServedPartition
from workers.serving.takeover import Takeover
from workers.serving.turns import Turns
from workers.serving.writer import Writer


@contextmanager
def _acknowledge_before_delivering() -> Iterator[None]:
    run_lane = Attempts._run_lane

    async def too_early(self: Attempts, lane: Any) -> None:
        for entry in lane.entries:
            entry.reading.pending.pop(entry.position, None)
            entry.reading.changed = True
            lane.partition.writer.mark(entry.reading.stream)
        await run_lane(self, lane)

    with patch.object(Attempts, "_run_lane", too_early):
        yield


@contextmanager
def _leave_unfinished_too_early() -> Iterator[None]:
    """And trust it: a server that takes over also looks for records of its handlers."""

    async def unfinished(self: Partition, handlers: Any) -> list[str]:
        return await self.unfinished()

    with (
        _changed_script("flush", "if finished == 1 and", "if"),
        patch.object(Partition, "to_load", unfinished),
    ):
        yield


@contextmanager
def _record_in_the_next_flush() -> Iterator[None]:
    numbered = Partition.numbered
    late: WeakKeyDictionary[Partition, Any] = WeakKeyDictionary()

    def without(self: Partition, changes: Changes) -> Any:
        later, late[self] = late.get(self, []), changes.record
        changes.record = later
        return numbered(self, changes)

    with patch.object(Partition, "numbered", without):
        yield


@contextmanager
def _check_no_lease() -> Iterator[None]:
    check = "if redis.call('GET', serving) ~= token then return -1 end"
    with (
        _changed_script("flush", check, ""),
        _changed_script("flush", "if number > made + 1 then return -1 end", ""),
        _changed_script("begin", check, ""),
        _changed_script("claim", check, ""),
        _changed_script("save_calls", check, ""),
        _changed_script("renew", "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end", ""),
        patch.object(PartitionShare, "check_lease", lambda self, partition: None),
    ):
        yield


@contextmanager
def _lanes_per_event() -> Iterator[None]:
    add = ServedPartition.add

    def apart(self: ServedPartition, reading: Any, position: bytes, event: Any, *more: Any) -> None:
        name = (self.number, event.call)
        lane = reading.handler.lanes.get(name)
        if lane is not None and not lane.parked:
            del reading.handler.lanes[name]
            reading.handler.lanes[self.number, f"{event.call} {len(lane.entries)} {position!r}"] = (
                lane
            )
            lane.call = f"{event.call} {len(lane.entries)} {position!r}"
        add(self, reading, position, event, *more)

    with patch.object(ServedPartition, "add", apart):
        yield


@contextmanager
def _take_marks_and_not_follow_them() -> Iterator[None]:
    """A server that dies after it took a mark: what the mark said is known only to `unfinished`."""
    with _changed_script("append", "redis.call('SADD', unfinished, tenant)", ""):
        yield


@contextmanager
def _forget_marks_during_a_read() -> Iterator[None]:
    """A mark that arrives while its stream is read: the event waits for the next poll."""
    start, read = Reader.__init__, Partition.read
    readers: dict[Partition, Reader] = {}

    def noted(self: Reader, server: Any, served: ServedPartition) -> None:
        start(self, server, served)
        readers[served.partition] = self

    async def forgetful(self: Partition, after: Any, count: int) -> Any:
        found = await read(self, after, count)
        for tenant in after:
            readers[self]._unread.pop(tenant, None)
        return found

    with patch.object(Reader, "__init__", noted), patch.object(Partition, "read", forgetful):
        yield


@contextmanager
def _finish_though_orphaned() -> Iterator[None]:
    """A server without its worker waits for its deliveries, and holds its leases meanwhile."""
    with patch.object(Server, "stop", lambda self, at_once=False: self._stop.set()):
        yield


@contextmanager
def _finish_while_claiming() -> Iterator[None]:
    """A flush calls a stream finished though a handler is being taken over."""

    async def arrived(self: Writer) -> bool:
        return True

    with (
        patch.object(
            ServedPartition, "claiming", property(lambda _: False, lambda *_: None), create=True
        ),
        patch.object(Writer, "arrived", arrived),
    ):
        yield


@contextmanager
def _limit_all_tenants_together() -> Iterator[None]:
    of_tenant = Shares.of_tenant

    def of_one(self: Shares, name: str) -> TenantUse:
        return of_tenant(self, name and "a")

    with patch.object(Shares, "of_tenant", of_one):
        yield


@contextmanager
def _let_all_tenants_wait_together() -> Iterator[None]:
    def count(self: Any, tenant: str) -> int:
        return sum(len(its) for name, its in self._of.items() if name) if tenant else 0

    with patch.object(_Waiting, "count", count):
        yield


@contextmanager
def _forget_places_of_removed_handlers() -> Iterator[None]:
    """A handler that a reload removes reads along, and its events are taken for finished."""
    with patch.object(Takeover, "_freeze", lambda *_: None):
        yield


@contextmanager
def _commit_though_refused() -> Iterator[None]:
    """A process that is ready changes, whatever another one says; the latter has no choice."""
    with patch.object(reloads, "REFUSED", "nothing"):
        yield


@contextmanager
def _fence_one_by_one() -> Iterator[None]:
    """Receivers use their journals while the number of partitions changes, each its own."""
    with patch.object(numbering, "_AT_ONCE", 1):
        yield


@contextmanager
def _listen_at_once() -> Iterator[None]:
    """A receiver takes callbacks into its journal when it starts, which another one does not."""
    with patch.object(event_store, "_START_WAIT", 0.0):
        yield


@contextmanager
def _changed_script(name: str, old: str, new: str) -> Iterator[None]:
    original = scripts.script
    assert old in original(name)

    def changed(asked: str) -> str:
        text = original(asked)
        return text.replace(old, new) if asked == name else text

    with _replaced(changed):
        yield


@contextmanager
def _replaced(script: Callable[[str], str]) -> Iterator[None]:
    """Replace the function in all modules that have imported it."""
    original = scripts.script
    with ExitStack() as replaced:
        for module in list(sys.modules.values()):
            if getattr(module, "script", None) is original:
                replaced.enter_context(patch.object(module, "script", script))
        yield


@contextmanager
def _hand_out_to_all_tenants() -> Iterator[None]:
    with patch.object(Roster, "of", lambda self, tenant: self.handlers):
        yield


@contextmanager
def _forget_whose_a_call_is() -> Iterator[None]:
    with patch.object(CallEvent, "call", property(lambda self: call_name(self.pbx, self.call_id))):
        yield


@contextmanager
def _deliver_though_paused() -> Iterator[None]:
    with patch.object(ServedHandler, "paused", property(lambda _: False, lambda *_: None)):
        yield


@contextmanager
def _expect_to_read_all() -> Iterator[None]:
    """A lane goes on to an event that cannot be read: the script fails halfway, again and again."""
    with _changed_script("flush", "pcall(cjson.decode, stored)", "true, cjson.decode(stored)"):
        yield


@contextmanager
def _wait_for_those_that_leave() -> Iterator[None]:
    """A server looks at nothing else until the last delivery of a handler that leaves has ended."""
    look = Guard.look

    async def slow(self: Guard) -> None:
        await look(self)
        while self._leaving:
            await asyncio.sleep(0.01)

    with patch.object(Guard, "look", slow):
        yield


@contextmanager
def _keep_turns() -> Iterator[None]:
    with patch.object(Turns, "give_back", lambda *_: None):
        yield


@dataclass(frozen=True)
class Defect:
    """A defect, and simulations that look where it is.

    Attributes:
        plan: of the simulations; None: as the seed says.
    """

    put_in: Callable[[], AbstractContextManager[None]]
    plan: Plan | None = None


_HANDLER = HandlerSettings(use="simulated", events=BOTH, timeout=2.0, retry=[1.0], start="earliest")
_PATIENT = _HANDLER.model_copy(update={"timeout": 60.0})
_ORPHANS = Plan(servers=2, handlers={"h": _PATIENT}, calls=6, active=6.0, troubles=("orphan",))
_KILLS = Plan(handlers={"h": _HANDLER}, calls=1, events=3, active=6.0, slow=1.0, troubles=("kill",))
_CALM = Plan(handlers={"h": _HANDLER}, calls=6, events=5, active=6.0, gaps=BURST)
_FREEZES = Plan(
    servers=2,
    handlers={"h": _HANDLER},
    calls=3,
    events=4,
    active=12.0,
    slow=0.3,
    troubles=("freeze", "freeze"),
)
_TENANTS = Plan(
    handlers=dict.fromkeys(("h", "a/h", "b/h"), _HANDLER)
    | {"all": _HANDLER.model_copy(update={"tenants": "all"})},
    tenants=("a", "b"),
    calls=2,
    failing=0.3,
)
_BACKLOGS = replace(_TENANTS, calls=6, events=5, active=6.0, gaps=BURST)
_PAUSES = replace(_CALM, active=20.0, gaps=(2.0,), troubles=("pause",))
_LEAVES = Plan(
    handlers=dict.fromkeys(("h", "g"), _HANDLER.model_copy(update={"timeout": 60.0})),
    pools=True,
    calls=12,
    events=20,
    gaps=(0.5,),
    active=20.0,
    slow=0.8,
    troubles=("move out", "pause", "pause"),
)
_CORRUPT = Plan(
    handlers={"h": _HANDLER},
    calls=6,
    events=5,
    active=10.0,
    failing=0.5,
    troubles=("corrupt", "corrupt"),
)
_FLOODS = Plan(
    handlers=dict.fromkeys(("h", "a/h", "b/h"), _HANDLER),
    tenants=("a", "b"),
    calls=4,
    journal=True,
    troubles=("flood", "flood"),
)
_RELOADS = Plan(
    handlers={"h": _HANDLER, "g": _HANDLER},
    journal=True,
    calls=6,
    events=4,
    active=12.0,
    troubles=("reload", "reload", "reload"),
)
_RAISES = Plan(
    handlers={"h": _HANDLER},
    journal=True,
    raised=32,
    distance=0.03,
    calls=8,
    events=40,
    gaps=(0.05,),
    active=12.0,
    troubles=("raise",),
)
DEFECTS = {
    "acknowledge": Defect(_acknowledge_before_delivering),
    "unfinished": Defect(_leave_unfinished_too_early, _KILLS),
    "lease": Defect(_check_no_lease, _FREEZES),
    "lanes": Defect(_lanes_per_event),
    "late": Defect(_forget_marks_during_a_read, _CALM),
    "orphan": Defect(_finish_though_orphaned, _ORPHANS),
    "record": Defect(_record_in_the_next_flush, _KILLS),
    "mark": Defect(_take_marks_and_not_follow_them),
    "pause": Defect(_deliver_though_paused, _PAUSES),
    "tenants": Defect(_hand_out_to_all_tenants, _TENANTS),
    "equal calls": Defect(_forget_whose_a_call_is, _TENANTS),
    "one limit": Defect(_limit_all_tenants_together, _FLOODS),
    "place": Defect(_forget_places_of_removed_handlers, _RELOADS),
    "refused": Defect(_commit_though_refused, _RELOADS),
    "turn": Defect(_keep_turns, _BACKLOGS),
    "unreadable": Defect(_expect_to_read_all, _CORRUPT),
    "leaving": Defect(_wait_for_those_that_leave, _LEAVES),
    "fences": Defect(_fence_one_by_one, _RAISES),
    "start": Defect(_listen_at_once, _RAISES),
    "one queue": Defect(_let_all_tenants_wait_together, _FLOODS),
}
# Those that only two faults show, at a pair of commands of a scenario.
RARE_DEFECTS = {"claim": Defect(_finish_while_claiming)}
