"""`UnifiedApi`: a typed client for calls, phone call events, presence, queues and records."""

from collections.abc import Mapping, Sequence
from datetime import UTC, tzinfo
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from unifiedapi.oauth import Auth
from unifiedapi.services import (
    CallRecords,
    PhoneCallEvents,
    PhoneCalls,
    PresenceService,
    QueueAgents,
)
from unifiedapi.transport import WAITS, ApiResponse, Transport


class UnifiedApi:
    """A client for one PBX.

    Args:
        base_url: such as `https://pbx.example.org`.
        auth: `ClientCredentials` or a `BearerToken`.
        ca_file: the only certificate authority to trust, as PEM; by default the well-known ones.
        insecure: allow an unverified certificate, and plain HTTP to another machine.
        timeout: seconds for one attempt, from connecting to the last byte of the response.
        waits: average seconds to wait before each retry; empty for no retries.
        zone: the PBX's time zone. Requests for call records use its local time.

    Every method may raise a `UnifiedApiError`: `ApiError` when the PBX refuses the request,
    `NoAnswer` and `UnexpectedAnswer` for other failures, `InvalidRequest` before anything is sent.
    """

    def __init__(
        self,
        base_url: str,
        auth: Auth,
        *,
        ca_file: str | Path | None = None,
        insecure: bool = False,
        timeout: float = 10.0,
        waits: Sequence[float] = WAITS,
        zone: tzinfo = UTC,
    ) -> None:
        self.zone = zone
        self._auth = auth
        self._transport = Transport(
            base_url, ca_file=ca_file, insecure=insecure, timeout=timeout, waits=waits
        )
        self.phone_calls = PhoneCalls(self.request)
        self.phone_call_events = PhoneCallEvents(self.request)
        self.presence = PresenceService(self.request)
        self.queue_agents = QueueAgents(self.request)
        self.call_records = CallRecords(self.request, zone)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: object = None,
    ) -> Any:
        """Make a request and return the JSON of the response, or None for 204.

        A refused token is renewed once. A POST is retried only if it was never sent; other methods
        also if the PBX did not answer, or answered 429 or 5xx.

        Args:
            path: the part after `/uapi`.
        """
        token = await self._auth.token(self._transport)
        response = await self._send(method, path, token, params, json)
        if response.status == 401:
            renewed = await self._auth.renew(self._transport, token)
            if renewed is not None and renewed != token:
                response = await self._send(method, path, renewed, params, json)
        if not 200 <= response.status < 300:
            raise response.error()
        return response.json()

    async def _send(
        self, method: str, path: str, token: str, params: Mapping[str, str] | None, json: object
    ) -> ApiResponse:
        return await self._transport.request(
            method,
            f"/uapi{path}",
            token=token,
            params=params,
            json=json,
            idempotent=method != "POST",
        )

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
