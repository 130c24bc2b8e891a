"""Missed callers as they are shown: who waits for how long, why, and who is on it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from offhook.call import Call, Kind, Outcome
from offhook.calls import MissedCaller, outside_number
from offhook_console.board import Figure
from offhook_console.call_views import CallView, Labels, Side, label_of, view_call
from offhook_console.people import View
from offhook_console.wording import counted, duration, short

_LONG = 3600.0  # seconds after which a waiting caller is marked


@dataclass(frozen=True)
class MissedView:
    """A missed caller, as shown.

    Attributes:
        last: the newest of the calls that were missed.
        waits: seconds since the first of them.
        on_it: who calls the caller, or that the caller calls again; empty: nothing of the kind.
        mine: whether it is the viewer who asked for the call.
    """

    last: CallView
    other: Side
    wanted: Side
    state: str
    waits: float
    since: datetime
    times: int
    why: str
    on_it: str
    current: CallView | None
    mine: bool
    closed: str
    closed_icon: str
    after: str
    talked: str
    can_be_called: bool


def shows(view: View, caller: MissedCaller) -> bool:
    """Return whether a missed caller is shown: if one of the calls is."""
    return any(view.shows(call) for call in caller.calls)


def open_callers(callers: Iterable[MissedCaller], view: View) -> list[MissedCaller]:
    """Those not reached yet, of those that people with this view see."""
    return [each for each in callers if each.reached is None and shows(view, each)]


def view_missed(
    caller: MissedCaller, view: View, labels: Labels, now: datetime, name: str
) -> MissedView:
    """A missed caller, as people with this view see it.

    Args:
        name: the user who looks.
    """
    last, current, reached = caller.calls[-1], caller.current, caller.reached
    shown = view_call(last, view, labels, now)
    waits = (now - caller.since).total_seconds()
    return MissedView(
        last=shown,
        other=shown.other,
        wanted=shown.own,
        state="bad" if waits >= _LONG else "ring",
        waits=waits,
        since=caller.since,
        times=len(caller.calls),
        why=_why(last),
        on_it=_on_it(caller, labels, name),
        current=view_call(current, view, labels, now) if current and view.shows(current) else None,
        mine=caller.calling == name,
        closed=_closed(caller, labels),
        closed_icon="out" if reached and reached.how == "called back" else "in",
        after=short((reached.at - caller.since).total_seconds()) if reached else "",
        talked=duration(reached.talk_seconds) if reached else "",
        can_be_called=outside_number(last) is not None,
    )


def figures(callers: Iterable[MissedCaller], midnight: datetime, now: datetime) -> list[Figure]:
    """The figures of the list.

    Args:
        midnight: when today began.
    """
    callers = list(callers)
    waiting = [each.since for each in callers if each.reached is None]
    closed = [
        (each.reached.how, (each.reached.at - each.since).total_seconds())
        for each in callers
        if each.reached is not None and each.reached.at >= midnight
    ]
    back = [after for how, after in closed if how == "called back"]
    quick = sum(1 for _, after in closed if after <= _LONG)
    oldest = short((now - min(waiting)).total_seconds()) if waiting else ""
    through = len(closed) - len(back)
    return [
        Figure(
            "Open",
            len(waiting),
            "count",
            f"oldest {oldest}" if waiting else "all are reached",
            warn=bool(waiting) and (now - min(waiting)).total_seconds() >= _LONG,
        ),
        Figure(
            "Closed today",
            len(closed),
            "count",
            f"{len(back)} called back, {through} got through",
        ),
        Figure("Called back after", median(back) if back else None, "short", "median today"),
        Figure(
            "Within an hour",
            100 * quick / len(closed) if closed else None,
            "percent",
            "of those closed today",
        ),
    ]


def _on_it(caller: MissedCaller, labels: Labels, name: str) -> str:
    current = caller.current
    if current is not None and current.direction == "out":
        phone = next(iter(current.extensions), None)
        return f"{label_of(current.pbx, phone, labels)} is calling" if phone else "is being called"
    if current is not None:
        return "calls again now"
    if caller.calling is None:
        return ""
    return "your phone rings…" if caller.calling == name else f"{caller.calling} is calling"


def _closed(caller: MissedCaller, labels: Labels) -> str:
    reached = caller.reached
    if reached is None:
        return ""
    who = label_of(caller.calls[-1].pbx, reached.by, labels) if reached.by else "a colleague"
    if reached.how == "got through":
        return f"got through to {who}"
    return f"{who} called back" + ("" if reached.tries == 1 else f" at try {reached.tries}")


def _why(call: Call) -> str:
    rang = short(call.ring_seconds)
    if any(leg.kind is Kind.QUEUE for leg in call.legs):
        agents = {leg.extension for leg in call.legs if leg.kind is not Kind.QUEUE}
        offered = f"offered to {counted(len(agents), 'agent')}" if agents else "offered to no agent"
        return f"{offered}, left after {rang}"
    return {
        Outcome.MISSED: f"rang {rang}, not answered",
        Outcome.CANCELLED: f"gave up after {rang}",
        Outcome.BUSY: "the line was busy",
        Outcome.UNREACHABLE: "no phone was registered",
    }.get(call.outcome or Outcome.FAILED, "the PBX could not put it through")
