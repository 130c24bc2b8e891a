"""Call events for tests, without the pains of making them."""

from offhook.event import CallEvent, EventType, read_event


def event(
    call: str = "call-1",
    n: int = 0,
    *,
    type: EventType = EventType.DIAL_IN,  # noqa: A002
    extension: str = "0003*210",
    pbx: str = "main",
    flow: str = "IN",
) -> CallEvent:
    """An event of a call; `n` tells it from the others of that call."""
    made = read_event(
        pbx=pbx,
        extension=extension,
        type=type,
        parameters={"CallID": call, "CallFlow": flow, "n": str(n)},
    )
    assert made is not None
    return made
