"""Who may do what: people, their roles, and the rights that a route needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from offhook.call import Call
from offhook.settings import Role
from offhook_console.languages import ENGLISH, spoken


class Right(StrEnum):
    """What a route needs, and a scope of a token grants."""

    CALLS = "calls"  # see calls
    ALL_CALLS = "all-calls"  # also those of other people's extensions
    NUMBERS = "numbers"  # see numbers in full
    LIVE = "live"  # get screen pops of the user's own extensions
    DIAL = "dial"  # make calls from the own extensions
    DELIVERIES = "deliveries"  # see handlers, dead letters and the quarantine
    REPAIR = "repair"  # change them
    PEOPLE = "people"  # see who may sign in; make and revoke wall links


RIGHTS: Mapping[Role, frozenset[Right]] = {
    "viewer": frozenset({Right.CALLS, Right.ALL_CALLS, Right.LIVE}),
    "agent": frozenset({Right.CALLS, Right.NUMBERS, Right.LIVE, Right.DIAL}),
    "supervisor": frozenset(
        {Right.CALLS, Right.ALL_CALLS, Right.NUMBERS, Right.LIVE, Right.DIAL, Right.PEOPLE}
    ),
    "operator": frozenset(Right),
}


@dataclass(frozen=True)
class Person:
    """The user who makes a request.

    Attributes:
        rights: those of the role, or fewer: those of a token.
        extensions: the user's own.
        tenant: whose calls the user sees; empty: the operator's.
        token: the name of the token, if the request has one.
        until: when the session ends; None: that of a token does not.
    """

    name: str
    role: Role
    rights: frozenset[Right]
    extensions: frozenset[str] = frozenset()
    tenant: str = ""
    token: str | None = None
    until: datetime | None = None

    @property
    def view(self) -> "View":
        """What this person sees of calls, in the language that is spoken."""
        own = None if Right.ALL_CALLS in self.rights else self.extensions
        return View(
            masked=Right.NUMBERS not in self.rights,
            own=own,
            deliveries=Right.DELIVERIES in self.rights,
            language=spoken(),
        )

    def may(self, right: Right | None) -> bool:
        """Return whether the person has a right; None: everyone who is signed in has it."""
        return right is None or right in self.rights


@dataclass(frozen=True)
class View:
    """What is shown of calls. People with the same view share what is rendered.

    Attributes:
        masked: whether numbers are masked.
        own: only calls of these extensions; None: all.
        deliveries: whether handlers and dead letters are shown.
        wall: whether a wall shows it: without the caller's name.
        language: in which it is written.
    """

    masked: bool
    own: frozenset[str] | None = None
    deliveries: bool = False
    wall: bool = False
    language: str = ENGLISH

    def shows(self, call: Call) -> bool:
        """Return whether a call is shown."""
        return self.own is None or not self.own.isdisjoint(call.extensions)
