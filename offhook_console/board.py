"""`Board`: the calls that go on, those that have just ended, and the figures of the day."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import nlargest
from statistics import fmean, median

from offhook.call import Call
from offhook_console.by_extension import ByExtension
from offhook_console.day import Day
from offhook_console.languages import gettext, ngettext
from offhook_console.people import View
from offhook_console.wording import duration, short

JUST_ENDED = timedelta(minutes=10)
_MOST_ENDED = 12  # that are shown
_MOST_KEPT = 2000  # of those that have just ended
_MINUTES = 60


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


class Board:
    """What the wallboard shows. Pure: `put` takes each call as it is now.

    Args:
        answer_within: seconds within which a call should be answered.
    """

    def __init__(self, answer_within: float) -> None:
        self._within = answer_within
        self._live: ByExtension[Call] = ByExtension()
        self._over: ByExtension[Call] = ByExtension()
        self._today = Day()
        self._minutes: Counter[datetime] = Counter()

    def put(self, call: Call, midnight: datetime) -> None:
        """Take in a call as it is known now.

        Args:
            midnight: when today began.
        """
        name = _name(call)
        for lane in (self._live, self._over):
            lane.pop(name)
        (self._over if call.closed_by else self._live).put(name, call)
        if call.started >= midnight:
            self._today.put(name, call)

    def forget(self, now: datetime, midnight: datetime) -> dict[str, Call]:
        """Forget calls that ended a while ago, and those of yesterday.

        Returns:
            The calls that are no longer on the board, by their names.
        """
        self._today.forget(midnight)
        over = self._over.all
        kept = [name for name, call in over.items() if _end(call) >= now - JUST_ENDED]
        if len(kept) > _MOST_KEPT:
            kept = nlargest(_MOST_KEPT, kept, key=lambda name: _end(over[name]))
        old = {name: over[name] for name in over.keys() - kept}
        for name in old:
            self._over.pop(name)
        return old

    @property
    def has_calls(self) -> bool:
        """Whether it has any call, of now or of the day."""
        return bool(self._live.all or self._over.all or self._today)

    def known(self, call: Call) -> Call | None:
        """A call as it is on the board, if it is."""
        name = _name(call)
        return self._live.all.get(name) or self._over.all.get(name)

    def calls(self) -> list[Call]:
        """All calls on the board."""
        return [*self._live.all.values(), *self._over.all.values()]

    def calls_of(self, extensions: frozenset[str]) -> list[Call]:
        """The calls on the board with a leg of one of these extensions, oldest first."""
        found = [*self._live.of(extensions), *self._over.of(extensions)]
        return sorted(found, key=lambda call: call.started)

    def lane(self, lane: str, view: View) -> list[Call]:
        """The calls of a lane: `ringing` and `talking` longest first, `ended` newest first."""
        if lane == "ended":
            return nlargest(_MOST_ENDED, self._over.of(view.own), key=_end)
        found = [
            call
            for call in self._live.of(view.own)
            if (lane == "talking") == bool(call.answered_by)
        ]
        return sorted(found, key=lambda call: call.answered or call.started)

    def counts(self, view: View) -> dict[str, int]:
        """The number of calls in each lane."""
        live = [bool(call.answered_by) for call in self._live.of(view.own)]
        talking = sum(live)
        return {
            "ringing": len(live) - talking,
            "talking": talking,
            "ended": min(len(self._over.of(view.own)), _MOST_ENDED),
        }

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
        today = self._today.tally(view.own)
        # Nearly sorted already: cheaper than keeping them in order as each call ends.
        today.rang.sort()
        today.talked.sort()
        met = bisect_right(today.rang, self._within)
        due = len(today.rang) + today.missed
        within = f"{self._within:g}"
        return [
            Figure(
                gettext("Calls today"),
                today.calls,
                "count",
                ngettext("{number} incoming", "{number} incoming", today.incoming),
            ),
            Figure(
                gettext("Answered"), today.answered, "count", _share(today.answered, today.incoming)
            ),
            Figure(gettext("Missed"), today.missed, "count", _share(today.missed, today.incoming)),
            Figure(
                gettext("Ringing time"), _mean(today.rang), "short", _median(today.rang, "short")
            ),
            Figure(
                gettext("Talk time"),
                _mean(today.talked),
                "duration",
                _median(today.talked, "duration"),
            ),
            Figure(
                gettext("Service level"),
                100 * met / due if due else None,
                "percent",
                gettext("answered in {seconds}\u00a0s", seconds=within),
            ),
        ]


def _name(call: Call) -> str:
    return f"{call.pbx}/{call.id}"


def _end(call: Call) -> datetime:
    return call.ended or call.started


def _share(part: int, whole: int) -> str:
    if not whole:
        return gettext("no incoming call yet")
    return gettext("{share} % of incoming", share=round(100 * part / whole))


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _median(values: Sequence[float], form: str) -> str:
    if not values:
        return gettext("no call yet")
    middle = short(median(values)) if form == "short" else duration(median(values))
    return gettext("median {duration}", duration=middle)
