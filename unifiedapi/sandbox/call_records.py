"""Make the call record of a scripted call, from what happened, not from the callbacks delivered.

Pure. VoipNow does not document how it fills a record. Here a record has one leg for each time an
extension dials or is dialled, in that order, and its `id` is the `CallAPIID` of the callbacks. The
source and destination of a leg are the caller's number and the extension that rang (not the number
dialled), or for an outgoing leg the extension and the number dialled. A leg's duration is from its
answer to its end.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from unifiedapi.callback import CallStatus
from unifiedapi.resources import Disposition, EventType, Flow
from unifiedapi.sandbox.scenarios import Callback, ScriptedCall

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


class RecordedLeg(msgspec.Struct, frozen=True, kw_only=True):
    """One leg of a call."""

    extension: str
    source: str
    destination: str
    flow: Flow
    disposition: Disposition
    answered: datetime | None
    duration: int  # seconds


class StoredRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The record of one call.

    Attributes:
        published: when the call began.
        saved: when it ended and was recorded.
    """

    id: str
    published: datetime
    saved: datetime
    legs: tuple[RecordedLeg, ...]

    @property
    def answered(self) -> datetime | None:
        """When the first leg was answered."""
        return min((leg.answered for leg in self.legs if leg.answered), default=None)

    @property
    def disposition(self) -> Disposition:
        """Answered if any leg was, otherwise that of the last leg."""
        return Disposition.ANSWERED if self.answered else self.legs[-1].disposition


def record_of(
    call: ScriptedCall, began: datetime, saved: datetime, speed: float = 1.0
) -> StoredRecord:
    """Return the record of a call that ended, in wall-clock times and durations.

    Args:
        speed: how many times faster than scripted the call went.
    """
    return StoredRecord(
        id=call.callbacks[0].parameters.get("CallAPIID", call.id),
        published=began,
        saved=saved,
        legs=tuple(_leg(callbacks, began, speed) for callbacks in _by_leg(call)),
    )


def _by_leg(call: ScriptedCall) -> list[list[Callback]]:
    """Group callbacks by leg. An extension may have two legs at once (IN, OUT) or in sequence."""
    legs: list[list[Callback]] = []
    latest: dict[tuple[str, str], list[Callback]] = {}
    for callback in call.callbacks:
        part = callback.extension, callback.parameters["CallFlow"]
        if callback.type in _DIALS or part not in latest:
            latest[part] = []
            legs.append(latest[part])
        latest[part].append(callback)
    return legs


def _leg(callbacks: list[Callback], began: datetime, speed: float) -> RecordedLeg:
    last = callbacks[-1]
    parameters, extension = last.parameters, last.extension
    outgoing = parameters["CallFlow"] == "OUT"
    source = extension if outgoing else parameters.get("CallerIDNum", "")
    destination = parameters.get("CalledNumber", "") if outgoing else extension
    answers = [callback.at for callback in callbacks if callback.type in _ANSWERS]
    unanswered = _DISPOSITIONS.get(parameters["CallStatus"], Disposition.UNKNOWN)
    return RecordedLeg(
        extension=extension,
        source=source,
        destination=destination,
        flow=_flow(source, destination, outgoing=outgoing),
        disposition=Disposition.ANSWERED if answers else unanswered,
        answered=began + timedelta(seconds=answers[0] / speed) if answers else None,
        duration=round((last.at - answers[0]) / speed) if answers else 0,
    )


def _flow(source: str, destination: str, *, outgoing: bool) -> Flow:
    if "*" in source and "*" in destination:  # both are extended extension numbers
        return Flow.LOCAL
    return Flow.OUTGOING if outgoing else Flow.INCOMING
