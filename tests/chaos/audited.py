"""The handlers of a storm, and which events each must get."""

from collections.abc import Mapping
from dataclasses import dataclass

from tests.chaos.audit import Event
from tests.chaos.load import EXTENSIONS, LEAKED

_FOR_ALL = f"""
[handlers.fast]
use = "tests.chaos.handlers:record"
timeout = 5
[handlers.plain]
use = "tests.chaos.handlers:record_in_thread"
timeout = 5
[handlers.flaky]
use = "tests.chaos.handlers:fail_at_random"
timeout = 5
retry = {[1] * 30}
[handlers.blocking]
use = "tests.chaos.handlers:misbehave_when_asked"
timeout = 5
retry = {[1] * 30}
[handlers.crashing]
use = "tests.chaos.handlers:misbehave_when_asked"
timeout = 5
retry = {[1] * 30}
"""
STEADY = ("fast", "plain")  # these never fail: their next event shows that all has recovered
FOR_ALL = (*STEADY, "flaky", "blocking", "crashing")
_WANTED = (*EXTENSIONS, LEAKED)
_CHEAP = 3  # of this many handlers with a filter, all but one want no event that comes


@dataclass(frozen=True)
class Audited:
    """A handler of a storm.

    Attributes:
        extension: the only one whose events it wants; empty for all.
    """

    name: str
    extension: str = ""

    def wanted(self, accepted: Mapping[Event, float]) -> dict[Event, float]:
        """Return the accepted events that it must get."""
        beginning = f"{self.extension}-" if self.extension else ""
        return {event: at for event, at in accepted.items() if event[0].startswith(beginning)}


def handlers(count: int) -> tuple[str, list[Audited]]:
    """Return a configuration, and its handlers that get events.

    Args:
        count: how many handlers: those that want all events, and others that want those of one
            extension or, most of them, of one that never calls.
    """
    tables, found = [_FOR_ALL], [Audited(name) for name in FOR_ALL]
    for number in range(count - len(FOR_ALL)):
        extension = f"9{number:03}"
        if number % _CHEAP == 0:
            extension = _WANTED[number // _CHEAP % len(_WANTED)]
            found.append(Audited(f"only-{number}", extension))
        tables.append(
            f"[handlers.only-{number}]\n"
            'use = "tests.chaos.handlers:record_at_once"\n'
            f'extensions = ["0003*{extension}"]\n'
        )
    return "".join(tables), found
