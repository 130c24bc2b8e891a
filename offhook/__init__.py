"""Offhook: what a plugin author imports."""

from offhook.errors import PermanentError, TemporaryError
from offhook.event import CallEvent, EventType, Party
from offhook.handler import Context, Handler

__all__ = [
    "CallEvent",
    "Context",
    "EventType",
    "Handler",
    "Party",
    "PermanentError",
    "TemporaryError",
]
