"""The parameters of VoipNow's callbacks. Only this module knows their names.

Sources: the VoipNow wiki's "Call Events" page and the 4PSA knowledge base's "How to integrate
VoipNow with remote applications using Call Events". They disagree on one spelling and on the
statuses of a hangup; both versions are accepted. Two callbacks that a user of VoipNow recorded in
2015 have `CallFlow` in lower case, some parameters that are empty, and others that are missing.
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
    "EventID",  # not documented for VoipNow
)

# Additional parameters of Telphin's dialect that we use. Sources: `offhook/dialects/telphin.py`.
TELPHIN_PARAMETERS = (
    "EventType",  # dial-in, dial-out, answer, hangup; also message-in and others that are not calls
    "SubCallID",  # one leg of the call
    "EventTime",  # microseconds since 1970
    "RecID",  # the recording, in a hangup
    "Duration",  # microseconds of talk, in a hangup
    "Bridged",  # yes, no: in a hangup of a queue or an IVR, whether it was answered after entering
    "RemoteNumber",  # after a transfer, the number outside
)

_CANONICAL = {name.lower(): name for name in PARAMETERS + TELPHIN_PARAMETERS} | {
    "calleridnam": "CallerIDName",  # the knowledge base's spelling
}


class CallStatus(StrEnum):
    """The documented values of `CallStatus`. Other values may occur."""

    CALLING = "CALLING"
    ANSWER = "ANSWER"
    BUSY = "BUSY"
    NOANSWER = "NOANSWER"
    CANCEL = "CANCEL"  # the caller hung up first
    CONGESTION = "CONGESTION"  # usually an unknown number
    CHANUNAVAIL = "CHANUNAVAIL"  # the called device cannot be reached
    UNKNOWN = "UNKNOWN"


def known_parameters(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the documented parameters that are not blank, stripped, under their canonical names.

    Names match in any case, because no document defines their case.
    """
    known: dict[str, str] = {}
    for name, value in parameters.items():
        canonical = _CANONICAL.get(name.lower())
        if canonical and (value := value.strip()):
            known[canonical] = value
    return known
