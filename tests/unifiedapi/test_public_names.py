"""The names that docs/unifiedapi.md promises. Renaming or removing one breaks users."""

from importlib import import_module
from inspect import signature
from pathlib import Path

from unifiedapi import errors
from unifiedapi.client import UnifiedApi
from unifiedapi.oauth import BearerToken
from unifiedapi.resources import CallLeg, CallRecord, EventType, PhoneCall, Presence
from unifiedapi.sandbox.control import create_exchange
from unifiedapi.sandbox.server import create_sandbox
from unifiedapi.sandbox.store import Contents, Store

PAGE = (Path(__file__).parents[2] / "docs" / "unifiedapi.md").read_text()
NAMES = {
    "unifiedapi.client": ["UnifiedApi"],
    "unifiedapi.errors": [
        "AccessDenied",
        "ApiError",
        "ExtensionInvalid",
        "InvalidRequest",
        "NoAnswer",
        "NotTrusted",
        "UnexpectedAnswer",
        "UnifiedApiError",
    ],
    "unifiedapi.oauth": ["BearerToken", "ClientCredentials", "Token"],
    "unifiedapi.resources": [
        "AgentStatus",
        "CallLeg",
        "CallRecord",
        "Disposition",
        "EventMethod",
        "EventStatus",
        "EventType",
        "Flow",
        "PhoneCall",
        "PhoneCallEvent",
        "PhoneRegistration",
        "Presence",
        "PresenceStatus",
        "QueueAgent",
        "RegistrationStatus",
    ],
    "unifiedapi.sandbox.control": ["create_exchange"],
    "unifiedapi.sandbox.server": ["create_sandbox", "example"],
    "unifiedapi.sandbox.store": ["Store"],
    "unifiedapi.sandbox.tls": ["make_certificate"],
}
SERVICES = {
    "phone_calls": ["create"],
    "phone_call_events": ["create", "list", "update", "delete", "delete_all"],
    "presence": ["list"],
    "queue_agents": ["list", "update"],
    "call_records": ["list"],
}


def test_documented_names_exist() -> None:
    for module, names in NAMES.items():
        for name in names:
            assert hasattr(import_module(module), name), f"{module}.{name}"


async def test_documented_services_and_options_exist() -> None:
    async with UnifiedApi("https://pbx.example.org", BearerToken("t")) as api:
        for service, methods in SERVICES.items():
            assert f"`api.{service}`" in PAGE
            for method in methods:
                assert callable(getattr(getattr(api, service), method))
    assert {"ca_file", "insecure", "timeout", "waits", "zone"} < set(
        signature(UnifiedApi).parameters
    )
    assert {"owner", "source", "destination", "flow", "disposition"} < set(
        signature(api.call_records.list).parameters
    )


def test_documented_fields_exist() -> None:
    assert {"code", "status", "message", "body", "retry_after"} < set(
        signature(errors.ApiError).parameters
    )
    assert {"extension", "status"} < set(Presence.__struct_fields__)
    assert {"source", "destination", "flow", "disposition", "answered", "duration", "extra"} < set(
        CallLeg.__struct_fields__
    )
    assert {"id", "call_id", "extension", "owner_id", "owner_name", "legs", "extra"} < set(
        CallRecord.__struct_fields__
    )
    assert {"id", "extension", "published"} < set(PhoneCall.__struct_fields__)
    assert [each.name for each in EventType] == [
        "DIAL_IN",
        "DIAL_OUT",
        "HANGUP",
        "ANSWER_IN",
        "ANSWER_OUT",
    ]


def test_documented_sandbox_options_exist() -> None:
    for create in (create_sandbox, create_exchange):
        assert {"store", "numbers", "wrapped"} < set(signature(create).parameters)
    assert {"example", "load", "registrations"} < set(dir(Store))
    assert set(Contents.__struct_fields__) == {
        "users",
        "extensions",
        "apps",
        "tokens",
        "sessions",
        "timezone",
    }


def test_no_two_public_classes_share_a_name() -> None:
    root = Path(errors.__file__).parent
    defined: dict[str, Path] = {}
    for path in sorted(root.rglob("*.py")):
        for line in path.read_text().splitlines():
            if line.startswith("class ") and not line.startswith("class _"):
                name = line.removeprefix("class ").split("(")[0].rstrip(":")
                assert name not in defined, f"{name}: {path} and {defined[name]}"
                defined[name] = path
