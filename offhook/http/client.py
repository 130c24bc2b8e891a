"""The HTTP client of handlers: pooled connections, and errors that say whether to retry."""

import os
import re
import socket
import ssl
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlencode

import msgspec
from multidict import CIMultiDict
from yarl import URL

from offhook.errors import PermanentError, TemporaryError
from offhook.http.http1 import Answer, BrokenOff, Client, NotARequest
from offhook.tasks import Limit, LimitExceeded
from unifiedapi.retry_after import retry_after

_HEADERS = {"User-Agent": "Offhook", "Accept": "*/*", "Accept-Encoding": "identity"}
_CORRECT = "correct the handler's options"

# 408, 425, 429: a later request may succeed. 401: credentials can be corrected while the event
# waits. Any other 4xx means that this request can never succeed.
_TEMPORARY = {401, 408, 425, 429}

_START = 200  # characters of a response that an error quotes
_SHORT_START = 100  # the same of a successful one
# Phone numbers, and words as long as a token.
_PRIVATE = re.compile(r"\+?[0-9][0-9 ().-]{4,}[0-9]|[A-Za-z0-9+/=_.~-]{24,}")

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits


class Http:
    """A pooled HTTP client. Connection errors and timeouts raise `TemporaryError`."""

    def __init__(self) -> None:
        self._clients = {
            public: Client(_HEADERS, socket_factory=_public_socket if public else None)
            for public in (False, True)
        }
        # A timer per request is expensive: requests with the same timeout share one.
        self._within = lru_cache(maxsize=64)(Limit)

    def post(self, url: str, **options: Any) -> Coroutine[Any, Any, Answer]:
        """`request("POST", ...)`."""
        return self.request("POST", url, **options)

    def get(self, url: str, **options: Any) -> Coroutine[Any, Any, Answer]:
        """`request("GET", ...)`."""
        return self.request("GET", url, **options)

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        data: bytes | Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        timeout: float = 10.0,  # noqa: ASYNC109 - one timer serves many requests
        public: bool = False,
    ) -> Answer:
        """Make one request and return the response, whatever its status, even if it is a redirect.

        Args:
            json: a body to send as JSON.
            data: a body to send unchanged (bytes), or as a form (mapping).
            timeout: seconds for the whole request.
            public: refuse to connect to this machine or a private network, even by a host name;
                for handlers whose option `private_networks` is off.

        Raises:
            TemporaryError: there was no response; the message names only the URL's host.
            PermanentError: the URL is malformed, or a header has more than one line.
        """
        kind = None
        if json is not None:
            data, kind = msgspec.json.encode(json), "application/json"
        elif isinstance(data, Mapping):
            data, kind = urlencode(data).encode(), "application/x-www-form-urlencoded"
        if kind:
            headers = CIMultiDict(headers or {})
            headers.setdefault("Content-Type", kind)
        try:
            where = URL(url).extend_query(params) if params else URL(url)
        except ValueError:
            # Its message may contain the whole URL, and a dead letter keeps the stack trace.
            raise PermanentError(f"not a URL: {_CORRECT}") from None
        try:
            with self._within(timeout):
                answer = await self._clients[public].request(
                    method.upper(), where, headers=headers, body=data
                )
            return answer if 200 <= answer.status < 300 else replace(answer, host=_host(url))
        except NotARequest as error:
            raise PermanentError(f"{error}: {_CORRECT}") from error
        except LimitExceeded as error:
            raise TemporaryError(
                f"{_host(url)} did not answer within {timeout:g} s: "
                "it hangs, or needs a longer timeout"
            ) from error
        except _PrivateNetwork as error:
            raise TemporaryError(
                f"{_host(url)} leads to this machine or into a private network: "
                "set private_networks = true in the handler's options if that is meant"
            ) from error
        except OSError as error:
            said = f"no answer from {_host(url)} ({_reason(error)}){_hint(error)}"
            raise TemporaryError(said) from error

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            client.close()

    async def __aenter__(self) -> "Http":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def check(answer: Answer) -> None:
    """Return if the status is 2xx; otherwise raise the matching delivery error.

    The message has the host, but not the rest of the URL, and the start of the body without what
    may be a number or a secret.

    Raises:
        TemporaryError: 401, 408, 425, 429 and 5xx, with the seconds of `Retry-After`, if any.
        PermanentError: any other status.
    """
    if 200 <= answer.status < 300:
        return
    message = quoted(answer)
    if answer.status in _TEMPORARY or answer.status >= 500:
        raise TemporaryError(message, retry_after(answer.headers))
    raise PermanentError(message)


def quoted(answer: Answer) -> str:
    """The status, and the start of the body without what may be a number or a secret."""
    longest = _SHORT_START if 200 <= answer.status < 300 else _START
    start = _PRIVATE.sub(
        "***", " ".join(answer.body[: 4 * longest].decode(errors="replace").split())
    )
    message = f"answered {answer.status}"
    message += f" ({answer.host})" if answer.host else ""
    message += f": {start[:longest]}{'...' if len(start) > longest else ''}" if start else ""
    return message


# Not private in some Python versions, or to Python at all.
_SPECIAL = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments
    IPv4Network("192.88.99.0/24"),  # the nearest 6to4 relay, RFC 7526
    IPv4Network("168.63.129.16/32"),  # Azure's host: DNS, and credentials of the machine
)


def is_private(host: str) -> bool:
    """Return whether it is `localhost`, or an address of this machine or of a private network.

    Link-local (cloud metadata), shared, multicast and reserved addresses count as private, as does
    an IPv6 address that maps to a private IPv4 address. Host names are not resolved: False.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host.rstrip(".").lower().rpartition(".")[2] == "localhost"
    if isinstance(address, IPv6Address):
        meant = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            meant = IPv4Address(int(address) & 0xFFFFFFFF)
        if meant is not None:
            return is_private(str(meant))
        if address.is_site_local:
            return True
    if any(address in network for network in _SPECIAL):
        return True
    return not address.is_global or address.is_multicast or address.is_reserved


class _PrivateNetwork(OSError):
    """An address for handlers with `private_networks` only."""


def _public_socket(info: tuple[Any, ...]) -> socket.socket:
    # Checked for each address right before connecting, so DNS cannot change in between. A pooled
    # connection costs nothing.
    if is_private(info[4][0]):
        raise _PrivateNetwork("a private network")
    return socket.socket(*info[:3])


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate is not trusted"
    if isinstance(error, BrokenOff):
        return str(error)
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, ssl.SSLError):  # its errno is not the system's
        return f"TLS: {error.reason or type(error).__name__}"
    if error.errno:
        return os.strerror(error.errno).lower()
    if type(error) is OSError:  # each address failed for a different reason
        return "none of its addresses can be connected to"
    return type(error).__name__


def _hint(error: OSError) -> str:
    """What to do about the reason for a missing response."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ": to trust your own CA, name its file in SSL_CERT_FILE in the workers' environment"
    if isinstance(error, socket.gaierror):
        return ": check the host in the handler's options, and DNS"
    if isinstance(error, ssl.SSLError):
        return ": check the port, and whether it speaks https://"
    if isinstance(error, ConnectionRefusedError):
        return ": start the target, or check the host and port in the handler's options"
    return ""


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2] or "the target"
