"""Events about Offhook's own trouble: what each says, as values and as a sentence (`text`)."""

from collections.abc import Sequence
from datetime import UTC, datetime

from offhook.event import CallEvent, EventType, new_event_id
from offhook.settings import tenant_of_plugin
from workers.own_events import own_event

_LISTED = 20  # extensions in an event


def handler_failing(handler: str, attempts: int, *, circuit_open: bool) -> list[CallEvent]:
    """Deliveries to a handler keep failing.

    Args:
        attempts: number that failed since its last delivery.
    """
    why = "its circuit is open" if circuit_open else f"{attempts} attempts in a row failed"
    said = {"attempts": str(attempts), "circuit": "open" if circuit_open else "closed"}
    return _of_handler(
        EventType.HANDLER_FAILING, handler, said, f"Deliveries to {handler} keep failing: {why}."
    )


def handler_recovered(handler: str, seconds: float) -> list[CallEvent]:
    """Deliveries to a handler succeed again, for a minute now.

    Args:
        seconds: since `handler_failing`.
    """
    text = f"{handler} takes deliveries again, after {_duration(seconds)}."
    return _of_handler(EventType.HANDLER_RECOVERED, handler, {"seconds": f"{seconds:.0f}"}, text)


def dead_letters(handler: str, count: int) -> list[CallEvent]:
    """Deliveries to a handler became dead letters.

    Args:
        count: since the last such event.
    """
    many = "1 delivery" if count == 1 else f"{count} deliveries"
    became = "became a dead letter" if count == 1 else "became dead letters"
    text = f"{many} to {handler} {became}: `offhook dead list` says why."
    return _of_handler(EventType.DEAD_LETTER, handler, {"count": str(count)}, text)


def journal_used(count: int) -> list[CallEvent]:
    """Events went to the journals of receivers.

    Args:
        count: events since the last such event.
    """
    events = "1 event" if count == 1 else f"{count} events"
    text = f"Redis did not take {events}: kept on the receiver's disk first."
    return [_event(EventType.JOURNAL_USED, "journal", {"count": str(count)}, text)]


def inbox_filling(used: float) -> list[CallEvent]:
    """The memory of the inbox's server is nearly full.

    Args:
        used: the part of `maxmemory`.
    """
    percent = f"{used * 100:.0f}"
    text = (
        f"Redis uses {percent} % of its maxmemory: delivered events are deleted before keep_days, "
        "and from 90 % on events go to the journal."
    )
    return [_event(EventType.INBOX_FILLING, "inbox", {"percent": percent}, text)]


def registration_lost(pbx: str, extensions: Sequence[str], tenant: str = "") -> list[CallEvent]:
    """The PBX does not have callbacks that were registered on these extensions.

    Args:
        tenant: whose extensions they are.
    """
    listed = ", ".join(extensions[:_LISTED])
    more = len(extensions) - _LISTED
    listed += f" and {more} more" if more > 0 else ""
    number = len(extensions)
    who = "1 extension" if number == 1 else f"{number} extensions"
    text = f"Callbacks of {who} are not registered on the PBX {pbx}: {listed}."
    said = {"count": str(number), "extensions": listed}
    about = f"registrations {pbx}"
    return _each(EventType.REGISTRATION_LOST, about, said, text, tenant, pbx)


def _duration(seconds: float) -> str:
    """Format a time for people: 45 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _of_handler(type_: EventType, handler: str, said: dict[str, str], text: str) -> list[CallEvent]:
    tenant = tenant_of_plugin(handler)
    return _each(type_, f"handler {handler}", {"handler": handler} | said, text, tenant)


def _each(
    type_: EventType, about: str, said: dict[str, str], text: str, tenant: str, pbx: str = ""
) -> list[CallEvent]:
    """The event for its tenant, if it has one, and for the operator, who hears of all."""
    return [_event(type_, about, said, text, whose, pbx) for whose in sorted({tenant, ""})[::-1]]


def _event(
    type_: EventType,
    about: str,
    said: dict[str, str],
    text: str,
    tenant: str = "",
    pbx: str = "",
) -> CallEvent:
    now = datetime.now(UTC)
    return own_event(
        new_event_id(), type_, pbx, about, said | {"text": text}, received=now, tenant=tenant
    )
