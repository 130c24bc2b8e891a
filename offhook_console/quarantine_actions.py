"""What people do to refused callbacks: deliver one, discard one. For the pages and the API."""

from collections.abc import Mapping
from typing import Literal

from offhook.errors import InboxUnavailable
from offhook.inbox import quarantine
from offhook.operations.audit import Change, note_change
from offhook_console.languages import gettext
from offhook_console.parts import ConsoleParts
from offhook_console.people import Person
from offhook_console.problem_details import ConsoleError

DeliveryOutcome = Literal["delivered", "repeat", "refused"]
_CHANGES: Mapping[DeliveryOutcome, Change] = {
    "delivered": Change.CALLBACK_DELIVERED,
    "repeat": Change.CALLBACK_REPEATED,
    "refused": Change.CALLBACK_STILL_REFUSED,
}


async def deliver_refused(
    parts: ConsoleParts, person: Person, key: str
) -> tuple[DeliveryOutcome, str | None]:
    """Read a refused callback again, and deliver its event.

    Returns:
        How that ended; and what is wrong with it, if it is still refused.

    Raises:
        ConsoleError: there is none with this id, or the inbox takes no events.
    """
    refused = await _refused(parts, key)
    try:
        done = await parts.deliver(parts.settings, parts.inbox, [(key, refused)])
    except InboxUnavailable as error:
        problem = gettext("It was not delivered, and stays: {why}", why=error)
        raise ConsoleError(503, problem) from error
    outcome: DeliveryOutcome = (
        "delivered" if done.delivered else "repeat" if done.repeats else "refused"
    )
    await _note(parts, person, _CHANGES[outcome], refused)
    return outcome, done.refused.get(key)


async def discard_refused(parts: ConsoleParts, person: Person, key: str) -> None:
    """Discard a refused callback.

    Raises:
        ConsoleError: there is none with this id.
    """
    refused = await _refused(parts, key)
    await quarantine.remove(parts.inbox.redis, [key])
    await _note(parts, person, Change.CALLBACK_DISCARDED, refused)


async def _refused(parts: ConsoleParts, key: str) -> Mapping[str, bytes]:
    found = dict(await quarantine.get(parts.inbox.redis, [key]))
    if key not in found:
        raise ConsoleError(404, gettext("This callback is no longer in the quarantine."))
    return found[key]


async def _note(
    parts: ConsoleParts, person: Person, change: Change, refused: Mapping[str, bytes]
) -> None:
    where = refused["extension"].decode("utf-8", "replace")
    await note_change(parts.inbox.redis, person.name, change, {"extension": where})
    await parts.feed.look_at_deliveries()
