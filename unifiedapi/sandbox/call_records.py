"""What the PBX keeps of a call that is over: the truth of it, whatever became of its callbacks.

Pure. No document says how VoipNow fills a record. Ours: one record for a call, with a leg for each
time that an extension dialled or was dialled in it, in that order; `id` is the `CallAPIID` of the
callbacks; a leg's source and destination are its caller's number and the extension that rang (not
the number dialled), or for one who dials the extension and the number dialled; its duration is from
its answer to its end.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from unifiedapi.callback import CallStatus
from unifiedapi.resources import Disposition, EventType, Flow
from unifiedapi.sandbox.scenarios import Call, Callback

_DISPOSITIONS: Mapping[str, Disposition] = {
    CallStatus.ANSWER: Disposition.ANSWERED,
    CallStatus.BUSY: Disposition.BUSY,
    CallStatus.NOANSWER: Disposition.NO_ANSWER,
    CallStatus.CANCEL: Disposition.NO_ANSWER,
    CallStatus.CONGESTION: Disposition.FAILED,
    CallStatus.CHANUNAVAIL: Disposition.FAILED,
}
_DIALS = (EventType.DIAL_IN, EventType.DIAL_OUT)
_ANSWERS = (EventType.ANSWER_IN, EventType.ANSWER_OUT)


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """One part that an extension had in a call.

    Attributes:
        answered: None if it was not.
        duration: seconds.
    """

    extension: str
    source: str
    destination: str
    flow: Flow
    disposition: Disposition
    answered: datetime | None
    duration: int


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One call.

    Attributes:
        published: when it began.
        saved: when it was over, and so recorded.
    """

    id: str
    published: datetime
    saved: datetime
    legs: tuple[Leg, ...]

    @property
    def answered(self) -> datetime | None:
        """When the first leg was answered, if any was."""
        return min((leg.answered for leg in self.legs if leg.answered), default=None)

    @property
    def disposition(self) -> Disposition:
        """Of the whole call: answered if a leg was, else as the last leg ended."""
        return Disposition.ANSWERED if self.answered else self.legs[-1].disposition


def record_of(call: Call, began: datetime, saved: datetime, speed: float = 1.0) -> Record:
    """The record of a call that is over.

    Args:
        speed: how much faster than in its script the call went. Times and durations are those that
            a clock on the wall showed.
    """
    first = call.callbacks[0].parameters
    return Record(
        id=first.get("CallAPIID", call.id),
        published=began,
        saved=saved,
        legs=tuple(_leg(callbacks, began, speed) for callbacks in _by_leg(call)),
    )


def _by_leg(call: Call) -> list[list[Callback]]:
    """The callbacks of each leg. An extension may have two at once (IN, OUT), or be rung again."""
    legs: list[list[Callback]] = []
    latest: dict[tuple[str, str], list[Callback]] = {}
    for callback in call.callbacks:
        part = callback.extension, callback.parameters["CallFlow"]
        if callback.type in _DIALS or part not in latest:
            latest[part] = []
            legs.append(latest[part])
        latest[part].append(callback)
    return legs


def _leg(callbacks: list[Callback], began: datetime, speed: float) -> Leg:
    last = callbacks[-1]
    says, extension = last.parameters, last.extension
    outgoing = says["CallFlow"] == "OUT"
    source = extension if outgoing else says.get("CallerIDNum", "")
    destination = says.get("CalledNumber", "") if outgoing else extension
    answers = [callback.at for callback in callbacks if callback.type in _ANSWERS]
    ended_unanswered = _DISPOSITIONS.get(says["CallStatus"], Disposition.UNKNOWN)
    return Leg(
        extension=extension,
        source=source,
        destination=destination,
        flow=_flow(source, destination, outgoing=outgoing),
        disposition=Disposition.ANSWERED if answers else ended_unanswered,
        answered=began + timedelta(seconds=answers[0] / speed) if answers else None,
        duration=round((last.at - answers[0]) / speed) if answers else 0,
    )


def _flow(source: str, destination: str, *, outgoing: bool) -> Flow:
    if "*" in source and "*" in destination:  # both are extended extension numbers
        return Flow.LOCAL
    return Flow.OUTGOING if outgoing else Flow.INCOMING
