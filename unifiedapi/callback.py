"""The parameters of a callback, as VoipNow sends them. The only module that knows their names.

Sources: the VoipNow wiki's "Call Events" page and the 4PSA knowledge base's "How to integrate
VoipNow with remote applications using Call Events"; they disagree on one spelling and on which
statuses a hangup may carry, so both are accepted.
"""

from collections.abc import Mapping
from enum import StrEnum

PARAMETERS = (
    "CallID",
    "CallerIDNum",
    "CallerIDName",
    "CalledDID",
    "CalledExtension",
    "CallStatus",
    "CallFlow",
    "CallerExtension",
    "CalledNumber",
    "CallAPIID",
    "EventID",  # never documented for VoipNow, taken if it comes
)

# What Telphin's dialect says besides, as far as it is read. Sources: `offhook/dialects/telphin.py`.
TELPHIN_PARAMETERS = (
    "EventType",  # dial-in, dial-out, answer, hangup; message-in and others, which are no calls
    "SubCallID",  # one leg of the call
    "EventTime",  # microseconds since 1970
    "RecID",  # the recording, in a hangup
    "Bridged",  # yes, no: in a hangup of a queue or an IVR, whether it was answered after entering
    "RemoteNumber",  # after a transfer, the number outside
)

_CANONICAL = {name.lower(): name for name in PARAMETERS + TELPHIN_PARAMETERS} | {
    "calleridnam": "CallerIDName",  # the knowledge base's spelling
}


class CallStatus(StrEnum):
    """`CallStatus` values of either document; anything else is kept as it came."""

    CALLING = "CALLING"
    ANSWER = "ANSWER"
    BUSY = "BUSY"
    NOANSWER = "NOANSWER"
    CANCEL = "CANCEL"  # the caller gave up first
    CONGESTION = "CONGESTION"  # mostly a number that is not recognised
    CHANUNAVAIL = "CHANUNAVAIL"  # the called device is not reachable
    UNKNOWN = "UNKNOWN"


def known_parameters(parameters: Mapping[str, str]) -> dict[str, str]:
    """The documented parameters under their canonical names, stripped; empty ones left out.

    Names match in any case: no document says that their case is fixed.
    """
    known: dict[str, str] = {}
    for name, value in parameters.items():
        canonical = _CANONICAL.get(name.lower())
        if canonical and (value := value.strip()):
            known[canonical] = value
    return known
