"""A call folded as the workers do it, with a clock that only the test moves."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from offhook.call import Call, Kind
from offhook.calls import CallState, Closing, fold, from_state, over, tell, to_state
from offhook.event import CallEvent, EventType

BEGAN = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
SETTLE = timedelta(seconds=3)
TIMEOUT = timedelta(hours=4)


class Line:
    """Takes the events of one call, and keeps the events about it in `told`."""

    def __init__(self, kinds: Mapping[str, Kind], region: str | None = "GB") -> None:
        self.told: list[CallEvent] = []
        self.state: CallState | None = None
        self._kinds = kinds
        self._region = region
        self._due: tuple[datetime, Closing] | None = None

    def take(self, event: CallEvent) -> None:
        self._wait(event.received)
        state = fold(self.state, event, self._kinds.get(event.extension))
        self._tell(state, event.received, None)
        settled, closing = (SETTLE, "hangup") if over(state) else (TIMEOUT, "silence")
        self._due = event.received + settled, closing  # type: ignore[assignment]

    def end(self) -> None:
        """Let the settle window and the silence pass."""
        self._wait(datetime.max.replace(tzinfo=UTC))

    def _wait(self, until: datetime) -> None:
        if self._due and self._due[0] <= until and self.state:
            (now, closing), self._due = self._due, None
            self._tell(self.state, now, closing)

    def _tell(self, state: CallState, now: datetime, closing: Closing | None) -> None:
        state, events = tell(state, self._region, now, closing)
        self.state = from_state(to_state(state))  # as it is stored in Redis
        assert self.state == state
        self.told += events


def play(
    events: Iterable[CallEvent], kinds: Mapping[str, Kind], region: str | None = "GB"
) -> list[CallEvent]:
    """The events about a call, from its events in the order in which they were received."""
    line = Line(kinds, region)
    for event in sorted(events, key=lambda event: event.received):
        line.take(event)
    line.end()
    lawful(line.told)
    return line.told


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
