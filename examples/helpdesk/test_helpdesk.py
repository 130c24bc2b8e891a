"""Run with pytest. Neither a PBX nor a Redis server is needed."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from offhook import ExtensionSettings, PermanentError, TemporaryError
from offhook.testing import configured, deliver, deliver_call, sample_event

from helpdesk import Helpdesk


class FakeHelpdesk(HTTPServer):
    """Keeps one ticket per idempotency key, unless told to respond with an error `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.url = f"http://127.0.0.1:{self.server_port}/tickets"
        self.status = 201
        self.tickets: dict[str, Any] = {}


class _Requests(BaseHTTPRequestHandler):
    server: FakeHelpdesk

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key, status = self.headers["Idempotency-Key"], self.server.status
        if key in self.server.tickets:
            status = 409
        elif status == 201:
            self.server.tickets[key] = json.loads(body)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"the subject is too long" if status == 422 else b"")

    def log_message(self, *arguments: object) -> None:
        """Keep pytest's output quiet."""


@pytest.fixture
def helpdesk() -> Iterator[FakeHelpdesk]:
    with FakeHelpdesk() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def handler(helpdesk: FakeHelpdesk, **options: Any) -> Helpdesk:
    return configured(Helpdesk, url=helpdesk.url, token="secret", **options)


def test_a_call_is_one_ticket_even_if_delivered_twice(helpdesk: FakeHelpdesk) -> None:
    jane = ExtensionSettings(owner="jane@example.com")
    [event] = deliver_call(handler(helpdesk), "missed", extension=jane)
    assert helpdesk.tickets == {
        event.id: {
            "subject": "Missed call from Jane Doe to +40318100210",
            "phone": "+40211234567",
            "assignee": "jane@example.com",
            "started": "2026-11-21T19:30:00.250000+00:00",
            "talk_seconds": 0.0,
        }
    }


def test_answered_calls_can_be_skipped(helpdesk: FakeHelpdesk) -> None:
    deliver_call(handler(helpdesk, missed_only=True), "answered")
    assert not helpdesk.tickets


def test_an_outage_is_retried(helpdesk: FakeHelpdesk) -> None:
    helpdesk.status = 503
    with pytest.raises(TemporaryError):
        deliver(handler(helpdesk), sample_event("call-ended"))


def test_a_rejected_ticket_is_not_retried(helpdesk: FakeHelpdesk) -> None:
    helpdesk.status = 422
    with pytest.raises(PermanentError, match="the subject is too long"):
        deliver(handler(helpdesk), sample_event("call-ended"))
