"""Whom a call was with: the number of the other side, as a CRM is asked for it."""

from dataclasses import replace

from phonenumbers import (
    NumberParseException,
    PhoneNumberFormat,
    format_number,
    is_possible_number,
    parse,
)

from offhook import Call, Number


def other_side(call: Call, region: str | None = None) -> Number | None:
    """The number outside the PBX that a call came from or went to; None when there is none to find.

    Args:
        region: the country of numbers without one, of the CRM's and of the PBX's; None: not known.
    """
    party = call.called if call.direction == "out" else call.caller
    number = Number(party.number or "", party.e164)
    if call.direction == "internal" or number.is_nobodys:
        return None
    return of_region(number, region)


def of_region(number: Number, region: str | None) -> Number:
    """The number for a CRM whose numbers without a country are of this region; None: not known."""
    return replace(number, e164=number.e164 or _e164(number.text, region), region=region)


def _e164(text: str, region: str | None) -> str | None:
    try:
        number = parse(text, region)
    except NumberParseException:
        return None
    return format_number(number, PhoneNumberFormat.E164) if is_possible_number(number) else None
