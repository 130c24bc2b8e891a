"""The handlers of a storm, and which events each must get."""

from collections.abc import Mapping
from dataclasses import dataclass

from tests.chaos.audit import Event
from tests.chaos.load import EXTENSIONS, LEAKED

_FOR_ALL = f"""
[handlers.fast]
use = "tests.chaos.handlers:record"
tenants = "all"
timeout = 5
[handlers.plain]
use = "tests.chaos.handlers:record_in_thread"
tenants = "all"
timeout = 5
[handlers.flaky]
use = "tests.chaos.handlers:fail_at_random"
tenants = "all"
timeout = 5
retry = {[1] * 30}
[handlers.blocking]
use = "tests.chaos.handlers:misbehave_when_asked"
tenants = "all"
timeout = 5
retry = {[1] * 30}
[handlers.crashing]
use = "tests.chaos.handlers:misbehave_when_asked"
tenants = "all"
timeout = 5
retry = {[1] * 30}
"""
# Two tenants, and a handler of the same name for each of them and for the operator.
TENANTS = {"north": EXTENSIONS[1:2], "south": EXTENSIONS[2:4]}
_OF_TENANTS = """
[handlers.crm]
use = "tests.chaos.handlers:record_at_once"
""" + "".join(
    f"""
[tenants.{name}]
own_code = true
extensions = {[f"main/0003*{extension}" for extension in extensions]}
[tenants.{name}.handlers.crm]
use = "tests.chaos.handlers:record_at_once"
"""
    for name, extensions in TENANTS.items()
)
STEADY = ("fast", "plain")  # these never fail: their next event shows that all has recovered
FOR_ALL = (*STEADY, "flaky", "blocking", "crashing")
_WANTED = (*EXTENSIONS, LEAKED)
_CHEAP = 3  # of this many handlers with a filter, all but one want no event that comes


@dataclass(frozen=True)
class Audited:
    """A handler of a storm.

    Attributes:
        extensions: those whose events it must get, and no others.
    """

    name: str
    extensions: tuple[str, ...]

    def wanted(self, accepted: Mapping[Event, float]) -> dict[Event, float]:
        """Return the accepted events that it must get."""
        return {event: at for event, at in accepted.items() if self.may_get(event)}

    def may_get(self, event: Event) -> bool:
        """Return whether an event is for it: another tenant's is not."""
        return event[0].partition("-")[0] in self.extensions


def handlers(count: int) -> tuple[str, list[Audited]]:
    """Return a configuration, and its handlers that get events.

    Args:
        count: how many handlers: those that want all events, and others that want those of one
            extension or, most of them, of one that never calls.
    """
    tables, found = [_FOR_ALL, _OF_TENANTS], [Audited(name, _WANTED) for name in FOR_ALL]
    found += [Audited(f"{tenant}/crm", extensions) for tenant, extensions in TENANTS.items()]
    of_tenants = {extension for extensions in TENANTS.values() for extension in extensions}
    found.append(Audited("crm", tuple(each for each in _WANTED if each not in of_tenants)))
    for number in range(count - len(FOR_ALL)):
        extension = f"9{number:03}"
        if number % _CHEAP == 0:
            extension = _WANTED[number // _CHEAP % len(_WANTED)]
            found.append(Audited(f"only-{number}", (extension,)))
        tables.append(
            f"[handlers.only-{number}]\n"
            'use = "tests.chaos.handlers:record_at_once"\ntenants = "all"\n'
            f'extensions = ["0003*{extension}"]\n'
        )
    return "".join(tables), found
