"""`/metrics`, for those who may read it."""

import logging
from hmac import compare_digest
from importlib.util import find_spec
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from offhook.settings import Settings
from receiver.connections import client_address, is_in
from receiver.journal import bytes_in
from receiver.request import NOT_FOUND

if TYPE_CHECKING:
    from offhook.operations.metrics import Metrics

_MISSING = "Metrics need prometheus-client: install offhook[metrics].\n"

log = logging.getLogger("offhook.receiver")


class Scraping:
    """The route `/metrics`. All but those who may read it get the 404 of any unknown path.

    The receiver's port may be open to everyone, so without a token only addresses may read it that
    the operator names; by default those of this machine.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = _metrics(settings)

    def take(self, settings: Settings) -> None:
        """Use other settings, from the next scrape on."""
        self._settings = settings
        if self._metrics is not None:
            self._metrics.take(settings)

    async def respond(self, request: Request) -> Response:
        """Answer a scrape."""
        if not self._allows(request):
            return Response(NOT_FOUND, 404, media_type="application/json")
        if self._metrics is None:
            return PlainTextResponse(_MISSING, 501)
        from offhook.operations.metrics import CONTENT_TYPE

        return Response(await self._metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def close(self) -> None:
        """Close the connections."""
        if self._metrics is not None:
            await self._metrics.close()

    def _allows(self, request: Request) -> bool:
        token = self._settings.metrics_token
        if token is not None:
            given = request.headers.get("authorization", "").encode("latin-1", "replace")
            return compare_digest(given, f"Bearer {token.get_secret_value()}".encode())
        peer = request.client.host if request.client else ""
        address = client_address(peer, request.headers.raw, self._settings.proxies)
        return is_in(address, self._settings.metrics_addresses)


def _metrics(settings: Settings) -> "Metrics | None":
    if not find_spec("prometheus_client"):
        return None
    from offhook.operations.metrics import Metrics

    return Metrics(settings, lambda: bytes_in(settings.journal_folder))
