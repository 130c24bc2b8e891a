"""The role of each leg: rooms, strays, and legs whose call was answered elsewhere. Pure.

VoipNow's documents leave open which status a phone reports when another phone took the call; some
report ANSWER, the status of the call. Without an answer of its own, such a leg proves nothing.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence

from offhook.call import Kind
from offhook.calls.facts import CallState, Words
from offhook.calls.legs import DISORDER, FoldedLeg, pair_legs, short

_TAIL = 9  # digits by which numbers are compared: a country code or a prefix may be missing

_Passed = Mapping[str, Sequence[FoldedLeg]]  # the legs that an extension passed calls to


def find_legs(state: CallState) -> list[FoldedLeg]:
    """All legs in the order in which they began, strays last."""
    legs = pair_legs(state)
    _find_strays(legs)
    passed: defaultdict[str, list[FoldedLeg]] = defaultdict(list)
    for leg in legs:
        if passer := passed_on_by(leg):
            passed[passer].append(leg)
    for leg in legs:
        leg.room = _is_room(leg, passed)
    _find_answered_elsewhere(legs, passed)
    return sorted(legs, key=lambda leg: leg.stray)


def passed_on_by(leg: FoldedLeg) -> str | None:
    """The extension that passed the call on to this leg: a queue, an IVR, or a phone.

    None if the leg's caller dialled it, and for a leg that asks a colleague before a transfer.
    """
    words, out = leg.part.words, leg.part.flow == "out"
    passer = leg.part.extension if out else words.peer
    if passer is None or words.caller in (passer, short(passer)) or (out and not words.caller):
        return None
    return passer


def tail(number: str | None) -> str | None:
    """The end of a number, in which two spellings of it do not differ."""
    if number is None:
        return None
    return "".join(filter(str.isdigit, number))[-_TAIL:] or number.casefold()


def parties(words: Words) -> set[str]:
    """The numbers and the extension that a leg names."""
    named = (tail(words.caller), tail(words.called), words.peer)
    return {each for each in named if each is not None}


def _find_strays(legs: Sequence[FoldedLeg]) -> None:
    """Mark hangups of extensions that have nothing else to do with the call.

    Anyone with the callback URL of any extension can send one, if they guess the CallID. If only
    hangups are registered, one that names the caller is part of the call; if all events are, it is
    not: then its dial and its answer would both be lost.
    """
    lone: list[FoldedLeg] = []
    sure: list[FoldedLeg] = []
    for leg in legs:
        part = leg.part
        (sure if part.dials or part.answers or part.records else lone).append(leg)
    if not lone or not sure:
        return
    known = {leg.part.extension for leg in sure}.union(*(parties(leg.part.words) for leg in sure))
    present = {leg.part.extension for leg in sure}
    for leg in lone:
        words, own = leg.part.words, leg.part.extension
        origin = tail(words.caller) or words.peer
        if own not in present:
            leg.stray = leg.part.all_events or known.isdisjoint((own, short(own), origin))


def _is_room(leg: FoldedLeg, passed: _Passed) -> bool:
    """Return whether it is a queue or an IVR: both answer by themselves, and report bridges.

    An extension of unknown kind is one if it stays in the call while another, to which it passed
    the call on, rings and answers or stops. A phone leaves, or asks first.
    """
    part = leg.part
    if part.kind is not None:
        return part.kind in (Kind.QUEUE, Kind.IVR)
    if leg.bridged is not None:
        return True
    if part.flow == "out" or part.id is not None or leg.rang is None:
        return False
    return any(
        other.part.flow == "in"
        and other.rang is not None
        and leg.rang - DISORDER <= other.rang
        and (end := other.ended if other.answered is None else other.answered) is not None
        and (leg.ended is None or leg.ended > end + DISORDER)
        for other in passed.get(part.extension, ())
    )


def _find_answered_elsewhere(legs: Sequence[FoldedLeg], passed: _Passed) -> None:
    answered = [leg for leg in legs if leg.was_answered and not leg.room and not leg.stray]
    unsure = [leg for leg in answered if leg.answered is None]
    if not unsure:
        return
    rang = sorted((leg for leg in answered if leg.rang is not None), key=lambda leg: leg.rang or 0)
    begins = [leg.rang or 0 for leg in rang]
    for leg in unsure:
        if leg.rang is None or leg.ended is None:
            continue
        together = rang[
            bisect_left(begins, leg.rang - DISORDER) : bisect_left(begins, leg.rang + DISORDER + 1)
        ]
        leg.elsewhere = any(_took(other, leg) for other in together) or any(
            _was_forwarded(leg, other) for other in passed.get(leg.part.extension, ())
        )


def _took(other: FoldedLeg, leg: FoldedLeg) -> bool:
    """Return whether the other leg, which rang together with this one, took the call."""
    if other is leg or other.part.flow != leg.part.flow or leg.ended is None:
        return False
    if other.part.words.peer != leg.part.words.peer:
        return False
    if other.answered is not None:
        return leg.ended <= other.answered + DISORDER
    return other.ended is not None and other.ended > leg.ended + DISORDER


def _was_forwarded(leg: FoldedLeg, other: FoldedLeg) -> bool:
    """Return whether the other leg answered the call of this one, which rang on until then."""
    return (
        leg.part.flow == "in"
        and not other.room
        and other.answered is not None
        and leg.rang is not None
        and leg.ended is not None
        and leg.rang - DISORDER <= other.begin <= other.answered <= leg.ended
        and tail(other.part.words.caller) == tail(leg.part.words.caller)
    )
