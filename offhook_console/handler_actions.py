"""What people ask about a handler and do to it. For the pages and the API."""

from datetime import UTC, datetime

from offhook.errors import ConfigError
from offhook.event import CallEvent, EventType
from offhook.extensions import UNKNOWN, ExtensionSettings
from offhook.operations.filter_question import FilterAnswer, ask_filter, other_filter, span
from offhook.operations.pausing import set_paused
from offhook.operations.trials import send_trial
from offhook.settings import HandlerSettings
from offhook.testing import sample_event
from offhook_console.languages import gettext
from offhook_console.parts import ConsoleParts
from offhook_console.people import Person
from offhook_console.problem_details import ConsoleError

LONGEST = 1000  # characters of the events of a filter, and of its extensions


def configured(parts: ConsoleParts, name: str) -> tuple[str, HandlerSettings]:
    """The handler of this name, and its policy.

    Raises:
        ConsoleError: there is none.
    """
    if name not in parts.settings.handlers:
        raise ConsoleError(404, gettext("There is no handler with this name."))
    return name, parts.settings.handlers[name]


async def change_pause(parts: ConsoleParts, person: Person, name: str, *, paused: bool) -> None:
    """Pause a handler, or resume it, and let all who look know."""
    await set_paused(parts.inbox.redis, name, person.name, paused=paused)
    await parts.feed.look_at_deliveries()


async def try_handler(parts: ConsoleParts, person: Person, name: str, kind: str) -> CallEvent:
    """Send a test event to a handler.

    Args:
        kind: its type; empty: the first that the handler gets.

    Raises:
        ConsoleError: the handler does not get this type.
    """
    _, policy = configured(parts, name)
    if kind and kind not in {*EventType}:
        problem = gettext("event: {name} is not an event type.", name=kind[:50])
        raise ConsoleError(400, problem)
    try:
        wanted = EventType(kind) if kind else None
        return await send_trial(parts.inbox, name, policy, person.name, sample_event, wanted)
    except ConfigError as error:
        raise ConsoleError(400, f"event: {error}.") from error


async def ask(
    parts: ConsoleParts, name: str, events: str | None, extensions: str | None, of: str
) -> FilterAnswer:
    """Ask what a handler would have got with another filter.

    Raises:
        ConsoleError: the filter is wrong.
    """
    _, policy = configured(parts, name)
    if max(len(events or ""), len(extensions or "")) > LONGEST:
        problem = gettext(
            "events and extensions: at most {number} characters each.", number=LONGEST
        )
        raise ConsoleError(400, problem)
    try:
        since, until = span(of, datetime.now(UTC))
    except KeyError:
        raise ConsoleError(400, gettext("of: must be 1h, today, yesterday or 7d.")) from None
    try:
        asked = other_filter(name, policy, events, extensions)
    except ConfigError as error:
        raise ConsoleError(400, str(error)) from error
    await parts.feed.refresh_labels()
    labels = parts.feeds.labels.all

    def extension(pbx: str, number: str) -> ExtensionSettings:
        return labels.get((pbx, number), UNKNOWN)

    return await ask_filter(parts.inbox, parts.settings, asked, extension, since, until)
