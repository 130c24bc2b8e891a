"""The audit: what each handler got, compared with the events that were answered 200."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.installation import Installation

Event = tuple[str, int]  # call, number of the event in the call
Delivery = tuple[str, str, int, float]  # id, call, number, time


@dataclass
class Findings:
    """What a handler got, compared with the accepted events.

    Attributes:
        lost: accepted, and never delivered.
        disordered: first delivered after a later event of their call.
        renamed: delivered again with another id.
        mixed: delivered, and of a tenant whose events it must not get.
        duplicates: number of repeated deliveries.
    """

    lost: list[Event] = field(default_factory=list)
    disordered: list[Event] = field(default_factory=list)
    renamed: list[Event] = field(default_factory=list)
    mixed: list[Event] = field(default_factory=list)
    duplicates: int = 0

    @property
    def faultless(self) -> bool:
        """Return whether every promise is kept."""
        return not (self.lost or self.disordered or self.renamed or self.mixed)


def audit(
    accepted: Mapping[Event, float],
    delivered: Sequence[Delivery],
    may_get: Callable[[Event], bool] = lambda event: True,
) -> Findings:
    """Compare the accepted events with those that one handler got.

    An event without a response may be delivered or not, at any place: its client does not know.

    Args:
        may_get: whether an event may be for the handler at all.
    """
    findings = Findings()
    ids: dict[Event, str] = {}
    latest: dict[str, int] = defaultdict(lambda: -1)
    for event_id, call, n, _ in delivered:
        event = (call, n)
        if event in ids:
            findings.duplicates += 1
            if ids[event] != event_id:
                findings.renamed.append(event)
            continue
        ids[event] = event_id
        if not may_get(event):
            findings.mixed.append(event)
        if event in accepted:
            if n < latest[call]:
                findings.disordered.append(event)
            latest[call] = max(latest[call], n)
    findings.lost = [event for event in accepted if event not in ids]
    return findings


def deliveries(offhook: Installation, handler: str) -> list[Delivery]:
    """Return what a handler got so far, in order."""
    path = offhook.output / handler.replace("/", "~")
    text = path.read_text() if path.exists() else ""
    lines = text.rpartition("\n")[0].splitlines()  # the last may be half written
    return [
        (i, call, int(n), float(moment)) for i, call, n, moment in (line.split() for line in lines)
    ]
