"""Offhook's public names, for plugins."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offhook.call import Call, Gap, Kind, Leg, Outcome, Party
    from offhook.errors import PermanentError, TemporaryError
    from offhook.event import CALLBACKS, CALLS, CallEvent, EventType
    from offhook.extensions import ExtensionSettings
    from offhook.handler import Context, Handler
    from offhook.lookup import Lookup
    from offhook.phone_number import Number

# Imported on first use, so that `offhook --help` starts quickly.
_PLACES = {
    "CALLBACKS": "offhook.event",
    "CALLS": "offhook.event",
    "Call": "offhook.call",
    "CallEvent": "offhook.event",
    "Context": "offhook.handler",
    "EventType": "offhook.event",
    "ExtensionSettings": "offhook.extensions",
    "Gap": "offhook.call",
    "Handler": "offhook.handler",
    "Kind": "offhook.call",
    "Leg": "offhook.call",
    "Lookup": "offhook.lookup",
    "Number": "offhook.phone_number",
    "Outcome": "offhook.call",
    "Party": "offhook.call",
    "PermanentError": "offhook.errors",
    "TemporaryError": "offhook.errors",
}

__all__ = [
    "CALLBACKS",
    "CALLS",
    "Call",
    "CallEvent",
    "Context",
    "EventType",
    "ExtensionSettings",
    "Gap",
    "Handler",
    "Kind",
    "Leg",
    "Lookup",
    "Number",
    "Outcome",
    "Party",
    "PermanentError",
    "TemporaryError",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
