"""`Number`: the telephone number of the other side, in every form in which a CRM may hold it."""

import re
from dataclasses import dataclass
from functools import cached_property

from phonenumbers import (
    NumberParseException,
    PhoneNumber,
    PhoneNumberFormat,
    format_number,
    is_possible_number,
    national_significant_number,
    parse,
    region_code_for_country_code,
)

from offhook import Call

SHORTEST = 5  # digits; what is shorter is an extension or a service such as 112
_TELLING = 7  # digits that two numbers must share at their end when no country is known


@dataclass(frozen=True)
class Number:
    """A number outside the PBX.

    Attributes:
        text: as the PBX said it.
        e164: as +442079460100; None when nobody knows the country it was dialled in.
        region: the country of the numbers that the CRM holds without one, such as GB; None: they
            are taken for numbers of this number's own country.
    """

    text: str
    e164: str | None = None
    region: str | None = None

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
        """Each way to write it, for a CRM that compares text; the usual ones first."""
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
        """Is this what a CRM holds as `stored`, however it is written there?"""
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


def other_side(call: Call, region: str | None = None) -> Number | None:
    """The number outside the PBX that a call came from or went to; None when there is none to find.

    Args:
        region: the country of numbers without one, of the CRM's and of the PBX's; None: not known.
    """
    party = call.called if call.direction == "out" else call.caller
    text = party.number or ""
    if call.direction == "internal" or len(_digits(text)) < SHORTEST:
        return None
    return Number(text, party.e164 or _e164(text, region), region)


def _e164(text: str, region: str | None) -> str | None:
    try:
        number = parse(text, region)
    except NumberParseException:
        return None
    return format_number(number, PhoneNumberFormat.E164) if is_possible_number(number) else None


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)
