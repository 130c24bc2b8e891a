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

# Imported on first use, so that `offhook --help` starts quickly. In this order the first module
# that has a name is the one that defines it.
_MODULES = ("call", "errors", "event", "extensions", "phone_number", "handler", "lookup")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            found = vars(import_module(f"offhook.{module}"))
            if name in found:
                return found[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
