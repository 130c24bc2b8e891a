"""Missed callers as they are shown: who waits for how long, why, and who is on it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from offhook.call import Call, Kind, Outcome
from offhook.calls import MissedCaller, outside_number
from offhook_console.board import Figure
from offhook_console.call_views import CallView, Labels, Side, label_of, view_call
from offhook_console.languages import gettext, ngettext
from offhook_console.people import View
from offhook_console.wording import duration, short

_LONG = 3600.0  # seconds after which a waiting caller is marked


@dataclass(frozen=True)
class MissedView:
    """A missed caller, as shown.

    Attributes:
        last: the newest of the calls that were missed, of those that the viewer sees.
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


def shown_calls(view: View, caller: MissedCaller) -> list[Call]:
    """The missed calls of a caller that people with this view see, oldest first."""
    return [call for call in caller.calls if view.shows(call)]


def shows(view: View, caller: MissedCaller) -> bool:
    """Return whether a missed caller is shown: if one of the calls is."""
    return bool(shown_calls(view, caller))


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
    last = shown_calls(view, caller)[-1]
    current, reached = caller.current, caller.reached
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
            gettext("Open"),
            len(waiting),
            "count",
            gettext("oldest {age}", age=oldest) if waiting else gettext("all are reached"),
            warn=bool(waiting) and (now - min(waiting)).total_seconds() >= _LONG,
        ),
        Figure(
            gettext("Closed today"),
            len(closed),
            "count",
            gettext("{back} called back, {through} got through", back=len(back), through=through),
        ),
        Figure(
            gettext("Called back after"),
            median(back) if back else None,
            "short",
            gettext("median today"),
        ),
        Figure(
            gettext("Within an hour"),
            100 * quick / len(closed) if closed else None,
            "percent",
            gettext("of those closed today"),
        ),
    ]


def _on_it(caller: MissedCaller, labels: Labels, name: str) -> str:
    current = caller.current
    if current is not None and current.direction == "out":
        phone = next(iter(current.extensions), None)
        if not phone:
            return gettext("is being called")
        return gettext("{name} is calling", name=label_of(current.pbx, phone, labels))
    if current is not None:
        return gettext("calls again now")
    if caller.calling is None:
        return ""
    if caller.calling == name:
        return gettext("your phone rings…")
    return gettext("{name} is calling", name=caller.calling)


def _closed(caller: MissedCaller, labels: Labels) -> str:
    reached = caller.reached
    if reached is None:
        return ""
    who = label_of(caller.calls[-1].pbx, reached.by, labels) if reached.by else None
    who = who or gettext("a colleague")
    if reached.how == "got through":
        return gettext("got through to {name}", name=who)
    if reached.tries == 1:
        return gettext("{name} called back", name=who)
    return gettext("{name} called back at try {number}", name=who, number=reached.tries)


def _why(call: Call) -> str:
    rang = short(call.ring_seconds)
    if any(leg.kind is Kind.QUEUE for leg in call.legs):
        agents = {leg.extension for leg in call.legs if leg.kind is not Kind.QUEUE}
        if not agents:
            return gettext("offered to no agent, left after {time}", time=rang)
        return ngettext(
            "offered to {number} agent, left after {time}",
            "offered to {number} agents, left after {time}",
            len(agents),
            time=rang,
        )
    return {
        Outcome.MISSED: gettext("rang {time}, not answered", time=rang),
        Outcome.CANCELLED: gettext("gave up after {time}", time=rang),
        Outcome.BUSY: gettext("the line was busy"),
        Outcome.UNREACHABLE: gettext("no phone was registered"),
    }.get(call.outcome or Outcome.FAILED, gettext("the PBX could not put it through"))
