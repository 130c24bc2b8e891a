"""Calls, and the callbacks that a VoipNow PBX makes for each: what `pbx.py` sends.

Pure: the same `random.Random` seed makes the same calls, CallIDs and all.

Names, occurrence and meaning of the parameters follow the VoipNow wiki's "Call Events" page. Where
no document speaks, the choice is ours and has a comment that says so. Numbers are of the ranges
that Ofcom, the NANPA, the Bundesnetzagentur and ARCEP set aside for fiction.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from random import Random
from typing import Literal

from unifiedapi.callback import CallStatus
from unifiedapi.resources import EventType

QUEUE = "0003*400"  # the queue's own extension in queue calls, unless told otherwise


class Scenario(StrEnum):
    """What happens in a call."""

    ANSWERED = "answered"  # from outside, answered
    OUTGOING = "outgoing"  # to outside, answered
    MISSED = "missed"  # from outside, rang out
    BUSY = "busy"  # from outside, the phone was busy
    CANCELLED = "cancelled"  # from outside, the caller gave up
    RING_GROUP = "ring-group"  # three phones ring, one of them answers
    TRANSFER = "transfer"  # answered, then passed on to a second phone
    QUEUE = "queue"  # waits in a queue; the first agent lets it ring, the second one answers

    @property
    def phones(self) -> int:
        """How many phones it takes."""
        return _SCRIPTS[self][0]


@dataclass(frozen=True, slots=True)
class Callback:
    """One callback: when it is made, for which phone call event, and what it says.

    Attributes:
        at: seconds since the call began.
        extension: the one that the phone call event is registered on, such as 0003*210.
        parameters: VoipNow's names; what the PBX would not know is left out.
    """

    at: float
    extension: str
    type: EventType
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Call:
    """One call. Its callbacks are sorted by `at` and share `id`, their CallID."""

    id: str
    scenario: Scenario
    callbacks: tuple[Callback, ...]


def make_call(scenario: Scenario, rng: Random, phones: Sequence[str], queue: str = QUEUE) -> Call:
    """A call that goes as the scenario says, between numbers and at a pace of chance.

    Args:
        phones: extensions to choose from.
        queue: the extension of the queue, for `Scenario.QUEUE`.

    Raises:
        ValueError: the scenario takes more phones than there are.
    """
    needed, script = _SCRIPTS[scenario]
    if len(phones) < needed:
        raise ValueError(f"{scenario} takes {needed} phones, there are {len(phones)}")
    # Looks like Asterisk's unique id, a moment and a sequence number, but both are of chance: two
    # runs within a second share no CallID, and 10^17 of them hardly meet within one run.
    call_id = f"{rng.randrange(1_600_000_000, 1_900_000_000)}.{rng.randrange(10**9)}"
    # The documents promise it in every callback and do not say what it looks like.
    ids = {"CallID": call_id, "CallAPIID": f"{rng.getrandbits(128):032x}"}
    return Call(call_id, scenario, tuple(script(rng, ids, rng.sample(phones, needed), queue)))


def random_calls(
    rng: Random,
    phones: Sequence[str],
    scenarios: Sequence[Scenario] = tuple(Scenario),
    queue: str = QUEUE,
) -> Iterator[Call]:
    """Calls without end, of those scenarios that have phones enough, each as likely as the next.

    Raises:
        ValueError: no scenario has.
    """
    possible = [scenario for scenario in scenarios if scenario.phones <= len(phones)]
    if not possible:
        raise ValueError(f"{len(phones)} phones are too few for {', '.join(scenarios)}")
    return (make_call(rng.choice(possible), rng, phones, queue) for _ in count())


@dataclass(frozen=True, slots=True)
class _Leg:
    """One extension's part in a call, which says the same of itself in each of its callbacks."""

    extension: str
    flow: Literal["IN", "OUT"]
    parameters: Mapping[str, str]

    def dial(self, at: float) -> Callback:
        dial = EventType.DIAL_IN if self.flow == "IN" else EventType.DIAL_OUT
        return self._callback(at, dial, CallStatus.CALLING)

    def answer(self, at: float) -> Callback:
        answer = EventType.ANSWER_IN if self.flow == "IN" else EventType.ANSWER_OUT
        # No VoipNow document gives its status; in the dialect of Telphin it is ANSWER.
        return self._callback(at, answer, CallStatus.ANSWER)

    def hang_up(self, at: float, status: CallStatus) -> Callback:
        return self._callback(at, EventType.HANGUP, status)

    def _callback(self, at: float, type_: EventType, status: CallStatus) -> Callback:
        parameters = {**self.parameters, "CallStatus": status.value, "CallFlow": self.flow}
        return Callback(round(at, 3), self.extension, type_, parameters)


# A script makes the callbacks of one call, in their order, from its ids, phones and queue.
_Script = Callable[[Random, Mapping[str, str], Sequence[str], str], list[Callback]]


def _answered(
    rng: Random, ids: Mapping[str, str], phones: Sequence[str], queue: str
) -> list[Callback]:
    leg = _from_outside(phones[0], _caller(rng, ids))
    answered = _ring(rng)
    over = answered + _talk(rng)
    return [leg.dial(0), leg.answer(answered), leg.hang_up(over, CallStatus.ANSWER)]


def _outgoing(
    rng: Random, ids: Mapping[str, str], phones: Sequence[str], queue: str
) -> list[Callback]:
    says = {
        # As in Telphin's dialect: the number of one who calls out is the extension.
        "CallerIDNum": phones[0],
        "CallerIDName": rng.choice(_COLLEAGUES),
        "CallerExtension": phones[0],
        "CalledNumber": _number(rng),
    }
    leg = _Leg(phones[0], "OUT", {**ids, **says})
    answered = _ring(rng)
    over = answered + _talk(rng)
    return [leg.dial(0), leg.answer(answered), leg.hang_up(over, CallStatus.ANSWER)]


def _unanswered(status: CallStatus, shortest: float, longest: float) -> _Script:
    """The script of a call that ends with this status after so many seconds."""

    def script(
        rng: Random, ids: Mapping[str, str], phones: Sequence[str], queue: str
    ) -> list[Callback]:
        leg = _from_outside(phones[0], _caller(rng, ids))
        return [leg.dial(0), leg.hang_up(rng.uniform(shortest, longest), status)]

    return script


def _ring_group(
    rng: Random, ids: Mapping[str, str], phones: Sequence[str], queue: str
) -> list[Callback]:
    caller = _caller(rng, ids)
    first, *others = [_from_outside(phone, caller) for phone in phones]
    answered = _ring(rng)
    over = answered + _talk(rng)
    return [
        first.dial(0),
        *(leg.dial(0) for leg in others),
        first.answer(answered),
        # No document gives the status of a phone that stops ringing because another one answered.
        *(leg.hang_up(answered + 0.02, CallStatus.NOANSWER) for leg in others),
        first.hang_up(over, CallStatus.ANSWER),
    ]


def _transfer(
    rng: Random, ids: Mapping[str, str], phones: Sequence[str], queue: str
) -> list[Callback]:
    caller = _caller(rng, ids)
    first = _from_outside(phones[0], caller)
    second = _passed_on(phones[1], caller, by=phones[0])
    answered = _ring(rng)
    transferred = answered + _talk(rng)
    answered_again = transferred + _ring(rng)
    over = answered_again + _talk(rng)
    return [
        first.dial(0),
        first.answer(answered),
        second.dial(transferred),
        first.hang_up(transferred + 0.02, CallStatus.ANSWER),
        second.answer(answered_again),
        second.hang_up(over, CallStatus.ANSWER),
    ]


def _queue(
    rng: Random, ids: Mapping[str, str], phones: Sequence[str], queue: str
) -> list[Callback]:
    caller = _caller(rng, ids)
    waiting = _from_outside(queue, caller)
    silent, willing = (_passed_on(phone, caller, by=queue) for phone in phones)
    offered = rng.uniform(1, 20)
    offered_again = offered + 15
    answered = offered_again + _ring(rng)
    over = answered + _talk(rng)
    return [
        waiting.dial(0),
        waiting.answer(0.1),  # by the queue itself, which plays its music
        silent.dial(offered),
        silent.hang_up(offered_again, CallStatus.NOANSWER),
        willing.dial(offered_again + 0.5),
        willing.answer(answered + 0.5),
        willing.hang_up(over, CallStatus.ANSWER),
        waiting.hang_up(over + 0.02, CallStatus.ANSWER),
    ]


_SCRIPTS: Mapping[Scenario, tuple[int, _Script]] = {  # with the number of phones each takes
    Scenario.ANSWERED: (1, _answered),
    Scenario.OUTGOING: (1, _outgoing),
    Scenario.MISSED: (1, _unanswered(CallStatus.NOANSWER, 20, 40)),
    Scenario.BUSY: (1, _unanswered(CallStatus.BUSY, 0.1, 1)),
    Scenario.CANCELLED: (1, _unanswered(CallStatus.CANCEL, 2, 18)),
    Scenario.RING_GROUP: (3, _ring_group),
    Scenario.TRANSFER: (2, _transfer),
    Scenario.QUEUE: (2, _queue),
}


def _from_outside(extension: str, caller: Mapping[str, str]) -> _Leg:
    return _Leg(extension, "IN", {**caller, "CalledExtension": extension})


def _passed_on(extension: str, caller: Mapping[str, str], by: str) -> _Leg:
    # As in Telphin's dialect: CallerExtension is the one that passed the call on.
    says = {"CalledExtension": extension, "CallerExtension": by, "CalledNumber": extension}
    return _Leg(extension, "IN", {**caller, **says})


def _caller(rng: Random, ids: Mapping[str, str]) -> dict[str, str]:
    """What every leg of a call from outside says of its caller and of the number dialled."""
    did = rng.choice(_DIDS)
    says = {**ids, "CallerIDNum": _number(rng), "CalledDID": did, "CalledNumber": did}
    if rng.random() < 0.05:
        says["CallerIDNum"] = "anonymous"  # as SIP has it; no VoipNow document tells
    elif rng.random() < 0.7:
        says["CallerIDName"] = rng.choice(_CALLERS)
    return says


def _number(rng: Random) -> str:
    digits = rng.choice(_NUMBERS)
    return digits + "".join(rng.choices("0123456789", k=2))


def _ring(rng: Random) -> float:
    return rng.uniform(2, 15)


def _talk(rng: Random) -> float:
    return rng.triangular(5, 240, 45)


_NUMBERS = (  # of people outside: all but the last two digits
    "4416149601",
    "+4477009001",
    "120255501",
    "+121255501",
    "004930231251",
    "331990012",
    "016149602",
)
_DIDS = ("442079460100", "442079460101", "442079460999")
_CALLERS = (
    "Ada Byron",
    "O'Neill & Sons",
    "Müller GmbH",
    "Łukasz Żak",
    "María-José Núñez",
    "100% Kaffee",
    "Дарья Иванова",
    "山田太郎",
    "REED  J",
)
_COLLEAGUES = ("Front Desk", "Grace Hopper", "Søren (Sales)", "Support + Returns")
