"""Short ways to create call events for tests."""

from itertools import count

import msgspec
from msgspec.structs import replace

from offhook.dialects.voipnow import read_event
from offhook.event import CallEvent, EventType, to_stored
from offhook.inbox import Batch

_numbers = count(1)


def event(
    call: str = "call-1",
    n: int = 0,
    *,
    type: EventType = EventType.DIAL_IN,  # noqa: A002
    extension: str = "0003*210",
    pbx: str = "main",
    flow: str = "IN",
    tenant: str = "",
) -> CallEvent:
    """Create an event of a call; `n` distinguishes it from others of that call."""
    made = read_event(
        pbx=pbx,
        extension=extension,
        type=type,
        parameters={"CallID": call, "CallFlow": flow, "n": str(n)},
    )
    return replace(made, tenant=tenant)


def batch_of(*events: CallEvent, marks: list[str] | None = None) -> Batch:
    """Put events into a batch for partition 0; each event id is its mark by default."""
    stored = [msgspec.Raw(to_stored(one)) for one in events]
    tenants = [one.tenant for one in events]
    return Batch(
        "tests",
        next(_numbers),
        0,
        marks or [one.id for one in events],
        stored,
        tenants if any(tenants) else [],
    )
