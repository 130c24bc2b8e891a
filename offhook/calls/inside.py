"""Short numbers in callbacks: which extension each one is. Pure.

A callback may name the other extension only by its short number, such as 211, which may as well be
a number outside. The extensions that are known decide.
"""

from collections.abc import Container

from msgspec.structs import replace

from offhook.event import CallEvent

LONGEST = 5  # digits of a short number


def is_short(number: str | None) -> bool:
    """Return whether a number may be the short number of an extension."""
    return number is not None and number.isascii() and number.isdigit() and len(number) <= LONGEST


def with_extensions(event: CallEvent, known: Container[tuple[str, str]]) -> CallEvent:
    """The event, with the other extension if only its short number is given and it is known.

    Args:
        known: PBX and extension of each that is known.
    """
    prefix = event.extension.rpartition("*")[0]
    if event.direction == "out":
        called = f"{prefix}*{event.called.number}"
        if _is_known(event, event.called.extension, event.called.number, called, known):
            return replace(event, called=replace(event.called, extension=called))
    elif event.direction == "in" and event.called.did is None:
        caller = f"{prefix}*{event.caller.number}"
        if _is_known(event, event.caller.extension, event.caller.number, caller, known):
            return replace(event, caller=replace(event.caller, extension=caller))
    return event


def _is_known(
    event: CallEvent,
    named: str | None,
    number: str | None,
    extension: str,
    known: Container[tuple[str, str]],
) -> bool:
    return named is None and is_short(number) and (event.pbx, extension) in known
