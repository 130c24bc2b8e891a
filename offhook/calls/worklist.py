"""`Worklist`: callers who reached no person, until a call with their number is answered. Pure.

A caller is an outside number, however it is written. What is open follows from the calls alone, so
it is the same wherever it is worked out, and however often.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Literal

import msgspec

from offhook.call import Call, Outcome, Party
from offhook.phone_number import Number

MOST = 1000  # callers; of more, the oldest are forgotten
UNANSWERED = tuple(outcome for outcome in Outcome if outcome is not Outcome.ANSWERED)
_COMPARED = 7  # final digits that all spellings of a number share


class Reached(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a caller who had been missed was reached.

    Attributes:
        how: a colleague called back, or the caller called again and got through.
        call: the id of that call.
        at: when it was answered.
        by: the extension that spoke with the caller.
        tries: which call back reached the caller: 1 for the first; 0 if the caller got through.
        talk_seconds: None while they talk, or if it is unknown.
    """

    how: Literal["called back", "got through"]
    call: str
    at: datetime
    by: str | None
    tries: int = 0
    talk_seconds: float | None = None


class MissedCaller(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A caller who reached no person.

    Attributes:
        calls: those that were missed, oldest first.
        current: a call with this number that goes on and has not been answered.
        reached: None while it is open.
        calling: the user who asked the PBX a moment ago to call this number.
    """

    calls: tuple[Call, ...]
    current: Call | None = None
    reached: Reached | None = None
    calling: str | None = None

    @property
    def caller(self) -> Party:
        """Who called, with the name from the newest call that has one."""
        named = [call.caller for call in reversed(self.calls) if call.caller.name]
        return named[0] if named else self.calls[-1].caller

    @property
    def wanted(self) -> str | None:
        """The extension that was called last: a queue, or the first phone that rang."""
        last = self.calls[-1]
        return last.called.extension or next(iter(last.extensions), None)

    @property
    def since(self) -> datetime:
        """When the first of the calls ended unanswered."""
        return ended(self.calls[0])

    def called_one_of(self, extensions: Iterable[str]) -> bool:
        """Return whether one of these queues or phones was called."""
        called = {call.called.extension for call in self.calls}
        return not called.union(*(call.extensions for call in self.calls)).isdisjoint(extensions)


class Worklist:
    """The missed callers among the calls that were put in.

    It keeps the calls of callers who were missed, and drops all others.
    """

    def __init__(self) -> None:
        self._calls: defaultdict[str, dict[str, Call]] = defaultdict(dict)
        self._callers: dict[str, list[MissedCaller]] = {}

    def knows(self, call: Call) -> bool:
        """Return whether it keeps calls with the outside number of this call."""
        return _bucket(call) in self._calls

    def put(self, call: Call) -> bool:
        """Take in a call as it is known now. Return whether a missed caller is affected."""
        bucket = _bucket(call)
        if bucket is None or not (is_missed(call) or bucket in self._calls):
            return False
        name = f"{call.pbx}/{call.id}"
        if self._calls[bucket].get(name) == call:
            return False
        self._calls[bucket][name] = call
        self._callers.pop(bucket, None)
        if len(self._calls) > MOST:
            self._drop(min(self._calls, key=lambda each: _last(self._calls[each].values())))
        return True

    def forget(self, before: datetime) -> None:
        """Forget callers whose last call began before then."""
        for bucket in [b for b, calls in self._calls.items() if _last(calls.values()) < before]:
            self._drop(bucket)

    def callers(self) -> list[MissedCaller]:
        """All missed callers, those first who have waited longest; a caller may be in it twice."""
        found = [caller for bucket in self._calls for caller in self._in(bucket)]
        return sorted(found, key=lambda each: each.since)

    def callers_like(self, call: Call) -> list[MissedCaller]:
        """The missed callers with the outside number of a call, or with a similar one."""
        bucket = _bucket(call)
        return self._in(bucket) if bucket is not None and bucket in self._calls else []

    def waiting(self, number: str) -> MissedCaller | None:
        """The caller with this number who has not been reached; None: no such caller waits."""
        for caller in self._in(bucket) if (bucket := _ending(number)) in self._calls else ():
            if caller.reached is None and _as_number(number).is_same(_outside(caller.calls[-1])):
                return caller
        return None

    def _in(self, bucket: str) -> list[MissedCaller]:
        if bucket not in self._callers:
            same_number = _same_number(self._calls[bucket].values())
            self._callers[bucket] = [each for calls in same_number for each in _worked_off(calls)]
        return self._callers[bucket]

    def _drop(self, bucket: str) -> None:
        del self._calls[bucket]
        self._callers.pop(bucket, None)


def is_missed(call: Call) -> bool:
    """Return whether a call from outside has ended without reaching a person."""
    return call.direction == "in" and call.outcome in UNANSWERED


def outside_number(call: Call) -> str | None:
    """The outside number of a call; None if it is withheld, too short, or there is none."""
    if call.direction == "internal":
        return None
    party = call.called if call.direction == "out" else call.caller
    number = party.e164 or party.number
    return None if number is None or Number(number, party.e164).is_nobodys else number


def ended(call: Call) -> datetime:
    """When a call ended, as far as that is known."""
    return call.ended or call.started


def _bucket(call: Call) -> str | None:
    number = outside_number(call)
    return _ending(number) if number else None


def _ending(number: str) -> str:
    return Number(number).digits[-_COMPARED:]


def _as_number(text: str) -> Number:
    return Number(text, text if text.startswith("+") else None)


def _outside(call: Call) -> str:
    return outside_number(call) or ""


def _last(calls: Iterable[Call]) -> datetime:
    return max(call.started for call in calls)


def _same_number(calls: Iterable[Call]) -> list[list[Call]]:
    """The calls of each number, among those whose numbers end alike."""
    groups: list[tuple[Number, list[Call]]] = []
    for call in calls:
        text = _outside(call)
        for number, same in groups:
            if number.is_same(text):
                same.append(call)
                break
        else:
            groups.append((_as_number(text), [call]))
    return [same for _, same in groups]


def _worked_off(calls: list[Call]) -> Iterator[MissedCaller]:
    """Go through the calls with one number in the order in which they were decided."""
    missed: list[Call] = []
    current: Call | None = None
    tries = 0
    for call in sorted(calls, key=lambda each: each.answered or ended(each)):
        out = call.direction == "out"
        if is_missed(call):
            missed.append(call)
        elif not missed:
            continue
        elif call.answered_by:
            yield MissedCaller(calls=tuple(missed), reached=_reached(call, tries + 1 if out else 0))
            missed, current, tries = [], None, 0
        elif call.outcome is None:
            current = call
        else:
            tries += out
    if missed:
        yield MissedCaller(calls=tuple(missed), current=current)


def _reached(call: Call, tries: int) -> Reached:
    return Reached(
        how="called back" if tries else "got through",
        call=f"{call.pbx}/{call.id}",
        at=call.answered or ended(call),
        by=call.answered_by,
        tries=tries,
        talk_seconds=call.talk_seconds if call.closed_by else None,
    )
