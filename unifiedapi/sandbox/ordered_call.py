"""The callbacks of a call that was ordered through the API.

No document says which callbacks there are. Here, as if the source had dialled: nothing while the
source's phone rings, then those of an outgoing or internal call. A source that is no extension
makes none.
"""

from collections.abc import Container
from random import Random

from unifiedapi.callback import CallStatus
from unifiedapi.sandbox.scenarios import Callback, Scenario, ScriptedCall, inside, to_outside
from unifiedapi.sandbox.store import OrderedCall


def script(ordered: OrderedCall, extensions: Container[str], rng: Random) -> ScriptedCall:
    """Make the call: the source picks up, the destination answers.

    Args:
        extensions: those of the PBX.
    """
    call_id = f"{rng.randrange(1_600_000_000, 1_900_000_000)}.{rng.randrange(10**9)}"
    ids = {"CallID": call_id, "CallAPIID": ordered.id}
    picked_up = rng.uniform(1, 3)
    answered = picked_up + rng.uniform(2, 8)
    over = answered + rng.triangular(5, 240, 45)
    made: list[Callback] = []
    if ordered.source in extensions and ordered.destination in extensions:
        calling, called = inside(ordered.source, ordered.destination, ids)
        made = [
            calling.dial(picked_up),
            called.dial(picked_up + 0.1),
            called.answer(answered),
            calling.answer(answered + 0.02),
            calling.hang_up(over, CallStatus.ANSWER),
            called.hang_up(over + 0.02, CallStatus.ANSWER),
        ]
    elif ordered.source in extensions:
        leg = to_outside(ordered.source, ordered.destination, ids)
        made = [leg.dial(picked_up), leg.answer(answered), leg.hang_up(over, CallStatus.ANSWER)]
    return ScriptedCall(call_id, Scenario.OUTGOING, tuple(made))
