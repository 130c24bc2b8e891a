"""Scripted calls, and the callbacks that a VoipNow PBX makes for each. `pbx.py` sends them.

Pure: the same `random.Random` seed makes the same calls, including their CallIDs.

Parameter names, presence and meaning follow the VoipNow wiki's "Call Events" page. Comments mark
what it does not document. Phone numbers are from the ranges that Ofcom, the NANPA, the
Bundesnetzagentur and ARCEP reserve for fiction.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from random import Random
from typing import Literal

from unifiedapi.callback import CallStatus
from unifiedapi.resources import EventType

QUEUE = "0003*400"  # the default extension of the queue in queue calls


class Scenario(StrEnum):
    """What happens in a call."""

    ANSWERED = "answered"  # from outside, answered
    OUTGOING = "outgoing"  # to outside, answered
    MISSED = "missed"  # from outside, rang out
    BUSY = "busy"  # from outside, the phone was busy
    CANCELLED = "cancelled"  # from outside, the caller hung up first
    RING_GROUP = "ring-group"  # three phones ring, one answers
    TRANSFER = "transfer"  # answered, then transferred to a second phone
    QUEUE = "queue"  # waits in a queue; the first agent does not answer, the second does
    OUTGOING_MISSED = "outgoing-missed"  # to outside, rang out
    OUTGOING_BUSY = "outgoing-busy"  # to outside, the line was busy
    INTERNAL = "internal"  # one phone calls another, which answers
    RING_GROUP_MISSED = "ring-group-missed"  # three phones ring out
    RING_GROUP_CANCELLED = "ring-group-cancelled"  # three phones ring, the caller hangs up
    TRANSFER_ATTENDED = "transfer-attended"  # transferred after talking to the second phone
    QUEUE_AGAIN = "queue-again"  # the only agent of a queue answers the second offer
    QUEUE_MISSED = "queue-missed"  # two agents of a queue do not answer, the caller hangs up

    @property
    def phones(self) -> int:
        """How many phones it needs."""
        return _SCRIPTS[self][0]


@dataclass(frozen=True, slots=True)
class Callback:
    """One callback of a call.

    Attributes:
        at: seconds since the call began.
        extension: the extension of the phone call event, such as 0003*210.
        parameters: VoipNow's names; only those that the PBX would know.
    """

    at: float
    extension: str
    type: EventType
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """One call. Its callbacks are sorted by `at`; `id` is their CallID."""

    id: str
    scenario: Scenario
    callbacks: tuple[Callback, ...]


def make_call(
    scenario: Scenario, rng: Random, phones: Sequence[str], queue: str = QUEUE
) -> ScriptedCall:
    """Make a call of this scenario with random numbers and times.

    Args:
        phones: extensions to choose from.
        queue: the extension of the queue in queue scenarios.

    Raises:
        ValueError: there are not enough phones.
    """
    needed, script = _SCRIPTS[scenario]
    if len(phones) < needed:
        raise ValueError(f"{scenario} needs {needed} phones, but there are {len(phones)}")
    # Looks like Asterisk's unique id, a time and a sequence number. Both are random, so that two
    # runs within a second share no CallID; among 10^17 values a run will not repeat one.
    call_id = f"{rng.randrange(1_600_000_000, 1_900_000_000)}.{rng.randrange(10**9)}"
    # The documents promise CallAPIID in every callback, but do not show what it looks like.
    ids = {"CallID": call_id, "CallAPIID": f"{rng.getrandbits(128):032x}"}
    draw = _Draw(rng, ids, rng.sample(phones, needed), queue)
    return ScriptedCall(call_id, scenario, tuple(script(draw)))


def random_calls(
    rng: Random,
    phones: Sequence[str],
    scenarios: Sequence[Scenario] = tuple(Scenario),
    queue: str = QUEUE,
) -> Iterator[ScriptedCall]:
    """Make endless calls, each of a random scenario among those that have enough phones.

    Raises:
        ValueError: no scenario has enough phones.
    """
    possible = [scenario for scenario in scenarios if scenario.phones <= len(phones)]
    if not possible:
        raise ValueError(f"{len(phones)} phones are not enough for {', '.join(scenarios)}")
    return (make_call(rng.choice(possible), rng, phones, queue) for _ in count())


@dataclass(frozen=True, slots=True)
class ScriptedLeg:
    """One extension's leg of a call.

    Attributes:
        parameters: those that are the same in each of its callbacks: not the status, not the flow.
    """

    extension: str
    flow: Literal["IN", "OUT"]
    parameters: Mapping[str, str]

    def dial(self, at: float) -> Callback:
        dial = EventType.DIAL_IN if self.flow == "IN" else EventType.DIAL_OUT
        return self._callback(at, dial, CallStatus.CALLING)

    def answer(self, at: float) -> Callback:
        answer = EventType.ANSWER_IN if self.flow == "IN" else EventType.ANSWER_OUT
        # VoipNow does not document the status here; in Telphin's dialect it is ANSWER.
        return self._callback(at, answer, CallStatus.ANSWER)

    def hang_up(self, at: float, status: CallStatus) -> Callback:
        return self._callback(at, EventType.HANGUP, status)

    def _callback(self, at: float, type_: EventType, status: CallStatus) -> Callback:
        parameters = {**self.parameters, "CallStatus": status.value, "CallFlow": self.flow}
        return Callback(round(at, 3), self.extension, type_, parameters)


# In the functions below, `shared` has the parameters of every leg of the call, such as its ids.


def from_outside(extension: str, shared: Mapping[str, str]) -> ScriptedLeg:
    """Return the leg of an extension that receives a call from outside."""
    return ScriptedLeg(extension, "IN", {**shared, "CalledExtension": extension})


def passed_on(extension: str, shared: Mapping[str, str], by: str) -> ScriptedLeg:
    """Return the leg of an extension to which `by` transfers a call from outside."""
    # As in Telphin's dialect: CallerExtension is the extension that transfers.
    own = {"CalledExtension": extension, "CallerExtension": by, "CalledNumber": extension}
    return ScriptedLeg(extension, "IN", {**shared, **own})


def to_outside(extension: str, number: str, shared: Mapping[str, str]) -> ScriptedLeg:
    """Return the leg of an extension that calls a number outside."""
    # As in Telphin's dialect: the caller's number is the extension.
    own = {"CallerIDNum": extension, "CallerExtension": extension, "CalledNumber": number}
    return ScriptedLeg(extension, "OUT", {**shared, **own})


def inside(calling: str, called: str, shared: Mapping[str, str]) -> tuple[ScriptedLeg, ScriptedLeg]:
    """Return the legs of the calling and the called extension."""
    both = {**to_outside(calling, called, shared).parameters, "CalledExtension": called}
    return ScriptedLeg(calling, "OUT", both), ScriptedLeg(called, "IN", both)


@dataclass(frozen=True, slots=True)
class _Draw:
    """The phones of one call, and random numbers, names and times for it."""

    rng: Random
    ids: Mapping[str, str]
    phones: Sequence[str]
    queue: str

    def ring(self) -> float:
        return self.rng.uniform(2, 15)

    def talk(self) -> float:
        return self.rng.triangular(5, 240, 45)

    def number(self) -> str:
        return self.rng.choice(_NUMBERS) + "".join(self.rng.choices("0123456789", k=2))

    def caller(self) -> dict[str, str]:
        """Return the parameters of every leg of a call from outside."""
        did = self.rng.choice(_DIDS)
        shared = {
            **self.ids,
            "CallerIDNum": self.number(),
            "CalledDID": did,
            "CalledNumber": did,
        }
        if self.rng.random() < 0.05:
            shared["CallerIDNum"] = "anonymous"  # as in SIP; VoipNow does not document it
        elif self.rng.random() < 0.7:
            shared["CallerIDName"] = self.rng.choice(_CALLERS)
        return shared

    def colleague(self) -> dict[str, str]:
        """Return the parameters of every leg of a call from inside."""
        return {**self.ids, "CallerIDName": self.rng.choice(_COLLEAGUES)}

    def legs(self, *, outgoing: bool) -> list[ScriptedLeg]:
        """Return the leg of one phone that calls out, or of every phone that a caller rings."""
        if outgoing:
            shared = self.colleague()
            return [to_outside(self.phones[0], self.number(), shared)]
        shared = self.caller()
        return [from_outside(phone, shared) for phone in self.phones]


# A script makes the callbacks of one call, in order.
_Script = Callable[[_Draw], list[Callback]]


def _answered(*, outgoing: bool = False) -> _Script:
    """One or more phones ring, the first answers."""

    def script(draw: _Draw) -> list[Callback]:
        first, *others = draw.legs(outgoing=outgoing)
        answered = draw.ring()
        over = answered + draw.talk()
        return [
            first.dial(0),
            *(leg.dial(0) for leg in others),
            first.answer(answered),
            # The status of a phone that stops ringing because another answered is not documented.
            *(leg.hang_up(answered + 0.02, CallStatus.NOANSWER) for leg in others),
            first.hang_up(over, CallStatus.ANSWER),
        ]

    return script


def _unanswered(
    status: CallStatus, shortest: float, longest: float, *, outgoing: bool = False
) -> _Script:
    """One or more phones ring for this range of seconds, then the call ends with this status."""

    def script(draw: _Draw) -> list[Callback]:
        legs = draw.legs(outgoing=outgoing)
        over = draw.rng.uniform(shortest, longest)
        return [*(leg.dial(0) for leg in legs), *(leg.hang_up(over, status) for leg in legs)]

    return script


def _internal(draw: _Draw) -> list[Callback]:
    calling, called = inside(draw.phones[0], draw.phones[1], draw.colleague())
    answered = draw.ring()
    over = answered + draw.talk()
    return [
        calling.dial(0),
        called.dial(0.1),
        called.answer(answered),
        calling.answer(answered + 0.02),
        calling.hang_up(over, CallStatus.ANSWER),
        called.hang_up(over + 0.02, CallStatus.ANSWER),
    ]


def _transfer(draw: _Draw) -> list[Callback]:
    caller = draw.caller()
    first = from_outside(draw.phones[0], caller)
    second = passed_on(draw.phones[1], caller, by=draw.phones[0])
    answered = draw.ring()
    transferred = answered + draw.talk()
    answered_again = transferred + draw.ring()
    over = answered_again + draw.talk()
    return [
        first.dial(0),
        first.answer(answered),
        second.dial(transferred),
        first.hang_up(transferred + 0.02, CallStatus.ANSWER),
        second.answer(answered_again),
        second.hang_up(over, CallStatus.ANSWER),
    ]


def _transfer_attended(draw: _Draw) -> list[Callback]:
    # Inferred: the consultation call has the same CallID, as in Telphin's dialect.
    first = from_outside(draw.phones[0], draw.caller())
    asking, second = inside(draw.phones[0], draw.phones[1], draw.colleague())
    answered = draw.ring()
    asked = answered + draw.talk()
    answered_again = asked + draw.ring()
    transferred = answered_again + draw.rng.uniform(3, 20)
    over = transferred + draw.talk()
    return [
        first.dial(0),
        first.answer(answered),
        asking.dial(asked),
        second.dial(asked + 0.1),
        second.answer(answered_again),
        asking.answer(answered_again + 0.02),
        asking.hang_up(transferred, CallStatus.ANSWER),
        first.hang_up(transferred + 0.02, CallStatus.ANSWER),
        second.hang_up(over, CallStatus.ANSWER),
    ]


def _queue(*, answered: bool) -> _Script:
    """The first agent does not answer; the last, who may be the same one, answers or not."""

    def script(draw: _Draw) -> list[Callback]:
        caller = draw.caller()
        waiting = from_outside(draw.queue, caller)
        agents = [passed_on(phone, caller, by=draw.queue) for phone in draw.phones]
        first, last = agents[0], agents[-1]
        offered = draw.rng.uniform(1, 20)
        offered_again = offered + 15
        rang = offered_again + draw.ring()
        over = rang + draw.talk() if answered else rang
        return [
            waiting.dial(0),
            waiting.answer(0.1),  # by the queue itself, which plays music
            first.dial(offered),
            first.hang_up(offered_again, CallStatus.NOANSWER),
            last.dial(offered_again + 0.5),
            *([last.answer(rang + 0.5)] if answered else []),
            last.hang_up(over, CallStatus.ANSWER if answered else CallStatus.CANCEL),
            # Not documented for an unanswered call, but the queue did answer.
            waiting.hang_up(over + 0.02, CallStatus.ANSWER),
        ]

    return script


_SCRIPTS: Mapping[Scenario, tuple[int, _Script]] = {  # with the number of phones
    Scenario.ANSWERED: (1, _answered()),
    Scenario.OUTGOING: (1, _answered(outgoing=True)),
    Scenario.MISSED: (1, _unanswered(CallStatus.NOANSWER, 20, 40)),
    Scenario.BUSY: (1, _unanswered(CallStatus.BUSY, 0.1, 1)),
    Scenario.CANCELLED: (1, _unanswered(CallStatus.CANCEL, 2, 18)),
    Scenario.RING_GROUP: (3, _answered()),
    Scenario.TRANSFER: (2, _transfer),
    Scenario.QUEUE: (2, _queue(answered=True)),
    Scenario.OUTGOING_MISSED: (1, _unanswered(CallStatus.NOANSWER, 20, 40, outgoing=True)),
    Scenario.OUTGOING_BUSY: (1, _unanswered(CallStatus.BUSY, 1, 3, outgoing=True)),
    Scenario.INTERNAL: (2, _internal),
    Scenario.RING_GROUP_MISSED: (3, _unanswered(CallStatus.NOANSWER, 20, 40)),
    Scenario.RING_GROUP_CANCELLED: (3, _unanswered(CallStatus.CANCEL, 2, 18)),
    Scenario.TRANSFER_ATTENDED: (2, _transfer_attended),
    Scenario.QUEUE_AGAIN: (1, _queue(answered=True)),
    Scenario.QUEUE_MISSED: (2, _queue(answered=False)),
}

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
