"""Geometry of the pictures: a call's course in one line, and its timeline with a lane per leg.

All positions are percent of the width, so that they are SVG attributes and no style.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil, sqrt

from offhook.call import Call, Kind, Leg, Outcome
from offhook_console.languages import gettext
from offhook_console.wording import duration, short

_LONGEST = 900.0  # seconds that fill the course
_MARK = 1.2  # percent between two bars
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
_MOST_LINES = 7
_NEAR_THE_EDGE = 80.0  # percent from which on a text behind a bar would not fit
_SHORTEST_TEXT = 9.0  # percent of the width that a text inside a bar needs


@dataclass(frozen=True)
class Bar:
    """A bar: `ring` or `live`, or the mark at the end, `bad` or `off`."""

    kind: str
    x: float
    width: float


@dataclass(frozen=True)
class Line:
    """A line of the time axis."""

    x: float
    text: str


@dataclass(frozen=True)
class LegLane:
    """The drawing of one leg.

    Attributes:
        inside: the text in its last bar, and `text_at` its place; empty: it does not fit.
        after: the text behind its last bar, at `end`.
        flip: whether that text ends at `end` instead, because the right edge is near.
        sentence: the same in words.
    """

    bars: tuple[Bar, ...]
    inside: str
    text_at: float
    after: str
    end: float
    flip: bool
    sentence: str


@dataclass(frozen=True)
class Timeline:
    """The drawing of a call."""

    began: datetime
    lines: tuple[Line, ...]
    lanes: tuple[LegLane, ...]


def course(call: Call, now: datetime) -> tuple[Bar, ...]:
    """The course of a call in one line.

    Widths go by the square root, so that four seconds of ringing are seen beside a quarter of an
    hour.
    """
    until = call.ended or now
    answered = call.answered or (None if call.answered_by is None else call.started)
    rang = ((answered or until) - call.started).total_seconds()
    bars = [Bar("ring", 0.0, _width(rang))] if rang > 0 else []
    at = bars[-1].width + _MARK if bars else 0.0
    if answered is not None:
        talked = (until - answered).total_seconds()
        bars.append(Bar("live", at, max(1.0, _width(talked))))
    elif call.outcome is not None:
        bad = call.outcome in (Outcome.MISSED, Outcome.UNREACHABLE, Outcome.FAILED)
        bars.append(Bar("bad" if bad else "off", at, 0.0))
    return tuple(bars)


def timeline(call: Call, names: Sequence[str], now: datetime) -> Timeline:
    """Draw the legs of a call.

    Args:
        names: of the legs' extensions, in the same order.
    """
    ends = [leg.ended for leg in call.legs if leg.ended]
    last = max([call.ended or call.started, *ends]) if call.closed_by else now
    seconds = max(1.0, (last - call.started).total_seconds())
    scale = 98.5 / seconds

    def place(moment: datetime) -> float:
        return max(0.0, (moment - call.started).total_seconds() * scale)

    days = 86_400 * ceil(seconds / 86_400 / _MOST_LINES)
    step = next((each for each in _STEPS if seconds / each <= _MOST_LINES), days)
    lines = [
        Line(n * step * scale, f"+{duration(n * step)}") for n in range(1, int(seconds // step) + 1)
    ]
    lanes = [
        _lane(call, leg, name, place, last) for leg, name in zip(call.legs, names, strict=True)
    ]
    # The last text would be cut off.
    return Timeline(call.started, tuple(each for each in lines if each.x < 94), tuple(lanes))


def _lane(
    call: Call, leg: Leg, name: str, place: Callable[[datetime], float], last: datetime
) -> LegLane:
    began = leg.rang or leg.answered or leg.ended or last
    ended = leg.ended or last
    room = leg.kind in (Kind.QUEUE, Kind.IVR)
    talking = leg.answered if not room else None
    bars = []
    said = []
    if leg.rang is not None or room:
        # A queue or an IVR answers at once; its caller waits until a person does.
        until = talking or (min(ended, call.answered) if room and call.answered else ended)
        bars.append(_bar("ring", place(began), place(until)))
        waited = short((until - began).total_seconds())
        rang = gettext("waited {time}") if room else gettext("rang {time}")
        said.append(rang.format(time=waited))
    if talking is not None:
        bars.append(_bar("live", place(talking), place(ended)))
        said.append(gettext("talked {time}", time=duration((ended - talking).total_seconds())))
    elif leg.ended is not None and not room:
        bars.append(Bar("bad" if leg.direction == "in" else "off", place(ended), 0.0))
    wide = bars[-1] if bars and bars[-1].width >= _SHORTEST_TEXT else None
    inside = said[-1] if wide and said else ""
    rest = [] if inside else said[-1:]
    ending = leg.status or ""
    if leg.ended is None:
        ending = gettext("its end is unknown") if call.closed_by else gettext("in progress")
    rest += [ending] if ending else []
    words = ", ".join([*said, ending] if ending else said)
    end = max([bar.x + bar.width for bar in bars], default=place(began))
    flip = end > _NEAR_THE_EDGE
    if flip and inside:
        inside, rest = " · ".join([inside, *rest]), []
    return LegLane(
        bars=tuple(bars),
        inside=inside,
        text_at=wide.x if wide else 0.0,
        after=" · ".join(rest),
        end=end,
        flip=flip,
        sentence=f"{name}: {words or gettext('nothing known')}",
    )


def _bar(kind: str, begin: float, end: float) -> Bar:
    return Bar(kind, begin, max(0.3, end - begin))


def _width(seconds: float) -> float:
    return min(1.0, sqrt(max(0.0, seconds) / _LONGEST)) * 90.0
