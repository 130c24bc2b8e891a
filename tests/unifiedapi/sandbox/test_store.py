"""The contents of the sandbox: read from a file, and looked up."""

from datetime import UTC
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.unifiedapi.serving import Server
from unifiedapi.resources import EventMethod, EventStatus, EventType, PhoneCallEvent
from unifiedapi.sandbox.server import create_sandbox
from unifiedapi.sandbox.store import ExtensionKind, Store

FILE = """
[[users]]
id = 12
organization = "0003"

[[extensions]]
number = "0003*400"
user = 12
kind = "queue"
[[extensions.agents]]
number = "0003*210"
status = 2

[[apps]]
id = "an-app"
secret = "not so secret"
user = 12

[tokens]
for-trying-out = 12

[sessions]
"a%2Cb" = 12
"""


def test_store_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "pbx.toml").write_text(FILE)
    store = Store.load(tmp_path / "pbx.toml", token_lifetime=7)
    assert store.extensions["0003*400"].kind is ExtensionKind.QUEUE
    assert store.extensions["0003*400"].agents[0].status == 2
    app = store.app("an-app", "not so secret")
    assert app is not None
    issued = store.issue(app)
    assert issued.expires_in == 7
    user = store.user_of(issued.access_token)
    assert user is not None
    assert user.id == 12
    assert store.user_of("for-trying-out") is user
    assert store.user_of_session("a%2Cb") is user
    assert store.user_of_session("a,b") is None
    assert store.zone is UTC


def test_error_of_an_invalid_file_names_the_place(tmp_path: Path) -> None:
    again = '[[users]]\nid = 12\norganization = "0004"\n[[ext'
    for wrong, message in (
        (FILE.replace('"queue"', '"quue"'), "quue"),
        (FILE.replace("status = 2", "status = 'x'"), r"extensions\[0\]\.agents\[0\]\.status"),
        (FILE.replace("secret =", "password ="), r"password.*apps\[0\]"),
        (FILE.replace("for-trying-out = 12", "t = 13"), "token 1: there is no user 13"),
        (FILE.replace('b" = 12', 'b" = 13'), "session 1: there is no user 13"),
        ('timezone = "Mars/Olympus"\n' + FILE, "Mars/Olympus is not a known time zone"),
        ('timezone = "../etc"\n' + FILE, "../etc is not a known time zone"),
        (
            FILE.replace("user = 12\nkind", "user = 14\nkind"),
            r"extension 0003\*400: there is no user 14",
        ),
        (FILE.replace("[[ext", again, 1), "users: 12 occurs twice"),
        ("[[users]", "Expected"),
    ):
        (tmp_path / "pbx.toml").write_text(wrong)
        with pytest.raises(ValueError, match=message):
            Store.load(tmp_path / "pbx.toml")


def test_registrations_are_the_enabled_events_of_a_type(store: Store) -> None:
    def add(
        type_: EventType, url: str, status: EventStatus = EventStatus.ENABLED
    ) -> PhoneCallEvent:
        return store.add_event(
            "0003*210", type=type_, method=EventMethod.POST, url=url, status=status
        )

    first = add(EventType.HANGUP, "http://h/1")
    add(EventType.HANGUP, "http://h/2", EventStatus.DISABLED)
    third = add(EventType.HANGUP, "http://h/3")
    add(EventType.DIAL_IN, "http://h/4")
    assert store.registrations("0003*210", EventType.HANGUP) == [first, third]
    assert store.registrations("0003*211", EventType.HANGUP) == []
    assert store.registrations("0003*999", EventType.HANGUP) == []


def test_additional_route_can_use_the_store(store: Store, server: Server) -> None:
    async def place_call(request: Request) -> Response:
        known: Store = request.app.state.store
        return JSONResponse(list(known.extensions))

    server.app = create_sandbox(
        store, routes=[Route("/sandbox/calls", place_call, methods=["POST"])]
    )
    answer = httpx.post(f"{server.url}/sandbox/calls")
    assert "0003*210" in answer.json()
