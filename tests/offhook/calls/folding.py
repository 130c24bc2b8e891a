"""Calls folded as the workers do it, with a clock that only the test moves."""

from collections.abc import Iterable, Mapping, Set
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from offhook.call import Call, Kind
from offhook.calls import (
    CallState,
    Closing,
    fold,
    from_state,
    goes_on,
    name_of_latest,
    settles_after,
    tell,
    to_state,
    used_again,
    with_extensions,
)
from offhook.event import CallEvent, EventType

BEGAN = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
SETTLE = timedelta(seconds=3)
UNANSWERED = timedelta(seconds=60)
TIMEOUT = timedelta(hours=4)


class Line:
    """Takes the events of one CallID, and keeps the events about its calls in `told`.

    Args:
        kinds: the extensions that are set up, and their kinds.
        records: whether the PBX's records are compared with the calls.
        all_events: the extensions on which all event types are known to be registered.
    """

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        region: str | None = "GB",
        *,
        records: bool = False,
        all_events: Set[str] = frozenset(),
    ) -> None:
        self.told: list[CallEvent] = []
        self.states: dict[str, CallState] = {}
        self._kinds = kinds
        self._region = region
        self._records = records
        self._all_events = all_events
        self._due: dict[str, tuple[datetime, Closing]] = {}

    @property
    def state(self) -> CallState | None:
        """The first call."""
        return next(iter(self.states.values()), None)

    def take(self, event: CallEvent) -> None:
        self._wait(event.received)
        event = with_extensions(event, {(event.pbx, extension) for extension in self._kinds})
        first = self.states.get(event.call_id)
        name = name_of_latest(event.call_id, first) if first else event.call_id
        if first and used_again(self.states[name], event, SETTLE.total_seconds()):
            self._due.pop(name, None)
            self._tell(name, event.received, "hangup")
            again = self.states[event.call_id].again + 1
            self.states[event.call_id] = replace(self.states[event.call_id], again=again)
            name = name_of_latest(event.call_id, self.states[event.call_id])
            event = replace(event, call_id=name)
        kind = self._kinds.get(event.extension)
        state = self.states[name] = fold(
            self.states.get(name), event, kind, all_events=event.extension in self._all_events
        )
        self._tell(name, event.received, None)
        wait = settles_after(
            state, SETTLE.total_seconds(), UNANSWERED.total_seconds(), self._kinds.get
        )
        if wait is None:
            self._due[name] = event.received + TIMEOUT, "silence"
        else:
            self._due[name] = event.received + timedelta(seconds=wait), "hangup"

    def end(self) -> None:
        """Let the settle window and the silence pass."""
        self._wait(datetime.max.replace(tzinfo=UTC))

    def _wait(self, until: datetime) -> None:
        while due := sorted((at, name, how) for name, (at, how) in self._due.items()):
            now, name, closing = due[0]
            if now > until:
                return
            if closing == "silence" and goes_on(self.states[name], now, records=self._records):
                self._due[name] = now + TIMEOUT, closing
                continue
            del self._due[name]
            self._tell(name, now, closing)

    def _tell(self, name: str, now: datetime, closing: Closing | None) -> None:
        state, events = tell(self.states[name], self._region, now, closing)
        self.states[name] = from_state(to_state(state))  # as it is stored in Redis
        assert self.states[name] == state
        self.told += events


def play(
    events: Iterable[CallEvent],
    kinds: Mapping[str, Kind],
    region: str | None = "GB",
    *,
    records: bool = False,
    all_events: Set[str] = frozenset(),
) -> list[CallEvent]:
    """The events about a call, from its events in the order in which they were received."""
    line = Line(kinds, region, records=records, all_events=all_events)
    for event in sorted(events, key=lambda event: event.received):
        line.take(event)
    line.end()
    for call in calls(line.told).values():
        lawful(call)
    return line.told


def calls(told: Iterable[CallEvent]) -> dict[str, list[CallEvent]]:
    """The events about each call, by its id."""
    found: dict[str, list[CallEvent]] = {}
    for event in told:
        found.setdefault(event.call_id, []).append(event)
    return found


def lawful(told: list[CallEvent]) -> None:
    """The promises about the events of any call."""
    types = [event.type for event in told]
    ended = types.index(EventType.CALL_ENDED)
    before, after = types[:ended], types[ended + 1 :]
    assert before[0] is EventType.CALL_STARTED
    assert before[1:] in ([], [EventType.CALL_ANSWERED])
    assert after[:1] == [EventType.MISSED_CALL] or EventType.MISSED_CALL not in types
    corrections = [type_ for type_ in after if type_ is not EventType.MISSED_CALL]
    assert corrections == [EventType.CALL_CORRECTED] * len(corrections)
    assert after.count(EventType.MISSED_CALL) <= 1
    assert len({event.id for event in told}) == len(told)
    for event in told:
        assert event.summary is not None
        assert len(event.id) == 32
        assert int(event.id, 16)
        assert (event.summary.outcome is None) is (
            event.type in (EventType.CALL_STARTED, EventType.CALL_ANSWERED)
        )


def verdict(told: list[CallEvent]) -> Call:
    """The call in the last event about it."""
    call = told[-1].summary
    assert call is not None
    return call
