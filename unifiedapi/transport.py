"""One HTTP request to the PBX, with patience: TLS, time limits, repeats, bounded answers."""

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

MAX_ANSWER = 32_000_000  # bytes; the largest page, 4999 events, has about 3 million
MAX_RETRY_AFTER = 60.0  # seconds; who is told to wait longer hears so instead of waiting
WAITS = (0.5, 2.0, 5.0)  # seconds before each repeat


class InsecureConnection(UserWarning):
    """Nothing proves that the other side is the PBX, and tokens go to it all the same."""


@dataclass(frozen=True, repr=False)
class Answer:
    """An HTTP answer, its body already read.

    Attributes:
        attempts: how many requests it took to get it.
        token: what the request was signed with; should the answer repeat it, its text does not.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    attempts: int = 1
    token: str | None = None

    def json(self) -> Any:
        """The body as JSON; None for 204 and for an empty body.

        Raises:
            UnexpectedAnswer: it is not JSON.
        """
        if not self.body.strip():
            return None
        try:
            return json.loads(self.body)
        except ValueError as error:
            message = f"the answer ({self.status}) is not JSON"
            raise UnexpectedAnswer(message, status=self.status, body=self._text()) from error

    def refusal(self) -> UnexpectedAnswer | ApiError:
        """The error that an answer other than 2xx is."""
        body = self._text()
        if self.status < 400:
            return UnexpectedAnswer(
                f"the answer's status is {self.status}", status=self.status, body=body
            )
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
        ca_file: the only certificate authority to trust, as PEM; the well-known ones if None.
        insecure: do not check the PBX's certificate, or speak plain HTTP with another machine.
        timeout: seconds for one attempt, from connecting to the answer's last byte.
        waits: seconds to wait before each repeat, on average; none: no repeats.

    Raises:
        InvalidRequest: the URL or the CA file cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        ca_file: str | Path | None = None,
        insecure: bool = False,
        timeout: float = 10.0,
        waits: Sequence[float] = WAITS,
    ) -> None:
        url = _checked(base_url, insecure)
        self.base_url = str(url).rstrip("/").removesuffix("/uapi")
        self._host = url.netloc.decode("ascii")
        self._timeout = timeout
        self._waits = tuple(waits)
        if insecure:
            warnings.warn(
                f"the identity of {self._host} is not checked", InsecureConnection, stacklevel=3
            )
        self._http = httpx.AsyncClient(
            verify=_trust(ca_file, insecure or url.scheme == "http"),
            # Half the time for connecting: a request that was never sent may always be repeated.
            timeout=httpx.Timeout(timeout, connect=timeout / 2),
            headers={"Accept": "application/json", "User-Agent": "unifiedapi"},
        )

    async def close(self) -> None:
        """Close every connection."""
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
        repeatable: bool,
    ) -> Answer:
        """Make a request until it is answered, refused, or out of repeats. Redirects are answers.

        Args:
            token: what to sign it with.
            repeatable: it does no harm twice. If not, it is repeated only when it was never sent.

        Raises:
            NoAnswer: there was none on the last attempt.
            UnexpectedAnswer: it was larger than `MAX_ANSWER`, or its encoding was broken.
        """
        headers = {"Content-Type": "application/json"} if form is None else {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        attempt = 0
        while True:
            attempt += 1
            wait = self._waits[attempt - 1] if attempt <= len(self._waits) else None
            request = self._http.build_request(
                method,
                self.base_url + path,
                headers=headers,
                params=params,
                json=json,
                data=form,
            )
            asked: float | None = None
            try:
                answer = replace(await self._once(request), attempts=attempt, token=token)
            except NotTrusted:
                raise
            except NoAnswer as error:
                if wait is None or not (repeatable or not error.sent):
                    raise
                reason = str(error)
            else:
                asked = retry_after(answer.headers)
                too_long = asked is not None and asked > MAX_RETRY_AFTER
                if wait is None or not repeatable or not _passing(answer.status) or too_long:
                    return answer
                reason = f"{self._host} answered {answer.status}"
            # A herd of clients that failed together must not come back together.
            seconds = asked if asked is not None else wait * random.uniform(0.5, 1.5)
            log.info("%s; again in %.1f s (attempt %d)", reason, seconds, attempt)
            await asyncio.sleep(seconds)

    async def _once(self, request: httpx.Request) -> Answer:
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._http.send(request, stream=True)
                try:
                    body = await self._read(response)
                finally:
                    await response.aclose()
                return Answer(response.status_code, response.headers, body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise self._not_connected(error) from error
        except (TimeoutError, httpx.TimeoutException) as error:
            message = f"{self._host} did not answer within {self._timeout:g} s"
            raise NoAnswer(message, sent=True) from error
        except httpx.TransportError as error:
            message = f"{self._host} broke off ({type(error).__name__})"
            raise NoAnswer(message, sent=True) from error
        except httpx.DecodingError as error:
            raise UnexpectedAnswer(f"the answer's encoding is broken: {error}") from error

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_ANSWER:
                message = f"the answer is larger than {MAX_ANSWER} bytes"
                raise UnexpectedAnswer(message, status=response.status_code)
        return bytes(body)

    def _not_connected(self, error: Exception) -> NoAnswer:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return NotTrusted(
                    f"the certificate of {self._host} is not trusted: {cause.verify_message}; "
                    "if the PBX has a CA of its own, name its file as ca_file",
                    sent=False,
                )
            cause = cause.__cause__ or cause.__context__
        return NoAnswer(f"{self._host} could not be reached: {error}", sent=False)


def _passing(status: int) -> bool:
    """Whether the same request may be answered better a moment later. 501 will not be."""
    return status == 429 or (status >= 500 and status != 501)


def _code_and_message(body: str) -> tuple[str, str]:
    """From `{"error": {"code", "message"}}`, and OAuth's `{"error", "error_description"}`."""
    try:
        data = json.loads(body)
    except ValueError:
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
        raise InvalidRequest(f"the PBX's URL is none: {error}") from error
    if url.scheme not in ("http", "https") or not url.host or url.query or url.userinfo:
        raise InvalidRequest("the PBX's URL must be like https://pbx.example.org")
    loopback = url.host in ("localhost", "::1") or url.host.startswith("127.")
    if url.scheme == "http" and not loopback and not insecure:
        raise InvalidRequest(f"tokens would go to {url.host} unencrypted: use https://")
    return url


def _trust(ca_file: str | Path | None, unchecked: bool) -> ssl.SSLContext | bool:
    if unchecked:
        return False
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one too
        raise InvalidRequest(f"ca_file: cannot use {ca_file}: {error}") from error
