"""`Day`: the calls of a day, counted for each group of extensions that is asked for."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from offhook.call import Call, Outcome
from offhook_console.by_extension import ByExtension

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DayCall:
    """What the figures need of a call.

    Attributes:
        incoming: whether it came from outside, and has ended.
        rang, talked: seconds, if they count for the ringing time and for the talk time.
    """

    began: datetime
    incoming: bool
    outcome: Outcome | None
    rang: float | None
    talked: float | None
    extensions: tuple[str, ...]


class DayTally:
    """The numbers of some calls, and their times in seconds."""

    def __init__(self, calls: Iterable[DayCall]) -> None:
        self.calls = 0
        self.incoming = 0
        self.answered = 0  # of the incoming ones, as the next
        self.missed = 0
        self.rang: list[float] = []
        self.talked: list[float] = []
        for call in calls:
            self.add(call)

    def add(self, call: DayCall) -> None:
        """Count a call."""
        self._count(call, 1)
        if call.rang is not None:
            self.rang.append(call.rang)
        if call.talked is not None:
            self.talked.append(call.talked)

    def remove(self, call: DayCall) -> None:
        """Take out a call that was added."""
        self._count(call, -1)
        if call.rang is not None:
            self.rang.remove(call.rang)
        if call.talked is not None:
            self.talked.remove(call.talked)

    def _count(self, call: DayCall, by: int) -> None:
        self.calls += by
        self.incoming += by * call.incoming
        self.answered += by * (call.incoming and call.outcome is Outcome.ANSWERED)
        self.missed += by * (call.incoming and call.outcome is Outcome.MISSED)


class Day:
    """The calls that began today.

    A tally is made when it is first asked for, and follows each call from then on: counting 100,000
    calls anew for each person who watches, every two seconds, would take more than a core.
    """

    def __init__(self) -> None:
        self._calls: ByExtension[DayCall] = ByExtension()
        self._tallies: dict[frozenset[str] | None, DayTally] = {}
        self._earliest = _NEVER

    def __bool__(self) -> bool:
        return bool(self._calls.all)

    def put(self, name: str, call: Call) -> None:
        """Take in a call as it is known now."""
        made, known = _day_call(call), self._calls.all.get(name)
        if made == known:
            return
        self._calls.put(name, made)
        self._earliest = min(self._earliest, made.began)
        for own, tally in self._tallies.items():
            if known is not None and (own is None or not own.isdisjoint(known.extensions)):
                tally.remove(known)
            if own is None or not own.isdisjoint(made.extensions):
                tally.add(made)

    def forget(self, midnight: datetime) -> None:
        """Forget the calls that began before."""
        if self._earliest >= midnight:
            return
        kept = {name: each for name, each in self._calls.all.items() if each.began >= midnight}
        self._calls, self._tallies = ByExtension(), {}
        for name, each in kept.items():
            self._calls.put(name, each)
        self._earliest = min((each.began for each in kept.values()), default=_NEVER)

    def tally(self, own: frozenset[str] | None) -> DayTally:
        """The tally of the calls of these extensions; None: of all. It stays up to date."""
        found = self._tallies.get(own)
        if found is None:
            found = self._tallies[own] = DayTally(self._calls.of(own))
        return found


def _day_call(call: Call) -> DayCall:
    answered = call.outcome is Outcome.ANSWERED and call.answered_by is not None
    incoming = call.direction == "in" and call.outcome is not None
    return DayCall(
        began=call.started,
        incoming=incoming,
        outcome=call.outcome,
        rang=call.ring_seconds if answered and incoming else None,
        talked=call.talk_seconds if answered and call.closed_by else None,
        extensions=call.extensions,
    )
