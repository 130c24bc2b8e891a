"""`Number`: a telephone number outside the PBX, in every form in which it may be stored."""

import re
from dataclasses import dataclass, replace
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

_SHORTEST = 5  # digits of a subscriber's number
_COMPARED = 7  # final digits that two numbers without a country must share
_NUMBER = re.compile(r"\+?\d[\d\s().-]*")


@dataclass(frozen=True)
class Number:
    """A number outside the PBX.

    Attributes:
        text: as the PBX sends it.
        e164: as +442079460100; None if the country it was dialled in is unknown.
        region: the country of stored numbers without one, such as GB; None: this number's country.
    """

    text: str
    e164: str | None = None
    region: str | None = None

    @classmethod
    def read(cls, text: str, region: str | None = None) -> "Number":
        """A number as the PBX sends it.

        Args:
            region: the country of numbers without a `+`; None: unknown.
        """
        return cls(text, e164(text, region), region)

    def in_region(self, region: str | None) -> "Number":
        """This number, for a system whose numbers without a country are of this region."""
        known = self.e164 or _possible(_parsed(self.text, region))
        return replace(self, e164=known, region=region)

    @property
    def is_nobodys(self) -> bool:
        """Return whether it is hidden, or as short as an extension or a service such as 112."""
        return len(self.digits) < _SHORTEST

    @cached_property
    def digits(self) -> str:
        """Only the digits, with the country code if the country is known."""
        return _digits(self.e164 or self.text)

    @cached_property
    def national(self) -> str:
        """The digits without country code and trunk prefix, which all forms share."""
        if self._number is None:
            return self.digits.lstrip("0")
        return national_significant_number(self._number)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """`national` in its usual groups, such as 20, 7946, 0100; one group if unknown."""
        if self._number is None:
            return (self.national,)
        written = format_number(self._number, PhoneNumberFormat.INTERNATIONAL)
        return tuple(re.findall("[0-9]+", written)[1:])

    @cached_property
    def forms(self) -> tuple[str, ...]:
        """Every way to write it, for systems that compare text; the most common first."""
        if self._number is None:
            return tuple(dict.fromkeys((self.text, self.digits)))
        national = format_number(self._number, PhoneNumberFormat.NATIONAL)
        forms = (
            f"+{self.digits}",
            self.digits,
            f"00{self.digits}",
            format_number(self._number, PhoneNumberFormat.INTERNATIONAL),
            national,
            _digits(national),
            self.national,
            self.text,
        )
        return tuple(dict.fromkeys(forms))

    def is_same(self, stored: str) -> bool:
        """Return whether `stored` is this number, in whatever form."""
        if self._number is None:
            digits = _digits(stored).lstrip("0")
            shorter, longer = sorted((digits, self.national), key=len)
            return len(shorter) >= _COMPARED and longer.endswith(shorter)
        home = self.region or region_code_for_country_code(self._number.country_code or 0)
        found = _parsed(stored, home)
        return found is not None and _full(found) == self.e164

    def is_in(self, text: str) -> bool:
        """Return whether the number occurs in a text, in any of its forms. The country is known."""
        ending, whole = self._occurrence
        return ending.search(text) is not None and whole.search(text) is not None

    @cached_property
    def _occurrence(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """The last digits, which most texts lack and are found fast, and the number in any form."""
        number = self._number
        assert number is not None  # noqa: S101
        forms = {_digits(form) for form in self.forms}
        forms |= {f"011{self.digits}", f"{number.country_code}0{self.national}"}  # +44 (0)20
        written = "|".join(map(_spaced, sorted(forms)))
        # Not within a longer number, an id, or a number with a fraction.
        whole = rf"(?<![0-9A-Za-z])(?<![0-9]\.)(?:{written})(?![0-9A-Za-z]|\.[0-9])"
        return re.compile(_spaced(self.digits[-4:])), re.compile(whole)

    @cached_property
    def _number(self) -> PhoneNumber | None:
        return parse(self.e164) if self.e164 else None


@lru_cache(maxsize=65536)
def e164(number: str | None, region: str | None) -> str | None:
    """The number as `+442079460100`; None if it is not a number or its country is unknown.

    Args:
        region: the country of numbers without a `+`; None: unknown.
    """
    if number is None or not _NUMBER.fullmatch(number):
        return None
    if number.startswith("+"):
        # Possible, even if not assigned: numbering plans change faster than a library.
        return _possible(_parsed(number, None))
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


def _possible(number: PhoneNumber | None) -> str | None:
    return _full(number) if number and is_possible_number(number) else None


def _full(number: PhoneNumber) -> str:
    return format_number(number, PhoneNumberFormat.E164)


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)


def _spaced(digits: str) -> str:
    """A pattern of these digits with the characters that people put between them."""
    return "[ ()./-]{0,3}".join(digits)
