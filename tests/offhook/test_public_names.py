"""Names that plugins and their tests use. Removing or renaming one breaks plugins."""

import inspect

import offhook
from offhook import http, testing

OFFHOOK = [
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
HTTP = ["Answer", "Http", "check", "is_private"]
TESTING = {
    "configured": ["handler", "options"],
    "context": ["attempt", "event", "extension", "call", "memory"],
    "deliver": ["handler", "event", "attempt", "timeout", "extension", "call", "memory"],
    "deliver_call": ["handler", "outcome", "events", "timeout", "extension", "memory"],
    "look_up": ["lookup", "number", "region", "timeout", "memory"],
    "sample_call": ["outcome", "overrides"],
    "sample_event": ["type", "overrides"],
    "sample_events": ["group"],
}


def test_offhook() -> None:
    assert offhook.__all__ == OFFHOOK
    assert all(hasattr(offhook, name) for name in OFFHOOK)


def test_offhook_http() -> None:
    assert http.__all__ == HTTP
    parts = {name for name in dir(http.Answer) if not name.startswith("_")}
    assert parts == {"status", "headers", "body", "host", "text", "json"}


def test_offhook_testing() -> None:
    assert testing.__all__ == ["LocalMemory", *TESTING]
    for name, parameters in TESTING.items():
        assert list(inspect.signature(getattr(testing, name)).parameters) == parameters
