"""`Board`: the calls that go on, those that have just ended, and the figures of the day."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from datetime import time as clock_time
from heapq import nlargest
from itertools import islice
from statistics import fmean, median

from offhook.call import Call, Outcome
from offhook_console.languages import gettext, ngettext
from offhook_console.people import View
from offhook_console.wording import duration, short

JUST_ENDED = timedelta(minutes=10)
_MOST_ENDED = 12  # that are shown
_MOST_KEPT = 2000  # of those that have just ended
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


@dataclass(frozen=True, slots=True)
class Ended:
    """What the figures need of a call."""

    began: datetime
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
        self._live: dict[str, Call] = {}
        self._over: dict[str, Call] = {}
        self._today: dict[str, Ended] = {}
        self._minutes: Counter[datetime] = Counter()

    def put(self, call: Call, midnight: datetime) -> None:
        """Take in a call as it is known now.

        Args:
            midnight: when today began.
        """
        name = _name(call)
        for lane in (self._live, self._over):
            lane.pop(name, None)
        (self._over if call.closed_by else self._live)[name] = call
        if call.started >= midnight:
            self._today[name] = Ended(
                call.started,
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
        kept = [name for name, call in self._over.items() if _end(call) >= now - JUST_ENDED]
        if len(kept) > _MOST_KEPT:
            kept = nlargest(_MOST_KEPT, kept, key=lambda name: _end(self._over[name]))
        old = {name: self._over.pop(name) for name in self._over.keys() - kept}
        for name in [name for name, each in self._today.items() if each.began < midnight]:
            del self._today[name]
        return old

    @property
    def has_calls(self) -> bool:
        """Whether it has any call, of now or of the day."""
        return bool(self._live or self._over or self._today)

    def known(self, call: Call) -> Call | None:
        """A call as it is on the board, if it is."""
        name = _name(call)
        return self._live.get(name) or self._over.get(name)

    def calls(self) -> list[Call]:
        """All calls on the board."""
        return [*self._live.values(), *self._over.values()]

    def calls_of(self, extensions: frozenset[str]) -> list[Call]:
        """The calls on the board with a leg of one of these extensions, oldest first."""
        found = [call for call in self.calls() if not extensions.isdisjoint(call.extensions)]
        return sorted(found, key=lambda call: call.started)

    def lane(self, lane: str, view: View) -> list[Call]:
        """The calls of a lane: `ringing` and `talking` longest first, `ended` newest first."""
        if lane == "ended":
            return nlargest(_MOST_ENDED, filter(view.shows, self._over.values()), key=_end)
        found = [
            call
            for call in filter(view.shows, self._live.values())
            if (lane == "talking") == bool(call.answered_by)
        ]
        return sorted(found, key=lambda call: call.answered or call.started)

    def counts(self, view: View) -> dict[str, int]:
        """The number of calls in each lane."""
        live = [bool(call.answered_by) for call in filter(view.shows, self._live.values())]
        ended = islice(filter(view.shows, self._over.values()), _MOST_ENDED)
        talking = sum(live)
        return {
            "ringing": len(live) - talking,
            "talking": talking,
            "ended": sum(1 for _ in ended),
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
        within = f"{self._within:g}"
        return [
            Figure(
                gettext("Calls today"),
                len(today),
                "count",
                ngettext("{number} incoming", "{number} incoming", len(incoming)),
            ),
            Figure(gettext("Answered"), len(caught), "count", _share(len(caught), len(incoming))),
            Figure(gettext("Missed"), len(missed), "count", _share(len(missed), len(incoming))),
            Figure(gettext("Ringing time"), _mean(rang), "short", _median(rang, "short")),
            Figure(gettext("Talk time"), _mean(talked), "duration", _median(talked, "duration")),
            Figure(
                gettext("Service level"),
                100 * met / due if due else None,
                "percent",
                gettext("answered in {seconds} s", seconds=within),
            ),
        ]


def midnight() -> datetime:
    """When today began, in the time zone of this machine."""
    today = datetime.now().astimezone().date()
    return datetime.combine(today, _DAWN).astimezone()


def _name(call: Call) -> str:
    return f"{call.pbx}/{call.id}"


def _end(call: Call) -> datetime:
    return call.ended or call.started


def _share(part: int, whole: int) -> str:
    if not whole:
        return gettext("no incoming call yet")
    return gettext("{share} % of incoming", share=round(100 * part / whole))


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return fmean(values) if values else None


def _median(values: list[float], form: str) -> str:
    if not values:
        return gettext("no call yet")
    middle = short(median(values)) if form == "short" else duration(median(values))
    return gettext("median {duration}", duration=middle)
