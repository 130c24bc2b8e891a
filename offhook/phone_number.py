"""`Number`: a telephone number outside the PBX, in every form in which somebody may hold it."""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

from phonenumbers import (
    NumberParseException,
    PhoneNumber,
    PhoneNumberFormat,
    format_number,
    is_possible_number,
    is_valid_number,
    national_significant_number,
    parse,
    region_code_for_country_code,
)

SHORTEST = 5  # digits that somebody's number has
_TELLING = 7  # digits that two numbers must share at their end when no country is known
_NUMBER = re.compile(r"\+?\d[\d\s().-]*")


@dataclass(frozen=True)
class Number:
    """A number outside the PBX.

    Attributes:
        text: as the PBX said it.
        e164: as +442079460100; None when nobody knows the country it was dialled in.
        region: the country of numbers that are held somewhere without one, such as GB; None: they
            are taken for numbers of this number's own country.
    """

    text: str
    e164: str | None = None
    region: str | None = None

    @classmethod
    def read(cls, text: str, region: str | None = None) -> "Number":
        """A number as the PBX says it, in full where that can be known.

        Args:
            region: whose national numbers are meant by those without a `+`; None: not known.
        """
        return cls(text, e164(text, region), region)

    @property
    def is_nobodys(self) -> bool:
        """Is it hidden, or too short for anybody: an extension, or a service such as 112?"""
        return len(self.digits) < SHORTEST

    @cached_property
    def digits(self) -> str:
        """Only the digits, those of the country first when it is known."""
        return _digits(self.e164 or self.text)

    @cached_property
    def national(self) -> str:
        """The digits without country code and trunk prefix: what all forms of it have in common."""
        return (
            national_significant_number(self._parsed) if self._parsed else self.digits.lstrip("0")
        )

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """`national` as it is usually grouped, such as 20, 7946, 0100; in one when nobody knows."""
        if self._parsed is None:
            return (self.national,)
        written = format_number(self._parsed, PhoneNumberFormat.INTERNATIONAL)
        return tuple(re.findall("[0-9]+", written)[1:])

    @cached_property
    def forms(self) -> tuple[str, ...]:
        """Each way to write it, for who compares text; the usual ones first."""
        if self._parsed is None:
            return tuple(dict.fromkeys((self.text, self.digits)))
        national = format_number(self._parsed, PhoneNumberFormat.NATIONAL)
        return tuple(
            dict.fromkeys(
                (
                    f"+{self.digits}",
                    self.digits,
                    f"00{self.digits}",
                    format_number(self._parsed, PhoneNumberFormat.INTERNATIONAL),
                    national,
                    _digits(national),
                    self.national,
                    self.text,
                )
            )
        )

    def is_same(self, stored: str) -> bool:
        """Is this what is held somewhere as `stored`, however it is written there?"""
        if self._parsed is None:
            there = _digits(stored).lstrip("0")
            shorter, longer = sorted((there, self.national), key=len)
            return len(shorter) >= _TELLING and longer.endswith(shorter)
        home = self.region or region_code_for_country_code(self._parsed.country_code or 0)
        try:
            found = parse(stored, home)
        except NumberParseException:
            return False
        return format_number(found, PhoneNumberFormat.E164) == self.e164

    @cached_property
    def _parsed(self) -> PhoneNumber | None:
        return parse(self.e164) if self.e164 else None


@lru_cache(maxsize=65536)
def e164(number: str | None, region: str | None) -> str | None:
    """A number in full, as `+442079460100`; None if it is none, or cannot be known.

    Args:
        region: whose national numbers are meant by those without a `+`; None: those are not known.
    """
    if number is None or not _NUMBER.fullmatch(number):
        return None
    if number.startswith("+"):
        found = _parsed(number, None)
        # Not whether it is assigned: the plans change faster than a library.
        return _full(found) if found and is_possible_number(found) else None
    if region is None:
        return None
    for found in (_parsed(number, region), _parsed("+" + number, None)):
        if found and is_valid_number(found):
            return _full(found)
    return None


def _parsed(number: str, region: str | None) -> PhoneNumber | None:
    try:
        return parse(number, region)
    except NumberParseException:
        return None


def _full(number: PhoneNumber) -> str:
    return format_number(number, PhoneNumberFormat.E164)


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)
