"""The targets of the demo: a CRM that accepts signed webhooks, and a channel for alerts."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from standardwebhooks import Webhook, WebhookVerificationError


class OtherSystems:
    """Run an HTTP server that verifies and counts the handlers' requests.

    Args:
        secret: the key of the webhooks' signatures.
    """

    def __init__(self, secret: str) -> None:
        self._verifier = Webhook(secret)
        self._busy = True
        self.webhooks: set[str] = set()  # by webhook-id: a redelivery has the same
        self.forged = 0
        self.alerts: list[str] = []
        self.url = ""

    def __enter__(self) -> "OtherSystems":
        systems = self

        class Answering(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                take = systems._crm if self.path == "/crm" else systems._alert
                status = take(body, {name.lower(): text for name, text in self.headers.items()})
                self.send_response(status)
                if status == 503:
                    self.send_header("Retry-After", "2")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                """Log nothing: the summary shows what arrived."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _crm(self, body: bytes, headers: dict[str, str]) -> int:
        if self._busy:  # once, to show a redelivery
            self._busy = False
            return 503
        try:
            self._verifier.verify(body, headers)
        except (WebhookVerificationError, ValueError):
            self.forged += 1
            return 401
        self.webhooks.add(headers["webhook-id"])
        return 204

    def _alert(self, body: bytes, headers: dict[str, str]) -> int:
        self.alerts.append(json.loads(body)["message"])
        return 204
