"""Short numbers in callbacks: which extension each one is. Pure.

A callback may name the other extension only by its short number, such as 211, which may as well be
a number outside. The extensions that are known decide.
"""

from collections.abc import Container, Iterator

from msgspec.structs import replace

from offhook.calls.facts import CallState
from offhook.event import CallEvent

Name = tuple[str, str]  # PBX and extension

LONGEST = 5  # digits of a short number


def is_short(number: str | None) -> bool:
    """Return whether a number may be the short number of an extension."""
    return number is not None and number.isascii() and number.isdigit() and len(number) <= LONGEST


def with_extensions(event: CallEvent, known: Container[Name]) -> CallEvent:
    """The event, with the other extension if only its short number is given and it is known."""
    extension = _behind_short_number(event)
    if extension is None or (event.pbx, extension) not in known:
        return event
    if event.direction == "out":
        return replace(event, called=replace(event.called, extension=extension))
    return replace(event, caller=replace(event.caller, extension=extension))


def extensions_in(event: CallEvent) -> Iterator[Name]:
    """Every extension that an event names, or may name by a short number."""
    pbx, of_summary = event.pbx, event.summary.extensions if event.summary else ()
    named = (event.extension, event.caller.extension, event.called.extension)
    for each in (*named, _behind_short_number(event), *of_summary):
        if each:
            yield pbx, each


def extensions_of(state: CallState) -> Iterator[Name]:
    """Every extension that a call names."""
    for part in state.parts:
        yield state.pbx, part.extension
        if part.words.peer:
            yield state.pbx, part.words.peer


def _behind_short_number(event: CallEvent) -> str | None:
    """The extension that the other party may be, of which only the number is given."""
    if event.direction == "out":
        other = event.called
    elif event.direction == "in" and event.called.did is None:
        other = event.caller
    else:
        return None
    if other.extension is not None or not is_short(other.number):
        return None
    return f"{event.extension.rpartition('*')[0]}*{other.number}"
