"""The filters of missed callers, in URLs of the page and of the API."""

from typing import Literal, get_args

from offhook.calls import MissedCaller
from offhook.inbox.missed_calls import with_claims
from offhook_console.languages import gettext
from offhook_console.missed_views import shows
from offhook_console.parts import ConsoleParts
from offhook_console.people import Person
from offhook_console.problem_details import ConsoleError

State = Literal["open", "closed", "all"]


def read_state(text: str) -> State:
    """The state in a URL.

    Raises:
        ConsoleError: there is no such state.
    """
    for state in get_args(State):
        if text == state:
            return state  # type: ignore[no-any-return]
    raise ConsoleError(400, gettext("state: must be open, closed or all."))


async def find_missed(
    parts: ConsoleParts, person: Person, state: State, queue: str = ""
) -> list[MissedCaller]:
    """The missed callers that a person sees, those first who have waited longest.

    Args:
        queue: only those who called one of these queues or phones, separated by commas.
    """
    wanted = [each for each in queue.split(",") if each]
    found = [
        each
        for each in parts.feed_of(person).missed.callers()
        if shows(person.view, each)
        and (state == "all" or (state == "open") is (each.reached is None))
        and (not wanted or each.called_one_of(wanted))
    ]
    return await with_claims(parts.inbox.redis, found, person.tenant)
