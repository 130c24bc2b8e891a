"""The HTTP client of simulated PBXs. It sends callbacks as fast as a real PBX."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from yarl import URL

from offhook.http.http1 import Client
from unifiedapi.sandbox.pbx import Send

_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@asynccontextmanager
async def callbacks() -> AsyncIterator[Send]:
    """Open a client for `unifiedapi.sandbox.pbx.Pbx`. It verifies TLS certificates."""
    client = Client({"User-Agent": "VoipNow sandbox"})

    async def send(method: str, url: str, body: bytes | None) -> int:
        exact = URL(url, encoded=True)  # as it was registered
        headers = None if body is None else _FORM
        return (await client.request(method, exact, headers=headers, body=body)).status

    try:
        yield send
    finally:
        client.close()
