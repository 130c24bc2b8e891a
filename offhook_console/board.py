"""`Board`: the calls that go on, those that have just ended, and the figures of the day."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from datetime import time as clock_time
from statistics import fmean, median

from offhook.call import Call, Outcome
from offhook_console.people import View
from offhook_console.wording import duration, short

JUST_ENDED = timedelta(minutes=10)
_MOST_ENDED = 12  # on the board
_MINUTES = 60
_DAWN = clock_time()


@dataclass(frozen=True)
class Figure:
    """A figure of the day: its value, its name, and one line below it.

    Attributes:
        warn: whether it is beyond a limit.
    """

    name: str
    value: float | None
    form: str
    below: str
    warn: bool = False


@dataclass(frozen=True)
class Ended:
    """What the figures need of a call."""

    direction: str
    outcome: Outcome | None
    rang: float | None
    talked: float | None
    extensions: tuple[str, ...]


class Board:
    """What the wallboard shows. Pure: `put` takes each call as it is now.

    Args:
        answer_within: seconds within which a call should be answered.
    """

    def __init__(self, answer_within: float) -> None:
        self._within = answer_within
        self._calls: dict[str, Call] = {}
        self._today: dict[str, Ended] = {}
        self._began: dict[str, datetime] = {}
        self._minutes: Counter[datetime] = Counter()

    def put(self, call: Call, midnight: datetime) -> None:
        """Take in a call as it is known now.

        Args:
            midnight: when today began.
        """
        name = f"{call.pbx}/{call.id}"
        self._calls[name] = call
        if call.started >= midnight:
            self._began[name] = call.started
            self._today[name] = Ended(
                call.direction,
                call.outcome,
                call.ring_seconds if call.answered_by else None,
                call.talk_seconds if call.closed_by and call.answered_by else None,
                call.extensions,
            )

    def forget(self, now: datetime, midnight: datetime) -> dict[str, Call]:
        """Forget calls that ended a while ago, and those of yesterday.

        Returns:
            The calls that are no longer on the board, by their names.
        """
        old = {
            name: call
            for name, call in self._calls.items()
            if call.closed_by and (call.ended or call.started) < now - JUST_ENDED
        }
        for name in old:
            del self._calls[name]
        for name in [name for name, began in self._began.items() if began < midnight]:
            del self._began[name], self._today[name]
        return old

    @property
    def has_calls(self) -> bool:
        """Whether it has any call, of now or of the day."""
        return bool(self._calls or self._today)

    def get(self, name: str) -> Call | None:
        """The call of a name, if it is on the board."""
        return self._calls.get(name)

    def calls(self) -> list[Call]:
        """All calls on the board."""
        return list(self._calls.values())

    def calls_of(self, extensions: frozenset[str]) -> list[Call]:
        """The calls on the board with a leg of one of these extensions, oldest first."""
        found = [
            call for call in self._calls.values() if not extensions.isdisjoint(call.extensions)
        ]
        return sorted(found, key=lambda call: call.started)

    def lane(self, lane: str, view: View) -> list[Call]:
        """The calls of a lane: `ringing` and `talking` longest first, `ended` newest first."""
        found = [
            call
            for call in self._calls.values()
            if view.shows(call)
            and lane
            == ("ended" if call.closed_by else "talking" if call.answered_by else "ringing")
        ]
        if lane == "ended":
            return sorted(found, key=lambda call: call.ended or call.started, reverse=True)[
                :_MOST_ENDED
            ]
        return sorted(found, key=lambda call: call.answered or call.started)

    def count_event(self, accepted: datetime) -> None:
        """Count an accepted event in its minute."""
        self._minutes[accepted.replace(second=0, microsecond=0)] += 1

    def per_minute(self, now: datetime) -> list[tuple[datetime, int]]:
        """The number of events of each minute of the last hour."""
        last = now.replace(second=0, microsecond=0)
        minutes = [last - timedelta(minutes=n) for n in reversed(range(_MINUTES))]
        for old in [minute for minute in self._minutes if minute < minutes[0]]:
            del self._minutes[old]
        return [(minute, self._minutes.get(minute, 0)) for minute in minutes]

    def figures(self, view: View) -> list[Figure]:
        """The figures of the day."""
        today = [
            each
            for each in self._today.values()
            if view.own is None or not view.own.isdisjoint(each.extensions)
        ]
        incoming = [each for each in today if each.direction == "in" and each.outcome is not None]
        answered = [each for each in today if each.outcome is Outcome.ANSWERED]
        missed = [each for each in incoming if each.outcome is Outcome.MISSED]
        caught = [each for each in incoming if each.outcome is Outcome.ANSWERED]
        rang = [each.rang for each in caught if each.rang is not None]
        talked = [each.talked for each in answered if each.talked is not None]
        met = sum(1 for each in rang if each <= self._within)
        due = len(rang) + len(missed)
        return [
            Figure("Calls today", len(today), "count", f"{len(incoming):,} incoming"),
            Figure("Answered", len(answered), "count", _share(len(caught), len(incoming))),
            Figure("Missed", len(missed), "count", _share(len(missed), len(incoming))),
            Figure("Ringing time", _mean(rang), "short", _median(rang, "short")),
            Figure("Talk time", _mean(talked), "duration", _median(talked, "duration")),
            Figure(
                "Service level",
                100 * met / due if due else None,
                "percent",
                f"answered in {self._within:g} s",
            ),
        ]


def midnight() -> datetime:
    """When today began, in the time zone of this machine."""
    today = datetime.now().astimezone().date()
    return datetime.combine(today, _DAWN).astimezone()


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} % of incoming" if whole else "no incoming call yet"


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return fmean(values) if values else None


def _median(values: list[float], form: str) -> str:
    if not values:
        return "no call yet"
    return f"median {short(median(values)) if form == 'short' else duration(median(values))}"
