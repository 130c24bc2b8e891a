"""`redeliver`: the RQ job that a dead letter is.

Nothing runs it: it is in RQ's failed registry, so that RQ's tools show it. When one of these tools
enqueues it again, the scheduler puts the event back into its lane.
"""

from typing import Any


def redeliver(handler: str, event: dict[str, Any]) -> None:
    """Stand for a dead letter.

    Args:
        handler: its name in the configuration.
        event: from `CallEvent.as_dict()`.
    """
    raise RuntimeError("Offhook redelivers dead letters itself: use `offhook dead retry`")
