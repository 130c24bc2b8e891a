"""A call as it is shown: the outside party first, the colleague second, numbers perhaps masked."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from offhook.call import UNKNOWN, Call, Kind, Leg, Outcome, Party
from offhook.extensions import ExtensionSettings, Name
from offhook.inbox.record_part import AttemptOutcome
from offhook_console.drawing import Bar, Timeline, course, timeline
from offhook_console.languages import N_, gettext
from offhook_console.people import View
from offhook_console.wording import duration, number_of, shown_name, shown_number

Labels = Mapping[Name, ExtensionSettings]

# State, icon and word of each outcome. Words are messages, translated where they are shown.
OUTCOMES: Mapping[Outcome, tuple[str, str, str]] = {
    Outcome.ANSWERED: ("ok", "check", N_("answered")),
    Outcome.MISSED: ("bad", "missed", N_("missed")),
    Outcome.BUSY: ("off", "dash", N_("busy")),
    Outcome.CANCELLED: ("off", "cancelled", N_("cancelled")),
    Outcome.UNREACHABLE: ("bad", "plug", N_("unreachable")),
    Outcome.FAILED: ("bad", "cross", N_("failed")),
}

# The same of each outcome of an attempt.
ATTEMPTS: Mapping[AttemptOutcome, tuple[str, str, str]] = {
    AttemptOutcome.DELIVERED: ("ok", "check", N_("delivered")),
    AttemptOutcome.FAILED: ("ring", "hourglass", N_("failed, retries")),
    AttemptOutcome.CIRCUIT_OPEN: ("ring", "plug", N_("target down")),
    AttemptOutcome.DEAD: ("bad", "cross", N_("dead letter")),
}


@dataclass(frozen=True)
class Side:
    """One party, as shown.

    Attributes:
        head: the name, or the number if there is no name.
        line: the number or the extension below it; empty: there is nothing to add.
    """

    head: str
    line: str


@dataclass(frozen=True)
class LegView:
    """One leg, as shown."""

    label: str
    extension: str
    icon: str


@dataclass(frozen=True)
class CallView:
    """A call, as shown to people with one view.

    Attributes:
        key: the id of its card.
        lane: `ringing`, `talking` or `ended`.
        clock: seconds that it rings or talks.
        other: the outside party.
        number: what to dial to call it; empty: nothing is known, or numbers are masked.
        own: the colleague or queue.
        place: the same in one line.
        bars: its course in one line.
        notes: what is unknown, in words.
    """

    key: str
    name: str
    url: str
    lane: str
    state: str
    icon: str
    word: str
    direction: str
    other: Side
    number: str
    own: Side
    place: str
    began: datetime
    ended: datetime | None
    answered: datetime | None
    clock: float
    answered_by: str
    rang: str
    talked: str
    complete: bool
    recovered: bool
    notes: tuple[str, ...]
    bars: tuple[Bar, ...]
    course: str
    recording: str | None


def view_call(call: Call, view: View, labels: Labels, now: datetime | None = None) -> CallView:
    """Return a call as people with this view see it."""
    now = now or datetime.now(UTC)
    name = f"{call.pbx}/{call.id}"
    lane = "ended" if call.closed_by else "talking" if call.answered_by else "ringing"
    state, icon, word = _state(call)
    outside, inside = (call.called, call.caller) if call.direction == "out" else (
        call.caller,
        call.called,
    )  # fmt: skip
    own = _own(call, inside, labels)
    since = call.answered if lane == "talking" and call.answered else call.started
    bars = course(call, now)
    return CallView(
        key=call_key(name),
        name=name,
        url=f"/calls/{quote(call.pbx, safe='')}/{quote(call.id, safe='')}",
        lane=lane,
        state=state,
        icon=icon,
        word=word,
        direction=call.direction,
        other=_side(call, outside, view, labels),
        number="" if view.masked else _dialled(call, outside),
        own=own,
        place=f"{own.head} {own.line}".strip(),
        began=call.started,
        ended=call.ended,
        answered=call.answered,
        clock=max(0.0, (now - since).total_seconds()),
        answered_by=label_of(call.pbx, call.answered_by, labels) if call.answered_by else "",
        rang=duration(call.ring_seconds if call.closed_by or call.answered_by else None),
        talked=duration(call.talk_seconds if call.closed_by else None) if call.answered_by else "–",
        complete=call.complete,
        recovered=call.recovered,
        notes=tuple(gettext(UNKNOWN[gap]) for gap in call.gaps),
        bars=bars,
        course=_sentence(call),
        recording=call.recording,
    )


def call_key(name: str) -> str:
    """The id of a call's card: safe in HTML, whatever the CallID is."""
    return f"c{hashlib.blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}"


def view_legs(call: Call, labels: Labels) -> list[LegView]:
    """The legs of a call, with the names of their extensions."""
    return [
        LegView(label_of(call.pbx, leg.extension, labels), leg.extension, _leg_icon(leg))
        for leg in call.legs
    ]


def view_timeline(call: Call, labels: Labels, now: datetime | None = None) -> Timeline:
    """The timeline of a call, with a sentence for each leg."""
    names = [each.label for each in view_legs(call, labels)]
    return timeline(call, names, now or datetime.now(UTC))


def _state(call: Call) -> tuple[str, str, str]:
    if call.outcome is not None:
        state, icon, word = OUTCOMES[call.outcome]
        return state, icon, gettext(word)
    if call.answered_by:
        return "live", "talking", gettext("talking")
    if any(leg.kind is Kind.QUEUE for leg in call.legs):
        return "ring", "hourglass", gettext("waiting")
    return "ring", "bell", gettext("ringing")


def _side(call: Call, party: Party, view: View, labels: Labels) -> Side:
    if call.direction == "internal" and party.extension:
        return _extension(call.pbx, party.extension, labels)
    number = shown_number(number_of(party), masked=view.masked)
    name = shown_name(party.name, masked=view.masked)
    # A name that is the number says nothing.
    if name and _digits(name) and _digits(name) == _digits(number or ""):
        name = None
    withheld = gettext("withheld number")
    if name:
        return Side(name, number or withheld)
    return Side(number or withheld, gettext("no name known") if number else "")


def _dialled(call: Call, party: Party) -> str:
    if call.direction == "internal":
        return party.extension or ""
    return number_of(party) or ""


def _own(call: Call, party: Party, labels: Labels) -> Side:
    extension = party.extension or (call.legs[0].extension if call.legs else None)
    return _extension(call.pbx, extension, labels) if extension else Side("–", "")


def _extension(pbx: str, extension: str, labels: Labels) -> Side:
    label = labels[pbx, extension].label if (pbx, extension) in labels else None
    return Side(label, extension) if label else Side(extension, "")


def label_of(pbx: str, extension: str, labels: Labels) -> str:
    """The name of an extension, or its number if it has none."""
    return _extension(pbx, extension, labels).head


def _leg_icon(leg: Leg) -> str:
    return {Kind.QUEUE: "people", Kind.CONFERENCE: "people", Kind.IVR: "grid"}.get(
        leg.kind or Kind.PHONE, "call"
    )


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text) if not re.search(r"[^\W\d]", text) else ""


def _sentence(call: Call) -> str:
    """The course of a call in words, for a screen reader."""
    rang = duration(call.ring_seconds)
    if call.outcome is None:
        return (
            gettext("rang {rang}, in progress", rang=rang)
            if call.answered_by
            else gettext("ringing")
        )
    if call.answered_by:
        talked = duration(call.talk_seconds)
        return gettext("rang {rang}, talked {talked}", rang=rang, talked=talked)
    return gettext("rang {rang}, {outcome}", rang=rang, outcome=gettext(OUTCOMES[call.outcome][2]))
