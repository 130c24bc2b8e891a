"""Matching the PBX's call records to our calls, and the events of a record. Pure functions.

VoipNow documents no key for this. A record belongs to a call if its `call_id` is the call's id, or
if its `id` is the `CallAPIID` of the call's callbacks; both are inferred from VoipNow. Otherwise it
belongs to the nearest call in time that shares an extension and the external number, has the same
direction, and began while the recorded call lasted, give or take `SLACK`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from offhook.call import Call, Direction, Party
from offhook.event import CallEvent, EventType, call_name
from unifiedapi.callback import CallStatus
from unifiedapi.resources import CallLeg, CallRecord, Disposition, Flow
from workers.own_events import stable_id

# For clocks that differ, and for a phone that rang long before the only callback that arrived.
SLACK = timedelta(minutes=2)
ENOUGH = 5  # mismatches from which on they are no accident
_SAME_DIGITS = 9  # compared from the end of a number: prefixes are optional

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
class ExtensionLeg:
    """What a record says about one extension's leg.

    Attributes:
        direction: `in` if the extension was called, `out` if it called.
        source, destination: who called and who was called, as written in the record.
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
class RecordedCall:
    """A call as recorded by the PBX, with the legs of our extensions.

    Attributes:
        id: the id of the record.
        call_id: our id for the call if we do not know it yet.
        began: when the call entered the PBX.
        ended: when it ended, as far as the record says.
    """

    id: str
    call_id: str
    began: datetime
    ended: datetime
    legs: tuple[ExtensionLeg, ...]

    @property
    def directions(self) -> set[Direction]:
        """The directions of its legs; empty if the record does not say."""
        flows = [leg.flow for leg in self.legs]
        return set() if None in flows else {_FLOWS[f] for f in flows if f in _FLOWS}


def read(record: CallRecord, extensions: Mapping[str, datetime]) -> RecordedCall | None:
    """Return what a record says about these extensions, or None if nothing.

    Args:
        extensions: the extensions that are set up, and from when their calls count.
    """
    began = record.published or record.answered
    if began is None:
        return None
    own = [number for number, since in extensions.items() if since <= began]
    legs = tuple(recorded for leg in record.legs for recorded in _legs(leg, own))
    if not legs:
        return None
    ends = [moment for leg in legs for moment in (leg.answered, leg.ended) if moment]
    return RecordedCall(
        id=record.id,
        call_id=record.call_id or f"record-{record.id}",
        began=began,
        ended=max([began, *ends]),
        legs=legs,
    )


def _legs(leg: CallLeg, own: Sequence[str]) -> Iterator[ExtensionLeg]:
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
            yield ExtensionLeg(
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
    """Return the extension with this number, in its extended form or, if unambiguous, short."""
    if number in own:
        return number
    short = [each for each in own if each.rpartition("*")[2] == number]
    return short[0] if len(short) == 1 else None


@dataclass(frozen=True)
class Matches:
    """The calls that the records belong to.

    Attributes:
        calls: record id -> its call; rarely several, if they share an id of the PBX.
        missing: the records without a call.
        doubt: why these results cannot be trusted, or None.
    """

    calls: Mapping[str, tuple[Call, ...]]
    missing: tuple[RecordedCall, ...]
    doubt: str | None


def match(
    records: Sequence[RecordedCall], calls: Sequence[Call], api_ids: Mapping[str, str]
) -> Matches:
    """Find the call of each record. A call belongs to one record only.

    Args:
        calls: our calls on the same PBX at the same time.
        api_ids: call id -> the `CallAPIID` of its callbacks, if they had one.
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


def _nearest(records: Sequence[RecordedCall], calls: Sequence[Call]) -> Iterator[tuple[str, Call]]:
    """Yield pairs of a record's id and its call, nearest first, each record and call once."""
    alike: defaultdict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in calls:
        for extension in call.extensions:
            for number in _others(call):
                alike[extension, number].append(call)
    pairs = []
    for record in records:
        for pair in {(leg.extension, n) for leg in record.legs for n in _numbers(leg)}:
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


def _away(record: RecordedCall, call: Call) -> tuple[timedelta, timedelta] | None:
    """Return how far apart a call and a record are, or None if they cannot belong together.

    That is the time from the recorded call to our call's start, then the time between both starts:
    our call starts late if its first callbacks were lost.
    """
    if record.directions and call.direction not in record.directions:
        return None
    zero = timedelta()
    outside = max(record.began - call.started, call.started - record.ended, zero)
    return None if outside > SLACK else (outside, abs(call.started - record.began))


def _others(call: Call) -> set[str]:
    """Return the numbers of the other party, as seen by an extension of the call."""
    if call.direction == "in":
        return {_key(call.caller.number)}
    if call.direction == "out":
        return {_key(call.called.number)}
    parties = (call.caller, call.called)
    return {_key(number) for p in parties for number in (p.number, p.extension) if number}


def _numbers(leg: ExtensionLeg) -> set[str]:
    return {_key(leg.source), _key(leg.destination)}


def _key(number: str | None) -> str:
    """Return the part of a number that all ways to write it share; empty if it is withheld."""
    digits = "".join(filter(str.isdigit, (number or "").rpartition("*")[2]))
    return digits[-_SAME_DIGITS:]


def _doubt(
    records: Sequence[RecordedCall],
    calls: Sequence[Call],
    sure: Sequence[tuple[RecordedCall, Call]],
    missing: Sequence[RecordedCall],
) -> str | None:
    """Return why the clocks rather than missing calls may explain the mismatches, or None."""
    pairs = [pair for pair in sure if not pair[1].recovered]
    apart = [pair for pair in pairs if _outside(*pair)]
    if len(apart) >= ENOUGH and len(apart) > len(pairs) / 2:
        record, call = apart[0]
        minutes = round((record.began - call.started) / timedelta(minutes=1))
        return f"the PBX dates calls by {minutes:+} minutes: correct its `zone` or its clock"
    # The latest calls have no record yet.
    last = max((record.began for record in records), default=None)
    old = [call for call in calls if last is None or call.started <= last + SLACK]
    numbers = {number for call in old for number in _others(call) if number}
    known = [r for r in missing if numbers & {n for leg in r.legs for n in _numbers(leg)}]
    evidence = min(len(known), len(old)) if records else len(old)
    if len(missing) == len(records) and evidence >= ENOUGH:
        return (
            "none of the PBX's records belongs to a known call: check its `zone`, and whether the "
            "API's user may see the call records"
        )
    return None


def _outside(record: RecordedCall, call: Call) -> bool:
    return max(record.began - call.started, call.started - record.ended) > SLACK


def events(
    record: RecordedCall, pbx: str, call_id: str, now: datetime, tenant: str = ""
) -> list[CallEvent]:
    """Return the `call-record` events of a record, one for each leg, with the same ids each time.

    Args:
        call_id: the id of the call that the record belongs to.
        now: when the events are made.
        tenant: whose call it is.
    """
    began = int(record.began.timestamp() * 1000)
    return [
        CallEvent(
            id=stable_id(began, f"{call_name(pbx, record.id, tenant)}/{number}"),
            pbx=pbx,
            extension=leg.extension,
            type=EventType.CALL_RECORD,
            call_id=call_id,
            direction=leg.direction,
            caller=_caller(leg),
            called=_called(leg),
            status=None if leg.disposition is None else _STATUSES.get(leg.disposition),
            received=now,
            occurred=record.began.astimezone(UTC),
            parameters={"record": record.id} | _moments(leg),
            tenant=tenant,
        )
        for number, leg in enumerate(record.legs)
    ]


def _caller(leg: ExtensionLeg) -> Party:
    if leg.direction == "out":
        return Party(number=leg.extension, extension=leg.extension)
    inside = leg.flow is Flow.LOCAL
    return Party(number=leg.source or None, extension=leg.source if inside else None)


def _called(leg: ExtensionLeg) -> Party:
    if leg.direction == "in":
        return Party(number=leg.destination, extension=leg.extension)
    inside = leg.flow is Flow.LOCAL
    return Party(number=leg.destination, extension=leg.destination if inside else None)


def _moments(leg: ExtensionLeg) -> dict[str, str]:
    moments = {"answered": leg.answered, "ended": leg.ended}
    return {name: m.astimezone(UTC).isoformat() for name, m in moments.items() if m is not None}
