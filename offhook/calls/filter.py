"""`CallFilter`: which calls are wanted; and the terms by which the index knows a call. Pure."""

import re
import unicodedata
from bisect import bisect_left
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache

from offhook.call import Outcome
from offhook.calls.facts import CallState, Words
from offhook.calls.summary import summarize
from offhook.phone_number import Number

_WHOLE = 7  # final digits by which a number is found
_FEW = 3  # final digits by which numbers are found, if fewer than `_WHOLE` are known
_STEMS = (6, 3)  # bytes with which a word begins, by which names are found
_MOST_WORDS = 20  # of one name
_WORD = re.compile(r"[^\W_]+")
# Letters that Unicode does not decompose into a letter and an accent.
_PLAIN = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe"}
)


@dataclass(frozen=True)
class CallFilter:
    """A selection of calls; a field that is None selects all.

    Attributes:
        number: of any party, in any form with or without its country; or its last digits.
        name: of a caller, as the PBX sends it: words, or beginnings of words, in any order. Case
            and accents do not count.
        extension: of a leg.
        live: only calls that go on.
        since, before: when the call began: from, and up to but without.
        region: the country of a `number` without a `+`, such as GB.

    Raises:
        ValueError: `number` has no digit, or `name` neither a letter nor a digit.
    """

    number: str | None = None
    name: str | None = None
    extension: str | None = None
    outcome: Outcome | None = None
    live: bool = False
    since: datetime | None = None
    before: datetime | None = None
    region: str | None = None

    def __post_init__(self) -> None:
        if self.number is not None and not _digits(self.number):
            raise ValueError(f"number: {self.number!r} contains no digit")
        if self.name is not None and not words(self.name):
            raise ValueError(f"name: {self.name!r} contains no letter")

    @cached_property
    def terms(self) -> frozenset[str]:
        """Terms that every selected call has; other calls may have them, too."""
        found: set[str] = set()
        if self.number is not None:
            found.update(sorted(_number_terms(self._national or self._ending), key=len)[-1:])
        if self.name is not None:
            found |= {f"name={stem}" for word in words(self.name) for stem in _stems(word)[:1]}
        if self.extension is not None:
            found.add(f"extension={self.extension}")
        if self.outcome is not None:
            found.add(_outcome_term(self.outcome))
        return frozenset(found)

    def selects(self, state: CallState) -> bool:
        """Return whether a call is selected, apart from when it began."""
        parts = state.parts
        return (
            (self.extension is None or any(part.extension == self.extension for part in parts))
            and not (self.live and state.closed)
            and (self.number is None or any(self._has_number(part.words) for part in parts))
            and (self.name is None or any(self._has_name(part.words) for part in parts))
            and (self.outcome is None or summarize(state, None).outcome is self.outcome)
        )

    def _has_number(self, said: Words) -> bool:
        return any(
            digits.endswith(self._ending) or digits.lstrip("0") == self._national
            for digits in _numbers(said)
        )

    def _has_name(self, said: Words) -> bool:
        known = words(said.name or "")
        return all(any(each.startswith(word) for each in known) for word in words(self.name or ""))

    @cached_property
    def _ending(self) -> str:
        """The wanted digits, without the zeros for a trunk or for calls abroad."""
        digits = _digits(self.number or "")
        return digits.lstrip("0") or digits

    @cached_property
    def _national(self) -> str | None:
        """The digits of a number that may be stored without its country; None: it has none."""
        number = Number.read(self.number or "", self.region)
        return number.national.lstrip("0") if number.e164 else None


def terms(state: CallState, outcome: Outcome | None = None) -> set[str]:
    """The terms by which the index knows a call.

    Args:
        outcome: how it ended, if the caller knows it.
    """
    found = set[str]().union(*[_part_terms(part.extension, part.words) for part in state.parts])
    if state.closed:
        found.add(_outcome_term(outcome or summarize(state, None).outcome))
    return found


@lru_cache(maxsize=4096)  # each call is saved several times
def _part_terms(extension: str, said: Words) -> frozenset[str]:
    found = {f"extension={extension}"}
    for digits in _numbers(said):
        found |= _number_terms(digits)
    found |= {f"name={stem}" for word in words(said.name or "") for stem in _stems(word)}
    return frozenset(found)


@lru_cache(maxsize=4096)  # searching looks at many calls with the same names
def words(name: str) -> tuple[str, ...]:
    """The words of a name, without case and accents."""
    plain = name.lower()
    if not name.isascii():
        plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
        plain = "".join([letter for letter in plain if not unicodedata.combining(letter)])
        plain = plain.translate(_PLAIN)
    return tuple(_WORD.findall(plain)[:_MOST_WORDS])


def _number_terms(digits: str) -> set[str]:
    return {f"number={digits[-n:]}" for n in (_WHOLE, _FEW) if len(digits) >= n}


def _stems(word: str) -> list[str]:
    """How a word begins, the longest first: whole letters, as many as make so many bytes."""
    ends = [len(word[:n].encode()) for n in range(len(word) + 1)]
    return [word[: bisect_left(ends, least)] for least in _STEMS if ends[-1] >= least]


def _outcome_term(outcome: Outcome | None) -> str:
    return f"outcome={outcome}"


def _numbers(said: Words) -> list[str]:
    """The digits of each number that a leg knows."""
    numbers = {said.caller, said.called, said.did}
    return [digits for number in numbers if number and (digits := _digits(number))]


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)
