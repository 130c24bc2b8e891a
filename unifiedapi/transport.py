"""HTTP requests to the PBX: TLS, timeouts, retries and a limit on the size of responses."""

import asyncio
import json
import logging
import random
import ssl
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from unifiedapi.errors import (
    ApiError,
    InvalidRequest,
    NoAnswer,
    NotTrusted,
    UnexpectedAnswer,
    class_of,
)
from unifiedapi.retry_after import retry_after

log = logging.getLogger("unifiedapi")

MAX_RESPONSE = 32_000_000  # bytes; the largest page, 4999 events, has about 3 million
MAX_RETRY_AFTER = 60.0  # seconds; a longer `Retry-After` is an error at once
WAITS = (0.5, 2.0, 5.0)  # seconds before each retry


class InsecureConnection(UserWarning):
    """The PBX's identity is not verified, but tokens are sent to it."""


@dataclass(frozen=True, repr=False)
class ApiResponse:
    """An HTTP response with its whole body.

    Attributes:
        attempts: number of requests that were made.
        token: the token of the request, which errors must not show even if the response does.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    attempts: int = 1
    token: str | None = None

    def json(self) -> Any:
        """Return the body as JSON, or None if it is empty (204).

        Raises:
            UnexpectedAnswer: the body is not JSON.
        """
        if not self.body.strip():
            return None
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:  # nested too deeply
            message = f"the response ({self.status}) is not JSON"
            raise UnexpectedAnswer(message, status=self.status, body=self._text()) from error

    def error(self) -> UnexpectedAnswer | ApiError:
        """Return the exception for a status other than 2xx."""
        body = self._text()
        if self.status < 400:
            message = f"unexpected status {self.status}"
            return UnexpectedAnswer(message, status=self.status, body=body)
        code, message = _code_and_message(body)
        return class_of(code)(
            code,
            self.status,
            message,
            body=body,
            retry_after=retry_after(self.headers),
            attempts=self.attempts,
        )

    def _text(self) -> str:
        text = self.body.decode("utf-8", "replace")
        return text.replace(self.token, "***") if self.token else text


class Transport:
    """A pooled HTTP client for one PBX.

    Args:
        base_url: such as `https://pbx.example.org`, with or without `/uapi`.
        ca_file: the only certificate authority to trust, as PEM; by default the well-known ones.
        insecure: allow an unverified certificate, and plain HTTP to another machine.
        timeout: seconds for one attempt, from connecting to the last byte of the response.
        waits: average seconds to wait before each retry; empty for no retries.
        max_response: bytes.

    Raises:
        InvalidRequest: the URL or the CA file is not usable.
    """

    def __init__(
        self,
        base_url: str,
        *,
        ca_file: str | Path | None = None,
        insecure: bool = False,
        timeout: float = 10.0,
        waits: Sequence[float] = WAITS,
        max_response: int = MAX_RESPONSE,
    ) -> None:
        url = _checked(base_url, insecure)
        self.base_url = str(url).rstrip("/").removesuffix("/uapi")
        self._host = url.netloc.decode("ascii")
        self._timeout = timeout
        self._waits = tuple(waits)
        self._max_response = max_response
        if insecure:
            message = f"the identity of {self._host} is not verified"
            warnings.warn(message, InsecureConnection, stacklevel=3)
        self._http = httpx.AsyncClient(
            verify=_trust(ca_file, insecure or url.scheme == "http"),
            # Half the time for connecting: a request that was never sent is safe to retry.
            timeout=httpx.Timeout(timeout, connect=timeout / 2),
            headers={"Accept": "application/json", "User-Agent": "unifiedapi"},
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        params: Mapping[str, str] | None = None,
        json: object = None,
        form: Mapping[str, str] | None = None,
        idempotent: bool,
    ) -> ApiResponse:
        """Make a request, with retries. Redirects are not followed.

        Args:
            idempotent: whether to retry even if the request may have reached the PBX.

        Raises:
            NoAnswer: the last attempt got no response.
            UnexpectedAnswer: the response is too large, or its content encoding is broken.
        """
        headers = {"Content-Type": "application/json"} if form is None else {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        attempt = 0
        while True:
            attempt += 1
            wait = self._waits[attempt - 1] if attempt <= len(self._waits) else None
            request = self._http.build_request(
                method, self.base_url + path, headers=headers, params=params, json=json, data=form
            )
            asked: float | None = None
            try:
                response = replace(await self._once(request), attempts=attempt, token=token)
            except NotTrusted:
                raise
            except NoAnswer as error:
                if wait is None or not (idempotent or not error.sent):
                    raise
                reason = str(error)
            else:
                asked = retry_after(response.headers)
                too_long = asked is not None and asked > MAX_RETRY_AFTER
                if wait is None or not idempotent or not _transient(response.status) or too_long:
                    return response
                reason = f"{self._host} answered {response.status}"
            # Jitter, so that clients that failed together do not retry together.
            seconds = asked if asked is not None else wait * random.uniform(0.5, 1.5)
            log.info("%s; retrying in %.1f s (attempt %d)", reason, seconds, attempt)
            await asyncio.sleep(seconds)

    async def _once(self, request: httpx.Request) -> ApiResponse:
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._http.send(request, stream=True)
                try:
                    body = await self._read(response)
                finally:
                    await response.aclose()
                return ApiResponse(response.status_code, response.headers, body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise self._not_connected(error) from error
        except (TimeoutError, httpx.TimeoutException) as error:
            message = f"{self._host} did not answer within {self._timeout:g} s"
            raise NoAnswer(message, sent=True) from error
        except httpx.TransportError as error:
            message = f"{self._host} closed the connection early ({type(error).__name__})"
            raise NoAnswer(message, sent=True) from error
        except httpx.DecodingError as error:
            message = f"the response has a broken content encoding: {error}"
            raise UnexpectedAnswer(message) from error

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > self._max_response:
                message = f"the response is larger than {self._max_response} bytes"
                raise UnexpectedAnswer(message, status=response.status_code)
        return bytes(body)

    def _not_connected(self, error: Exception) -> NoAnswer:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return NotTrusted(
                    f"the certificate of {self._host} is not trusted: {cause.verify_message}; "
                    "if the PBX uses its own CA, set ca_file to that CA's certificate",
                    sent=False,
                )
            cause = cause.__cause__ or cause.__context__
        return NoAnswer(f"{self._host} could not be reached: {error}", sent=False)


def _transient(status: int) -> bool:
    """Return whether a retry may succeed. It cannot after 501 (not implemented)."""
    return status == 429 or (status >= 500 and status != 501)


def _code_and_message(body: str) -> tuple[str, str]:
    """Read `{"error": {"code", "message"}}`, or OAuth's `{"error", "error_description"}`."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    error = data.get("error") if isinstance(data, dict) else None
    if isinstance(error, dict):
        return str(error.get("code", "")), str(error.get("message", ""))
    if isinstance(error, str):
        return error, str(data.get("error_description", ""))
    return "", ""


def _checked(base_url: str, insecure: bool) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise InvalidRequest(f"the PBX's URL is not valid: {error}") from error
    if url.scheme not in ("http", "https") or not url.host or url.query or url.userinfo:
        raise InvalidRequest("the PBX's URL must look like https://pbx.example.org")
    loopback = url.host in ("localhost", "::1") or url.host.startswith("127.")
    if url.scheme == "http" and not loopback and not insecure:
        raise InvalidRequest(f"tokens would be sent to {url.host} unencrypted: use https://")
    return url


def _trust(ca_file: str | Path | None, unverified: bool) -> ssl.SSLContext | bool:
    if unverified:
        return False
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # includes ssl.SSLError
        reason = "it is not a PEM file" if isinstance(error, ssl.SSLError) else error.strerror
        raise InvalidRequest(f"ca_file: cannot use {ca_file}: {reason}") from error
