"""The PBX's call records and the calls kept here: which is which, and what a record tells. Pure.

No document says how the two are to be matched. A record is a call's when its `call_id` is the
call's, or its `id` the `CallAPIID` of the call's callbacks (on VoipNow both are inferred). Else it
is a call's that has an extension and the number on the other side in common with it, went the same
way, and began while the record's call went on, give or take `SLACK`; of several, the nearest one.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from offhook.call import Call, Direction, Party
from offhook.event import CallEvent, EventType
from unifiedapi.callback import CallStatus
from unifiedapi.resources import CallLeg, CallRecord, Disposition, Flow

# A phone may ring for so long before the only callback that came, and clocks differ.
SLACK = timedelta(minutes=2)
ENOUGH = 5  # calls and records of which none is another's: that is no accident
_SAME_DIGITS = 9  # of a number, from its end: what is before them is written or not

_FLOWS: dict[Flow, Direction] = {
    Flow.INCOMING: "in",
    Flow.OUTGOING: "out",
    Flow.LOCAL: "internal",
}
_STATUSES = {
    Disposition.ANSWERED: CallStatus.ANSWER,
    Disposition.BUSY: CallStatus.BUSY,
    Disposition.FAILED: CallStatus.CONGESTION,
    Disposition.NO_ANSWER: CallStatus.NOANSWER,
    Disposition.NOT_ALLOWED: CallStatus.CONGESTION,
}


@dataclass(frozen=True)
class Part:
    """What a record says of one extension's leg.

    Attributes:
        direction: `in` when the extension was called, `out` when it called.
        source, destination: who called and who was called, as the record has them.
    """

    extension: str
    direction: Direction
    source: str | None
    destination: str | None
    flow: Flow | None
    disposition: Disposition | None
    answered: datetime | None
    ended: datetime | None


@dataclass(frozen=True)
class Recorded:
    """A call as the PBX has recorded it: its legs of extensions that are set up here.

    Attributes:
        id: the record's.
        call_id: the call's id here, should it not be known here yet.
        began: when the call entered the PBX.
        ended: when it was over, as far as the record says.
    """

    id: str
    call_id: str
    began: datetime
    ended: datetime
    parts: tuple[Part, ...]

    @property
    def directions(self) -> set[Direction]:
        """Which ways its legs went; empty when it does not say."""
        flows = [part.flow for part in self.parts]
        return set() if None in flows else {_FLOWS[f] for f in flows if f in _FLOWS}


def read(record: CallRecord, extensions: Mapping[str, datetime]) -> Recorded | None:
    """What a record says of these extensions; None if it says nothing of them.

    Args:
        extensions: those that are set up, each with the moment from which on its calls count.
    """
    began = record.published or record.answered
    if began is None:
        return None
    own = [number for number, since in extensions.items() if since <= began]
    parts = tuple(part for leg in record.legs for part in _parts(leg, own))
    if not parts:
        return None
    ends = [moment for part in parts for moment in (part.answered, part.ended) if moment]
    return Recorded(
        id=record.id,
        call_id=record.call_id or f"record-{record.id}",
        began=began,
        ended=max([began, *ends]),
        parts=parts,
    )


def _parts(leg: CallLeg, own: Sequence[str]) -> Iterator[Part]:
    source = leg.source[0] if leg.source else None
    destination = leg.destination[0] if leg.destination else None
    # A public number may look like a short extension.
    calling = None if leg.flow is Flow.INCOMING else _among(source, own)
    called = None if leg.flow is Flow.OUTGOING else _among(destination, own)
    mine = _among(leg.extension, own)
    ended = None
    if leg.answered is not None and leg.duration is not None:
        ended = leg.answered + timedelta(seconds=leg.duration)
    sides: list[tuple[str | None, Direction]] = [(calling, "out"), (called, "in")]
    if leg.extension is not None:
        sides = [(mine, "out" if mine == calling and mine != called else "in")]
    for extension, direction in sides:
        if extension is not None:
            yield Part(
                extension=extension,
                direction=direction,
                source=source,
                destination=destination,
                flow=leg.flow,
                disposition=leg.disposition,
                answered=leg.answered,
                ended=ended,
            )


def _among(number: str | None, own: Sequence[str]) -> str | None:
    """The extension that a number is, by its extended form, or by its short one if one has it."""
    if number in own:
        return number
    short = [each for each in own if each.rpartition("*")[2] == number]
    return short[0] if len(short) == 1 else None


@dataclass(frozen=True)
class Matches:
    """Which call kept here each record is about.

    Attributes:
        calls: record id -> the call; two or more share an id of the PBX's in rare cases.
        missing: the records of which there is no call.
        doubt: why nothing should be concluded from that; None: there is no doubt.
    """

    calls: Mapping[str, tuple[Call, ...]]
    missing: tuple[Recorded, ...]
    doubt: str | None


def match(
    records: Sequence[Recorded], calls: Sequence[Call], api_ids: Mapping[str, str]
) -> Matches:
    """Find the call of each record. A call is that of one record only.

    Args:
        calls: of the same PBX and the same time.
        api_ids: call id -> the `CallAPIID` of its callbacks, where they had one.
    """
    by_id: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_id[call.id].append(call)
        if call.id in api_ids:
            by_id[f"record-{api_ids[call.id]}"].append(call)
    found: dict[str, tuple[Call, ...]] = {}
    for record in records:
        theirs = by_id.get(record.call_id) or by_id.get(f"record-{record.id}")
        if theirs:
            found[record.id] = tuple(theirs)
    sure = [(record, found[record.id][0]) for record in records if record.id in found]
    taken = {call.id for theirs in found.values() for call in theirs}
    left = [record for record in records if record.id not in found]
    free = [call for call in calls if call.id not in taken]
    found |= {record_id: (call,) for record_id, call in _nearest(left, free)}
    missing = tuple(record for record in records if record.id not in found)
    return Matches(found, missing, _doubt(records, calls, sure, missing))


def _nearest(records: Sequence[Recorded], calls: Sequence[Call]) -> Iterator[tuple[str, Call]]:
    """Pairs of a record and its call, the nearest first, each but once."""
    alike: defaultdict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in calls:
        for extension in call.extensions:
            for number in _others(call):
                alike[extension, number].append(call)
    pairs = []
    for record in records:
        for pair in {(p.extension, n) for p in record.parts for n in _numbers(p)}:
            for call in alike.get(pair, ()):
                away = _away(record, call)
                if away is not None:
                    pairs.append((away, record.id, call.id, call))
    done: set[str] = set()
    used: set[str] = set()
    for _, record_id, call_id, call in sorted(pairs, key=lambda pair: pair[:3]):
        if record_id not in done and call_id not in used:
            done.add(record_id)
            used.add(call_id)
            yield record_id, call


def _away(record: Recorded, call: Call) -> tuple[timedelta, timedelta] | None:
    """How far the call began from the record's, first counted from its nearest moment; None: far.

    A call of which the first callbacks are lost began here when the next one came.
    """
    if record.directions and call.direction not in record.directions:
        return None
    zero = timedelta()
    outside = max(record.began - call.started, call.started - record.ended, zero)
    return None if outside > SLACK else (outside, abs(call.started - record.began))


def _others(call: Call) -> set[str]:
    """The numbers of the other side, as one extension of the call sees it."""
    if call.direction == "in":
        return {_key(call.caller.number)}
    if call.direction == "out":
        return {_key(call.called.number)}
    parties = (call.caller, call.called)
    return {_key(number) for p in parties for number in (p.number, p.extension) if number}


def _numbers(part: Part) -> set[str]:
    return {_key(part.source), _key(part.destination)}


def _key(number: str | None) -> str:
    """What a number written in several ways has in common; nothing of a withheld one."""
    digits = "".join(filter(str.isdigit, (number or "").rpartition("*")[2]))
    return digits[-_SAME_DIGITS:]


def _doubt(
    records: Sequence[Recorded],
    calls: Sequence[Call],
    sure: Sequence[tuple[Recorded, Call]],
    missing: Sequence[Recorded],
) -> str | None:
    """Is it the clocks that differ, rather than calls that are missing?"""
    pairs = [pair for pair in sure if not pair[1].recovered]
    apart = [pair for pair in pairs if _outside(*pair)]
    if len(apart) >= ENOUGH and len(apart) > len(pairs) / 2:
        record, call = apart[0]
        minutes = round((record.began - call.started) / timedelta(minutes=1))
        return f"the PBX dates calls by {minutes:+} minutes: set its `zone`, or its clock, right"
    # Of the latest calls there is no record yet.
    last = max((record.began for record in records), default=None)
    old = [call for call in calls if last is None or call.started <= last + SLACK]
    numbers = {number for call in old for number in _others(call) if number}
    known = [r for r in missing if numbers & {n for p in r.parts for n in _numbers(p)}]
    evidence = min(len(known), len(old)) if records else len(old)
    if len(missing) == len(records) and evidence >= ENOUGH:
        return (
            "none of the PBX's records is of a call that is known here: is its `zone` right, and "
            "may the API's user see the call records?"
        )
    return None


def _outside(record: Recorded, call: Call) -> bool:
    return max(record.began - call.started, call.started - record.ended) > SLACK


def events(record: Recorded, pbx: str, call_id: str, now: datetime) -> list[CallEvent]:
    """The `call-record` events that tell of a record: one for each leg, with the same ids always.

    Args:
        call_id: of the call that it is about.
        now: when they are told.
    """
    return [
        CallEvent(
            id=_event_id(pbx, record, number),
            pbx=pbx,
            extension=part.extension,
            type=EventType.CALL_RECORD,
            call_id=call_id,
            direction=part.direction,
            caller=_caller(part),
            called=_called(part),
            status=None if part.disposition is None else _STATUSES.get(part.disposition),
            received=now,
            occurred=record.began.astimezone(UTC),
            parameters={"record": record.id} | _moments(part),
        )
        for number, part in enumerate(record.parts)
    ]


def _caller(part: Part) -> Party:
    if part.direction == "out":
        return Party(number=part.extension, extension=part.extension)
    inside = part.flow is Flow.LOCAL
    return Party(number=part.source or None, extension=part.source if inside else None)


def _called(part: Part) -> Party:
    if part.direction == "in":
        return Party(number=part.destination, extension=part.extension)
    inside = part.flow is Flow.LOCAL
    return Party(number=part.destination, extension=part.destination if inside else None)


def _moments(part: Part) -> dict[str, str]:
    moments = {"answered": part.answered, "ended": part.ended}
    return {name: m.astimezone(UTC).isoformat() for name, m in moments.items() if m is not None}


def _event_id(pbx: str, record: Recorded, number: int) -> str:
    """Shaped as `new_event_id` shapes it; the same whenever the same thing is told."""
    name = f"{pbx}/{record.id}/{number}".encode()
    began = int(record.began.timestamp() * 1000)
    return f"{began:012x}{blake2b(name, digest_size=10).hexdigest()}"
