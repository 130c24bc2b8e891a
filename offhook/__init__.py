"""Offhook: what a plugin author imports."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offhook.errors import PermanentError, TemporaryError
    from offhook.event import CallEvent, EventType, Party
    from offhook.extensions import ExtensionSettings
    from offhook.handler import Context, Handler

# Imported when they are asked for: the command line must not wait for what it does not use.
_PLACES = {
    "CallEvent": "offhook.event",
    "Context": "offhook.handler",
    "EventType": "offhook.event",
    "ExtensionSettings": "offhook.extensions",
    "Handler": "offhook.handler",
    "Party": "offhook.event",
    "PermanentError": "offhook.errors",
    "TemporaryError": "offhook.errors",
}

__all__ = [
    "CallEvent",
    "Context",
    "EventType",
    "ExtensionSettings",
    "Handler",
    "Party",
    "PermanentError",
    "TemporaryError",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
