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
    OUTGOING_MISSED = "outgoing-missed"  # to outside, rang out
    OUTGOING_BUSY = "outgoing-busy"  # to outside, where it is busy
    INTERNAL = "internal"  # one phone calls another, which answers
    RING_GROUP_MISSED = "ring-group-missed"  # three phones ring out
    RING_GROUP_CANCELLED = "ring-group-cancelled"  # three phones ring, the caller gives up
    TRANSFER_ATTENDED = "transfer-attended"  # passed on after a word with the second phone
    QUEUE_AGAIN = "queue-again"  # the one agent of a queue answers when it is offered again
    QUEUE_MISSED = "queue-missed"  # two agents of a queue let it ring, the caller gives up

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
class Leg:
    """One extension's part in a call, which says the same of itself in each of its callbacks.

    Attributes:
        parameters: all but the status and the flow.
    """

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
    leg = from_outside(phones[0], _caller(rng, ids))
    answered = _ring(rng)
    over = answered + _talk(rng)
    return [leg.dial(0), leg.answer(answered), leg.hang_up(over, CallStatus.ANSWER)]


def _outgoing(
    rng: Random, ids: Mapping[str, str], phones: Sequence[str], queue: str
) -> list[Callback]:
    leg = _to_outside(rng, ids, phones[0])
    answered = _ring(rng)
    over = answered + _talk(rng)
    return [leg.dial(0), leg.answer(answered), leg.hang_up(over, CallStatus.ANSWER)]


def _outgoing_unanswered(status: CallStatus, shortest: float, longest: float) -> _Script:
    """The script of a call to outside that ends with this status after so many seconds."""

    def script(
        rng: Random, ids: Mapping[str, str], phones: Sequence[str], queue: str
    ) -> list[Callback]:
        leg = _to_outside(rng, ids, phones[0])
        return [leg.dial(0), leg.hang_up(rng.uniform(shortest, longest), status)]

    return script


def _internal(
    rng: Random, ids: Mapping[str, str], phones: Sequence[str], queue: str
) -> list[Callback]:
    calling, called = inside(phones[0], phones[1], {**ids, "CallerIDName": rng.choice(_COLLEAGUES)})
    answered = _ring(rng)
    over = answered + _talk(rng)
    return [
        calling.dial(0),
        called.dial(0.1),
        called.answer(answered),
        calling.answer(answered + 0.02),
        calling.hang_up(over, CallStatus.ANSWER),
        called.hang_up(over + 0.02, CallStatus.ANSWER),
    ]


def _unanswered(status: CallStatus, shortest: float, longest: float) -> _Script:
    """The script of a call that ends with this status after so many seconds."""

    def script(
        rng: Random, ids: Mapping[str, str], phones: Sequence[str], queue: str
    ) -> list[Callback]:
        leg = from_outside(phones[0], _caller(rng, ids))
        return [leg.dial(0), leg.hang_up(rng.uniform(shortest, longest), status)]

    return script


def _ring_group(
    rng: Random, ids: Mapping[str, str], phones: Sequence[str], queue: str
) -> list[Callback]:
    caller = _caller(rng, ids)
    first, *others = [from_outside(phone, caller) for phone in phones]
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


def _ring_group_unanswered(status: CallStatus, shortest: float, longest: float) -> _Script:
    """The script of a ring group that nobody answers."""

    def script(
        rng: Random, ids: Mapping[str, str], phones: Sequence[str], queue: str
    ) -> list[Callback]:
        caller = _caller(rng, ids)
        legs = [from_outside(phone, caller) for phone in phones]
        over = rng.uniform(shortest, longest)
        return [*(leg.dial(0) for leg in legs), *(leg.hang_up(over, status) for leg in legs)]

    return script


def _transfer(
    rng: Random, ids: Mapping[str, str], phones: Sequence[str], queue: str
) -> list[Callback]:
    caller = _caller(rng, ids)
    first = from_outside(phones[0], caller)
    second = passed_on(phones[1], caller, by=phones[0])
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
    waiting = from_outside(queue, caller)
    silent, willing = (passed_on(phone, caller, by=queue) for phone in phones)
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


def _transfer_attended(
    rng: Random, ids: Mapping[str, str], phones: Sequence[str], queue: str
) -> list[Callback]:
    # Inferred: the call in between has the same CallID, as in Telphin's dialect.
    first = from_outside(phones[0], _caller(rng, ids))
    asking, second = inside(phones[0], phones[1], {**ids, "CallerIDName": rng.choice(_COLLEAGUES)})
    answered = _ring(rng)
    asked = answered + _talk(rng)
    answered_again = asked + _ring(rng)
    transferred = answered_again + rng.uniform(3, 20)
    over = transferred + _talk(rng)
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


def _queue_again(
    rng: Random, ids: Mapping[str, str], phones: Sequence[str], queue: str
) -> list[Callback]:
    caller = _caller(rng, ids)
    waiting, agent = from_outside(queue, caller), passed_on(phones[0], caller, by=queue)
    offered = rng.uniform(1, 20)
    offered_again = offered + 15
    answered = offered_again + _ring(rng)
    over = answered + _talk(rng)
    return [
        waiting.dial(0),
        waiting.answer(0.1),
        agent.dial(offered),
        agent.hang_up(offered_again, CallStatus.NOANSWER),
        agent.dial(offered_again + 0.5),
        agent.answer(answered + 0.5),
        agent.hang_up(over + 0.5, CallStatus.ANSWER),
        waiting.hang_up(over + 0.52, CallStatus.ANSWER),
    ]


def _queue_missed(
    rng: Random, ids: Mapping[str, str], phones: Sequence[str], queue: str
) -> list[Callback]:
    caller = _caller(rng, ids)
    waiting = from_outside(queue, caller)
    silent, ringing = (passed_on(phone, caller, by=queue) for phone in phones)
    offered = rng.uniform(1, 20)
    offered_again = offered + 15
    over = offered_again + _ring(rng)
    return [
        waiting.dial(0),
        waiting.answer(0.1),
        silent.dial(offered),
        silent.hang_up(offered_again, CallStatus.NOANSWER),
        ringing.dial(offered_again + 0.5),
        ringing.hang_up(over, CallStatus.CANCEL),
        # No document tells; it was answered by the queue.
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
    Scenario.OUTGOING_MISSED: (1, _outgoing_unanswered(CallStatus.NOANSWER, 20, 40)),
    Scenario.OUTGOING_BUSY: (1, _outgoing_unanswered(CallStatus.BUSY, 1, 3)),
    Scenario.INTERNAL: (2, _internal),
    Scenario.RING_GROUP_MISSED: (3, _ring_group_unanswered(CallStatus.NOANSWER, 20, 40)),
    Scenario.RING_GROUP_CANCELLED: (3, _ring_group_unanswered(CallStatus.CANCEL, 2, 18)),
    Scenario.TRANSFER_ATTENDED: (2, _transfer_attended),
    Scenario.QUEUE_AGAIN: (1, _queue_again),
    Scenario.QUEUE_MISSED: (2, _queue_missed),
}


def from_outside(extension: str, caller: Mapping[str, str]) -> Leg:
    """A leg of an extension that somebody outside calls.

    Args:
        caller: what every leg of the call says, its ids too.
    """
    return Leg(extension, "IN", {**caller, "CalledExtension": extension})


def passed_on(extension: str, caller: Mapping[str, str], by: str) -> Leg:
    """A leg of an extension to which another one, `by`, passes a call from outside."""
    # As in Telphin's dialect: CallerExtension is the one that passed the call on.
    says = {"CalledExtension": extension, "CallerExtension": by, "CalledNumber": extension}
    return Leg(extension, "IN", {**caller, **says})


def to_outside(extension: str, number: str, says: Mapping[str, str]) -> Leg:
    """The leg of an extension that calls outside.

    Args:
        says: what every leg of the call says, its ids too.
    """
    # As in Telphin's dialect: the number of one who calls out is the extension.
    own = {"CallerIDNum": extension, "CallerExtension": extension, "CalledNumber": number}
    return Leg(extension, "OUT", {**says, **own})


def inside(calling: str, called: str, says: Mapping[str, str]) -> tuple[Leg, Leg]:
    """The legs of an extension that calls another one, and of that one."""
    both = {**to_outside(calling, called, says).parameters, "CalledExtension": called}
    return Leg(calling, "OUT", both), Leg(called, "IN", both)


def _to_outside(rng: Random, ids: Mapping[str, str], extension: str) -> Leg:
    says = {**ids, "CallerIDName": rng.choice(_COLLEAGUES)}
    return to_outside(extension, _number(rng), says)


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
