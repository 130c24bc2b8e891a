"""`CrmEntry`: what a CRM shows of one call. `Contact`: a person in the CRM."""

import re
from dataclasses import dataclass

from offhook import Call, Number, Outcome, Party

_NUMBER = re.compile(r"\+?[0-9][0-9 ().-]{4,}[0-9]")


@dataclass(frozen=True)
class Contact:
    """A person in the CRM.

    Attributes:
        id: the CRM's id.
        kind: the CRM's name for this kind of record, such as `Lead`.
        name: the person's full name.
    """

    id: str
    kind: str = "contact"
    name: str | None = None


def outside_number(call: Call, region: str | None = None) -> Number | None:
    """The number outside the PBX that called or was called; None if hidden or internal.

    Args:
        region: the country of numbers without one, in the CRM and on the PBX; None: unknown.
    """
    party = call.called if call.direction == "out" else call.caller
    number = Number(party.number or "", party.e164)
    if call.direction == "internal" or number.is_nobodys:
        return None
    return number.in_region(region)


@dataclass(frozen=True)
class CrmEntry:
    """One call as the CRM shows it.

    Attributes:
        key: the call's name among all PBXs, which never changes: `PBX/CallID`.
        call: the call as known by now.
        number: of the party outside the PBX; None when it is hidden or not a phone number.
        contacts: the contacts of the call, as the options chose.
        owner: the CRM's id of the user who had the call, or None.
        recording: the URL of its recording, or None.
    """

    key: str
    call: Call
    number: Number | None
    contacts: tuple[Contact, ...] = ()
    owner: str | None = None
    recording: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the call is over. Until then it has neither outcome nor duration."""
        return self.call.ended is not None

    @property
    def incoming(self) -> bool:
        """Whether the call came from outside, or from another extension."""
        return self.call.direction != "out"

    @property
    def outside(self) -> Party:
        """The party outside the PBX."""
        return self.call.caller if self.incoming else self.call.called

    @property
    def phone(self) -> str:
        """The outside number in its best form; empty when there is none."""
        return (self.number.e164 or self.number.text) if self.number else ""

    @property
    def seconds(self) -> int:
        """The talk time; 0 when nobody answered, or it is unknown."""
        return round(self.call.talk_seconds or 0)

    @property
    def title(self) -> str:
        """One line, such as `Missed call from Jane Doe (+442079460100)`."""
        call = self.call
        if call.direction == "out":
            title = f"Call to {self._outside_name}"
        elif self.ended and call.outcome not in (None, Outcome.ANSWERED):
            title = f"Missed call from {self._outside_name}"
        else:
            title = f"Call from {self._outside_name}"
        if call.direction == "internal":
            title += f" to {_name(call.called)}"
        ending = _ENDINGS.get(call.outcome) if call.outcome else None
        if call.direction == "out" and call.outcome is Outcome.MISSED:
            ending = "no answer"
        return f"{title} ({ending})" if ending else title

    @property
    def facts(self) -> tuple[str, ...]:
        """Lines with everything else. The last one is the mark."""
        call, lines = self.call, []
        if call.called.did and call.direction == "in":
            lines.append(f"Called {call.called.did}")
        rang = call.ring_seconds
        if call.answered_by and call.direction == "out":
            after = "" if rang is None else f", answered after {round(rang)} s"
            lines.append(f"By {call.answered_by}{after}")
        elif call.answered_by:
            after = "" if rang is None else f" after {round(rang)} s"
            lines.append(f"Answered by {call.answered_by}{after}")
        elif self.ended and rang is not None:
            lines.append(f"Rang for {round(rang)} s")
        if self.ended and call.outcome is Outcome.ANSWERED:
            known = call.talk_seconds is not None
            lines.append(f"Talked for {self.seconds} s" if known else "Talk time unknown")
        if self.recording:
            lines.append(f"Recording: {self.recording}")
        return (*lines, self.mark)

    @property
    def mark(self) -> str:
        """The line by which the record is found again."""
        return f"Call {self.key}"

    def is_marked(self, text: str | None) -> bool:
        """Return whether a text contains the mark. The mark of a longer key does not count."""
        return bool(text and re.search(rf"{re.escape(self.mark)}(?![\w.-])", text))

    def without_caller(self, text: str) -> str:
        """A text without the outside number, in whatever form, and without that party's name."""
        number, name = self.number, self.outside.name
        if number is not None:
            text = _NUMBER.sub(lambda found: "***" if number.is_same(found[0]) else found[0], text)
        return re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "***", text) if name else text

    @property
    def _outside_name(self) -> str:
        if len(self.contacts) == 1 and self.contacts[0].name:
            return f"{self.contacts[0].name} ({self.outside.number or self.outside.extension})"
        return _name(self.outside)


_ENDINGS = {
    Outcome.BUSY: "busy",
    Outcome.CANCELLED: "cancelled",
    Outcome.UNREACHABLE: "unreachable",
    Outcome.FAILED: "failed",
}


def _name(party: Party) -> str:
    number = party.number or party.extension or party.did or "an unknown number"
    return f"{party.name} ({number})" if party.name and party.name != number else number
