"""`Entry`: what a CRM shall hold of one call. `Contact`: whom it holds."""

import re
from dataclasses import dataclass

from offhook import Call, Number, Outcome, Party


@dataclass(frozen=True)
class Contact:
    """Somebody in the CRM.

    Attributes:
        id: the CRM's own.
        kind: what the CRM calls such a record, where it has several, such as `Lead`.
        name: as people call them.
    """

    id: str
    kind: str = "contact"
    name: str | None = None


@dataclass(frozen=True)
class Entry:
    """One call as the CRM shall show it.

    Attributes:
        key: names the call among those of all PBXs, and never changes: `PBX/CallID`.
        call: all that is known of it by now.
        number: that of the other side; None when it is hidden, or no number at all.
        contacts: whose call it was, as the options chose; none, one or several.
        owner: the CRM's id of the user whose call it was, or None.
        recording: the address of its recording, or None.
    """

    key: str
    call: Call
    number: Number | None
    contacts: tuple[Contact, ...] = ()
    owner: str | None = None
    recording: str | None = None

    @property
    def ended(self) -> bool:
        """Is the call over? Before that there is neither outcome nor duration."""
        return self.call.ended is not None

    @property
    def incoming(self) -> bool:
        """Was it called from outside, or from another extension?"""
        return self.call.direction != "out"

    @property
    def seconds(self) -> int:
        """How long they talked; 0 when they did not, or nobody knows."""
        return round(self.call.talk_seconds or 0)

    @property
    def title(self) -> str:
        """One line, such as `Missed call from Jane Doe (+442079460100)`."""
        call = self.call
        if call.direction == "out":
            title = f"Call to {self._other(call.called)}"
        elif self.ended and call.outcome not in (None, Outcome.ANSWERED):
            title = f"Missed call from {self._other(call.caller)}"
        else:
            title = f"Call from {self._other(call.caller)}"
        if call.direction == "internal":
            title += f" to {_name(call.called)}"
        ending = _ENDINGS.get(call.outcome) if call.outcome else None
        if call.direction == "out" and call.outcome is Outcome.MISSED:
            ending = "no answer"
        return f"{title} ({ending})" if ending else title

    @property
    def facts(self) -> tuple[str, ...]:
        """Lines that say the rest; the last one names the call, so that it is found again."""
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
            lines.append(f"Talked for {self.seconds} s" if known else "Nobody knows how long")
        if self.recording:
            lines.append(f"Recording: {self.recording}")
        return (*lines, self.mark)

    @property
    def mark(self) -> str:
        """The line that names the call."""
        return f"Call {self.key}"

    def is_marked(self, text: str | None) -> bool:
        """Does a text of the CRM hold the mark? That of a longer key is not it."""
        return bool(text and re.search(rf"{re.escape(self.mark)}(?![\w.-])", text))

    def _other(self, party: Party) -> str:
        """The other side; by the contact's name if it is known who it was."""
        if len(self.contacts) == 1 and self.contacts[0].name:
            return f"{self.contacts[0].name} ({party.number or party.extension})"
        return _name(party)


_ENDINGS = {
    Outcome.BUSY: "busy",
    Outcome.CANCELLED: "cancelled",
    Outcome.UNREACHABLE: "unreachable",
    Outcome.FAILED: "failed",
}


def _name(party: Party) -> str:
    number = party.number or party.extension or party.did or "an unknown number"
    return f"{party.name} ({number})" if party.name and party.name != number else number
