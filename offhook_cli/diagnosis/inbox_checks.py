"""Checks of the inbox: who serves it, how full it is, what was refused."""

from collections.abc import Iterator
from dataclasses import dataclass

from offhook.operations.status import Status, in_quarantine, unserved_partitions
from offhook.settings import Settings
from offhook_cli.diagnosis.findings import Finding, failed, passed, warned

_NEARLY = 0.9  # of max_events


@dataclass(frozen=True)
class SeenInbox:
    """The inbox.

    Attributes:
        partitions: number of those that receivers spread new calls over.
    """

    status: Status
    settings: Settings
    partitions: int


def partitions(seen: SeenInbox) -> Iterator[Finding]:
    """A process serves each partition."""
    sentences = [*unserved_partitions(seen.status)]
    yield from map(failed, sentences)
    if not seen.status.unserved and seen.status.handlers:
        yield passed(f"all partitions are served ({len(seen.status.partitions)})")


def numbering(seen: SeenInbox) -> Iterator[Finding]:
    """Receivers use the configured number of partitions."""
    if seen.partitions != seen.settings.partitions:
        yield warned(
            f"receivers use {seen.partitions} partitions, and the configuration says "
            f"{seen.settings.partitions}: restart the receivers, the one with the right "
            "configuration last"
        )


def room(seen: SeenInbox) -> Iterator[Finding]:
    """It has room, as far as `max_events` limits it."""
    kept, most = sum(seen.status.partitions), seen.settings.max_events
    if most is None:
        yield passed(f"holds {kept:,} events (max_events is not set)")
    elif kept > most * _NEARLY:
        yield warned(
            f"holds {kept:,} of at most {most:,} events (max_events): the oldest are deleted, even "
            "if a handler has not had them; raise max_events, or lower keep_days"
        )
    else:
        yield passed(f"holds {kept:,} of at most {most:,} events (max_events)")


def quarantine(seen: SeenInbox) -> Iterator[Finding]:
    """No callback was refused."""
    if seen.status.refused:
        yield from map(warned, in_quarantine(seen.status))
    else:
        yield passed("the quarantine is empty")


def turned_away(seen: SeenInbox) -> Iterator[Finding]:
    """Receivers turned nothing away in the last day."""
    yield from map(warned, seen.status.turned_away)


CHECKS = (partitions, numbering, room, quarantine, turned_away)
